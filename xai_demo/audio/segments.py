"""Windows of a spectrogram, cut when the network is asked about them.

Respiratory cycles annotated by a listener: lines of `start end crackles wheezes`, as ICBHI 2017.

A file that is no such list is refused, with the line and the value; a cycle that cannot be as it
says is repaired or left out, with a warning that names both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from xai_demo import files
from xai_demo.audio import spectrogram
from xai_demo.errors import AnnotationError
from xai_demo.files import format_of, opened, shown_name

if TYPE_CHECKING:
    from xai_demo.records import Floats, LogMel


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The frames of one window, first and one past the last, and whose answer it counts to."""

    first: int
    last: int
    part: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Windows:
    """What the network is given, (windows, 1, mel, frames), as an array that is not held."""

    decibels: Floats  # (mel, frames)
    spans: tuple[Span, ...]
    seen: int  # frames of every window; a shorter span is repeated up to it
    spec: LogMel
    levels: spectrogram.Levels  # of the whole recording

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As numpy has it."""
        return len(self.spans), 1, self.spec.n_mels, self.spec.frames or self.seen

    def __len__(self) -> int:
        """How many there are."""
        return len(self.spans)

    def __getitem__(self, key: Any) -> Floats:
        """The windows of an index that numpy would take."""
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        if first is Ellipsis:
            whole: Floats = self[:][key]
            return whole
        chosen = np.arange(len(self))[first]
        cut = np.stack([self._cut(self.spans[i]) for i in np.atleast_1d(chosen)])[:, None]
        files.settle(self.decibels)
        cut = spectrogram.padded(spectrogram.conditioned(cut, self.spec, self.levels), self.spec)
        found: Floats = cut if np.ndim(chosen) else cut[0]
        return found[(slice(None), *rest)] if rest and np.ndim(chosen) else found[rest]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Floats:
        """All of them, at once in memory."""
        return np.asarray(self[:], dtype)

    def min(self) -> float:
        """The lowest value of all."""
        lowest = np.array([[self.levels.lowest]], np.float32)
        values = spectrogram.conditioned(lowest, self.spec, self.levels)
        missing = self.shape[3] > self.seen
        return float(min(values.min(), spectrogram.padding(self.spec) if missing else np.inf))

    def _cut(self, span: Span) -> Floats:
        held = self.decibels[:, span.first : span.last]
        missing = self.seen - held.shape[1]
        return np.pad(held, ((0, 0), (0, missing)), mode="wrap") if missing > 0 else held


def one_after_another(n_frames: int, window: int, spec: LogMel) -> tuple[Span, ...]:
    """Overlapping windows over all frames, each with an answer of its own."""
    hop = round(spec.window_hop_s * spec.sample_rate_hz / spec.hop_length)
    starts = spectrogram.window_starts(n_frames, window, hop)
    return tuple(Span(first=s, last=s + window, part=i) for i, s in enumerate(starts))


def of_cycles(
    cycles: Sequence[Cycle], window: int, n_frames: int, spec: LogMel
) -> tuple[Span, ...]:
    """The windows of every breath: one for a short breath, overlapping ones for a long one."""
    rate = spec.sample_rate_hz / spec.hop_length
    spans = []
    for i, cycle in enumerate(cycles):
        first = min(round(cycle.start_s * rate), n_frames - 1)
        last = min(max(round(cycle.end_s * rate), first + 1), n_frames)
        for inner in one_after_another(last - first, min(window, last - first), spec):
            spans.append(Span(first=first + inner.first, last=first + inner.last, part=i))
    return tuple(spans)


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
