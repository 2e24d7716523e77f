"""Cross-validation by published folds: a network is trained anew for each and asked about it.

For data sets that are small enough, and whose makers say which samples belong together.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import networks
from xai_demo.decision import decided_index
from xai_demo.errors import TrainingError
from xai_demo.training import calibration, loop, metrics, objectives, tracking
from xai_demo.training.evaluation import check_part

if TYPE_CHECKING:
    from collections.abc import Callable

    from xai_demo.records import Model, Progress
    from xai_demo.training.dataset import DataSet
    from xai_demo.training.metrics import Array, Labels
    from xai_demo.training.schedule import Recipe

FILE = "cross_validation.json"
METHOD = (
    "For each fold a network is trained from the start by the recipe on the others, tuned and "
    "calibrated on the part of them that is held back for that, and asked about the fold, which it "
    "has not met. `accuracy` is the mean over the folds; all other figures are of the folds' "
    "answers together."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fold:
    """What was answered about one fold."""

    name: str
    probabilities: Array  # (samples, labels)
    targets: Labels
    decided: Labels
    groups: tuple[str, ...]


def cross_validate(
    recipe: Recipe,
    *,
    data: Path,
    out: Path | None = None,
    epochs: int | None = None,
    folds: int | None = None,
    seeds: int = 1,
    progress: Progress,
) -> dict[str, Any]:
    """Figures of all published folds, for each seed and on average.

    `out` keeps every fold's checkpoint, from which a run that was interrupted goes on, and gets the
    figures as cross_validation.json. Raises TrainingError for the data, or where `folds` are wanted
    that the data do not have.
    """
    assert recipe.folds is not None  # noqa: S101
    parts = list(recipe.folds(data, recipe.model))
    if folds not in (None, len(parts)):
        raise TrainingError(
            f"{folds} folds are asked for and {data} has {len(parts)} published ones, wanted: "
            "those, or no number."
        )
    schedule = dataclasses.replace(recipe.schedule, epochs=epochs or recipe.schedule.epochs)
    recipe = dataclasses.replace(recipe, schedule=schedule)
    rounds = []
    with ExitStack() as stack:
        where = out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for seed in range(seeds):
            answered = []
            for i, part in enumerate(parts):
                place = where / f"fold-{part[0]}-seed-{seed}"
                tell = _share(progress, seed * len(parts) + i, seeds * len(parts), part[0])
                answered.append(_fold(recipe, part, place, seed, tell))
            rounds.append(answered)
    result = _result(recipe.model, parts, rounds)
    if out is not None:
        write(out / FILE, result)
    return result


def _share(progress: Progress, index: int, count: int, name: str) -> Progress:
    """How far one of several folds is, as a part of all."""
    return lambda done, doing: progress((index + done) / count, f"fold {name}: {doing}")


def _fold(
    recipe: Recipe, part: tuple[str, DataSet], out: Path, seed: int, progress: Progress
) -> _Fold:
    import torch

    name, data = part
    check_part(data, "train", 2)
    check_part(data, "validation", 2)
    check_part(data, "test", 1)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    objective = objectives.of(networks.architecture(recipe.model).whole(recipe.model), recipe)
    network = loop.fit(
        objective,
        data,
        recipe.schedule,
        out=out,
        seed=seed,
        resume=True,
        progress=progress,
        track=lambda first: tracking.opened(
            "csv",
            tracking.Tracked(
                out=out,
                name=f"{recipe.model.name}, fold {name}",
                settings=dataclasses.asdict(recipe.schedule),
                first_step=first,
            ),
        ),
    )
    asked, truth = loop.outputs(network.float(), data, "validation")
    model = calibration.calibrated(recipe, asked.numpy().astype(np.float64), truth.numpy())
    logits, targets = loop.outputs(network, data, "test")
    answers = calibration.softmax(logits.numpy().astype(np.float64) / model.temperature)
    return _Fold(
        name=name,
        probabilities=answers,
        targets=targets.numpy(),
        decided=np.array([decided_index(model, row) for row in answers]),
        groups=tuple(data.groups[i] for i in data.indices("test")),
    )


def _result(
    model: Model, parts: list[tuple[str, DataSet]], rounds: list[list[_Fold]]
) -> dict[str, Any]:
    first = rounds[0]
    targets = np.concatenate([fold.targets for fold in first])
    groups = [group for fold in first for group in fold.groups]
    ends = np.cumsum([len(fold.targets) for fold in first])[:-1]

    def of(answered: list[_Fold]) -> Callable[[Array], dict[str, float]]:
        probabilities = np.concatenate([fold.probabilities for fold in answered])
        decided = np.concatenate([fold.decided for fold in answered])
        normal = model.labels.index(model.normal_label) if model.normal_label else None

        def figures(weights: Array) -> dict[str, float]:
            rows = metrics.summary(probabilities, targets, decided, weights, normal)
            right = np.split((decided == targets) * weights, ends)
            each = [
                r.sum() / w.sum()
                for r, w in zip(right, np.split(weights, ends), strict=True)
                if w.sum()
            ]
            return rows | {"accuracy": float(np.mean(each))}

        return figures

    figures = [of(answered) for answered in rounds]

    def mean(weights: Array) -> dict[str, float]:
        rows = [one(weights) for one in figures]
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def json_of(one: Callable[[Array], dict[str, float]]) -> dict[str, Any]:
        return metrics.as_json(metrics.with_intervals(one, groups))

    return {
        "model": model.name,
        "data": parts[0][1].name,
        "folds": len(parts),
        "seeds": len(rounds),
        "n": len(targets),
        "groups": len(set(groups)),
        "labels": {label: int((targets == i).sum()) for i, label in enumerate(model.labels)},
        "metrics": json_of(mean),
        "per_seed": [json_of(one) for one in figures],
        "per_fold": {
            fold.name: [
                round(float((each.decided == each.targets).mean()), 4)
                for each in (answered[i] for answered in rounds)
            ]
            for i, fold in enumerate(first)
        },
        "confusion": {
            "labels": list(model.labels),
            "counts": _confusion(rounds, len(model.labels)).astype(int).tolist(),
        },
        "method": METHOD,
        "notes": sorted({note for _, part in parts for note in part.notes}),
    }


def _confusion(rounds: list[list[_Fold]], n_labels: int) -> Array:
    """Of all folds of all rounds together, (labels, labels)."""
    counts = [
        metrics.confusion(fold.targets, fold.decided, np.ones(len(fold.targets)), n_labels)
        for answered in rounds
        for fold in answered
    ]
    total: Array = np.sum(counts, axis=0)
    return total


def card_section(result: dict[str, Any]) -> list[str]:
    """The figures as Markdown, for a model card."""
    who = "sources" if "per_fold" in result else "persons"
    rows = [
        f"| {name} | {row['value']:.3f} ({row['low']:.3f}-{row['high']:.3f}) |"
        for name, row in result["metrics"].items()
    ]
    return [
        f"{result['method']} {result['n']} samples of {result['groups']} {who}, "
        f"{result['folds']} folds, {result['seeds']} seeds; {_spread(result)}. In brackets 95 % "
        f"bootstrap intervals over {who}. By `python -m xai_demo cross-validate "
        f"{result['model']} --data DIR --write-card`.",
        "",
        "| figure | value |",
        "| --- | --- |",
        *rows,
    ]


def _spread(result: dict[str, Any]) -> str:
    """What each fold reached or, where the folds are dealt anew for each seed, each seed."""
    if "per_fold" in result:
        each = (
            f"fold {name} {', '.join(f'{value:.3f}' for value in values)}"
            for name, values in result["per_fold"].items()
        )
        return f"accuracy of {'; '.join(each)}"
    name = next(iter(result["metrics"]))
    values = ", ".join(f"{seed[name]['value']:.3f}" for seed in result["per_seed"])
    return f"{name} of the seeds one by one {values}"


def write(path: Path, result: dict[str, Any]) -> None:
    """The figures as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)


__all__ = ["FILE", "METHOD", "card_section", "cross_validate", "write"]
