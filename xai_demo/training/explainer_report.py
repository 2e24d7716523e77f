"""What was measured of the explainers, as tables, and in plain words what it comes to. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

FEWEST = 5  # persons: an interval over fewer says nothing
ALIKE = 0.5  # heat whose rank correlation is surely under this depends on the weights
REAL = "real"  # the part of what was recorded, as `truths` calls it
_SNR_DB = "10"  # of the made sounds that the verdict speaks of
_RULES = {
    "chance": "chance",
    "energy": "the brightest cell of the input",
    "centre": "the centre of the picture",
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
    "insertion_auc": "the picture comes out of a blur, hottest places first: how probable the "
    "label is on the way. High is good.",
    "deletion_auc": "the hottest places are hidden first: how probable the label stays. Low is "
    "good.",
    "average_drop": "share of the probability lost when only the heat shows through. Low is good.",
    "average_increase": "how often the label is more probable when only the heat shows through. "
    "High is good.",
    "road": "what taking the hottest places away costs more than taking the coldest away. High is "
    "good, 0 is chance.",
    "pointing": "how often the hottest point lies where the finding is.",
    "pointing_chance": "how often a point chosen blindly would: the share that the finding covers.",
    "pointing_energy": "how often the brightest cell of what the network is given does, without "
    "any network.",
    "pointing_centre": "how often the centre of the picture does.",
    "pointing_judged": "how often it lies in a stretch that was given any label, normal ones too: "
    "of the others nobody said what they are.",
    "heat_inside": "share of all heat that lies where the finding is; compare it with "
    "pointing_chance.",
    "iou": "overlap of what is hot and the finding, 0 to 1.",
    "randomisation": "how alike the heat is when the weights are random (rank correlation, 0 to "
    "1). Low is good: heat that does not change says nothing about the network.",
    "cost_ms": "milliseconds of one explanation on the machine that measured.",
}


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown tables with 95 % intervals in brackets, and the verdict."""
    asked = f"{result['model']}, {result['n']} samples, one a person, that it got right."
    return "\n".join([*_tables(result), "", asked, *_coverage_notes(result), "", *verdict(result)])


def card_section(result: dict[str, Any]) -> list[str]:
    """What a model card says under "How far the explanations can be believed"."""
    rows = result["explainers"].values()
    shown = [name for name in _READINGS if any(row.get(name) is not None for row in rows)]
    return [
        f"By `python -m xai_demo evaluate-explainers {result['model']} --data DIR --write-card`, "
        f"on persons that it was not trained on and on answers that were right: "
        f"{result['n']} samples, one a person. In brackets 95 % bootstrap intervals over persons.",
        "",
        *verdict(result),
        "",
        *_tables(result),
        "",
        "How to read the columns:",
        "",
        *(f"- `{name}`: {_READINGS[name]}" for name in shown),
        *([""] if _coverage_notes(result) else []),
        *_coverage_notes(result),
    ]


def verdict(result: dict[str, Any]) -> list[str]:
    """Which explainers stand the checks, in sentences; a check is stood if its interval says so."""
    rows, counts = result["explainers"], result.get("counts", {})
    tried = {name: counts.get(name, {}).get("trial", FEWEST) for name in rows}
    pointed = {name: counts.get(name, {}).get("persons", FEWEST) for name in rows}
    better = "Points at the finding better than"
    lines = [
        _verdict_line("Heat depends on the weights", rows, tried, _depends_on_weights),
        _verdict_line(
            "Hiding the heat costs more than hiding the rest", rows, tried, _is_above_zero("road")
        ),
        *(
            _verdict_line(
                f"{better} {what}", rows, pointed, _is_above_zero(f"pointing_above_{than}")
            )
            for than, what in _RULES.items()
        ),
        *_mixture_verdict(result),
    ]
    return ["\n".join(line for line in lines if line) or "Nothing could be judged."]


def _mixture_verdict(result: dict[str, Any]) -> Iterator[str]:
    rows = {name: parts.get(_SNR_DB, {}) for name, parts in result.get("synthesised", {}).items()}
    persons = {name: row.get("persons", 0) for name, row in rows.items()}
    for what in ("time", "band"):
        for than in ("chance", "energy"):
            yield _verdict_line(
                f"Finds the {what} of sounds made at {_SNR_DB} dB better than {_RULES[than]}",
                rows,
                persons,
                _is_above_zero(f"{what}_above_{than}"),
            )


def _verdict_line(
    what: str,
    rows: dict[str, dict[str, Any]],
    persons: dict[str, int],
    check: Callable[[dict[str, Any]], bool | None],
) -> str:
    """One line of the verdict; empty where nobody was asked."""
    found = {name: check(row) for name, row in rows.items()}
    measured = [name for name, stood in found.items() if stood is not None]
    asked = [name for name in measured if persons[name] >= FEWEST]
    if not measured:
        return ""
    few = f" Asked about fewer than {FEWEST} persons, so not judged: "
    few = few + f"{', '.join(n for n in measured if n not in asked)}." if asked != measured else ""
    if not asked:
        return f"- {what}:{few}"
    stood = [name for name in asked if found[name]]
    if len(stood) == len(asked) > 1:
        return f"- {what}: all {len(asked)}.{few}"
    return f"- {what}: {', '.join(stood) or f'none of {len(asked)}'}.{few}"


