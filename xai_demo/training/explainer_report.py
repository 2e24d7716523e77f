"""The measurements of explainers as Markdown tables, with a verdict in plain words.

A check is passed only if the 95 % interval of its figure says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

# An interval over fewer means nothing.
MIN_PATIENTS = 5
# With the heatmap of random weights; below it, heatmaps depend on the weights.
MAX_CORRELATION = 0.5
# The part of annotated files, as in `ground_truth`.
REAL = "real"
# Signal-to-noise ratio of the mixtures that the verdict is about.
_SNR_DB = "10"
# By the ends of names such as pointing_above_energy.
_RULES = {
    "chance": "chance",
    "energy": "the brightest cell of the input",
    "centre": "the centre of the image",
}
_COLUMNS = (
    "insertion_auc", "deletion_auc", "average_drop", "average_increase", "road", "pointing",
    "pointing_chance", "iou", "randomisation",
)  # fmt: skip
_PLACES = (
    "pointing", "pointing_chance", "pointing_energy", "pointing_centre", "pointing_judged",
    "heat_inside", "iou",
    "iou_0.1", "iou_0.25", "iou_0.5", "iou_0.75",
)  # fmt: skip
_OF_BOXES = ("pointing", "pointing_chance", "iou", "iou_0.1", "iou_0.25", "iou_0.5", "iou_0.75")
_READINGS = {
    "insertion_auc": "mean probability of the label while the input is revealed from a blur, "
    "hottest regions first. High is good.",
    "deletion_auc": "mean probability of the label while the input is masked, hottest regions "
    "first. Low is good.",
    "average_drop": "share of the probability lost when only the hot regions are visible. Low is "
    "good.",
    "average_increase": "how often the label becomes more probable when only the hot regions are "
    "visible. High is good.",
    "road": "how much more probability is lost by removing the hottest regions than by removing "
    "the coldest. High is good, 0 is chance.",
    "pointing": "how often the hottest point lies on the finding.",
    "pointing_chance": "how often a random point does: the share that the finding covers.",
    "pointing_energy": "how often the brightest cell of the network's input does, without any "
    "network.",
    "pointing_centre": "how often the centre of the image does.",
    "pointing_judged": "how often the hottest point lies in any labelled stretch, normal ones "
    "included; the other stretches have no label.",
    "heat_inside": "share of the whole heatmap that lies on the finding; compare it with "
    "pointing_chance.",
    "iou": "overlap of the hot region and the finding, 0 to 1.",
    "randomisation": "how similar the heatmap stays when the weights are randomised (rank "
    "correlation, 0 to 1). Low is good: a heatmap that does not change says nothing about the "
    "network.",
    "cost_ms": "milliseconds for one explanation on the machine that measured.",
}


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown tables with 95 % intervals in brackets, and the verdict."""
    summary = f"{result['model']} on {result['n']} correctly classified samples, one per patient."
    return "\n".join(
        [*_tables(result), "", summary, *_coverage_notes(result), "", *verdict(result)]
    )


def card_section(result: dict[str, Any]) -> list[str]:
    """The section "How far the explanations can be believed" of a model card, by line."""
    rows = result["explainers"].values()
    measured = [name for name in _READINGS if any(row.get(name) is not None for row in rows)]
    return [
        f"Measured by `python -m xai_demo evaluate-explainers {result['model']} --data DIR "
        "--write-card` on correct predictions for patients that the model was not trained on: "
        f"{result['n']} samples, one per patient. In brackets: 95 % bootstrap intervals by "
        "patient.",
        "",
        *verdict(result),
        "",
        *_tables(result),
        "",
        "How to read the columns:",
        "",
        *(f"- `{name}`: {_READINGS[name]}" for name in measured),
        *([""] if _coverage_notes(result) else []),
        *_coverage_notes(result),
    ]


