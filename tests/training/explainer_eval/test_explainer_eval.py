"""What `evaluate-explainers` knows, asks and says, on a network of a few hundred numbers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.small_models import MEL, model_of, write_model
from tests.support.tiny_network import TINY
from xai_demo import networks
from xai_demo.engine import Engine
from xai_demo.errors import TrainingError, UnsuitableError
from xai_demo.hub import Hub
from xai_demo.settings import Settings
from xai_demo.synthesis import EVERYDAY_LABELS, everyday_mixture, lung, lung_mixture
from xai_demo.training import explainer_eval, explainer_report, model_card
from xai_demo.training.datasets import Dataset
from xai_demo.training.explainer_eval import ground_truth, trials
from xai_demo.training.explainer_eval.ground_truth import HeldOutPatients
from xai_demo.training.recipes import RECIPES

ASKED = ["Grad-CAM", "Occlusion"]
LABELS = ("normal", "crackle", "wheeze", "both")


def sprsound(folder: Path) -> Path:
    """Five children of one recording each: crackles at 1-2 s, a wheeze at 3-4 s, or nothing."""
    for name in ("train_json", "train_wav"):
        (folder / name).mkdir(parents=True)
    for child, kinds in enumerate(
        (["Fine Crackle"], ["Wheeze"], ["Coarse Crackle", "Rhonchi"], ["Normal"], ["Normal"])
    ):
        stem = f"{child}_3.0_0_p1_{child}"
        places = {"Fine Crackle": 1, "Coarse Crackle": 1, "Normal": 0}
        events = [
            {"start": str(1000 * places.get(k, 3)), "end": str(1000 * places.get(k, 3) + 1000),
             "type": k}
            for k in kinds
        ]  # fmt: skip
        record = "Normal" if kinds == ["Normal"] else "DAS"
        content = {"record_annotation": record, "event_annotation": events}
        (folder / "train_json" / f"{stem}.json").write_text(json.dumps(content))
        breathing = lung.lung_sound(seed=child, breathing=lung.Breathing(duration_s=5))
        soundfile.write(folder / "train_wav" / f"{stem}.wav", breathing.samples, 8000)
    return folder


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    return sprsound(tmp_path_factory.mktemp("sounds") / "sprsound")


class Everybody(HeldOutPatients):
    """Nobody was trained on."""

    def __contains__(self, person: str) -> bool:
        return True


EVERYBODY = Everybody(splits={}, seed="")
MODEL = model_of("resnet18-fine", labels=LABELS)


def test_an_annotated_recording_has_the_events_of_each_kind(sounds):
    takes = ground_truth.read_sprsound(sounds).takes
    cases = {c.group: c for c in ground_truth.annotated_recordings(takes, MODEL, EVERYBODY)}
    assert set(cases) == {"sprsound:0", "sprsound:1", "sprsound:2"}  # normal ones hold nothing
    assert {k: t.spans for k, t in cases["sprsound:0"].truths.items()} == {"crackle": ((1, 2),)}
    assert {k: t.spans for k, t in cases["sprsound:2"].truths.items()} == {
        "crackle": ((1, 2),),
        "wheeze": ((3, 4),),
        "both": ((1, 2), (3, 4)),
    }
    assert cases["sprsound:1"].source.sample_rate_hz == 8000


def test_persons_that_were_trained_on_are_not_asked(sounds):
    takes = ground_truth.read_sprsound(sounds).takes
    splits = {"0": "train", "sprsound:1": "validation", "sprsound:2": "test"}
    cases = ground_truth.annotated_recordings(
        takes, MODEL, HeldOutPatients(splits=splits, seed="sprsound")
    )
    assert [c.group for c in cases] == ["sprsound:2"]
    known = HeldOutPatients(splits={"13": "train"}, seed="sprsound")
    assert "nih:00000013" not in known


def test_real_normal_breathing_is_the_background_where_there_is_some(sounds):
    takes = ground_truth.read_sprsound(sounds).takes
    cases = list(ground_truth.lung_mixtures(takes, MODEL, EVERYBODY, 9))
    assert {c.group for c in cases} == {"sprsound:3", "sprsound:4"}
    assert len(cases) == 2 * 2 * 5  # children, kinds, ratios
    assert {c.part for c in cases} == {"-5", "0", "5", "10", "15"}
    made = list(ground_truth.lung_mixtures((), MODEL, EVERYBODY, 1))
    assert {c.group for c in made} == {"synthesised 0"}


def test_each_person_comes_once_before_anybody_comes_twice():
    class File:
        def __init__(self, patient):
            self.patient = patient

    order = [f.patient for f in ground_truth._round_robin([File(p) for p in "aaaaabbc"])]
    assert set(order[:3]) == {"a", "b", "c"}
    assert set(order[3:5]) == {"a", "b"}
    assert order[5:] == ["a"] * 3


@pytest.mark.parametrize("kind", ["crackle", "wheeze"])
def test_a_mixture_stands_above_its_background_by_the_ratio_asked_for(kind):
    background = lung.lung_sound(seed=7).samples
    for snr_db in (0.0, 10.0):
        made = lung_mixture(background, kind=kind, snr_db=snr_db, seed=3)
        scale = made.samples[0] / background[0]  # nothing is mixed into the first sample
        for event in made.truth:
            span = slice(round(event.start_s * 8000), round(event.end_s * 8000))
            added = made.samples[span] / scale - background[span]
            ratio = np.mean(added**2) / np.mean(background[span] ** 2)
            assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.2)


def test_the_same_seed_puts_events_in_the_same_places_at_every_ratio():
    background = lung.lung_sound(seed=7).samples
    quiet, loud = (
        lung_mixture(background, kind="wheeze", snr_db=snr, seed=3).truth for snr in (-5, 15)
    )
    assert quiet == loud
    assert len(quiet) == 4
    assert lung_mixture(background, kind="wheeze", snr_db=0, seed=4).truth != quiet
    with pytest.raises(UnsuitableError, match=r"background lasts 0.25 s; at least 0.7 s is needed"):
        lung_mixture(background[:2000], kind="wheeze", snr_db=0, seed=3)


@pytest.mark.parametrize("label", EVERYDAY_LABELS)
def test_everyday_sounds_stand_out_where_the_truth_says(label):
    made = everyday_mixture(label, snr_db=15, seed=5)
    during = np.zeros(len(made.samples), bool)
    for event in made.truth:
        assert 0 <= event.start_s < event.end_s <= 5
        during[round(event.start_s * 32000) : round(event.end_s * 32000)] = True
    assert np.mean(made.samples[during] ** 2) > 5 * np.mean(made.samples[~during] ** 2)


@pytest.fixture
def tiny_lung(tmp_path, monkeypatch, without) -> Settings:
    """A deployment whose only model hears a wheeze in everything."""
    import torch
    from safetensors.torch import load_file, save_file

    monkeypatch.setitem(networks.ARCHITECTURES, "tiny-fine", TINY)
    without(RECIPES, "lung-resnet18")
    model = dataclasses.replace(MODEL, name="lung-resnet18", architecture="tiny-fine")
    model = dataclasses.replace(model, preprocessing=MEL)
    directory = tmp_path / "weights" / "lung-resnet18"
    write_model(directory, model)
    state = load_file(directory / "model.safetensors")
    state["head.3.bias"] = torch.tensor([0.0, 0.0, 50.0, 0.0])
    save_file(state, directory / "model.safetensors")
    sha256 = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    config = dataclasses.replace(model, sha256=sha256).to_config()
    (directory / "config.json").write_text(json.dumps(config))
    return Settings(
        weights_dir=tmp_path / "weights",
        cache_dir=tmp_path / "cache",
        offline=True,
        background_export=False,
    )


def test_a_model_without_a_recipe_is_still_asked_where_the_truth_is_known(
    sounds, tiny_lung, monkeypatch
):
    monkeypatch.setattr(HeldOutPatients, "__contains__", lambda self, person: True)
    told = []
    result = explainer_eval.evaluate_explainers(
        "lung-resnet18", settings=tiny_lung, data=sounds, most=2, only=ASKED,
        progress=lambda done, doing: told.append(done),
    )  # fmt: skip
    assert result["n"] == 0
    assert any("No test samples to mask" in note for note in result["notes"])
    row = result["explainers"]["Grad-CAM"]
    assert {"pointing", "pointing_chance", "pointing_energy", "heat_inside", "iou"} <= set(row)
    assert row["pointing_chance"]["value"] == pytest.approx(0.2, abs=0.01)  # a second of five
    assert row["cost_ms"] > 0
    assert result["truth"].startswith("annotated events")
    assert set(result["per_label"]["Grad-CAM"]) == {"wheeze"}
    assert result["answered"]["real"]["wheeze"] == {"files": 2, "right": 2}
    assert result["answered"]["10"] == {
        "crackle": {"files": 2, "right": 0},  # heard as a wheeze: no true positive, not counted
        "wheeze": {"files": 2, "right": 2},
    }
    made = result["synthesised"]["Grad-CAM"]
    assert list(made) == ["-5", "0", "5", "10", "15"]
    assert made["10"]["n"] == 2
    assert {"time_hit", "band_hit", "chance_time", "chance_band", "energy_time"} <= set(made["10"])
    assert result["synthesised"]["Occlusion"]["5"] == {
        "n": 0,
        "persons": 0,
    }  # slow: asked at 10 dB alone
    assert result["synthesised"]["Occlusion"]["10"]["n"] == 2
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert all(0 <= done <= 1 for done in told)
    assert told == sorted(told)
    text = explainer_report.table(result)
    for wanted in ("| Grad-CAM | ", "| time hit | ", "*a random point*", "2 of 2"):
        assert wanted in text


def test_nothing_to_ask_is_said_in_one_sentence(sounds, tiny_lung, tmp_path):
    with pytest.raises(TrainingError, match=r"nowhere is not a directory; a dataset"):
        explainer_eval.evaluate_explainers(
            "lung-resnet18", settings=tiny_lung, data=tmp_path / "nowhere"
        )
    with pytest.raises(TrainingError, match="--most is 0; at least one"):
        explainer_eval.evaluate_explainers("lung-resnet18", settings=tiny_lung, data=sounds, most=0)
    with pytest.raises(UnsuitableError, match="does not fit"):
        explainer_eval.evaluate_explainers(
            "lung-resnet18", settings=tiny_lung, data=sounds, only=["Attention rollout"]
        )


def figure(value: float, low: float | None = None, high: float | None = None) -> dict[str, float]:
    return {
        "value": value,
        "low": value - 0.1 if low is None else low,
        "high": value + 0.1 if high is None else high,
    }


def result_of(**rows: dict) -> dict:
    return {
        "model": "m",
        "sha256": "s",
        "n": 3,
        "explainers": {name: {**row, "cost_ms": 12.0} for name, row in rows.items()},
        "counts": {},
        "truth": None,
        "per_label": {},
        "synthesised": {},
        "answered": {},
        "notes": ["2 files were left out."],
    }


def test_a_check_is_stood_only_where_the_interval_says_so():
    result = result_of(
        good={"randomisation": figure(0.2), "road": figure(0.3)},
        unsure={"randomisation": figure(0.45), "road": figure(0.05)},
        bad={"randomisation": figure(0.9), "road": figure(-0.3)},
    )
    (text,) = explainer_report.verdict(result)
    assert text.splitlines() == [
        "- The heatmap depends on the weights: good.",
        "- Masking the hottest regions costs more than masking the coldest: good.",
    ]
    (none,) = explainer_report.verdict(result_of(bad={"randomisation": figure(0.9)}))
    assert none == "- The heatmap depends on the weights: none of 1."
    assert explainer_report.verdict(result_of(odd={})) == ["No explainer could be judged."]


def test_over_fewer_than_five_persons_nothing_is_judged():
    result = result_of(few={"road": figure(0.3)}, many={"road": figure(0.3)})
    result["counts"] = {"few": {"trial": 4}, "many": {"trial": 5}}
    assert explainer_report.verdict(result) == [
        "- Masking the hottest regions costs more than masking the coldest: many. "
        "Not judged (fewer than 5 patients): few."
    ]
    result["counts"]["many"]["trial"] = 1
    assert explainer_report.verdict(result)[0].endswith(
        "Not judged (fewer than 5 patients): few, many."
    )


def test_the_table_has_the_contracts_names_in_their_order():
    row = dict.fromkeys(("randomisation", "pointing", "road", "insertion_auc"), figure(0.5))
    lines = explainer_report.table(result_of(one=row)).splitlines()
    assert lines[0] == "| explainer | insertion_auc | road | pointing | randomisation | cost_ms |"
    assert lines[2].startswith("| one | 0.50 (0.40-0.60) | ")
    assert lines[2].endswith(" | 12 |")
    assert "2 files were left out." in lines


def test_the_card_says_how_to_read_every_column_it_shows():
    row = dict.fromkeys(("randomisation", "pointing"), figure(0.5))
    text = "\n".join(explainer_report.card_section(result_of(one=row)))
    assert "- `randomisation`: how similar" in text
    assert "- `pointing`: " in text
    assert "- `road`" not in text
    assert "2 files were left out." in text


def test_figures_are_written_as_json_and_as_a_page(tmp_path):
    result = result_of(one={"randomisation": figure(0.2)})
    paths = explainer_eval.write(tmp_path / "out", result)
    assert [p.name for p in paths] == [model_card.EXPLAINERS_FILE, "explainers.md"]
    assert json.loads(paths[0].read_text()) == result
    assert "| one | 0.20 (0.10-0.30) | 12 |" in paths[1].read_text()
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_a_trial_asks_about_abnormal_test_samples_that_are_right_one_a_person(sounds, tiny_lung):
    rng = np.random.default_rng(0)
    windows = rng.normal(size=(6, 64, 201)).astype(np.float32)
    targets = np.array([2, 2, 2, 1, 0, 2])  # the network says 2 to everything
    data = Dataset(
        name="hand-made",
        labels=LABELS,
        targets=targets,
        groups=("a", "a", "b", "c", "d", "e"),
        splits=("test", "test", "test", "test", "test", "train"),
        load=lambda i, rng: (windows[i], np.eye(4, dtype=np.float32)[targets[i]]),
    )
    network = Engine(Hub(tiny_lung)).network("lung-resnet18", backend="torch")
    asked = trials.select_samples(network, data, 9)
    assert sorted(sample.group for sample in asked) == ["a", "b"]
    assert {sample.target for sample in asked} == {2}
    assert len(trials.select_samples(network, data, 1)) == 1
    row = trials.explainer_figures(
        "Grad-CAM", network, trials.randomise_weights(network), asked, 8, lambda done: None
    )
    assert (row.n, row.cost_ms > 0) == (2, True)
    assert list(row.figures) == [
        "insertion_auc",
        "deletion_auc",
        "average_drop",
        "average_increase",
        "road",
        "randomisation",
    ]
    said = [dict(sample.cache) for sample in asked]
    # Two curves of 11 pictures, both with the bare window, one through the heat, eight for ROAD.
    assert all(8 < len(one) <= 30 for one in said)
    same = trials.explainer_figures("Grad-CAM", network, network, asked, 8, lambda done: None)
    assert same.figures["randomisation"]["value"] in {0.0, 1.0}  # 0: heat that is flat
    assert [dict(sample.cache) for sample in asked] == said  # the same heat costs nothing more


def test_every_boxed_finding_has_its_row_with_true_positives_and_all_overlaps():
    rates = {name: figure(0.5) for name in ("pointing", "pointing_chance", "iou", "iou_0.1")}
    rates |= {"iou_0.25": figure(0.4), "iou_0.5": figure(0.25), "iou_0.75": figure(0.1)}
    result = result_of(cam=rates)
    result |= {
        "truth": "boxes",
        "per_label": {"cam": {"Mass": rates, "Edema": {}}},
        "answered": {"real": {"Mass": {"files": 7, "right": 4}, "Edema": {"files": 2, "right": 0}}},
    }
    result["per_label"]["cam"].pop("Edema")
    lines = explainer_report.table(result).splitlines()
    (header,) = (line for line in lines if line.startswith("| finding |"))
    assert header.endswith("| iou | iou_0.1 | iou_0.25 | iou_0.5 | iou_0.75 |")
    (row,) = (line for line in lines if line.startswith("| Mass |"))
    assert row.startswith("| Mass | 7 | 4 | cam | 0.50 (0.40-0.60) |")
    assert row.endswith("| 0.25 (0.15-0.35) | 0.10 (0.00-0.20) |")
    assert "Never detected, so not explained: Edema." in lines
    assert header.count("|") == row.count("|")
