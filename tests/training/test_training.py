"""Whole training runs on a few small images: resuming, reproducibility, evaluation."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.support.tiny_network import TINY
from xai_demo import networks
from xai_demo.decision import decide
from xai_demo.errors import CheckpointUnavailableError, TrainingError, UnknownNameError
from xai_demo.hub import Hub
from xai_demo.records import Model, Raster
from xai_demo.settings import Settings
from xai_demo.training import calibration
from xai_demo.training.datasets import split_groups
from xai_demo.training.evaluate import evaluate_model
from xai_demo.training.model_card import write_card
from xai_demo.training.recipes import RECIPES
from xai_demo.training.train import train_model

NAME = "pneumonia-resnet18"
PATIENTS = range(1, 17)
WRITTEN_FILES = ["MODEL_CARD.md", "config.json", "model.safetensors", "persons.json"]


@pytest.fixture(autouse=True)
def small_recipe(monkeypatch):
    """The recipe at 48 x 48 pixels, two epochs, on a network of a few hundred numbers."""
    recipe = RECIPES[NAME]
    small = dataclasses.replace(
        recipe,
        model=dataclasses.replace(
            recipe.model,
            architecture="tiny",
            preprocessing=Raster(height=48, width=48, mean=0.5, std=0.25),
        ),
        schedule=dataclasses.replace(
            recipe.schedule,
            epochs=2,
            batch_size=8,
            low_resolution_share=0.5,
            low_resolution_scale=0.75,
        ),
    )
    monkeypatch.setitem(RECIPES, NAME, small)
    monkeypatch.setitem(networks.ARCHITECTURES, "tiny", TINY)


@pytest.fixture(scope="session")
def films(tmp_path_factory) -> Path:
    """Thirty-two pictures of as many persons, in a folder like the published one."""
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    for i in PATIENTS:
        for name, level in (
            (f"NORMAL/IM-{i:04}-0001.jpeg", 60),
            (f"PNEUMONIA/person{i}_virus_{i}.jpeg", 160),
        ):
            (folder / name).parent.mkdir(exist_ok=True)
            pixels = np.clip(rng.normal(level, 25, (56, 64)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name)
    return folder


def split_sizes() -> dict[str, int]:
    names = [f"IM-{i:04}" for i in PATIENTS] + [f"person{i}" for i in PATIENTS]
    splits = split_groups(names, seed="kermany")
    return {split: splits.count(split) for split in ("train", "validation", "test")}


def weights_of(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert list(a) == list(b)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0)


def test_a_run_writes_a_model_directory_that_the_demo_takes(films, tmp_path):
    shares = []
    out = train_model(
        NAME, data=films, out=tmp_path / NAME, progress=lambda done, doing: shares.append(done)
    )
    assert out == tmp_path / NAME
    assert set(WRITTEN_FILES) <= {p.name for p in out.iterdir()}
    assert not list(out.glob("*.part"))
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)

    model = Model.from_config(json.loads((out / "config.json").read_text()))
    content = (out / "model.safetensors").read_bytes()
    assert model.sha256 == hashlib.sha256(content).hexdigest()
    assert sum(model.operating_points.values()) == pytest.approx(1, abs=1e-3)
    assert 0.25 <= model.temperature <= 4
    assert model.uncertain_margin is not None
    floats = [t for t in weights_of(out).values() if t.is_floating_point()]
    assert {t.dtype for t in floats} == {torch.float16}
    assert all(t.isfinite().all() for t in floats)
    assert any(
        "stored in float16, which changes the probabilities of" in note for note in model.notes
    )

    settings = Settings(weights_dir=tmp_path, cache_dir=tmp_path / "cache", offline=True)
    assert Hub(settings).fetch_weights(NAME).sha256 == model.sha256
    with (out / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["0", "1"]
    assert set(rows[0]) == {"step", "train", "validation", "accuracy", "since_best"}


class PulledPlugError(Exception):
    """The process was interrupted."""


def test_a_resumed_run_ends_with_exactly_the_same_weights(films, tmp_path):
    def plug(done: float, doing: str) -> None:
        if doing.startswith("epoch 2"):
            raise PulledPlugError

    train_model(NAME, data=films, out=tmp_path / "whole", seed=3)
    with pytest.raises(PulledPlugError):
        train_model(NAME, data=films, out=tmp_path / "halves", seed=3, progress=plug)
    assert not (tmp_path / "halves" / "model.safetensors").exists()
    messages = []
    train_model(
        NAME,
        data=films,
        out=tmp_path / "halves",
        seed=3,
        resume=True,
        progress=lambda done, doing: messages.append(doing),
    )
    assert not any(message.startswith("epoch 1") for message in messages)
    assert any(message.startswith("epoch 2") for message in messages)
    assert_same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "halves"))
    logs = [(tmp_path / name / "log.csv").read_text() for name in ("whole", "halves")]
    assert logs[0] == logs[1]


def test_a_checkpoint_without_random_states_can_be_resumed(films, tmp_path):
    train_model(NAME, data=films, out=tmp_path)
    done = weights_of(tmp_path)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    del state["random"]
    torch.save(state, tmp_path / "checkpoint.pt")
    train_model(NAME, data=films, out=tmp_path, resume=True)
    assert_same(weights_of(tmp_path), done)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(films, tmp_path):
    for folder, seed in (("first", 1), ("again", 1), ("other", 2)):
        train_model(NAME, data=films, out=tmp_path / folder, epochs=1, seed=seed)
    assert_same(weights_of(tmp_path / "first"), weights_of(tmp_path / "again"))
    first, other = weights_of(tmp_path / "first"), weights_of(tmp_path / "other")
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_the_weights_are_readable_as_the_umask_says(films, tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        train_model(NAME, data=films, out=tmp_path, epochs=1)
    finally:
        os.umask(before)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in WRITTEN_FILES} == {mode}


@pytest.fixture
def trained(films, tmp_path) -> Settings:
    """A deployment whose only model was just trained."""
    train_model(NAME, data=films, out=tmp_path / NAME)
    return Settings(weights_dir=tmp_path, cache_dir=tmp_path / "cache", offline=True)


def test_an_evaluation_has_the_structure_that_callers_rely_on(films, trained):
    result = evaluate_model(NAME, settings=trained, data=films)
    n = split_sizes()["test"]
    assert n > 1
    assert (result["model"], result["data"], result["n"]) == (NAME, "kermany", n)
    assert result["groups"] == n  # one picture a person
    assert set(result["metrics"]) == {
        "accuracy",
        "balanced_accuracy",
        "precision",
        "recall",
        "f1",
        "auroc",
        "ece",
        "auroc_abnormal",
        "sensitivity",
        "specificity",
        "average_score",
        "harmonic_score",
        "total_score",
    }
    assert set(result["per_class"]) == {"Normal", "Pneumonia"}
    for row in result["per_class"].values():
        assert set(row) == {"precision", "recall", "f1", "auroc", "accuracy"}
    figures = [*result["metrics"].values(), *result["per_class"]["Normal"].values()]
    for figure in figures:
        assert set(figure) == {"value", "low", "high"}
        assert 0 <= figure["low"] <= figure["high"] <= 1
    counts = np.array(result["confusion"]["counts"])
    assert result["confusion"]["labels"] == ["Normal", "Pneumonia"]
    assert counts.sum() == n
    assert result["metrics"]["accuracy"]["value"] == pytest.approx(np.trace(counts) / n, abs=1e-4)
    assert set(result["threshold"]) == {"Normal", "Pneumonia"}
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_an_evaluation_can_be_written_into_the_card(films, trained):
    result = evaluate_model(NAME, settings=trained, data=films)
    card = write_card(NAME, settings=trained, result=result)
    assert card == trained.weights_dir / NAME / "MODEL_CARD.md"
    model = Hub(trained).model(NAME)
    assert model.metrics["accuracy"].value == result["metrics"]["accuracy"]["value"]
    assert str(result["n"]) in model.measured_on
    assert model.measured_on in card.read_text()


def test_explainers_are_measured_side_by_side_on_what_the_network_got_right(films, trained):
    from xai_demo.training import explainer_eval, explainer_report

    asked = ["Grad-CAM++", "Occlusion", "Integrated gradients"]
    result = explainer_eval.evaluate_explainers(
        NAME, settings=trained, data=films, most=4, only=asked
    )
    assert 1 <= result["n"] <= 4
    assert list(result["explainers"]) == asked
    for row in result["explainers"].values():
        assert row.pop("cost_ms") > 0
        assert set(row) == {
            "insertion_auc",
            "deletion_auc",
            "average_drop",
            "average_increase",
            "road",
            "randomisation",
        }
        for figure in row.values():
            assert figure["low"] <= figure["value"] <= figure["high"]
            assert -1 <= figure["value"] <= 1
    assert "| Occlusion | " in explainer_report.table(
        explainer_eval.evaluate_explainers(
            NAME, settings=trained, data=films, most=2, only=asked[1:2]
        )
    )


def test_an_unknown_recipe_names_the_known_ones(films, tmp_path):
    with pytest.raises(
        UnknownNameError, match=r"recipe named 'vgg'; choose from: pneumonia-resnet18"
    ):
        train_model("vgg", data=films, out=tmp_path)
    settings = Settings(weights_dir=tmp_path, cache_dir=tmp_path)
    with pytest.raises(
        UnknownNameError, match=r"recipe named 'vgg'; choose from: pneumonia-resnet18"
    ):
        evaluate_model("vgg", settings=settings, data=films)


def test_a_missing_folder_is_refused_by_name(tmp_path):
    missing = tmp_path / "nowhere"
    with pytest.raises(
        TrainingError,
        match="nowhere is not a directory; a dataset in its published layout is needed",
    ):
        train_model(NAME, data=missing, out=tmp_path / "out")
    settings = Settings(weights_dir=tmp_path, cache_dir=tmp_path)
    with pytest.raises(
        TrainingError,
        match="nowhere is not a directory; a dataset in its published layout is needed",
    ):
        evaluate_model(NAME, settings=settings, data=missing)


def test_an_empty_folder_leaves_nothing_behind(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(TrainingError, match="contains no radiographs; NORMAL/"):
        train_model(NAME, data=tmp_path / "data", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def link(films: Path, folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(films / name)
    return folder


def test_a_split_without_both_labels_is_refused_before_the_training(films, tmp_path):
    few = link(films, tmp_path / "few", "NORMAL/IM-0001-0001.jpeg")  # of the training split
    with pytest.raises(
        TrainingError,
        match="train split of kermany has 1 samples of 1 labels; samples of at least 2",
    ):
        train_model(NAME, data=few, out=tmp_path / "out")
    link(films, few, "PNEUMONIA/person3_virus_3.jpeg")
    with pytest.raises(
        TrainingError, match="validation split of kermany has 0 samples of 0 labels"
    ):
        train_model(NAME, data=few, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_evaluation_without_test_samples_is_refused(films, trained, tmp_path):
    few = link(films, tmp_path / "few", "NORMAL/IM-0001-0001.jpeg")
    with pytest.raises(
        TrainingError,
        match="test split of kermany has 0 samples of 0 labels; samples of at least 1 are needed",
    ):
        evaluate_model(NAME, settings=trained, data=few)


def test_an_evaluation_without_weights_says_how_to_train_them(films, tmp_path):
    settings = Settings(weights_dir=tmp_path, cache_dir=tmp_path)
    with pytest.raises(CheckpointUnavailableError, match=f"xai_demo train {NAME} --data"):
        evaluate_model(NAME, settings=settings, data=films)


# Calibration


def test_the_operating_point_is_the_middle_of_the_gap_between_separable_scores():
    scores, positive = np.array([0.1, 0.2, 0.7, 0.9]), np.array([False, False, True, True])
    assert calibration.youden_threshold(scores, positive) == pytest.approx(0.45)


def test_the_operating_point_has_the_largest_sensitivity_and_specificity():
    # From 0.45 on: all three positives found, three of four negatives left alone.
    scores = np.array([0.1, 0.2, 0.4, 0.6, 0.5, 0.7, 0.9])
    positive = np.array([0, 0, 0, 0, 1, 1, 1], dtype=bool)
    assert calibration.youden_threshold(scores, positive) == pytest.approx(0.45)


def test_separable_labels_have_equal_operating_points():
    points = calibration.operating_points(np.eye(3) * 0.9 + 0.03, np.arange(3), normal=0)
    assert points == pytest.approx([0.5, 0.5, 0.5])


def test_rare_labels_that_would_never_win_get_lower_operating_points():
    probabilities = np.array([[0.9, 0.05, 0.05]] * 8 + [[0.7, 0.25, 0.05], [0.7, 0.05, 0.25]])
    targets = np.array([0] * 8 + [1, 2])
    few = calibration.operating_points(probabilities, targets, normal=0)
    assert few == pytest.approx(0.5)  # one sample a label is no reason to prefer it
    probabilities, targets = np.repeat(probabilities, 40, axis=0), np.repeat(targets, 40)
    points = calibration.operating_points(probabilities, targets, normal=0)
    assert (probabilities / points).argmax(axis=1).tolist() == targets.tolist()
    assert points[1] == pytest.approx(points[2])
    assert points[0] + points[1] == pytest.approx(1)


def test_a_network_that_answers_normal_too_often_gets_a_higher_point_for_it():
    abnormal = [0.58, 0.4, 0.02]  # of label 1, and normal by the larger probability
    probabilities = np.repeat([[0.9, 0.08, 0.02], abnormal, [0.02, 0.08, 0.9]], 40, axis=0)
    targets = np.repeat([0, 1, 2], 40)
    points = calibration.operating_points(probabilities, targets, normal=0)
    assert (probabilities / points).argmax(axis=1).tolist() == targets.tolist()
    assert 0.58 / 0.4 < points[0] / points[1] <= calibration.MAX_NORMAL_FACTOR
    assert points[1] == pytest.approx(points[2])


def test_the_temperature_undoes_overconfidence_and_underconfidence():
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, (4000, 2))
    targets = (rng.random(4000) < calibration.softmax(honest)[:, 1]).astype(int)
    recipe = RECIPES[NAME]
    for factor in (0.5, 1, 2):
        model = calibration.calibrate_model(recipe, honest * factor, targets)
        assert model.temperature == pytest.approx(factor, rel=0.15)


def test_the_share_in_the_recipe_is_uncertain():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (1000, 2))
    targets = (logits[:, 1] + rng.normal(0, 1, 1000) > logits[:, 0]).astype(int)
    recipe = dataclasses.replace(RECIPES[NAME], uncertain_share=0.1)
    model = calibration.calibrate_model(recipe, logits, targets)
    answers = [decide(model, row).label for row in calibration.softmax(logits / model.temperature)]
    assert answers.count(None) == pytest.approx(100, abs=5)


def test_softmax_of_large_logits_is_finite():
    assert calibration.softmax(np.array([[1000.0, 1000.0], [1000.0, 0.0]])).tolist() == [
        [0.5, 0.5],
        [1, 0],
    ]


def test_a_calibration_error_that_is_too_large_costs_some_likelihood():
    rng = np.random.default_rng(0)
    # Trained with equal classes, used where one in eight is abnormal: far too sure of abnormal.
    targets = (rng.random(3000) < 0.12).astype(int)
    scores = rng.normal(np.where(targets == 1, 1.2, -1.2), 1.6)
    logits = np.column_stack([-scores, scores + 1.5])
    chosen = calibration.best_temperature(logits, targets)
    error = calibration.metrics.expected_calibration_error(
        calibration.softmax(logits / chosen), targets, np.ones(3000)
    )
    errors = [
        calibration.metrics.expected_calibration_error(
            calibration.softmax(logits / t), targets, np.ones(3000)
        )
        for t in np.geomspace(0.25, 4, 50)
    ]
    assert error <= max(0.05, min(errors) + 0.01)


def test_a_label_with_few_validation_samples_keeps_a_moderate_operating_point():
    rng = np.random.default_rng(0)
    targets = np.repeat([0, 1, 2, 3], [800, 150, 70, 4])
    logits = rng.normal(0, 1, (len(targets), 4)) + 3 * np.eye(4)[targets] + [2, 1, 0.5, -2]
    points = calibration.operating_points(calibration.softmax(logits), targets, normal=0)
    assert points.min() >= calibration.MIN_RELATIVE_POINT * points.max()
    assert points.max() < 1
    # Whatever those four look like, they hardly move the others' points.
    without = targets < 3
    alone = calibration.operating_points(
        calibration.softmax(logits[without]), targets[without], normal=0
    )
    assert points[1] / points[0] == pytest.approx(alone[1] / alone[0], rel=0.5)


@pytest.mark.parametrize("epochs", [1, 5])
def test_a_run_may_have_five_steps_or_one(films, tmp_path, monkeypatch, epochs):
    recipe = RECIPES[NAME]
    schedule = dataclasses.replace(recipe.schedule, batch_size=64)  # one step an epoch
    monkeypatch.setitem(RECIPES, NAME, dataclasses.replace(recipe, schedule=schedule))
    out = train_model(NAME, data=films, out=tmp_path / NAME, epochs=epochs)
    assert len((out / "log.csv").read_text().splitlines()) == 1 + epochs


def test_training_stops_where_validation_does_not_improve(films, tmp_path, monkeypatch):
    from xai_demo.training import trainer

    worse = iter(range(100))
    monkeypatch.setattr(
        trainer,
        "_validation_row",
        lambda network, data: {"validation": 1.0 + next(worse), "accuracy": 0.5},
    )
    messages = []
    train_model(
        NAME,
        data=films,
        out=tmp_path,
        epochs=8,
        patience=2,
        progress=lambda done, doing: messages.append(doing),
    )
    with (tmp_path / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["since_best"] for row in rows] == ["0", "1", "2"]
    assert "stopped early: no improvement in 2 epochs" in messages
    train_model(NAME, data=films, out=tmp_path, epochs=8, patience=2, resume=True)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 4  # it stays stopped


def test_an_unknown_tracker_is_refused_before_anything_is_read(films, tmp_path):
    with pytest.raises(
        UnknownNameError, match="no tracker named 'mlflow'; choose from: csv, wandb"
    ):
        train_model(NAME, data=films, out=tmp_path / "out", track="mlflow")
    assert not (tmp_path / "out").exists()


def test_an_evaluation_is_written_with_its_pictures(films, trained, tmp_path):
    result = evaluate_model(NAME, settings=trained, data=films, out=tmp_path / "out")
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == result
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "evaluation.json",
        "confusion.png",
        "reliability.png",
        "roc.png",
    }