def verdict(result: dict[str, Any]) -> list[str]:
    """Which explainers pass each check, in sentences."""
    rows, counts = result["explainers"], result.get("counts", {})
    # Where a result has no counts, its figures are judged.
    tested = {name: counts.get(name, {}).get("trial", MIN_PATIENTS) for name in rows}
    located = {name: counts.get(name, {}).get("persons", MIN_PATIENTS) for name in rows}
    better = "Points at the finding better than"
    lines = [
        _verdict_line("The heatmap depends on the weights", rows, tested, _depends_on_weights),
        _verdict_line(
            "Masking the hottest regions costs more than masking the coldest",
            rows,
            tested,
            _is_above_zero("road"),
        ),
        *(
            _verdict_line(
                f"{better} {what}", rows, located, _is_above_zero(f"pointing_above_{than}")
            )
            for than, what in _RULES.items()
        ),
        *_mixture_verdict(result),
    ]
    return ["\n".join(line for line in lines if line) or "No explainer could be judged."]


def _mixture_verdict(result: dict[str, Any]) -> Iterator[str]:
    rows = {name: parts.get(_SNR_DB, {}) for name, parts in result.get("synthesised", {}).items()}
    patients = {name: row.get("persons", 0) for name, row in rows.items()}
    for what in ("time", "band"):
        for than in ("chance", "energy"):
            yield _verdict_line(
                f"Finds the {what} of events mixed at {_SNR_DB} dB better than {_RULES[than]}",
                rows,
                patients,
                _is_above_zero(f"{what}_above_{than}"),
            )


def _verdict_line(
    what: str,
    rows: dict[str, dict[str, Any]],
    patients: dict[str, int],
    check: Callable[[dict[str, Any]], bool | None],
) -> str:
    """One line of the verdict; "" where nothing was measured."""
    passes = {name: check(row) for name, row in rows.items()}
    measured = [name for name, passed in passes.items() if passed is not None]
    # With too few patients, an explainer is named but neither passes nor fails.
    judged = [name for name in measured if patients[name] >= MIN_PATIENTS]
    if not measured:
        return ""
    unjudged = [name for name in measured if name not in judged]
    few = f" Not judged (fewer than {MIN_PATIENTS} patients): {', '.join(unjudged)}."
    few = few if unjudged else ""
    if not judged:
        return f"- {what}:{few}"
    passed = [name for name in judged if passes[name]]
    if len(passed) == len(judged) > 1:
        return f"- {what}: all {len(judged)}.{few}"
    return f"- {what}: {', '.join(passed) or f'none of {len(judged)}'}.{few}"


def _depends_on_weights(row: dict[str, Any]) -> bool | None:
    # The end of the interval that speaks against the explainer; so below.
    high = _interval_end(row, "randomisation", "high")
    return None if high is None else high < MAX_CORRELATION


def _is_above_zero(name: str) -> Callable[[dict[str, Any]], bool | None]:
    def check(row: dict[str, Any]) -> bool | None:
        low = _interval_end(row, name, "low")
        return None if low is None else low > 0

    return check


def _interval_end(row: dict[str, Any], name: str, end: str) -> float | None:
    """One end of a figure's interval; None where it was not measured or is undefined."""
    figure = row.get(name)
    value: float | None = figure[end] if isinstance(figure, dict) else None
    return value


def _tables(result: dict[str, Any]) -> list[str]:
    rows = result["explainers"]
    columns = _measured_columns(_COLUMNS, rows)
    lines = [*_table([*columns, "cost_ms"], rows)]
    if result.get("truth"):
        lines += [
            "",
            f"Against {result['truth']}:",
            "",
            *_table(_measured_columns(_PLACES, rows), rows),
        ]
        lines += _label_table(result)
        lines += _box_table(result)
    if result.get("synthesised"):
        lines += _mixture_table(result)
    return lines


def _measured_columns(names: Sequence[str], rows: dict[str, dict[str, Any]]) -> list[str]:
    return [name for name in names if any(name in row for row in rows.values())]


def _table(columns: Sequence[str], rows: dict[str, dict[str, Any]]) -> Iterator[str]:
    yield "| explainer | " + " | ".join(columns) + " |"
    yield "| --- " * (len(columns) + 1) + "|"
    for name, row in rows.items():
        yield (
            f"| {name} | " + " | ".join(_format_cell(row.get(column)) for column in columns) + " |"
        )


