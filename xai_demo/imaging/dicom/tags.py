"""The elements of a DICOM file, walked by their lengths (PS3.5, section 7).

An element that nobody asks for is stepped over: its value never leaves the file. That is how the
name, the birthday and all else that belongs to a patient stay where they are, and why no general
parser is used here: it would read them, and its warnings and errors quote what they met.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

PIXEL_DATA = 0x7FE00010
TRANSFER_SYNTAX = 0x00020010

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
UNKNOWN_SYNTAX = "2.25"  # in no registry
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", re.ASCII)
_MOST_ELEMENTS = 200_000  # a radiograph has a few hundred
_DEEPEST = 50


class DamagedError(ValueError):
    """The lengths do not add up; the message holds numbers and no value of any element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """Where the value of one tag lies."""

    tag: int  # group and element in one number: 0x00280010
    start: int
    length: int | None  # None: until a delimiter
    explicit: bool  # what lies in it is written with value representations


class Walk:
    """Walks one file; counts, so that no file can make it walk for ever."""

    def __init__(self, file: BinaryIO, size: int, *, order: str, explicit: bool) -> None:
        self._file, self._size, self._order, self._explicit = file, size, order, explicit
        self._left = _MOST_ELEMENTS

    def dataset(self, at: int) -> dict[int, Element]:
        """Every element from there to the pixels, by tag: where they are, not what they say."""
        found: dict[int, Element] = {}
        for element in self._elements(at, self._size, self._explicit, 0):
            found.setdefault(element.tag, element)
            if element.tag == PIXEL_DATA:
                break
        return found

    def first_item(self, sequence: Element) -> dict[int, Element]:
        """The elements of a sequence's first item; none where it is empty."""
        end = self._size if sequence.length is None else sequence.start + sequence.length
        if sequence.start + 8 > end:
            return {}
        tag, length = self._item(sequence.start)
        start = sequence.start + 8
        if tag != _ITEM:
            return {}
        stop = end if length == _UNDEFINED else start + length
        elements = self._elements(start, min(stop, end), sequence.explicit, 1)
        return {element.tag: element for element in elements if element.tag != _ITEM_END}

    def element(self, at: int, end: int, explicit: bool) -> Element:
        """The element that begins there."""
        self._left -= 1
        if self._left < 0:
            raise DamagedError(f"it has more than {_MOST_ELEMENTS} elements")
        head = self._bytes(at, 8)
        group, number = struct.unpack_from(f"{self._order}HH", head)
        tag, start = group << 16 | number, at + 8
        if group == 0xFFFE or not explicit:
            (length,) = struct.unpack_from(f"{self._order}I", head, 4)
            known = explicit
        else:
            vr = head[4:6]
            if not vr.isalpha() or not vr.isupper():
                raise DamagedError(f"element {tag:08X} at byte {at} has no value representation")
            (length,) = struct.unpack_from(f"{self._order}H", head, 6)
            if vr in _LONG:
                (length,) = struct.unpack(f"{self._order}I", self._bytes(start, 4))
                start += 4
            known = vr != b"UN" or length != _UNDEFINED  # PS3.5, 6.2.2, note 2
        if length != _UNDEFINED and start + length > end:
            raise DamagedError(
                f"element {tag:08X} promises {length} bytes, {max(0, end - start)} are there"
            )
        value_length = None if length == _UNDEFINED else length
        return Element(tag=tag, start=start, length=value_length, explicit=known)

    def _elements(self, at: int, end: int, explicit: bool, depth: int) -> Iterator[Element]:
        """Elements up to the end, or to the delimiter of an item, which comes last."""
        if depth > _DEEPEST:
            raise DamagedError(f"its sequences are nested more than {_DEEPEST} deep")
        while at < end:
            element = self.element(at, end, explicit)
            yield element
            if element.tag in (PIXEL_DATA, _ITEM_END):
                return
            if element.length is None:
                at = self._sequence_end(element.start, end, element.explicit, depth)
            else:
                at = element.start + element.length

    def _sequence_end(self, at: int, end: int, explicit: bool, depth: int) -> int:
        while True:
            tag, length = self._item(at)
            at += 8
            if tag == _SEQUENCE_END:
                return at
            if tag != _ITEM:
                raise DamagedError(f"a sequence has no item at byte {at - 8}")
            if length != _UNDEFINED:
                at += length
                continue
            inside = [*self._elements(at, end, explicit, depth + 1)]
            if not inside or inside[-1].tag != _ITEM_END:
                raise DamagedError(f"the item at byte {at} has no end")
            at = inside[-1].start

    def _item(self, at: int) -> tuple[int, int]:
        group, number, length = struct.unpack(f"{self._order}HHI", self._bytes(at, 8))
        self._left -= 1
        if self._left < 0:
            raise DamagedError(f"it has more than {_MOST_ELEMENTS} elements")
        return group << 16 | number, length

    def _bytes(self, at: int, count: int) -> bytes:
        self._file.seek(at)
        data = self._file.read(count)
        if len(data) < count:
            raise DamagedError(f"it ends at byte {self._size} in the middle of an element")
        return data


def value(file: BinaryIO, element: Element, *, most: int) -> bytes:
    """The first bytes of an element's value, as many as that at most."""
    file.seek(element.start)
    return file.read(most if element.length is None else min(element.length, most))


def meta(file: BinaryIO, size: int) -> tuple[str, int]:
    """The transfer syntax of a file, "" where it names none, and where its data set begins."""
    file.seek(128)
    at = 132 if file.read(4) == b"DICM" else 0
    walk = Walk(file, size, order="<", explicit=True)
    syntax = ""
    while at + 8 <= size:
        file.seek(at)
        if file.read(2) != b"\2\0":
            break
        element = walk.element(at, size, True)
        if element.length is None:
            raise DamagedError("its meta information has no end")
        if element.tag == TRANSFER_SYNTAX:
            syntax = value(file, element, most=64).decode("ascii", "replace").strip("\0 ")
            # A library that is handed anything else quotes it in a warning.
            syntax = syntax if _UID.fullmatch(syntax) else UNKNOWN_SYNTAX
        at = element.start + element.length
    return syntax, at


def looks_explicit(file: BinaryIO, at: int) -> bool:
    """Whether the element there has a value representation, whatever the syntax says."""
    file.seek(at + 4)
    vr = file.read(2)
    return len(vr) == 2 and vr.isalpha() and vr.isupper()
