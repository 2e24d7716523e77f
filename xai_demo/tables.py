"""Events as text to take away: a table for a spreadsheet, a label track for Audacity. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from xai_demo.records import Event

COLUMNS = ("label", "start_s", "end_s", "probability")

_FORMULA = ("=", "+", "-", "@")  # a spreadsheet takes a cell that starts so for a program


def events_csv(events: Iterable[Event]) -> str:
    """A table under COLUMNS, one event a row: seconds to the millisecond, RFC 4180."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for event in events:
        times = f"{event.start_s:.3f}", f"{event.end_s:.3f}"
        writer.writerow([_cell(event.label), *times, f"{event.probability:.4f}"])
    return text.getvalue()


def audacity_labels(events: Iterable[Event]) -> str:
    """A label track: start, end and label between tabs, one event a line."""
    lines = (
        f"{event.start_s:.6f}\t{event.end_s:.6f}\t{_one_line(event.label)}\n" for event in events
    )
    return "".join(lines)


def _cell(text: str) -> str:
    """Text that a spreadsheet shows and does not run (OWASP, CSV injection)."""
    clean = _one_line(text)
    return f"'{clean}" if clean.lstrip("' ").startswith(_FORMULA) else clean


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
