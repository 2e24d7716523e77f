"""Cross-validation: no patient in two splits, and figures known by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.support.small_models import write_model
from tests.support.tiny_network import TINY
from xai_demo import networks
from xai_demo.errors import TrainingError
from xai_demo.settings import Settings
from xai_demo.training import (
    cross_validation,
    fold_metrics,
    folds,
    metrics,
    model_card,
)
from xai_demo.training.datasets import esc10
from xai_demo.training.fold_metrics import compare_runs
from xai_demo.training.recipes import RECIPES

NAME = "everyday-cnn6"
RATE_HZ = 4000


@pytest.fixture(autouse=True)
def small_recipe(monkeypatch):
    """Half a second at 4 kHz, twenty epochs, on a network of a few hundred numbers."""
    recipe = RECIPES[NAME]
    spec = dataclasses.replace(
        recipe.model.preprocessing,
        sample_rate_hz=RATE_HZ,
        n_fft=128,
        win_length=128,
        hop_length=40,
        n_mels=32,
        f_max_hz=2000,
        window_s=1.0,
        window_hop_s=0.5,
        min_s=0.2,
    )
    model = dataclasses.replace(recipe.model, architecture="tiny", preprocessing=spec)
    schedule = dataclasses.replace(
        recipe.schedule, epochs=20, batch_size=6, learning_rate=0.03, mixup=0, ema_decay=0.5
    )
    small = dataclasses.replace(recipe, model=model, schedule=schedule)
    monkeypatch.setitem(RECIPES, NAME, small)
    monkeypatch.setitem(networks.ARCHITECTURES, "tiny", TINY)
    monkeypatch.setattr(metrics, "DRAWS", 20)


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Dogs are low and rain is high, three folds of four clips each of two sources."""
    folder = tmp_path_factory.mktemp("esc10")
    rng = np.random.default_rng(0)
    time_s = np.arange(RATE_HZ) / RATE_HZ
    for label, pitch_hz in (("001 - Dog bark", 300.0), ("002 - Rain", 1500.0)):
        (folder / label).mkdir()
        for fold in (1, 2, 3):
            for clip, take in ((10, "A"), (10, "B"), (11, "A"), (12, "A")):
                tone = 0.5 * np.sin(2 * np.pi * pitch_hz * time_s)
                noise = 0.01 * rng.standard_normal(RATE_HZ)
                path = folder / label / f"{fold}-{fold}{pitch_hz:.0f}{clip}-{take}.ogg"
                soundfile.write(path, tone + noise, RATE_HZ, format="OGG", subtype="VORBIS")
    return folder


def settings(tmp_path: Path) -> Settings:
    return Settings(weights_dir=tmp_path, cache_dir=tmp_path, offline=True)


def cross_validate(clips: Path, tmp_path: Path, **options) -> dict:
    return cross_validation.cross_validate(NAME, settings=settings(tmp_path), data=clips, **options)


def test_each_fold_is_the_test_split_once_and_shares_no_source_with_the_others(clips):
    model = RECIPES[NAME].model
    tested = []
    for name, data in esc10.folds(clips, model):
        parts = {
            split: {data.groups[i] for i in data.indices(split)}
            for split in ("train", "validation", "test")
        }
        assert {group[0] for group in parts["test"]} == {name}
        assert not parts["train"] & parts["validation"]
        assert not (parts["train"] | parts["validation"]) & parts["test"]
        assert {group[0] for group in parts["validation"]} == {"312"[int(name) - 1]}
        # Every second source of each label: 11, with one clip, of 10, 11 and 12.
        assert len(data.indices("validation")) == 2
        assert len(data.indices("train")) == 14
        tested += data.indices("test").tolist()
    assert sorted(tested) == list(range(24))


