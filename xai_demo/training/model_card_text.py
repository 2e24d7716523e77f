"""What a card says of the training and of the figures. Pure: records in, lines of Markdown out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xai_demo.records import Model
    from xai_demo.training.recipe import Recipe, Schedule

_PER_CLASS = ("precision", "recall", "f1", "auroc")
_HEADINGS = {"f1": "F1", "auroc": "AUROC"}
_OF_PARTS = ("f1", "balanced_accuracy", "accuracy", "auroc")
_OF_SITES = (
    "auroc_abnormal", "average_score", "average_score_4", "balanced_accuracy_3", "ece"
)  # fmt: skip
_SCORES = (
    "sensitivity", "specificity", "average_score", "harmonic_score", "total_score"
)  # fmt: skip


def training(recipe: Recipe, model: Model) -> str:
    """How it was trained, and what was chosen on validation."""
    schedule = recipe.schedule
    optimiser = "AdamW" if schedule.decoupled else "Adam"
    course = "one cycle"
    if schedule.plateau:
        course = f"halved after {schedule.plateau} epochs without a better validation"
    parts = [
        f"{schedule.epochs} epochs, {optimiser} {schedule.learning_rate:g} with weight decay "
        f"{schedule.weight_decay:g}, {course}, batch {schedule.batch_size}, "
        f"mixup {schedule.mixup:g}, label smoothing {schedule.label_smoothing:g}",
        *_chosen(schedule),
        f"classes sampled by their size to the power {schedule.sampling_power:g}",
        "weights averaged over steps, the best validation epoch kept",
    ]
    return (
        f"`python -m xai_demo train {model.name} --data DIR --out weights/{model.name}`: "
        f"{'; '.join(parts)}. Temperature {model.temperature:g}{_operating(model)}, chosen on "
        "validation."
    )


def _chosen(schedule: Schedule) -> list[str]:
    """Only what is not as usual."""
    said = []
    if schedule.small_until:
        said.append(
            f"{schedule.small_until:.0%} of the epochs on pictures of {schedule.small_scale:.0%} "
            "of the size"
        )
    if schedule.thaw_every:
        said.append(f"one more stage, from the last, learns every {schedule.thaw_every} epochs")
    if schedule.dropout is not None:
        said.append(f"dropout {schedule.dropout:g}")
    if schedule.weighted:
        said.append(f"labels weighted by their size to the power of -{schedule.weighted:g}")
    if schedule.focal:
        said.append(f"focal loss, gamma {schedule.focal:g}")
    if schedule.smote:
        said.append("last layer fitted anew on features balanced by SMOTE")
    if schedule.patience:
        said.append(f"stopped after {schedule.patience} epochs without a better validation")
    return said


def _operating(model: Model) -> str:
    points = ", ".join(f"{label} {p:.3f}" for label, p in model.operating_points.items())
    moments = ", ".join(f"{label} {p:.3f}" for label, p in model.event_points.items())
    doubt = f", of moments of a recording {moments}" if moments else ""
    if model.uncertain_margin is not None:
        doubt += f", uncertain where two labels are closer than {model.uncertain_margin:.3f}"
    if model.uncertain_below is not None:
        doubt += f", uncertain below {model.uncertain_below:.3f}"
    return (f", operating point {points}" if points else "") + doubt


def figures(model: Model, result: dict[str, Any] | None) -> list[str]:
    """The tables of an evaluation; without one, how to come by it."""
    if result is None:
        return [
            f"Not measured yet: `python -m xai_demo evaluate {model.name} --data DIR --write-card`."
        ]
    per_class = result["per_class"]
    extra = ("accuracy",) if all("accuracy" in row for row in per_class.values()) else ()
    names = (*_PER_CLASS, *extra)
    lines = [
        f"On the test split: {model.measured_on}. "
        "In brackets 95 % bootstrap intervals over persons. "
        f"By `python -m xai_demo evaluate {model.name} --data DIR --write-card`.",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {name} | {_shown(row)} |" for name, row in result["metrics"].items()),
        "",
        "| label | " + " | ".join(_HEADINGS.get(name, name) for name in names) + " |",
        "| --- " * (len(names) + 1) + "|",
    ]
    for label, row in per_class.items():
        lines.append(f"| {label} | " + " | ".join(_shown(row[name]) for name in names) + " |")
    lines += ["", *_confusion(result["confusion"])]
    lines += _parts(result.get("parts", {})) + _sites(result)
    return lines + [f"\n{note}" for note in result.get("notes", [])]


def _confusion(confusion: dict[str, Any]) -> list[str]:
    labels, counts = confusion["labels"], confusion["counts"]
    if labels and isinstance(counts[0][0], list):  # independent labels: two by two each
        return [
            "| label | present, found | present, missed | absent, found | absent, not found |",
            "| --- | --- | --- | --- | --- |",
            *(
                f"| {label} | {there[1]} | {there[0]} | {absent[1]} | {absent[0]} |"
                for label, (absent, there) in zip(labels, counts, strict=True)
            ),
        ]
    lines = [
        "| true \\ answered | " + " | ".join(labels) + " |",
        "| --- " * (len(labels) + 1) + "|",
    ]
    for label, row in zip(labels, counts, strict=True):
        lines.append(f"| {label} | " + " | ".join(map(str, row)) + " |")
    return lines


def _parts(parts: dict[str, Any]) -> list[str]:
    """The same model asked about other data, or as something else."""
    if not parts:
        return []
    lines = [
        "",
        "Asked about other hospitals, and with the lungs blotted out (macro averages over the "
        "classes that are there):",
        "",
        "| asked about | pictures | " + " | ".join(_OF_PARTS) + " |",
        "| --- " * (len(_OF_PARTS) + 2) + "|",
    ]
    for name, part in parts.items():
        cells = " | ".join(_shown(part["metrics"][figure]) for figure in _OF_PARTS)
        lines.append(f"| {name} | {part['n']} | {cells} |")
    for name, part in parts.items():
        lines += ["", f"{name}:", "", *_confusion(part["confusion"])]
    return lines


def _sites(result: dict[str, Any]) -> list[str]:
    """Lung sounds by where they come from, and by what was asked about; only what is a test."""
    rows = [
        (site, level, row)
        for site, levels in result.get("sites", {}).items()
        for level, row in levels.items()
        if site not in result.get("no_test", ())
    ]
    if not rows:
        return []
    lines = [
        "",
        "By where the sounds come from: single events or breaths, all around them blotted out, and "
        "whole recordings as the demo answers them:",
        "",
        "| sounds | asked about | number | persons | " + " | ".join(_OF_SITES) + " |",
        "| --- " * (len(_OF_SITES) + 4) + "|",
    ]
    for site, level, row in rows:
        cells = " | ".join(_shown(row["metrics"][name]) for name in _OF_SITES)
        lines.append(f"| {site} | {level} | {row['n']} | {row['groups']} | {cells} |")
    for site, level, row in rows:
        lines += _record_level(f"{site}, {level}", row.get("record_level"))
        lines += _timeline(f"{site}, {level}", row.get("timeline"))
    return lines


def _timeline(what: str, found: dict[str, Any] | None) -> list[str]:
    """How far the events of the demo's timeline agree with the annotated ones."""
    if not found:
        return []
    return [
        "",
        f"{what}, by time: the events on the timeline against the annotated ones, of "
        f"{found['n']} recordings, {found['normal']} of which have none:",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {name} | {_shown(row)} |" for name, row in found["metrics"].items()),
    ]


def _record_level(what: str, record: dict[str, Any] | None) -> list[str]:
    """SPRSound's own scores of recordings."""
    if not record:
        return []
    return [
        "",
        f"{what}, by the rules of its challenge, where poor quality is a class of its own that "
        f"this model never answers ({record['poor_quality']} of {record['n']}):",
        "",
        "| classes | " + " | ".join(_SCORES) + " |",
        "| --- " * (len(_SCORES) + 1) + "|",
        *(
            f"| {told} | "
            + " | ".join(_shown(record["metrics"][f"{name}_{count}"]) for name in _SCORES)
            + " |"
            for count, told in (("3", "normal, abnormal, poor"), ("5", "all five"))
        ),
    ]


def _shown(row: dict[str, float | None]) -> str:
    if row["value"] is None:
        return "not defined"
    return f"{row['value']:.3f} ({row['low']:.3f}-{row['high']:.3f})"
