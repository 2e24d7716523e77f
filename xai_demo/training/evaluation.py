"""One evaluation: from a model directory and a data set to figures, and pictures of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import networks
from xai_demo.decision import decided_index
from xai_demo.engine import read_tensors
from xai_demo.errors import CheckpointUnavailableError, TrainingError
from xai_demo.hub import Hub
from xai_demo.training import loop, metrics, pictures
from xai_demo.training.calibration import softmax
from xai_demo.training.recipes import recipe_of
from xai_demo.training.schedule import Answers, Evaluation

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model, Progress
    from xai_demo.settings import Settings
    from xai_demo.training.dataset import DataSet, Split

PERSONS = "persons.json"  # beside the weights: whom the network learnt from
FILE = "evaluation.json"


def evaluate(
    model: str, *, settings: Settings, data: Path, out: Path | None, progress: Progress | None
) -> dict[str, Any]:
    """See `xai_demo.training.evaluate`."""
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
        check_part(data_set, "test", 1)
        tell(0.3, "asking the network")
        logits, targets = loop.outputs(network, data_set, "test")
        tell(0.8, "bootstrap by person")
        probabilities = softmax(logits.numpy().astype(np.float64) / record.temperature)
        evaluation = _evaluation(record, data_set, probabilities, targets.numpy())
    if out is not None:
        _write(out, record, evaluation)
    return evaluation.result


def trained(model: str, *, settings: Settings, data: Path) -> tuple[Model, nn.Module]:
    """A model with its network; raises CheckpointUnavailableError where it was not trained yet."""
    directory = settings.weights_dir / model
    if not (directory / "model.safetensors").is_file():
        raise CheckpointUnavailableError(
            f"{directory} holds no model.safetensors: train it first, "
            f"`python -m xai_demo train {model} --data {data} --out {directory}`."
        )
    hub = Hub(settings)
    record = hub.model(model)
    network = networks.architecture(record).whole(record)
    network.load_state_dict(read_tensors(hub.located(model).path))
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


def check_part(data: DataSet, split: Split, n_labels: int) -> None:
    """Raise TrainingError where a split has samples of fewer labels than that."""
    targets = data.targets[data.indices(split)]
    if len(set(targets)) < n_labels:
        raise TrainingError(
            f"The {split} part of {data.name} has {len(targets)} samples of {len(set(targets))} "
            f"labels, wanted: samples of at least {n_labels}."
        )


def _evaluation(
    model: Model, data: DataSet, probabilities: metrics.Array, targets: metrics.Labels
) -> Evaluation:
    decided = np.array([decided_index(model, row) for row in probabilities])
    groups = [data.groups[i] for i in data.indices("test")]
    normal = model.labels.index(model.normal_label) if model.normal_label else None
    overall = metrics.with_intervals(
        lambda w: metrics.summary(probabilities, targets, decided, w, normal), groups
    )
    each = metrics.with_intervals(
        lambda w: {
            f"{label}\n{name}": value
            for label, row in zip(
                model.labels,
                metrics.per_class(probabilities, targets, decided, w).values(),
                strict=True,
            )
            for name, value in row.items()
        },
        groups,
    )
    by_label: dict[str, dict[str, Any]] = {label: {} for label in model.labels}
    for key, value in metrics.as_json(each).items():
        label, name = key.split("\n")
        by_label[label][name] = value
    counts = metrics.confusion(targets, decided, np.ones(len(targets)), len(model.labels))
    result = {
        "model": model.name,
        "data": data.name,
        "split": "test",
        "n": len(targets),
        "groups": len(set(groups)),
        "metrics": metrics.as_json(overall),
        "per_class": by_label,
        "confusion": {"labels": list(model.labels), "counts": counts.astype(int).tolist()},
        "threshold": dict(model.operating_points),
        "notes": list(data.notes),
    }
    answers = Answers(probabilities=probabilities, targets=targets, decided=decided)
    return Evaluation(result=result, answers={"": answers})


def _write(out: Path, model: Model, evaluation: Evaluation) -> None:
    """The figures as JSON, and for every set of answers the pictures, in a folder of its name."""
    out.mkdir(parents=True, exist_ok=True)
    part = out / f"{FILE}.part"
    text = json.dumps(evaluation.result, indent=2, allow_nan=False) + "\n"
    part.write_text(text, encoding="utf-8")
    os.replace(part, out / FILE)
    normal = model.labels.index(model.normal_label) if model.normal_label else None
    for folder, answers in evaluation.answers.items():
        pictures.write(
            out / folder,
            model=f"{model.name} {folder}".rstrip(),
            labels=model.labels,
            answers=(answers.probabilities, answers.targets, answers.decided),
            normal=normal,
        )


__all__ = ["FILE", "PERSONS", "evaluate", "persons", "trained"]
