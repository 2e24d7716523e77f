"""Whole runs of a tiny lung model: trained, resumed, evaluated on any mixture, cross-validated."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.support.lung_datasets import (
    MODEL,
    TESTED,
    TINY_LUNG,
    TINY_MODEL,
    TRAINED,
    VALIDATED,
    noise,
    write,
    write_adult,
    write_child,
    write_cycles,
    write_manikin,
)
from xai_demo import networks
from xai_demo.errors import TrainingError
from xai_demo.hub.checkpoint import read_model
from xai_demo.settings import Settings
from xai_demo.training import cross_validation, metrics
from xai_demo.training.datasets import breathing, manikin
from xai_demo.training.datasets.breathing import Annotation, Take
from xai_demo.training.evaluate import evaluate_model
from xai_demo.training.lung import evaluation, event_bank
from xai_demo.training.lung import regression as lung_regression
from xai_demo.training.model_card import write_card
from xai_demo.training.recipes import RECIPES
from xai_demo.training.train import train_model

NAME = "lung-resnet18"


@pytest.fixture(scope="module", autouse=True)
def small_recipe():
    """Two epochs of a tiny network, three synthesised events, twenty bootstrap draws."""
    patch = pytest.MonkeyPatch()
    few = event_bank.event_bank(3, 0, MODEL.preprocessing)
    patch.setattr(
        event_bank, "event_bank", lambda count, seed, spec: {k: v * 200 for k, v in few.items()}
    )
    patch.setattr(metrics, "DRAWS", 20)
    recipe = RECIPES[NAME]
    schedule = dataclasses.replace(recipe.schedule, epochs=2, batch_size=4)
    small = dataclasses.replace(recipe, model=TINY_MODEL, schedule=schedule, initial_model=None)
    patch.setitem(RECIPES, NAME, small)
    patch.setitem(networks.ARCHITECTURES, "tiny-lung", TINY_LUNG)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """All three published layouts, side by side."""
    folder = tmp_path_factory.mktemp("data")
    events = [(300, 1300, "Normal"), (1500, 2500, "Wheeze"), (2700, 3600, "Fine Crackle")]
    for child in (TRAINED, VALIDATED, TESTED):
        write_child(folder / "spr", child, events, number=1, record="CAS & DAS")
        write_child(folder / "spr", child, [(200, 1800, "Normal")], number=2)
        write_child(folder / "spr", child, [], number=3, record="Poor Quality")
    write_cycles(folder / "icbhi", 101, "0.0 1.5 0 0\n1.5 3.0 1 0\n", "train")
    write_cycles(folder / "icbhi", 102, "0.0 2.0 0 0\n2.0 4.5 1 1\n", "test")
    for patient in range(1, 7):
        write_adult(folder / "fraiwan", patient, ("N", "E W", "Crep")[patient % 3])
    types = ("Normal", "Fine Crackles", "Coarse Crackles", "Wheezing")
    write_manikin(folder / "manikin", [(types[n % 4], n) for n in range(16)])
    return folder


@pytest.fixture(scope="module")
def weights(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    notes = []
    train_model(NAME, data=data, out=folder / NAME, notice=notes.append)
    assert notes == []  # nothing was left out
    return folder


@pytest.fixture(scope="module")
def settings(weights):
    return Settings(weights_dir=weights, cache_dir=weights / "cache", offline=True)


class PulledPlugError(Exception):
    """Somebody pulled the plug."""


def test_an_interrupted_lung_run_goes_on_to_exactly_the_same_weights(data, weights, tmp_path):
    def plug(done: float, doing: str) -> None:
        if doing.startswith("epoch 2"):
            raise PulledPlugError

    with pytest.raises(PulledPlugError):
        train_model(NAME, data=data, out=tmp_path, progress=plug)
    assert not (tmp_path / "model.safetensors").exists()
    train_model(NAME, data=data, out=tmp_path, resume=True)
    whole, halves = (load_file(p / "model.safetensors") for p in (weights / NAME, tmp_path))
    assert list(whole) == list(halves)
    for name, tensor in whole.items():
        assert (tensor == halves[name]).all(), name
    logs = [(p / "log.csv").read_text() for p in (weights / NAME, tmp_path)]
    assert logs[0] == logs[1]


def test_a_lung_model_keeps_whom_it_learnt_from(weights):
    persons = json.loads((weights / NAME / "persons.json").read_text())["learnt_from"]
    assert f"sprsound:{TESTED}" not in persons
    assert "icbhi:102" not in persons
    assert {f"sprsound:{TRAINED}", f"sprsound:{VALIDATED}", "icbhi:101", "fraiwan:1"} <= set(
        persons
    )


def test_a_mixture_is_evaluated_site_by_site(data, settings, tmp_path):
    result = evaluate_model(NAME, settings=settings, data=data, out=tmp_path)
    assert (result["site"], result["level"], result["split"]) == ("sprsound", "events", "test")
    assert (result["n"], result["groups"]) == (4, 1)
    assert set(result["sites"]) == {"sprsound", "icbhi", "manikin", "fraiwan"}
    assert result["sites"]["icbhi"]["events"]["n"] == 2  # the cycles of the official test
    assert result["sites"]["icbhi"]["recordings"]["n"] == 1
    assert "by_device" not in result["sites"]["icbhi"]["events"]  # there is one alone
    assert result["recordings"]["n"] == 2
    assert result["recordings"]["record_level"]["n"] == 3
    assert result["recordings"]["record_level"]["poor_quality"] == 1
    unseen = result["sites"]["manikin"]["recordings"]
    halves = [t.official_split for t in manikin.read(data / "manikin").takes]
    assert unseen["n"] == unseen["groups"] == halves.count("test")
    by_detail = unseen["by_detail"]
    assert sum(row["n"] for row in by_detail.values()) == unseen["n"]
    for row in by_detail.values():
        assert 0 <= row["found"]["low"] <= row["found"]["value"] <= row["found"]["high"] <= 1
    assert "events" not in result["sites"]["fraiwan"]
    assert result["sites"]["fraiwan"]["recordings"]["n"] == 12
    for name in ("auroc_abnormal", "average_score", "average_score_4", "ece"):
        assert set(result["metrics"][name]) == {"value", "low", "high"}
    named = {
        (site, level)
        for site, levels in result["sites"].items()
        for level in ("events", "recordings")
        if "icbhi_score" in levels.get(level, {}).get("metrics", {})
    }
    assert named == {("icbhi", "events")}
    assert "icbhi_score" not in result["metrics"]  # of SPRSound
    assert any("Fraiwan: the model was trained on all of these 6" in n for n in result["notes"])
    assert any(
        "SPRSound: 2 patients that the model was trained on are left" in n for n in result["notes"]
    )
    assert result["no_test"] == ["fraiwan"]
    assert json.loads((tmp_path / "evaluation.json").read_text()) == result
    for folder in ("", "sprsound/events", "icbhi/recordings", "fraiwan/recordings"):
        for picture in ("confusion.png", "reliability.png", "roc.png"):
            assert (tmp_path / folder / picture).stat().st_size > 1000


def test_a_card_tells_sites_and_levels_and_never_of_patients_that_were_learnt_from(
    data, settings, tmp_path
):
    result = evaluate_model(NAME, settings=settings, data=data)
    own = dataclasses.replace(settings, weights_dir=tmp_path)
    shutil.copytree(settings.weights_dir / NAME, tmp_path / NAME)
    area = {"value": 0.75, "low": 0.5, "high": 1.0}
    result["sites"]["icbhi"]["events"]["by_device"] = {
        "Litt3200": {"n": 2, "groups": 1, "abnormal": 1, "auroc_abnormal": area}
    }
    card = write_card(NAME, settings=own, result=result).read_text()
    assert "icbhi, events, by stethoscope or microphone:" in card
    assert "| Litt3200 | 2 | 1 | 1 | 0.750 (0.500-1.000) |" in card
    start = "| {} | {} | {} | {} | "
    for row in (
        ("sprsound", "events", 4, 1),
        ("sprsound", "recordings", 2, 1),
        ("icbhi", "events", 2, 1),
        ("icbhi", "recordings", 1, 1),
    ):
        assert start.format(*row) in card
    assert "| fraiwan |" not in card
    assert "manikin, recordings, by the dataset's own names of the sounds:" in card
    assert "| Fine Crackles | " in card
    assert "sprsound, recordings, scored as in its challenge" in card
    five = result["recordings"]["record_level"]["metrics"]["total_score_5"]
    assert f"| {five['value']:.3f} (" in card
    assert "that this model never predicts (1 of 3)" in card
    result = evaluate_model(NAME, settings=settings, data=data / "fraiwan")
    with pytest.raises(
        TrainingError, match="are of fraiwan, and lung-resnet18 was trained on all of its"
    ):
        write_card(NAME, settings=own, result=result)
    assert (tmp_path / NAME / "MODEL_CARD.md").read_text() == card


@pytest.mark.parametrize(
    ("site", "level", "n"),
    [("spr", "events", 4), ("icbhi", "events", 2), ("fraiwan", "recordings", 12)],
)
def test_every_layout_is_evaluated_alone(data, settings, site, level, n):
    result = evaluate_model(NAME, settings=settings, data=data / site)
    assert (result["level"], result["n"]) == (level, n)
    assert result["recordings"] is not None
    assert sum(map(sum, result["confusion"]["counts"])) == n


def test_folders_named_after_labels_are_evaluated_by_recording(settings, tmp_path):
    write(tmp_path / "normal" / "anna_1.wav", noise(0.5))
    write(tmp_path / "normal" / "anna-2.wav", noise(5.0))
    write(tmp_path / "Wheeze" / "ben_1.wav", noise(3.0))
    write(tmp_path / "speech" / "carl.wav", noise(3.0))
    result = evaluate_model(NAME, settings=settings, data=tmp_path)
    assert (result["level"], result["n"], result["groups"]) == ("recordings", 3, 2)
    assert "3 sounds of 2 patients" in result["notes"][0]
    unnamed = "folders of sounds not named after normal, crackle, wheeze, both (1): speech"
    assert unnamed in result["notes"][1]


def test_persons_that_nobody_learnt_from_are_all_asked(data, settings, tmp_path):
    for patient in range(20, 22):
        write_adult(tmp_path / "new", patient, "N")
    result = evaluate_model(NAME, settings=settings, data=tmp_path / "new")
    assert result["n"] == 4
    assert result["notes"] == []


def test_the_folds_are_of_patients_and_only_the_last_layer_is_refitted(data, settings, tmp_path):
    result = cross_validation.cross_validate(NAME, settings=settings, data=data, folds=2, seeds=2)
    assert (result["n"], result["groups"], result["folds"], result["seeds"]) == (12, 6, 2, 2)
    assert result["labels"] == {"normal": 4, "crackle": 4, "wheeze": 4, "both": 0}
    assert {"events": 4, "windows": 8, "cycles": 2}.items() <= result["others"].items()
    assert "recordings" not in result["others"]
    assert len(result["per_seed"]) == 2
    for name, figure in result["metrics"].items():
        each = [row[name]["value"] for row in result["per_seed"]]
        assert figure["value"] == pytest.approx(np.mean(each), abs=1e-4)
        assert 0 <= figure["low"] <= figure["high"] <= 1
    assert np.sum(result["confusion"]["counts"]) == 24
    again = cross_validation.cross_validate(
        NAME, settings=settings, data=data, folds=2, seeds=2, out=tmp_path / "cv"
    )
    assert again == result
    assert json.loads((tmp_path / "cv" / "cross_validation.json").read_text()) == result
    assert result["sha256"] == read_model(settings.weights_dir / NAME).sha256
    assert "balanced_accuracy_3" in cross_validation.table(result)


def test_a_hospital_that_is_new_to_the_network_has_figures_of_its_own(
    data, settings, tmp_path, monkeypatch
):
    heads = []

    def regression(learnt, *rest, **named):
        heads.append(sum(len(each.kinds) for each in learnt))
        return lung_regression.fit_regression(learnt, *rest, **named)

    monkeypatch.setattr(cross_validation, "fit_regression", regression)
    result = cross_validation.cross_validate(NAME, settings=settings, data=data, folds=2, seeds=1)
    abroad = result["abroad"]
    assert abroad["method"] == cross_validation.NEW_HOSPITAL
    assert set(abroad["metrics"]) == set(result["metrics"]) - {
        "balanced_accuracy_abnormal_at_threshold"
    }
    assert np.sum(abroad["confusion"]["counts"]) == 12
    others = sum(result["others"].values())
    assert heads == [others, others + 6, others + 6]  # the first one has heard nobody of there
    assert f"new to the network: {cross_validation.NEW_HOSPITAL}" in cross_validation.table(result)
    alone = cross_validation.cross_validate(
        NAME, settings=settings, data=data / "fraiwan", folds=2, seeds=1
    )
    assert "abroad" not in alone


def test_cross_validation_says_what_is_missing(data, settings):
    with pytest.raises(TrainingError, match="holds no labelled recording of the Fraiwan dataset"):
        cross_validation.cross_validate(NAME, settings=settings, data=data / "icbhi")
    with pytest.raises(TrainingError, match="6 patients cannot be split into 9 folds"):
        cross_validation.cross_validate(NAME, settings=settings, data=data, folds=9)
    with pytest.raises(TrainingError, match="needs at least 2 folds and 1 seed, not 1 and 3"):
        cross_validation.cross_validate(NAME, settings=settings, data=data, folds=1)
    with pytest.raises(
        TrainingError, match=r"Only the last layer of .* refitted, so --epochs 4 does not apply"
    ):
        cross_validation.cross_validate(NAME, settings=settings, data=data, epochs=4)
    with pytest.raises(
        TrainingError, match="balances its samples itself; use --balance with other recipes"
    ):
        cross_validation.cross_validate(NAME, settings=settings, data=data, balance="focal")


def take(site, kinds=(), kind=None, quality="") -> Take:
    cycles = tuple(Annotation(start_s=i, end_s=i + 1, kind=k) for i, k in enumerate(kinds))
    return Take(
        path=None,  # type: ignore[arg-type]
        name="x",
        site=site,
        patient=f"{site}:1",
        kind=kind,
        annotations=cycles,
        quality=quality,
    )


def test_a_recording_is_what_its_label_or_its_cycles_say():
    assert evaluation.recording_kind(take("fraiwan", kind=2)) == 2
    assert evaluation.recording_kind(take("fraiwan")) is None
    assert evaluation.recording_kind(take("icbhi", kinds=(0, 0))) == 0
    assert evaluation.recording_kind(take("icbhi", kinds=(0, 1, 2))) == 3
    assert evaluation.recording_kind(take("sprsound", kinds=(1,), quality="poor")) == 4


def test_poor_quality_is_a_class_that_is_never_right():
    # Two normal, one crackle, one poor; all called normal, but the crackle.
    rows = np.array([[0.7, 0.1, 0.1, 0.1]] * 2 + [[0.1, 0.7, 0.1, 0.1]] + [[0.7, 0.1, 0.1, 0.1]])
    model = dataclasses.replace(MODEL, operating_points={})
    found = evaluation.record_level(model, rows, np.array([0, 0, 1, 4]), tuple("abcd"))
    for count in "35":
        assert found["metrics"][f"specificity_{count}"]["value"] == 1
        assert found["metrics"][f"sensitivity_{count}"]["value"] == 0.5
    assert (found["n"], found["poor_quality"]) == (4, 1)


def test_without_a_list_of_persons_the_splits_tell_whom_a_model_knows():
    corpus = breathing.Corpus(takes=(take("fraiwan", kind=1), take("folders", kind=1)), notes=())
    chosen, notes, known = evaluation.held_out_takes(corpus, None)
    assert known == ["fraiwan"]
    assert [t.site for t in chosen] == ["folders", "fraiwan"]
    assert len(notes) == 1
