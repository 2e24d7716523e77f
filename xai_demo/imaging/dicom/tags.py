"""Finding the elements of a DICOM file by their tags and lengths (PS3.5, section 7).

Elements that are not needed are skipped, so that their values never leave the file: the name, the
birth date and everything else about a patient. This is why no general parser is used here: it
would read those values, and its warnings and errors quote what they meet.
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
# Value representations whose length has four bytes: PS3.5, 7.1.2.
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_VRS = _LONG_VRS | frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)
# Valid as a UID, but not registered as a transfer syntax.
UNKNOWN_SYNTAX = "2.25"
_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+", re.ASCII)
# Bounds the walk through a malicious file; a radiograph has a few hundred elements.
_MAX_ELEMENTS = 200_000
_MAX_DEPTH = 50


class DamagedError(ValueError):
    """The structure of the file is broken; the message has numbers but no value of any element."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """The position of the value of one element."""

    tag: int  # group and element in one number: 0x00280010
    start: int
    length: int | None  # None: until a delimiter
    explicit: bool  # whether nested elements have value representations
    vr: bytes = b""  # the value representation; b"" where the file gives none


class ElementWalker:
    """Walks through the elements of a file; counts them, so that no file can make it loop."""

    def __init__(self, file: BinaryIO, size: int, *, order: str, explicit: bool) -> None:
        self._file, self._size, self._order, self._explicit = file, size, order, explicit
        self._left = _MAX_ELEMENTS

    def dataset(self, start: int) -> dict[int, Element]:
        """The elements from `start` to the pixels by tag: their positions, not their values."""
        elements: dict[int, Element] = {}
        for element in self._elements(start, self._size, self._explicit, 0):
            elements.setdefault(element.tag, element)
            if element.tag == PIXEL_DATA:
                break
        return elements

    def first_item(self, sequence: Element) -> dict[int, Element]:
        """The elements of a sequence's first item by tag; empty if it has no item."""
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
        """The element that begins at byte `at` and must not reach beyond `end`."""
        self._left -= 1
        if self._left < 0:
            raise DamagedError(f"it has more than {_MAX_ELEMENTS} elements")
        head = self._bytes(at, 8)
        group, number = struct.unpack_from(f"{self._order}HH", head)
        tag, start, vr = group << 16 | number, at + 8, b""
        # Items and delimiters never have a value representation: PS3.5, 7.5.
        if group == 0xFFFE or not explicit:
            (length,) = struct.unpack_from(f"{self._order}I", head, 4)
            is_explicit = explicit
        else:
            vr = head[4:6]
            if not vr.isalpha() or not vr.isupper():
                # Some writers put single elements in implicit VR between explicit ones.
                vr = b""
                (length,) = struct.unpack_from(f"{self._order}I", head, 4)
                if start + length > end:
                    raise DamagedError(
                        f"element {tag:08X} at byte {at} has no value representation"
                    )
            else:
                (length,) = struct.unpack_from(f"{self._order}H", head, 6)
            if vr in _LONG_VRS:
                (length,) = struct.unpack(f"{self._order}I", self._bytes(start, 4))
                start += 4
            # UN with undefined length is encoded with implicit VR: PS3.5, 6.2.2, note 2.
            is_explicit = vr not in (b"UN", b"") or length != _UNDEFINED
        if length != _UNDEFINED and start + length > end:
            raise DamagedError(
                f"element {tag:08X} declares {length} bytes, but there are only"
                f" {max(0, end - start)}"
            )
        value_length = None if length == _UNDEFINED else length
        return Element(tag=tag, start=start, length=value_length, explicit=is_explicit, vr=vr)

    def _elements(self, at: int, end: int, explicit: bool, depth: int) -> Iterator[Element]:
        """The elements up to `end`; those of an item (depth 1 and more) up to its delimiter."""
        if depth > _MAX_DEPTH:
            raise DamagedError(f"its sequences are nested more than {_MAX_DEPTH} deep")
        if depth:
            # The items of private sequences are encoded either way, whatever the sequence says.
            explicit = self._item_is_explicit(at, explicit)
        while at < end:
            element = self.element(at, end, explicit)
            yield element
            # An icon inside an item has pixels as well, so those end nothing there.
            if element.tag == (_ITEM_END if depth else PIXEL_DATA):
                return
            if element.length is None:
                at = self._sequence_end(element.start, end, element.explicit, depth)
            else:
                at = element.start + element.length

    def _sequence_end(self, at: int, end: int, explicit: bool, depth: int) -> int:
        """The position after the delimiter of a sequence of undefined length."""
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
            # The delimiter has no value, so this is the position after it.
            at = inside[-1].start

    def _item_is_explicit(self, at: int, explicit: bool) -> bool:
        """Whether the item that begins at byte `at` has value representations."""
        self._file.seek(at)
        head = self._file.read(6)
        # An empty item begins with its delimiter.
        is_delimiter = head[:2] in (b"\xfe\xff", b"\xff\xfe")
        return explicit if is_delimiter or len(head) < 6 else head[4:] in _VRS

    def _item(self, at: int) -> tuple[int, int]:
        """The tag and the length of an item or a delimiter."""
        # Items are counted as well, so that a file of empty ones cannot keep the walk busy.
        group, number, length = struct.unpack(f"{self._order}HHI", self._bytes(at, 8))
        self._left -= 1
        if self._left < 0:
            raise DamagedError(f"it has more than {_MAX_ELEMENTS} elements")
        return group << 16 | number, length

    def _bytes(self, at: int, count: int) -> bytes:
        self._file.seek(at)
        data = self._file.read(count)
        if len(data) < count:
            raise DamagedError(f"it ends at byte {self._size} in the middle of an element")
        return data


def read_value(file: BinaryIO, element: Element, *, limit: int) -> bytes:
    """Read an element's value, up to `limit` bytes of it."""
    file.seek(element.start)
    return file.read(limit if element.length is None else min(element.length, limit))


def read_file_meta(file: BinaryIO, size: int) -> tuple[str, int]:
    """The transfer syntax of a file, "" if it has none, and the position of its dataset."""
    file.seek(128)
    # Old files have no preamble and start with the first element.
    at = 132 if file.read(4) == b"DICM" else 0
    walker = ElementWalker(file, size, order="<", explicit=True)
    syntax = ""
    while at + 8 <= size:
        file.seek(at)
        # The file meta information is group 0002, always in explicit little-endian: PS3.10, 7.1.
        if file.read(2) != b"\2\0":
            break
        element = walker.element(at, size, True)
        if element.length is None:
            raise DamagedError("its meta information has no end")
        if element.tag == TRANSFER_SYNTAX:
            syntax = read_value(file, element, limit=64).decode("ascii", "replace").strip("\0 ")
            # pydicom would quote an invalid UID in a warning.
            syntax = syntax if _UID.fullmatch(syntax) else UNKNOWN_SYNTAX
        at = element.start + element.length
    return syntax, at


def has_explicit_vr(file: BinaryIO, at: int) -> bool:
    """Whether the element at byte `at` has a value representation, whatever the syntax says."""
    # In implicit VR these bytes begin the length, and two capitals would make it at least 16,705.
    file.seek(at + 4)
    return file.read(2) in _VRS


def is_big_endian(file: BinaryIO, at: int, *, is_declared: bool) -> bool:
    """Whether the dataset that begins at byte `at` is in big-endian, whatever the syntax says."""
    file.seek(at)
    group = file.read(2)
    # A dataset begins with a low group, nearly always 0008.
    if len(group) < 2 or (0 in group) == (group == b"\0\0"):
        return is_declared
    return group[0] == 0
