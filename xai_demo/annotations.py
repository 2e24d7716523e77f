"""Respiratory cycles annotated by a listener: lines of `start end crackles wheezes`, as ICBHI 2017.

A file that is no such list is refused, with the line and the value; a cycle that cannot be as it
says is repaired or left out, with a warning that names both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Literal

from xai_demo.errors import AnnotationError
from xai_demo.files import format_of, opened, shown_name

WANTED = "a text of lines such as '0.036 0.579 0 1': start, end, crackles, wheezes"

_MOST_BYTES = 2_000_000  # an hour of breathing has some 40,000
_MOST_WARNINGS = 20
_SHOWN_CHARACTERS = 60
_LEEWAY_S = 0.05  # published annotations end up to this much after their sound
_HEADINGS = {"start", "start_s", "begin", "onset"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """One breath in and out, and what was heard in it."""

    start_s: float
    end_s: float
    crackles: bool
    wheezes: bool

    @property
    def label(self) -> Literal["normal", "crackle", "wheeze", "both"]:
        """The class of the four that this cycle is."""
        if self.crackles:
            return "both" if self.wheezes else "crackle"
        return "wheeze" if self.wheezes else "normal"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    number: int
    text: str  # as it may stand in a sentence
    cycle: Cycle
    commas: bool


def read_cycles(
    path: str | PathLike[str], *, duration_s: float
) -> tuple[tuple[Cycle, ...], tuple[str, ...]]:
    """The cycles that lie in a recording of `duration_s`, by time, and warnings.

    Raises AnnotationError for a file that is no list of cycles or has none in the recording, and
    UnreadableFileError for one that cannot be opened or is empty.
    """
    name = shown_name(path)
    lines = _lines(_text(path, name), name)
    warnings: list[str] = []
    commas = [line for line in lines if line.commas]
    if commas:
        warnings.append(
            f"{name} has decimal commas in {len(commas)} lines, the first in line"
            f" {commas[0].number} ({commas[0].text}); they were read as points."
        )
    cycles = tuple(_usable(lines, duration_s, warnings))
    if not cycles:
        first = lines[0]
        raise AnnotationError(
            f"{name} has no cycle in a recording of {duration_s:g} s: line {first.number} says"
            f" {first.text}; wanted: a start and a later end between 0 and {duration_s:g} s."
        )
    more = len(warnings) - _MOST_WARNINGS
    if more > 0:
        warnings[_MOST_WARNINGS:] = [f"{name} has {more} more lines of that kind."]
    return cycles, tuple(warnings)


def _text(path: str | PathLike[str], name: str) -> str:
    with opened(path, wanted=WANTED) as file:
        kind = format_of(file)
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise AnnotationError(
            f"{name} holds more than {_MOST_BYTES / 1e6:g} MB; wanted: {WANTED}, in less."
        )
    marked = content.startswith((b"\xff\xfe", b"\xfe\xff"))  # as Windows writes "Unicode"
    if not marked and kind not in {"", "plain text"}:
        raise AnnotationError(f"{name} is {kind}; wanted: {WANTED}.")
    try:
        text = content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{name} is no text (byte {error.object[error.start]:#04x} at {error.start});"
            f" wanted: {WANTED}."
        ) from error
    if "\0" in text:
        raise AnnotationError(f"{name} is no text (byte 0x00 in it); wanted: {WANTED}.")
    return text


def _lines(text: str, name: str) -> list[_Line]:
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.split()
        if not fields or (number == 1 and fields[0].strip(",;").lower() in _HEADINGS):
            continue
        lines.append(_parsed(number, line, fields, name))
    if not lines:
        raise AnnotationError(f"{name} has no line with a cycle; wanted: {WANTED}.")
    return lines


def _parsed(number: int, line: str, fields: list[str], name: str) -> _Line:
    shown = _shown(line)
    if len(fields) == 1:
        fields = fields[0].split(";" if ";" in fields[0] else ",")
    elif all(field.endswith((",", ";")) for field in fields[:-1]):
        fields = [field.rstrip(",;") for field in fields]
    points = [field.replace(",", ".") for field in fields]
    try:
        start_s, end_s, crackles, wheezes = (float(point) for point in points)
    except ValueError:
        raise AnnotationError(f"{name}, line {number}, is {shown}; wanted: {WANTED}.") from None
    if not (math.isfinite(start_s) and math.isfinite(end_s)):
        raise AnnotationError(f"{name}, line {number}, is {shown}; wanted: times in seconds.")
    if not {crackles, wheezes} <= {0.0, 1.0}:
        raise AnnotationError(
            f"{name}, line {number}, is {shown}; wanted: 0 or 1 for crackles and for wheezes."
        )
    cycle = Cycle(start_s=start_s, end_s=end_s, crackles=crackles == 1, wheezes=wheezes == 1)
    return _Line(number=number, text=shown, cycle=cycle, commas=points != fields)


def _usable(lines: list[_Line], duration_s: float, warnings: list[str]) -> Iterator[Cycle]:
    """The cycles that can be, by time; appends a warning for each that cannot or that overlaps."""
    before: _Line | None = None
    for line in sorted(lines, key=lambda line: (line.cycle.start_s, line.cycle.end_s)):
        cycle, where = line.cycle, f"Line {line.number} of the annotation ({line.text})"
        if cycle.end_s <= cycle.start_s:
            warnings.append(f"{where} ends before it starts and was left out.")
            continue
        if cycle.start_s >= duration_s or cycle.end_s <= 0:
            warnings.append(
                f"{where} lies outside the recording of {duration_s:g} s and was left out."
            )
            continue
        if cycle.start_s < -_LEEWAY_S or cycle.end_s > duration_s + _LEEWAY_S:
            warnings.append(
                f"{where} reaches beyond the recording of {duration_s:g} s and was cut to it."
            )
        if before is not None and cycle.start_s < before.cycle.end_s:
            warnings.append(f"{where} overlaps line {before.number} ({before.text}); both stay.")
        if before is None or cycle.end_s > before.cycle.end_s:
            before = line
        yield Cycle(
            start_s=max(cycle.start_s, 0.0),
            end_s=min(cycle.end_s, duration_s),
            crackles=cycle.crackles,
            wheezes=cycle.wheezes,
        )


def _shown(line: str) -> str:
    text = "".join(c if c.isprintable() else " " for c in line.strip())
    short = text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 1]}…"
    return repr(short)
