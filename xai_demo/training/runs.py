"""One training run, one evaluation: from a data set to a model directory, and to figures."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save

from xai_demo import networks
from xai_demo.decision import decided_index, standing
from xai_demo.engine import read_tensors
from xai_demo.errors import CheckpointUnavailableError, TrainingError
from xai_demo.hub import Hub
from xai_demo.records import Model
from xai_demo.training import cards, loop, metrics
from xai_demo.training.dataset import DataSet, Split
from xai_demo.training.recipes import Recipe, recipe_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Progress
    from xai_demo.settings import Settings


def train(
    recipe: str,
    *,
    data: Path,
    out: Path,
    epochs: int | None,
    seed: int,
    resume: bool,
    progress: Progress | None,
) -> Path:
    """See `xai_demo.training.train`."""
    chosen = recipe_of(recipe)
    _check(data)
    tell = progress or (lambda done, doing: None)
    tell(0.0, "reading the data")
    data_set = chosen.read(data, chosen.model)
    schedule = dataclasses.replace(chosen.schedule, epochs=epochs or chosen.schedule.epochs)
    _check_part(data_set, "train", 2)
    _check_part(data_set, "validation", 2)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    network = networks.architecture(chosen.model).whole(chosen.model)
    loop.fit(network, data_set, schedule, out=out, seed=seed, resume=resume, progress=tell)
    logits, targets = loop.outputs(network.float(), data_set, "validation")
    model = _calibrated(chosen, logits.numpy().astype(np.float64), targets.numpy())
    _write(out, model, network, chosen)
    return out


def evaluate(
    model: str, *, settings: Settings, data: Path, progress: Progress | None
) -> dict[str, Any]:
    """See `xai_demo.training.evaluate`."""
    recipe = recipe_of(model)
    _check(data)
    directory = settings.weights_dir / model
    if not (directory / "model.safetensors").is_file():
        raise CheckpointUnavailableError(
            f"{directory} holds no model.safetensors: train it first, "
            f"`python -m xai_demo train {model} --data {data} --out {directory}`."
        )
    tell = progress or (lambda done, doing: None)
    hub = Hub(settings)
    record = hub.model(model)
    network = networks.architecture(record).whole(record)
    network.load_state_dict(read_tensors(hub.located(model).path))
    tell(0.0, "reading the data")
    data_set = recipe.read(data, record)
    _check_part(data_set, "test", 1)
    tell(0.3, "asking the network")
    logits, targets = loop.outputs(network.eval(), data_set, "test")
    tell(0.8, "bootstrap by person")
    return _figures(record, data_set, logits.numpy().astype(np.float64), targets.numpy())


def _check(data: Path) -> None:
    if not data.is_dir():
        raise TrainingError(f"{data} is no directory, wanted: a data set in its published layout.")


def _check_part(data: DataSet, split: Split, n_labels: int) -> None:
    targets = data.targets[data.indices(split)]
    if len(set(targets)) < n_labels:
        raise TrainingError(
            f"The {split} part of {data.name} has {len(targets)} samples of {len(set(targets))} "
            f"labels, wanted: samples of at least {n_labels}."
        )


def _figures(
    model: Model, data: DataSet, logits: NDArray[np.float64], targets: NDArray[np.int64]
) -> dict[str, Any]:
    probabilities = softmax(logits / model.temperature)
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
    return {
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


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """(samples, labels) -> probabilities."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def _calibrated(recipe: Recipe, logits: NDArray[np.float64], targets: NDArray[np.int64]) -> Model:
    """The model with temperature, operating points and doubt, all chosen on validation."""
    temperatures = np.geomspace(0.25, 4, 200)
    rows = np.arange(len(targets))
    losses = [-np.log(softmax(logits / t)[rows, targets] + 1e-12).mean() for t in temperatures]
    temperature = float(temperatures[int(np.argmin(losses))])
    probabilities = softmax(logits / temperature)
    model = dataclasses.replace(recipe.model, temperature=round(temperature, 4))
    if model.normal_label:
        normal = model.labels.index(model.normal_label)
        points = (
            _two_points(probabilities, targets, normal)
            if len(model.labels) == 2
            else _operating_points(probabilities, targets, normal)
        )
        model = dataclasses.replace(
            model,
            operating_points={
                k: round(float(v), 4) for k, v in zip(model.labels, points, strict=True)
            },
        )
    ranked = np.sort([standing(model, row) for row in probabilities], axis=1)
    doubt = float(np.quantile(ranked[:, -1] - ranked[:, -2], recipe.uncertainty))
    return dataclasses.replace(model, uncertain_margin=round(doubt, 4))


_FEW = 30  # a label with fewer validation samples is treated as if it had these


def _two_points(
    probabilities: NDArray[np.float64], targets: NDArray[np.int64], normal: int
) -> NDArray[np.float64]:
    point = _operating_point(probabilities[:, 1 - normal], targets != normal)
    points = np.full(2, point)
    points[normal] = 1 - point
    return points


def _operating_points(
    probabilities: NDArray[np.float64], targets: NDArray[np.int64], normal: int
) -> NDArray[np.float64]:
    """Operating points of the largest (sensitivity + specificity) / 2 plus balanced accuracy.

    They are the label's frequency to a power: frequencies themselves are best for balanced
    accuracy, equal points for accuracy. Scaled so that normal and the commonest finding add up
    to one.
    """
    n = probabilities.shape[1]
    frequency = np.maximum(np.bincount(targets, minlength=n), _FEW) / len(targets)
    best, chosen = -1.0, np.full(n, 0.5)
    for power in np.linspace(0, 1, 41):
        points = frequency**power
        decided = (probabilities / points).argmax(axis=1)
        figures = metrics.summary(probabilities, targets, decided, np.ones(len(targets)), normal)
        score = figures["average_score"] + figures["balanced_accuracy"]
        if score > best:
            abnormal = np.delete(points, normal).max()
            best, chosen = score, points / (points[normal] + abnormal)
    return chosen


def _operating_point(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """The threshold of the largest sensitivity + specificity (Youden 1950), amid its plateau."""
    levels = np.unique(scores)
    thresholds = np.r_[levels[0], (levels[1:] + levels[:-1]) / 2]
    youden = [(scores[positive] >= t).mean() + (scores[~positive] < t).mean() for t in thresholds]
    best = np.flatnonzero(np.isclose(youden, np.max(youden)))
    return float(thresholds[best].mean())


def _write(out: Path, model: Model, network: torch.nn.Module, recipe: Recipe) -> None:
    state = {
        k: (v.half() if v.is_floating_point() else v).contiguous().cpu()
        for k, v in network.state_dict().items()
    }
    content = save(state, metadata={"format": "pt"})
    part = out / "model.safetensors.part"
    part.write_bytes(content)
    os.replace(part, out / "model.safetensors")
    sha256 = hashlib.sha256(content).hexdigest()
    cards.write(out, dataclasses.replace(model, sha256=sha256))


__all__ = ["evaluate", "softmax", "train"]
