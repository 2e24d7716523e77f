"""The directories of TIFF and EXIF: what is in them, before a parser that copies it all."""

from __future__ import annotations

import struct
from io import SEEK_END
from typing import BinaryIO

_MOST_DIRECTORIES = 1000
_TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TIFF_POINTERS = (0x8769, 0x8825, 0xA005)  # to further directories
_ORIENTATION = 274


def check_directories(file: BinaryIO) -> None:
    """Refuse a TIFF whose directories repeat themselves: Pillow reads all that they point at."""
    size = file.seek(0, SEEK_END)
    file.seek(0)
    order, first = _directory_start(file.read(8))
    waiting, seen, held = [first], set[int](), 0
    while waiting:
        at = waiting.pop()
        if at in seen or len(seen) > _MOST_DIRECTORIES:
            raise ValueError("directories without end")
        seen.add(at)
        file.seek(at)
        (count,) = struct.unpack(f"{order}H", file.read(2))
        for tag, kind, many, value in struct.iter_unpack(f"{order}HHII", file.read(12 * count)):
            held += many * _TIFF_BYTES.get(kind, 0)
            if tag in _TIFF_POINTERS and many == 1:
                waiting.append(value)
        if held > 2 * size:
            raise ValueError("directories that hold more than the file")
        following = file.read(4)
        if len(following) == 4 and any(following):
            waiting.append(struct.unpack(f"{order}I", following)[0])


def _directory_start(head: bytes) -> tuple[str, int]:
    """The byte order of a TIFF, and where its first directory is."""
    order = "<" if head.startswith(b"II") else ">"
    return order, struct.unpack_from(f"{order}I", head, 4)[0]


def exif_orientation(exif: bytes) -> int:
    """The orientation that an EXIF block gives; 1, upright, where it gives none."""
    block = exif.removeprefix(b"Exif\0\0")
    try:
        order, at = _directory_start(block)
        (count,) = struct.unpack_from(f"{order}H", block, at)
        for entry in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", block, at + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return int(value)
    except struct.error:  # a broken block says nothing
        pass
    return 1