def test_tones_of_different_pitch_are_distinguished_in_every_fold(clips, tmp_path):
    result = cross_validate(clips, tmp_path, out=tmp_path / "cv")
    assert (result["n"], result["groups"], result["folds"], result["seeds"]) == (24, 18, 3, 1)
    assert result["labels"]["Dog"] == result["labels"]["Rain"] == 12
    assert result["per_fold"] == {"1": [1.0], "2": [1.0], "3": [1.0]}
    assert result["metrics"]["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert result["confusion"]["counts"][0][0] == result["confusion"]["counts"][1][1] == 12
    assert json.loads((tmp_path / "cv" / fold_metrics.FILE).read_text()) == result
    assert "accuracy of fold 3" in cross_validation.table(result)
    # A resumed run, here of one that was complete, gives the same figures.
    assert cross_validate(clips, tmp_path, out=tmp_path / "cv") == result


def test_the_accuracy_is_the_mean_over_the_folds_and_not_over_the_samples():
    model = dataclasses.replace(RECIPES[NAME].model, labels=("Dog", "Rain"))

    def fold(name: str, right: int, wrong: int) -> fold_metrics.Fold:
        n = right + wrong
        decisions = np.array([0] * right + [1] * wrong)
        return fold_metrics.Fold(
            name=name,
            probabilities=np.eye(2)[decisions] * 0.8 + 0.1,
            targets=np.zeros(n, np.int64),
            decisions=decisions,
            groups=tuple(f"{name}{i}" for i in range(n)),
        )

    runs = [[fold("1", 3, 1), fold("2", 1, 0)]]
    result = fold_metrics.summarise_folds(model, data="esc10", runs=runs)
    assert result["metrics"]["accuracy"]["value"] == pytest.approx((3 / 4 + 1) / 2)
    assert result["per_fold"] == {"1": [0.75], "2": [1.0]}
    assert [row["accuracy"] for row in result["figures_by_fold"]] == [0.75, 1.0]
    assert result["confusion"]["counts"] == [[4, 1], [0, 0]]
    # Four of five are right at a confidence of 0.9.
    assert result["metrics"]["ece"]["value"] == pytest.approx(0.1)


def test_requests_that_the_data_cannot_meet_are_refused(clips, tmp_path):
    with pytest.raises(TrainingError, match=r"has 3 published folds, not 5; leave out --folds"):
        cross_validate(clips, tmp_path, folds=5)
    with pytest.raises(TrainingError, match="needs at least 2 folds and 1 seed, not 1 and 1"):
        cross_validate(clips, tmp_path, folds=1)
    one = tmp_path / "one" / "001 - Dog bark"
    one.mkdir(parents=True)
    for path in (clips / "001 - Dog bark").glob("1-*"):
        (one / path.name).write_bytes(path.read_bytes())
    with pytest.raises(TrainingError, match="1 folds of clips; at least 3"):
        cross_validate(one.parent, tmp_path)


def test_an_excerpt_of_a_clip_with_one_loud_moment_has_that_moment():
    mel = np.full((4, 100), -90, np.float32)
    mel[:, 70:73] = -10
    for seed in range(20):
        taken = esc10.draw_excerpt(mel, np.random.default_rng(seed), frames=50)
        assert taken.shape == (4, 50)
        assert taken.max() == -10


def test_the_figures_stand_in_the_card_once_and_stay_there(tmp_path):
    metric = {"value": 0.9, "low": 0.8, "high": 1.0}
    result = {
        "model": NAME,
        "n": 24,
        "groups": 18,
        "folds": 2,
        "seeds": 1,
        "metrics": {"accuracy": metric},
        "per_fold": {"1": [0.8], "2": [1.0]},
        "method": fold_metrics.METHOD,
    }
    with pytest.raises(TrainingError, match=r"no MODEL_CARD\.md"):
        model_card.write_folds(tmp_path, result)
    model = dataclasses.replace(RECIPES[NAME].model, sha256="0" * 64)
    model_card.write(tmp_path, model)
    model_card.write_folds(tmp_path, result)
    card = model_card.write_folds(tmp_path, result).read_text()
    assert card.count(model_card.FOLDS_TITLE) == 1
    assert "| accuracy | 0.900 (0.800-1.000) |" in card
    assert "24 samples from 18 patients or sources, 2 folds, 1 seed; accuracy by fold" in card
    assert "fold 1 0.800; fold 2 1.000" in card
    assert card.index(model_card.FOLDS_TITLE) < card.index("## Known failures")
    model_card.write(tmp_path, model)
    assert (tmp_path / "MODEL_CARD.md").read_text() == card


def test_folds_of_patients_stand_in_the_card_while_the_weights_are_the_same(tmp_path):
    def metric(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.1, "high": value + 0.1}

    result = {
        "model": "lung-resnet18",
        "sha256": "a" * 64,
        "n": 282,
        "groups": 94,
        "folds": 5,
        "seeds": 2,
        "metrics": {"balanced_accuracy_3": metric(0.7), "auroc_abnormal": metric(0.8)},
        "per_seed": [{"balanced_accuracy_3": metric(0.65)}, {"balanced_accuracy_3": metric(0.75)}],
        "method": cross_validation.METHOD,
        "abroad": {
            "method": cross_validation.NEW_HOSPITAL,
            "metrics": {"auroc_abnormal": metric(0.6)},
        },
    }
    model = dataclasses.replace(RECIPES["lung-resnet18"].model, sha256="a" * 64)
    model_card.write(tmp_path, model)
    card = model_card.write_folds(tmp_path, result).read_text()
    assert "282 samples from 94 patients, 5 folds, 2 seeds; balanced" in card
    assert "balanced_accuracy_3 by seed: 0.650, 0.750. Brackets" in card
    assert "| auroc_abnormal | 0.800 (0.700-0.900) |" in card
    abroad = card.partition(f"new to the network: {cross_validation.NEW_HOSPITAL}")[2]
    assert "| auroc_abnormal | 0.600 (0.500-0.700) |" in abroad
    model_card.write(tmp_path, model)
    assert (tmp_path / "MODEL_CARD.md").read_text() == card
    model_card.write(tmp_path, dataclasses.replace(model, sha256="b" * 64))
    assert model_card.FOLDS_TITLE not in (tmp_path / "MODEL_CARD.md").read_text()


# Folds of patients, for datasets without published folds


def radiographs(folder: Path) -> Path:
    """Sixty radiographs of thirty patients; the three kinds differ in brightness."""
    for i in range(60):
        path = folder / "PNEUMONIA" / f"person{i // 2}_{('virus', 'bacteria')[i % 4 // 2]}_{i}.jpeg"
        level = (90, 180)[i % 4 // 2]
        if i % 3 == 0:
            path, level = folder / "NORMAL" / f"IM-{i // 2:04}-{i:04}.jpeg", 20
        path.parent.mkdir(parents=True, exist_ok=True)
        grey = np.random.default_rng(i).normal(level, 8, (48, 48)).clip(0, 255)
        Image.fromarray(grey.astype(np.uint8)).save(path)
    return folder


def small(monkeypatch, name: str, **schedule) -> None:
    recipe = RECIPES[name]
    spec = dataclasses.replace(recipe.model.preprocessing, height=32, width=32)
    model = dataclasses.replace(recipe.model, architecture="tiny", preprocessing=spec)
    chosen = dataclasses.replace(
        recipe.schedule, epochs=8, batch_size=6, learning_rate=0.03, ema_decay=0.5, **schedule
    )
    monkeypatch.setitem(RECIPES, name, dataclasses.replace(recipe, model=model, schedule=chosen))


def test_patients_are_assigned_to_five_folds_if_none_are_published(tmp_path):
    data = RECIPES["pneumonia-resnet18"].read(
        radiographs(tmp_path), RECIPES["pneumonia-resnet18"].model
    )
    parts = list(folds.patient_folds(data, 5))
    assert [name for name, _ in parts] == ["1", "2", "3", "4", "5"]
    tested = []
    for _, part in parts:
        assert len(set(zip(part.groups, part.splits, strict=True))) == len(set(part.groups))
        assert set(part.targets[part.indices("test")]) == {0, 1}
        assert len(part.indices("validation")) == pytest.approx(0.15 / 0.85 * 48, abs=3)
        tested += part.indices("test").tolist()
    assert sorted(tested) == list(range(60))


def test_a_recipe_of_radiographs_is_trained_for_each_fold_of_patients(tmp_path, monkeypatch):
    """From random weights: `train`'s initial network was trained on all of these children."""
    small(monkeypatch, "pneumonia3-resnet18", low_resolution_share=0.0)
    result = cross_validation.cross_validate(
        "pneumonia3-resnet18",
        settings=settings(tmp_path),  # which hold no pneumonia-resnet18 to start from
        data=radiographs(tmp_path / "films"),
        folds=3,
        balance="oversampling",
    )
    assert (result["n"], result["folds"], result["seeds"]) == (60, 3, 1)
    assert len(result["figures_by_fold"]) == 3
    assert {"f1", "auroc", "accuracy", "precision", "recall"} <= set(result["figures_by_fold"][0])
    assert np.sum(result["confusion"]["counts"]) == 60
    assert result["metrics"]["auroc"]["value"] > 0.9
    assert compare_runs(result, result)["f1"] == {"difference": 0.0, "t": None, "p": None}


def test_independent_findings_have_figures_by_fold_too(tmp_path, monkeypatch):
    """The initial network is of another collection, so it has seen none of these patients."""
    name = "nih14-efficientnet-lite0"
    small(monkeypatch, name, low_resolution_share=0.0)
    recipe = dataclasses.replace(
        RECIPES[name], is_from_imagenet=False, initial_model="pneumonia-resnet18"
    )
    monkeypatch.setitem(RECIPES, name, recipe)
    pneumonia = dataclasses.replace(RECIPES["pneumonia-resnet18"].model, architecture="tiny")
    write_model(tmp_path / "pneumonia-resnet18", pneumonia)
    rows = []
    for i in range(1, 41):
        finding = ("Mass", "No Finding", "Edema", "Mass|Edema")[i % 4]
        rows.append(f"{i:08}_000.png,{finding},0,{i}")
        grey = np.random.default_rng(i).normal(60 + 60 * ("Mass" in finding), 9, (48, 48))
        (tmp_path / "nih").mkdir(exist_ok=True)
        Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(
            tmp_path / "nih" / f"{i:08}_000.png"
        )
    header = "Image Index,Finding Labels,Follow-up #,Patient ID"
    (tmp_path / "nih" / "Data_Entry_2017.csv").write_text("\n".join([header, *rows]))
    result = cross_validation.cross_validate(
        name,
        settings=settings(tmp_path),
        data=tmp_path / "nih",
        folds=2,
        out=tmp_path / "cv",
    )
    assert json.loads((tmp_path / "cv" / fold_metrics.FILE).read_text()) == result
    assert result["labels"]["Mass"] == result["labels"]["Edema"] == 20
    assert result["labels"]["Hernia"] == 0
    assert np.array(result["confusion"]["counts"]).shape == (14, 2, 2)
    assert np.sum(result["confusion"]["counts"][4]) == 40
    assert all(0 <= fold["auroc"] <= 1 for fold in result["figures_by_fold"])
    assert any("Initialised from pneumonia-resnet18" in note for note in result["notes"])
    assert "accuracy of fold 2" in cross_validation.table(result)
