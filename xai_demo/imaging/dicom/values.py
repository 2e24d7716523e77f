"""The values of single DICOM elements: numbers, terms and lookup tables, each read or refused.

A number that cannot be read is never replaced by a default, because the image would look right and
be wrong. An element that is absent has one where PS3.3 gives it.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from xai_demo.errors import UnreadableFileError
from xai_demo.imaging.dicom.tags import Element, ElementWalker, read_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Decimal strings have at most 16 bytes (PS3.5, 6.2), but there may be several values.
_MAX_TEXT_BYTES = 256
# PS3.5, 6.2, where Python's float would also take "1_000", "nan" and digits of other scripts.
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
# What a number could have been meant by. Anything else is not quoted: it might be a name.
_QUOTABLE = re.compile(r"[0-9.,eE+\-' ]{1,24}|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE)
# Beyond these float32 has no room to calculate in.
_LARGEST, _SMALLEST = 1e12, 1e-12
# struct's letter by value representation: PS3.5, 6.2.
_BINARY_INTEGERS = {b"US": "H", b"SS": "h", b"UL": "I", b"SL": "i"}
_BINARY_NUMBERS = {**_BINARY_INTEGERS, b"FL": "f", b"FD": "d"}
_DESCRIPTOR, _LUT_DATA = 0x00283002, 0x00283006


def refusal(name: str, problem: str, expected: str) -> UnreadableFileError:
    """The error for a file that is not accepted, as one sentence that starts with its name."""
    return UnreadableFileError(f"{name} {problem}; expected {expected}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupTable:
    """A lookup table: the first input value, and the output for each value from there on."""

    first: int
    values: NDArray[np.uint16]
    bits: int


class ValueReader:
    """Reads elements of a dataset by their tags; `name` is the file's, for refusals."""

    def __init__(
        self,
        file: BinaryIO,
        walker: ElementWalker,
        elements: Mapping[int, Element],
        *,
        name: str,
        order: str,
    ) -> None:
        self._file, self._walker, self._elements = file, walker, elements
        self._name, self._order = name, order

    def text(self, tag: int) -> str:
        """The first value of an element as text in capitals; "" if it is absent."""
        # Several values of one element are separated by backslashes: PS3.5, 6.4.
        return self._texts(tag)[0].upper()

    def has(self, tag: int) -> bool:
        """Whether there is such an element, if only an empty one."""
        return tag in self._elements

    def numbers(self, tag: int, label: str, *, may_be_empty: bool = False) -> tuple[float, ...]:
        """The values of a numeric element; () if it is absent or, where it may be, empty.

        Raises UnreadableFileError, which calls the element by its `label`, if a value is not a
        finite number.
        """
        element = self._elements.get(tag)
        if element is None:
            return ()
        if element.vr in _BINARY_NUMBERS:
            values = self._binary_numbers(element, label, _BINARY_NUMBERS[element.vr])
            texts = [f"{value:g}" for value in values]
        else:
            texts = self._texts(tag)
            if may_be_empty and not any(texts):
                return ()
            values = tuple(float(t) if _DECIMAL.fullmatch(t) else math.nan for t in texts)
        for text, value in zip(texts, values, strict=True):
            # Also false for NaN.
            if not (abs(value) <= _LARGEST and (value == 0 or abs(value) >= _SMALLEST)):
                raise refusal(
                    self._name,
                    f"has {_quote(text)} as its {label}",
                    "a decimal number such as 1.5",
                )
        return values

    def number(self, tag: int, label: str, default: float) -> float:
        """The first value of a numeric element, or the default if it is absent."""
        return next(iter(self.numbers(tag, label)), default)

    def integer(self, tag: int, label: str, default: int | None = None) -> int:
        """The first value of a whole number, of two bytes unless the file says otherwise.

        Raises UnreadableFileError if it cannot be read, or is absent and has no default.
        """
        element = self._elements.get(tag)
        if element is None:
            if default is None:
                raise refusal(
                    self._name, f"is a DICOM file without its {label}", "one that states it"
                )
            return default
        if element.vr in (b"IS", b"DS"):
            value = self.number(tag, label, math.nan)
            if value != int(value):
                raise refusal(self._name, f"has {value:g} as its {label}", "a whole number")
            return int(value)
        return int(self._binary_numbers(element, label, _BINARY_INTEGERS.get(element.vr, "H"))[0])

    def lookup_table(
        self, tag: int, label: str, value_range: tuple[float, float]
    ) -> LookupTable | None:
        """The table in a sequence's first item; None if there is none.

        `value_range` is the lowest and the highest value that it is applied to. Raises
        UnreadableFileError if the table is incomplete.
        """
        item = self._walker.first_item(self._elements[tag]) if tag in self._elements else {}
        if not item:
            return None
        descriptor = b""
        if _DESCRIPTOR in item and _LUT_DATA in item:
            descriptor = read_value(self._file, item[_DESCRIPTOR], limit=6)
        if len(descriptor) < 6:
            problem = f"has a {label} whose descriptor or data are missing"
            raise refusal(self._name, problem, "a complete table")
        # Count, first input value, bits.
        count, first, bits = struct.unpack(f"{self._order}HHH", descriptor)
        # The count of a full table does not fit into 16 bits and is stored as 0: PS3.3, C.11.1.1.1.
        count = count or 65536
        is_signed = item[_DESCRIPTOR].vr == b"SS" or (
            item[_DESCRIPTOR].vr != b"US" and value_range[0] < 0
        )
        first = _first_input(first, count, value_range, is_signed=is_signed)
        data = read_value(self._file, item[_LUT_DATA], limit=2 * count)
        # A table of 8 bits has one or two bytes a value; only its length tells which.
        is_wide = len(data) >= 2 * count
        if not 8 <= bits <= 16 or len(data) < count or (bits > 8 and not is_wide):
            problem = f"has a {label} of {count} values of {bits} bits in {len(data)} bytes"
            raise refusal(self._name, problem, "8 to 16 bits, and two bytes per value")
        if not is_wide and self._order == ">" and item[_LUT_DATA].vr != b"OB":
            # Words of two bytes each: the first value is the low byte of the first word.
            data = swap_bytes(data)
        values = np.frombuffer(data, f"{self._order}u2" if is_wide else np.uint8, count)
        # Some writers state 8 or 10 bits for a table of 12: the values decide.
        bits = max(bits, int(values.max()).bit_length())
        return LookupTable(first=first, values=values.astype(np.uint16), bits=bits)

    def _texts(self, tag: int) -> list[str]:
        element = self._elements.get(tag)
        data = b"" if element is None else read_value(self._file, element, limit=_MAX_TEXT_BYTES)
        return [text.strip("\0 ") for text in data.decode("ascii", "replace").split("\\")]

    def _binary_numbers(self, element: Element, label: str, letter: str) -> tuple[float, ...]:
        size = struct.calcsize(f"<{letter}")
        data = read_value(self._file, element, limit=_MAX_TEXT_BYTES)
        if not data or len(data) % size:
            raise refusal(self._name, f"has {len(data)} bytes as its {label}", f"{size} bytes")
        return struct.unpack(f"{self._order}{len(data) // size}{letter}", data)


def swap_bytes(data: bytes) -> bytes:
    """The bytes of every two-byte word exchanged; an odd last byte stays.

    >>> swap_bytes(b"badce")
    b'abcde'
    """
    even = len(data) // 2 * 2
    return np.frombuffer(data[:even], np.uint16).byteswap().tobytes() + data[even:]


def _first_input(
    pattern: int, count: int, value_range: tuple[float, float], *, is_signed: bool
) -> int:
    """The first input value of a table from its 16 bits, whose sign files often state wrongly.

    >>> _first_input(0xFC00, 4096, (-1024, 3071), is_signed=False)
    -1024
    """
    signed = pattern - 65536 if pattern >= 32768 else pattern
    low, high = value_range

    def overlap(first: int) -> float:
        return min(first + count - 1, high) - max(first, low)

    preferred, other = (signed, pattern) if is_signed else (pattern, signed)
    return other if overlap(preferred) < 0 <= overlap(other) else preferred


def _quote(text: str) -> str:
    """A value for a message, described rather than quoted if it might be more than a number."""
    if not text:
        return "no value"
    return repr(text) if _QUOTABLE.fullmatch(text) else f"a text of {len(text)} characters"
