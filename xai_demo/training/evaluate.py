"""One evaluation: from a model directory and a data set to figures, and pictures of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo import networks
from xai_demo.engine import read_tensors
from xai_demo.errors import CheckpointUnavailableError, TrainingError
from xai_demo.files import write_atomically
from xai_demo.hub.checkpoint import WEIGHTS, Digests, read_model
from xai_demo.training import plots, predict
from xai_demo.training.recipe import Evaluation
from xai_demo.training.recipes import recipe_of

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model, Progress
    from xai_demo.settings import Settings
    from xai_demo.training.datasets import Dataset, Split

PERSONS = "persons.json"  # beside the weights: whom the network learnt from
FILE = "evaluation.json"


def evaluate_model(
    model: str,
    *,
    settings: Settings,
    data: Path,
    out: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a model on what it did not learn from; the contract's `evaluate --json`.

    `out` gets that as evaluation.json, with a confusion matrix, a reliability diagram and ROC
    curves.
    """
    recipe = recipe_of(model)
    check_folder(data)
    record, network = trained(model, settings=settings, data=data)
    tell = progress or (lambda done, doing: None)
    if recipe.judge is not None:
        known = persons(settings.weights_dir / model)
        evaluation = recipe.judge(network, record, data, known, tell)
    else:
        tell(0.0, "reading the data")
        data_set = recipe.read(data, record)
        known = persons(settings.weights_dir / model)
        if known is not None:
            data_set = data_set.apart_from(known)
        check_part(data_set, "test", 1)
        tell(0.3, "asking the network")
        evaluation = predict.answered(network, record, data_set)
    if out is not None:
        _write(out, record, evaluation)
    return evaluation.result


def trained(model: str, *, settings: Settings, data: Path) -> tuple[Model, nn.Module]:
    """A model with its network; raises CheckpointUnavailableError where it was not trained yet."""
    directory = settings.weights_dir / model
    if not (directory / WEIGHTS).is_file():
        raise CheckpointUnavailableError(
            f"{directory} holds no model.safetensors: train it first, "
            f"`python -m xai_demo train {model} --data {data} --out {directory}`."
        )
    record = read_model(directory)
    path = directory / WEIGHTS
    Digests().verified(path, sha256=record.sha256)
    network = networks.architecture(record).whole(record)
    network.load_state_dict(read_tensors(path))
    return record, network.eval()


def persons(directory: Path) -> frozenset[str] | None:
    """Whom a network learnt from; None where its training did not write that."""
    path = directory / PERSONS
    if not path.is_file():
        return None
    return frozenset(json.loads(path.read_text(encoding="utf-8"))["learnt_from"])


def check_folder(data: Path) -> None:
    """Raise TrainingError where that is no directory."""
    if not data.is_dir():
        raise TrainingError(f"{data} is no directory, wanted: a data set in its published layout.")


def check_part(data: Dataset, split: Split, n_labels: int) -> None:
    """Raise TrainingError where a split has samples of fewer labels than that."""
    targets = data.targets[data.indices(split)]
    if data.is_independent:  # a label is met where some samples have it; without any is one too
        bare = int(not targets.any(axis=1).all())
        met = int(targets.any(axis=0).sum()) + bare
    else:
        met = len(set(targets))
    if met < n_labels:
        raise TrainingError(
            f"The {split} part of {data.name} has {len(targets)} samples of {met} "
            f"labels, wanted: samples of at least {n_labels}."
        )


def _write(out: Path, model: Model, evaluation: Evaluation) -> None:
    """The figures as JSON, and for every set of answers the pictures, in a folder of its name."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(evaluation.result, indent=2, allow_nan=False) + "\n"
    write_atomically(out / FILE, text)
    normal = model.labels.index(model.normal_label) if model.normal_label else None
    for folder, answers in evaluation.answers.items():
        plots.write(
            out / folder,
            model=f"{model.name} {folder}".rstrip(),
            labels=model.labels,
            answers=(answers.probabilities, answers.targets, answers.decided),
            normal=normal,
        )