def _depends_on_weights(row: dict[str, Any]) -> bool | None:
    high = _interval_end(row, "randomisation", "high")
    return None if high is None else high < ALIKE


def _is_above_zero(name: str) -> Callable[[dict[str, Any]], bool | None]:
    def check(row: dict[str, Any]) -> bool | None:
        low = _interval_end(row, name, "low")
        return None if low is None else low > 0

    return check


def _interval_end(row: dict[str, Any], name: str, end: str) -> float | None:
    """One end of a figure's interval; None where it was not measured or is not defined."""
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
    """Pointing for each label alone, with chance beside it."""
    labels = list(dict.fromkeys(k for row in result["per_label"].values() for k in row))
    if len(labels) < 2:
        return []
    rows = {
        name: {label: figures.get("pointing") for label, figures in row.items()}
        for name, row in result["per_label"].items()
    }
    chance = {
        label: next(r[label]["pointing_chance"] for r in result["per_label"].values() if r[label])
        for label in labels
    }
    return ["", "`pointing` by label:", "", *_table(labels, {**rows, "*a random point*": chance})]


def _box_table(result: dict[str, Any]) -> list[str]:
    """For each boxed finding how many were found, and of those how many were localised."""
    each = [
        (label, name, row[label])
        for name, row in result["per_label"].items()
        for label in row
        if "iou_0.5" in row[label]
    ]
    if not each:
        return []
    asked = result["answered"][REAL]
    lines = [
        "",
        "By finding: boxes asked about, found by the network (true positives; only these are "
        "explained), and of the found ones the share whose heat points into the box, and whose hot "
        "box overlaps it by at least so much:",
        "",
        "| finding | boxed | found | explainer | " + " | ".join(_OF_BOXES) + " |",
        "| --- " * (len(_OF_BOXES) + 4) + "|",
    ]
    for label, name, row in sorted(each, key=lambda found: found[0]):
        counts = f"{asked[label]['files']} | {asked[label]['right']}"
        cells = " | ".join(_format_cell(row.get(column)) for column in _OF_BOXES)
        lines.append(f"| {label} | {counts} | {name} | {cells} |")
    missed = [label for label, n in asked.items() if not n["right"]]
    if missed:
        lines += ["", f"Boxed but never found, so not explained: {', '.join(sorted(missed))}."]
    return lines


def _mixture_table(result: dict[str, Any]) -> list[str]:
    made = result["synthesised"]
    snrs = list(next(iter(made.values())))
    lines = [
        "",
        "Sounds made for the test, by signal-to-noise ratio: how often the hottest point lies in "
        "the event's time, and in its band (tolerance: "
        f"{result['tolerance']['time_s']:g} s and {result['tolerance']['mel_bands']:g} mel bands; "
        "chance and the brightest cell have it too):",
    ]
    for what in ("time", "band"):
        rows = {
            name: {f"{snr} dB": row[snr].get(f"{what}_hit") for snr in snrs}
            for name, row in made.items()
        }
        for rule, key in (("a random point", "chance"), ("the brightest cell", "energy")):
            rows[f"*{rule}*"] = {
                f"{snr} dB": next(
                    (row[snr][f"{key}_{what}"] for row in made.values() if row[snr]["n"]), None
                )
                for snr in snrs
            }
        header, *rest = _table([f"{snr} dB" for snr in snrs], rows)
        lines += ["", header.replace("explainer", f"{what} hit", 1), *rest]
    return lines


def _coverage_notes(result: dict[str, Any]) -> list[str]:
    """On how much each figure rests, and what was left out."""
    counts = result.get("counts", {})
    few = [f"{name} {c['trial']} and {c['pointing']}" for name, c in counts.items()]
    uneven = len({tuple(c.values()) for c in counts.values()}) > 1
    lines = []
    if uneven or result.get("truth"):
        lines += ["", f"Samples hidden in and files pointed at: {', '.join(few)}."]
    for part, labels in result.get("answered", {}).items():
        what = "Annotated" if part == "real" else f"Made at {part} dB"
        told = ", ".join(f"{k} {c['right']} of {c['files']}" for k, c in labels.items())
        lines += ["", f"{what}, answered right and therefore asked about: {told}."]
    return lines + [line for note in result.get("notes", []) for line in ("", note)]


def _format_cell(figure: Any) -> str:
    if isinstance(figure, dict) and figure.get("value") is not None:
        return f"{figure['value']:.2f} ({figure['low']:.2f}-{figure['high']:.2f})"
    return f"{figure:.0f}" if isinstance(figure, float | int) else "-"