def _label_table(result: dict[str, Any]) -> list[str]:
    """Pointing for each label separately, with chance below."""
    labels = list(dict.fromkeys(k for row in result["per_label"].values() for k in row))
    # A single label would repeat the table above.
    if len(labels) < 2:
        return []
    rows = {
        name: {label: figures.get("pointing") for label, figures in row.items()}
        for name, row in result["per_label"].items()
    }
    # Chance is the same for every explainer, so the first that has the label will do.
    chance = {
        label: next(r[label]["pointing_chance"] for r in result["per_label"].values() if r[label])
        for label in labels
    }
    return ["", "`pointing` by label:", "", *_table(labels, {**rows, "*a random point*": chance})]


def _box_table(result: dict[str, Any]) -> list[str]:
    """How many boxes of each finding were detected, and how many of those localised."""
    each = [
        (label, name, row[label])
        for name, row in result["per_label"].items()
        for label in row
        # Only where the truth is boxes is there an overlap at thresholds.
        if "iou_0.5" in row[label]
    ]
    if not each:
        return []
    files = result["answered"][REAL]
    lines = [
        "",
        "By finding: radiographs with boxes; those on which the network detects the finding (true "
        "positives; only these are explained); and the share of the latter whose hottest point "
        "lies in the box, and whose hot region overlaps the box by at least so much:",
        "",
        "| finding | boxed | detected | explainer | " + " | ".join(_OF_BOXES) + " |",
        "| --- " * (len(_OF_BOXES) + 4) + "|",
    ]
    for label, name, row in sorted(each, key=lambda entry: entry[0]):
        counts = f"{files[label]['files']} | {files[label]['right']}"
        cells = " | ".join(_format_cell(row.get(column)) for column in _OF_BOXES)
        lines.append(f"| {label} | {counts} | {name} | {cells} |")
    missed = [label for label, n in files.items() if not n["right"]]
    if missed:
        lines += ["", f"Never detected, so not explained: {', '.join(sorted(missed))}."]
    return lines


def _mixture_table(result: dict[str, Any]) -> list[str]:
    """Hits in time and band for mixtures of every signal-to-noise ratio."""
    mixtures = result["synthesised"]
    # All explainers were given the same mixtures.
    snrs = list(next(iter(mixtures.values())))
    lines = [
        "",
        "Synthetic mixtures, by signal-to-noise ratio: how often the hottest point lies within "
        "the time, and within the band, of an event (with a tolerance of "
        f"{result['tolerance']['time_s']:g} s and {result['tolerance']['mel_bands']:g} mel bands, "
        "also for chance and the brightest cell):",
    ]
    for what in ("time", "band"):
        rows = {
            name: {f"{snr} dB": row[snr].get(f"{what}_hit") for snr in snrs}
            for name, row in mixtures.items()
        }
        for rule, key in (("a random point", "chance"), ("the brightest cell", "energy")):
            rows[f"*{rule}*"] = {
                f"{snr} dB": next(
                    (row[snr][f"{key}_{what}"] for row in mixtures.values() if row[snr]["n"]), None
                )
                for snr in snrs
            }
        header, *rest = _table([f"{snr} dB" for snr in snrs], rows)
        lines += ["", header.replace("explainer", f"{what} hit", 1), *rest]
    return lines


def _coverage_notes(result: dict[str, Any]) -> list[str]:
    """How many samples and files each figure is based on, and the notes."""
    counts = result.get("counts", {})
    numbers = [f"{name} {c['trial']} and {c['pointing']}" for name, c in counts.items()]
    uneven = len({tuple(c.values()) for c in counts.values()}) > 1
    lines = []
    if uneven or result.get("truth"):
        lines += ["", f"Masked samples and files with ground truth: {', '.join(numbers)}."]
    for part, labels in result.get("answered", {}).items():
        what = "Annotated files" if part == REAL else f"Mixtures at {part} dB"
        correct = ", ".join(f"{k} {c['right']} of {c['files']}" for k, c in labels.items())
        lines += ["", f"{what} classified correctly, and so explained: {correct}."]
    return lines + [line for note in result.get("notes", []) for line in ("", note)]


def _format_cell(figure: Any) -> str:
    if isinstance(figure, dict) and figure.get("value") is not None:
        return f"{figure['value']:.2f} ({figure['low']:.2f}-{figure['high']:.2f})"
    return f"{figure:.0f}" if isinstance(figure, float | int) else "-"
