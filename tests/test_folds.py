"""Cross-validation by published folds: no sample in two parts, figures known by hand."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.tiny import TINY
from xai_demo import networks
from xai_demo.errors import TrainingError
from xai_demo.settings import Settings
from xai_demo.training import cards, cross_validation, esc10, folds, metrics
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
        recipe.schedule, epochs=20, batch_size=6, learning_rate=0.03, mixup=0, averaging=0.5
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


def validated(clips: Path, tmp_path: Path, **options) -> dict:
    return cross_validation.cross_validate(NAME, settings=settings(tmp_path), data=clips, **options)


def test_each_fold_is_the_test_part_once_and_shares_no_source_with_the_others(clips):
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


def test_tones_that_differ_are_told_apart_in_every_fold(clips, tmp_path):
    result = validated(clips, tmp_path, out=tmp_path / "cv")
    assert (result["n"], result["groups"], result["folds"], result["seeds"]) == (24, 18, 3, 1)
    assert result["labels"]["Dog"] == result["labels"]["Rain"] == 12
    assert result["per_fold"] == {"1": [1.0], "2": [1.0], "3": [1.0]}
    assert result["metrics"]["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert result["confusion"]["counts"][0][0] == result["confusion"]["counts"][1][1] == 12
    assert json.loads((tmp_path / "cv" / folds.FILE).read_text()) == result
    assert "accuracy of fold 3" in cross_validation.table(result)
    # What was interrupted, here at its very end, goes on to the same answer.
    assert validated(clips, tmp_path, out=tmp_path / "cv") == result


def test_the_accuracy_is_the_mean_over_the_folds_and_not_over_the_samples():
    model = dataclasses.replace(RECIPES[NAME].model, labels=("Dog", "Rain"))

    def answered(name: str, right: int, wrong: int) -> folds._Fold:
        n = right + wrong
        decided = np.array([0] * right + [1] * wrong)
        return folds._Fold(
            name=name,
            probabilities=np.eye(2)[decided] * 0.8 + 0.1,
            targets=np.zeros(n, np.int64),
            decided=decided,
            groups=tuple(f"{name}{i}" for i in range(n)),
        )

    data = type("Data", (), {"name": "esc10", "notes": ()})
    rounds = [[answered("1", 3, 1), answered("2", 1, 0)]]
    result = folds._result(model, [("1", data), ("2", data)], rounds)  # type: ignore[list-item]
    assert result["metrics"]["accuracy"]["value"] == pytest.approx((3 / 4 + 1) / 2)
    assert result["per_fold"] == {"1": [0.75], "2": [1.0]}
    # Four of five are right at a confidence of 0.9.
    assert result["metrics"]["ece"]["value"] == pytest.approx(0.1)


def test_what_cannot_be_done_is_said(clips, tmp_path):
    with pytest.raises(TrainingError, match=r"5 folds are asked for and .* has 3 published ones"):
        validated(clips, tmp_path, folds=5)
    with pytest.raises(TrainingError, match="1 folds and 3 seeds, wanted: at least 2 and 1"):
        validated(clips, tmp_path, folds=1)
    one = tmp_path / "one" / "001 - Dog bark"
    one.mkdir(parents=True)
    for path in (clips / "001 - Dog bark").glob("1-*"):
        (one / path.name).write_bytes(path.read_bytes())
    with pytest.raises(TrainingError, match="1 folds of clips, wanted: at least 3"):
        validated(one.parent, tmp_path)


def test_an_excerpt_of_a_clip_with_one_loud_moment_has_that_moment():
    mel = np.full((4, 100), -90, np.float32)
    mel[:, 70:73] = -10
    for seed in range(20):
        taken = esc10.excerpt(mel, np.random.default_rng(seed), frames=50)
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
        "method": folds.METHOD,
    }
    with pytest.raises(TrainingError, match=r"no MODEL_CARD\.md"):
        cards.write_folds(tmp_path, result)
    model = dataclasses.replace(RECIPES[NAME].model, sha256="0" * 64)
    cards.write(tmp_path, model)
    cards.write_folds(tmp_path, result)
    card = cards.write_folds(tmp_path, result).read_text()
    assert card.count(cards.FOLDS_TITLE) == 1
    assert "| accuracy | 0.900 (0.800-1.000) |" in card
    assert "fold 1 0.800; fold 2 1.000" in card
    assert card.index(cards.FOLDS_TITLE) < card.index("## Known failures")
    cards.write(tmp_path, model)
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
    }
    model = dataclasses.replace(RECIPES["lung-resnet18"].model, sha256="a" * 64)
    cards.write(tmp_path, model)
    card = cards.write_folds(tmp_path, result).read_text()
    assert "282 samples of 94 persons, 5 folds, 2 seeds" in card
    assert "balanced_accuracy_3 of the seeds one by one 0.650, 0.750." in card
    assert "| auroc_abnormal | 0.800 (0.700-0.900) |" in card
    cards.write(tmp_path, model)
    assert (tmp_path / "MODEL_CARD.md").read_text() == card
    cards.write(tmp_path, dataclasses.replace(model, sha256="b" * 64))
    assert cards.FOLDS_TITLE not in (tmp_path / "MODEL_CARD.md").read_text()
