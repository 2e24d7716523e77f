"""Segments of a recording: sliding analysis windows, and annotated respiratory cycles.

`LogMelWindows` cuts windows out of a spectrogram only when they are indexed. `read_cycles` reads
annotations in the format of ICBHI 2017, lines of `start end crackles wheezes`. A file in another
format is rejected with the offending line; an impossible cycle is repaired or left out with a
warning.
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
from xai_demo.files import detect_format, display_name, open_file

if TYPE_CHECKING:
    from xai_demo.records import Floats, LogMel


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The frames [first, last) of one window and the index of the segment it belongs to."""

    first: int
    last: int
    segment: int  # windows of one segment share an answer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LogMelWindows:
    """The network's input, (windows, 1, mel, frames), computed on access to save memory."""

    decibels: Floats  # (mel, frames)
    spans: tuple[Span, ...]
    window_frames: int  # a shorter span is repeated up to this length
    spec: LogMel
    levels: spectrogram.Levels  # of the whole recording

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of the whole array."""
        return len(self.spans), 1, self.spec.n_mels, self.spec.frames or self.window_frames

    def __len__(self) -> int:
        """The number of windows."""
        return len(self.spans)

    def __getitem__(self, key: Any) -> Floats:
        """The values at a numpy index; only the windows it selects are computed."""
        first, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        # An index such as [..., 0]: numpy works it out on the whole array.
        if first is Ellipsis:
            whole: Floats = self[:][key]
            return whole
        selected = np.arange(len(self))[first]
        cut = [self._span_decibels(self.spans[i]) for i in np.atleast_1d(selected)]
        decibels = np.stack(cut)[:, None]
        # The spectrogram may be memory-mapped; what was read for these windows is given back.
        files.release_pages(self.decibels)
        normalised = spectrogram.normalise_decibels(decibels, self.spec, self.levels)
        windows = spectrogram.pad_windows(normalised, self.spec)
        result: Floats = windows if np.ndim(selected) else windows[0]
        return result[(slice(None), *rest)] if rest and np.ndim(selected) else result[rest]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Floats:
        """All windows at once, in memory."""
        return np.asarray(self[:], dtype)

    def min(self) -> float:
        """The lowest value of all windows, padding included."""
        # Normalisation is monotonic, so the lowest value of the recording stays the lowest.
        lowest = np.array([[self.levels.lowest]], np.float32)
        values = spectrogram.normalise_decibels(lowest, self.spec, self.levels)
        is_padded = self.shape[3] > self.window_frames
        padding = spectrogram.padding_value(self.spec) if is_padded else np.inf
        return float(min(values.min(), padding))

    def _span_decibels(self, span: Span) -> Floats:
        frames = self.decibels[:, span.first : span.last]
        missing = self.window_frames - frames.shape[1]
        return np.pad(frames, ((0, 0), (0, missing)), mode="wrap") if missing > 0 else frames


def sliding_windows(n_frames: int, window: int, spec: LogMel) -> tuple[Span, ...]:
    """Overlapping windows that cover all frames, each a segment of its own."""
    hop = round(spec.window_hop_s * spec.sample_rate_hz / spec.hop_length)
    starts = spectrogram.window_starts(n_frames, window, hop)
    return tuple(Span(first=s, last=s + window, segment=i) for i, s in enumerate(starts))


def cycle_windows(
    cycles: Sequence[Cycle], window: int, n_frames: int, spec: LogMel
) -> tuple[Span, ...]:
    """The windows of each respiratory cycle: one for a short cycle, overlapping ones for a long."""
    rate = spec.sample_rate_hz / spec.hop_length
    spans = []
    for i, cycle in enumerate(cycles):
        first = min(round(cycle.start_s * rate), n_frames - 1)
        last = min(max(round(cycle.end_s * rate), first + 1), n_frames)
        # A cycle shorter than a window becomes one window, which is repeated up to full length.
        for inner in sliding_windows(last - first, min(window, last - first), spec):
            spans.append(Span(first=first + inner.first, last=first + inner.last, segment=i))
    return tuple(spans)


EXPECTED_FORMAT = "lines of text such as '0.036 0.579 0 1': start, end, crackles, wheezes"

_MAX_BYTES = 2_000_000  # the annotation of an hour of breathing has some 40,000
_MAX_WARNINGS = 20
_MAX_QUOTED_CHARACTERS = 60
# Published annotations end up to this much after their recording.
_TOLERANCE_S = 0.05
# An hour of breathing has about a thousand cycles.
_MAX_LINES = 10_000
# Annotated cycles overlap a little; all of them together last no longer than the recording twice.
_MAX_OVERLAP = 2.0
# Each cycle costs a run of the network, however short it is; infants breathe once a second.
_MAX_CYCLES_PER_S = 5
# What a heading may call each of the four columns.
_COLUMNS = (
    {"start", "start_s", "start_time", "begin", "onset"},
    {"end", "end_s", "end_time", "stop", "offset"},
    {"crackles", "crackle"},
    {"wheezes", "wheeze"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """One respiratory cycle, a breath in and out, and the adventitious sounds in it."""

    start_s: float
    end_s: float
    crackles: bool
    wheezes: bool

    @property
    def label(self) -> Literal["normal", "crackle", "wheeze", "both"]:
        """The ICBHI class of this cycle.

        >>> Cycle(start_s=0.0, end_s=2.5, crackles=True, wheezes=False).label
        'crackle'
        """
        if self.crackles:
            return "both" if self.wheezes else "crackle"
        return "wheeze" if self.wheezes else "normal"


@dataclass(frozen=True, slots=True, kw_only=True)
class _AnnotationLine:
    number: int
    text: str  # quoted and shortened, for messages
    cycle: Cycle
    has_commas: bool


def read_cycles(
    path: str | PathLike[str], *, duration_s: float, name: str | None = None
) -> tuple[tuple[Cycle, ...], tuple[str, ...]]:
    """The cycles that lie within a recording of `duration_s`, in order of time, and warnings.

    Messages call the file `name`, or by the name it has on disk if that is None.
    Raises AnnotationError if the file is not a list of cycles or has none within the recording, and
    UnreadableFileError if it cannot be opened or is empty.
    """
    name = display_name(path if name is None else name)
    lines = _parse_lines(_read_text(path, name), name)
    warnings: list[str] = []
    with_commas = [line for line in lines if line.has_commas]
    if with_commas:
        warnings.append(
            f"{name} has decimal commas in {len(with_commas)} lines, the first in line"
            f" {with_commas[0].number} ({with_commas[0].text}); they were read as decimal points."
        )
    _check_total(lines, duration_s, name)
    cycles = tuple(_usable_cycles(lines, duration_s, warnings))
    if not cycles:
        first = lines[0]
        raise AnnotationError(
            f"{name} has no cycle within a recording of {duration_s:g} s: line {first.number} is"
            f" {first.text}; expected a start and a later end between 0 and {duration_s:g} s."
        )
    surplus = len(warnings) - _MAX_WARNINGS
    if surplus > 0:
        warnings[_MAX_WARNINGS:] = [f"{name} has {surplus} more lines with such problems."]
    return cycles, tuple(warnings)


def _read_text(path: str | PathLike[str], name: str) -> str:
    with open_file(path, expected=EXPECTED_FORMAT, name=name) as file:
        kind = detect_format(file)
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise AnnotationError(
            f"{name} is larger than {_MAX_BYTES / 1e6:g} MB; expected less, with {EXPECTED_FORMAT}."
        )
    # Windows programs that save as "Unicode" write UTF-16 with a byte order mark.
    is_utf_16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    if not is_utf_16 and kind not in {"", "plain text"}:
        raise AnnotationError(f"{name} is a file of type {kind}; expected {EXPECTED_FORMAT}.")
    try:
        text = content.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(
            f"{name} is not a text file (byte {error.object[error.start]:#04x} at position"
            f" {error.start}); expected {EXPECTED_FORMAT}."
        ) from error
    if "\0" in text:
        raise AnnotationError(
            f"{name} is not a text file (it contains byte 0x00); expected {EXPECTED_FORMAT}."
        )
    return text


def _parse_lines(text: str, name: str) -> list[_AnnotationLine]:
    rows = text.splitlines()
    if len(rows) > _MAX_LINES:
        raise AnnotationError(
            f"{name} has {len(rows)} lines; expected at most {_MAX_LINES} of {EXPECTED_FORMAT}."
        )
    lines: list[_AnnotationLine] = []
    columns: tuple[int, ...] = (0, 1, 2, 3)
    for number, line in enumerate(rows, 1):
        fields = _split_fields(line)
        if not lines and (named := _named_columns(fields)):
            columns = named
        elif fields:
            lines.append(_parse_line(number, line, fields, columns, name))
    if not lines:
        raise AnnotationError(f"{name} has no line with a cycle; expected {EXPECTED_FORMAT}.")
    return lines


def _split_fields(line: str) -> list[str]:
    """The fields of a line, separated by blanks, tabs, semicolons or commas.

    Decimal commas stay where they cannot be separators.

    >>> _split_fields("0.5, 1.5;0\\t1"), _split_fields("0,5 1,5 0 1")
    (['0.5', '1.5', '0', '1'], ['0,5', '1,5', '0', '1'])
    """
    text = line.replace('"', " ").replace(";", " ; ")
    fields = [field for field in text.split() if field != ";"]
    if len(fields) == 1:
        return [field for field in fields[0].split(",") if field]
    if any(field.endswith(",") for field in fields[:-1]):
        return [field for field in ",".join(fields).split(",") if field]
    return fields


def _named_columns(fields: list[str]) -> tuple[int, ...] | None:
    """Where a heading has the four columns: in their usual order unless it names all of them."""
    names = [field.lower() for field in fields]
    places = [[i for i, name in enumerate(names) if name in known] for known in _COLUMNS]
    if all(places):
        return tuple(place[0] for place in places)
    return (0, 1, 2, 3) if names and names[0] in _COLUMNS[0] else None


def _parse_line(
    number: int, line: str, fields: list[str], columns: tuple[int, ...], name: str
) -> _AnnotationLine:
    quoted = _quote_line(line)
    usual = columns == (0, 1, 2, 3)
    # Columns beyond the four are ignored only where a heading says which are which.
    if not usual and max(columns) < len(fields):
        fields = [fields[column] for column in columns]
    points = [field.replace(",", ".") for field in fields]
    try:
        start_s, end_s, crackles, wheezes = (float(point) for point in points)
    except ValueError:
        raise AnnotationError(
            f"{name}, line {number}, is {quoted}; expected {EXPECTED_FORMAT}."
        ) from None
    if not (math.isfinite(start_s) and math.isfinite(end_s)):
        raise AnnotationError(f"{name}, line {number}, is {quoted}; expected times in seconds.")
    if not {crackles, wheezes} <= {0.0, 1.0}:
        raise AnnotationError(
            f"{name}, line {number}, is {quoted}; expected 0 or 1 for crackles and for wheezes."
        )
    cycle = Cycle(start_s=start_s, end_s=end_s, crackles=crackles == 1, wheezes=wheezes == 1)
    return _AnnotationLine(number=number, text=quoted, cycle=cycle, has_commas=points != fields)


def _check_total(lines: list[_AnnotationLine], duration_s: float, name: str) -> None:
    """Raise AnnotationError for more or longer cycles than the recording has room for."""
    spans_s = [min(line.cycle.end_s, duration_s) - max(line.cycle.start_s, 0.0) for line in lines]
    count, total_s = sum(span_s > 0 for span_s in spans_s), sum(max(0.0, s) for s in spans_s)
    most = max(_MAX_CYCLES_PER_S, math.ceil(_MAX_CYCLES_PER_S * duration_s))
    if total_s > _MAX_OVERLAP * duration_s + _TOLERANCE_S:
        raise AnnotationError(
            f"{name} has {count} cycles of {total_s:.1f} s in all within a recording of"
            f" {duration_s:g} s; expected at most twice the recording."
        )
    if count > most:
        raise AnnotationError(
            f"{name} has {count} cycles within a recording of {duration_s:g} s; expected at most"
            f" {most}, {_MAX_CYCLES_PER_S} a second."
        )


def _usable_cycles(
    lines: list[_AnnotationLine], duration_s: float, warnings: list[str]
) -> Iterator[Cycle]:
    """The possible cycles, in order of time; appends warnings for the others and for overlaps."""
    previous: _AnnotationLine | None = None
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
        if cycle.start_s < -_TOLERANCE_S or cycle.end_s > duration_s + _TOLERANCE_S:
            warnings.append(
                f"{where} extends beyond the recording of {duration_s:g} s and was cut to fit."
            )
        if previous is not None and cycle.start_s < previous.cycle.end_s:
            warnings.append(
                f"{where} overlaps line {previous.number} ({previous.text}); both are kept."
            )
        if previous is None or cycle.end_s > previous.cycle.end_s:
            previous = line
        yield Cycle(
            start_s=max(cycle.start_s, 0.0),
            end_s=min(cycle.end_s, duration_s),
            crackles=cycle.crackles,
            wheezes=cycle.wheezes,
        )


def _quote_line(line: str) -> str:
    text = "".join(c if c.isprintable() else " " for c in line.strip())
    short = (
        text if len(text) <= _MAX_QUOTED_CHARACTERS else f"{text[: _MAX_QUOTED_CHARACTERS - 1]}…"
    )
    return repr(short)
