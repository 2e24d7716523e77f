"""What a model card says of training and evaluation: from records to lines of Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xai_demo.training.metrics import interval_text

if TYPE_CHECKING:
    from xai_demo.records import Model
    from xai_demo.training.recipe import Recipe, Schedule

_PER_CLASS = ("precision", "recall", "f1", "auroc")
_HEADINGS = {"f1": "F1", "auroc": "AUROC"}
_PART_FIGURES = ("f1", "balanced_accuracy", "accuracy", "auroc")
# Of independent labels, where a test may hold no finding at all.
_LISTING_FIGURES = ("findings_per_sample", "samples_with_findings", "specificity", "auroc")
_SITE_FIGURES = (
    "auroc_abnormal", "average_score", "average_score_4", "balanced_accuracy_3", "ece"
)  # fmt: skip
_CHALLENGE_SCORES = (
    "sensitivity", "specificity", "average_score", "harmonic_score", "total_score"
)  # fmt: skip
# How a card calls the keys of `evaluate --json`, which stay as they were first published.
_PART_NAMES = {
    "internal, the lungs blotted out": "internal test, lungs masked",
    "internal, a linear classifier taught on pictures without lungs": (
        "internal test, linear classifier trained on radiographs with masked lungs"
    ),
    "external: adults of NIH ChestX-ray14 (no COVID-19 among them)": (
        "external test: adults from NIH ChestX-ray14 (no COVID-19 among them)"
    ),
}


def measured_on(samples: int, groups: int) -> str:
    """What the figures in config.json were measured on.

    >>> measured_on(822, 420)
    '822 samples from 420 patients or sources, none used for training or tuning'
    """
    return f"{samples} samples from {groups} patients or sources, none used for training or tuning"


def training(recipe: Recipe, model: Model) -> str:
    """How the model was trained, and what was chosen on the validation split."""
    schedule = recipe.schedule
    optimiser = "AdamW" if schedule.decoupled_decay else "Adam"
    course = "one cycle"
    if schedule.plateau_patience:
        course = f"halved after {schedule.plateau_patience} epochs without improvement"
    parts = [
        f"{schedule.epochs} epochs",
        f"{optimiser} with learning rate {schedule.learning_rate:g} ({course}) and weight decay "
        f"{schedule.weight_decay:g}",
        f"batches of {schedule.batch_size}",
        f"mixup {schedule.mixup:g}",
        f"label smoothing {schedule.label_smoothing:g}",
        *_unusual_settings(schedule),
        f"classes sampled in proportion to their size to the power {schedule.sampling_power:g}",
        "weights averaged over steps",
        "the best validation epoch kept",
    ]
    return (
        f"Trained by `python -m xai_demo train {model.name} --data DIR --out "
        f"weights/{model.name}`: {'; '.join(parts)}. Chosen on the validation split: "
        f"{'; '.join(_choices(model))}."
    )


def _unusual_settings(schedule: Schedule) -> list[str]:
    """The settings that most schedules leave at their defaults."""
    parts = []
    if schedule.low_resolution_share:
        parts.append(
            f"the first {schedule.low_resolution_share:.0%} of the epochs at "
            f"{schedule.low_resolution_scale:.0%} of the resolution"
        )
    if schedule.unfreeze_every:
        parts.append(
            f"one more stage unfrozen every {schedule.unfreeze_every} epochs, starting at the last"
        )
    if schedule.dropout is not None:
        parts.append(f"dropout {schedule.dropout:g}")
    if schedule.label_weight_power:
        parts.append(f"labels weighted by their size to the power -{schedule.label_weight_power:g}")
    if schedule.focal_gamma:
        parts.append(f"focal loss with gamma {schedule.focal_gamma:g}")
    if schedule.smote:
        parts.append("last layer refitted on features balanced by SMOTE")
    if schedule.patience:
        parts.append(f"stopped after {schedule.patience} epochs without improvement")
    return parts


def _choices(model: Model) -> list[str]:
    """Temperature, operating points and what is uncertain."""
    parts = [f"temperature {model.temperature:g}"]
    if model.operating_points:
        points = ", ".join(f"{label} {p:.3f}" for label, p in model.operating_points.items())
        parts.append(f"operating points {points}")
    if model.any_label_point is not None:
        parts.append(f"none listed where the probability of any is below {model.any_label_point}")
    if model.event_points:
        points = ", ".join(f"{label} {p:.3f}" for label, p in model.event_points.items())
        parts.append(f"for events on the timeline {points}")
    if model.uncertain_margin is not None:
        parts.append(
            f"uncertain if the two best labels are closer than {model.uncertain_margin:.3f}"
        )
    if model.uncertain_below is not None:
        parts.append(f"uncertain below {model.uncertain_below:.3f}")
    return parts


def evaluation(model: Model, result: dict[str, Any] | None) -> list[str]:
    """The tables of an evaluation or, without one, the command to run."""
    command = f"`python -m xai_demo evaluate {model.name} --data DIR --write-card`"
    if result is None:
        return [f"Not measured yet. Run {command}."]
    per_class = result["per_class"]
    # Not every result has the accuracy of each label.
    extra = ("accuracy",) if all("accuracy" in row for row in per_class.values()) else ()
    names = (*_PER_CLASS, *extra)
    lines = [
        f"Test split: {model.measured_on}. Brackets give 95 % bootstrap intervals over patients or "
        f"sources. Measured by {command}.",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {name} | {interval_text(row)} |" for name, row in result["metrics"].items()),
        "",
        "| label | " + " | ".join(_HEADINGS.get(name, name) for name in names) + " |",
        "| --- " * (len(names) + 1) + "|",
    ]
    for label, row in per_class.items():
        lines.append(
            f"| {label} | " + " | ".join(interval_text(row[name]) for name in names) + " |"
        )
    lines += ["", *_confusion(result["confusion"])]
    lines += _parts(result.get("parts", {})) + _sites(result)
    # Every note is a paragraph, so an empty line comes before it.
    return lines + [f"\n{note}" for note in result.get("notes", [])]


def _confusion(confusion: dict[str, Any]) -> list[str]:
    labels, counts = confusion["labels"], confusion["counts"]
    # Independent labels have a matrix of two by two each.
    if labels and isinstance(counts[0][0], list):
        return [
            "| label | true positives | false negatives | false positives | true negatives |",
            "| --- | --- | --- | --- | --- |",
            *(
                # Rows are the truth, columns the answer, absent before present.
                f"| {label} | {present[1]} | {present[0]} | {absent[1]} | {absent[0]} |"
                for label, (absent, present) in zip(labels, counts, strict=True)
            ),
        ]
    lines = [
        "| true \\ predicted | " + " | ".join(labels) + " |",
        "| --- " * (len(labels) + 1) + "|",
    ]
    for label, row in zip(labels, counts, strict=True):
        lines.append(f"| {label} | " + " | ".join(map(str, row)) + " |")
    return lines


def _parts(parts: dict[str, Any]) -> list[str]:
    """The same model on other data, or another classifier on the same data."""
    if not parts:
        return []
    has_listings = all(_LISTING_FIGURES[0] in part["metrics"] for part in parts.values())
    figures = _LISTING_FIGURES if has_listings else _PART_FIGURES
    lines = [
        "",
        "On other radiographs, and on parts of these (macro averages over the labels present):",
        "",
        "| test | radiographs | " + " | ".join(figures) + " |",
        "| --- " * (len(figures) + 2) + "|",
    ]
    for key, part in parts.items():
        cells = " | ".join(interval_text(part["metrics"][figure]) for figure in figures)
        lines.append(f"| {_PART_NAMES.get(key, key)} | {part['n']} | {cells} |")
    # Below the table, which a matrix would interrupt.
    for key, part in parts.items():
        name = _PART_NAMES.get(key, key)
        # Not capitalize(), which would make COVID and NIH lower case.
        heading = name[0].upper() + name[1:]
        lines += ["", f"{heading}:", "", *_confusion(part["confusion"])]
    return lines


def _sites(result: dict[str, Any]) -> list[str]:
    """Lung sounds by dataset and level, without datasets whose patients were all trained on."""
    rows = [
        (site, level, row)
        for site, levels in result.get("sites", {}).items()
        for level, row in levels.items()
        # All patients of such a dataset were trained on.
        if site not in result.get("no_test", ())
    ]
    if not rows:
        return []
    lines = [
        "",
        "By dataset: single events or breaths, with everything around them masked, and whole "
        "recordings as the demo analyses them:",
        "",
        "| dataset | level | samples | patients | " + " | ".join(_SITE_FIGURES) + " |",
        "| --- " * (len(_SITE_FIGURES) + 4) + "|",
    ]
    for site, level, row in rows:
        cells = " | ".join(interval_text(row["metrics"][name]) for name in _SITE_FIGURES)
        lines.append(f"| {site} | {level} | {row['n']} | {row['groups']} | {cells} |")
    for site, level, row in rows:
        lines += _record_level(f"{site}, {level}", row.get("record_level"))
        lines += _timeline(f"{site}, {level}", row.get("timeline"))
        lines += _by_detail(f"{site}, {level}", row.get("by_detail"))
        lines += _by_device(f"{site}, {level}", row.get("by_device"))
    return lines


def _by_device(subject: str, rows: dict[str, Any] | None) -> list[str]:
    """How well normal and abnormal are told apart with each stethoscope."""
    if not rows:
        return []
    return [
        "",
        f"{subject}, by stethoscope or microphone:",
        "",
        "| device | samples | abnormal | patients | auroc_abnormal |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {name} | {row['n']} | {row['abnormal']} | {row['groups']} | "
            f"{interval_text(row['auroc_abnormal'])} |"
            for name, row in rows.items()
        ),
    ]


def _by_detail(subject: str, rows: dict[str, Any] | None) -> list[str]:
    """The share of each kind of sound that was found, where a dataset tells more than classes."""
    if not rows:
        return []
    return [
        "",
        f"{subject}, by the dataset's own names of the sounds:",
        "",
        "| sound | samples | found |",
        "| --- | --- | --- |",
        *(f"| {name} | {row['n']} | {interval_text(row['found'])} |" for name, row in rows.items()),
    ]


def _timeline(subject: str, timeline: dict[str, Any] | None) -> list[str]:
    """How well the events on the demo's timeline agree with the annotated ones."""
    if not timeline:
        return []
    return [
        "",
        f"{subject}, over time: events on the timeline compared with annotated events, in "
        f"{timeline['n']} recordings, {timeline['normal']} of which have none:",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {name} | {interval_text(row)} |" for name, row in timeline["metrics"].items()),
    ]


def _record_level(subject: str, record: dict[str, Any] | None) -> list[str]:
    """SPRSound's own scores of whole recordings."""
    if not record:
        return []
    return [
        "",
        f"{subject}, scored as in its challenge, where poor quality is a class of its own that "
        f"this model never predicts ({record['poor_quality']} of {record['n']}):",
        "",
        "| classes | " + " | ".join(_CHALLENGE_SCORES) + " |",
        "| --- " * (len(_CHALLENGE_SCORES) + 1) + "|",
        *(
            f"| {classes} | "
            + " | ".join(
                interval_text(record["metrics"][f"{name}_{count}"]) for name in _CHALLENGE_SCORES
            )
            + " |"
            for count, classes in (("3", "normal, abnormal, poor"), ("5", "all five"))
        ),
    ]
