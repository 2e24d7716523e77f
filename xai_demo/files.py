"""What a visitor brought: a regular file, told by its first bytes, named by its base name.

Large arrays in a file without a name, so that memory does not grow with a recording.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from xai_demo.errors import UnreadableFileError

if TYPE_CHECKING:
    from xai_demo.records import Floats

_HEAD_BYTES = 1024
_NAME_CHARACTERS = 80

# (offset, bytes found there, name): the first that fits is what the file is, whatever it is called.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (8, b"WAVE", "WAV"),
    (8, b"AIFF", "AIFF"),
    (8, b"AIFC", "AIFF"),
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "Ogg"),
    (0, b"ID3", "MP3"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (0, b"%PDF", "PDF"),
    (128, b"DICM", "DICOM"),
    (0, b"\2\0\0\0UL\4\0", "DICOM"),  # without its preamble
    (0, b"GIF8", "GIF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
    (4, b"ftyp", "MP4 or M4A"),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
    (0, b"\x30\x26\xb2\x75", "WMA"),
    (0, b"caff", "CAF"),
    (0, b".snd", "AU"),
    (0, b"#!AMR", "AMR"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"MThd", "MIDI"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"\x1f\x8b", "gzip"),
)


def shown_name(path: str | PathLike[str]) -> str:
    """The base name as it may stand in a sentence: printable, on one line, not too long."""
    name = "".join(c if c.isprintable() else "?" for c in PurePath(fspath(path)).name)
    return name if len(name) <= _NAME_CHARACTERS else f"{name[: _NAME_CHARACTERS - 1]}…"


@contextmanager
def opened(path: str | PathLike[str], *, wanted: str) -> Iterator[BinaryIO]:
    """Open a regular file that is not empty; raises UnreadableFileError, which ends in `wanted`."""
    name = shown_name(path)
    if "\0" in fspath(path):
        raise UnreadableFileError(f"{name} is no file name; wanted: {wanted}.")
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):  # a pipe or a device may never end
            raise UnreadableFileError(f"{name} is not a file; wanted: {wanted}.")
        with Path(path).open("rb") as file:
            if not file.read(1):
                raise UnreadableFileError(f"{name} is empty (0 bytes); wanted: {wanted}.")
            file.seek(0)
            yield file
    except OSError as error:
        why = error.strerror or "the system refuses"
        raise UnreadableFileError(f"{name} cannot be read: {why}; wanted: {wanted}.") from error


@contextmanager
def open_atomically(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file for writing that replaces `path` once the block has ended without error.

    Readers see the old file or the whole new one, never a part of it; after an error the old file
    is still there and nothing else. A new file gets the permissions that the umask leaves, an
    existing one keeps its own, as with an ordinary write. Raises OSError.
    """
    # In the same folder, because os.replace is atomic within one file system only. The name is not
    # built from the target's: a long one would exceed the 255 bytes that a name may have.
    temporary = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            yield file
        with contextlib.suppress(FileNotFoundError):
            temporary.chmod(stat.S_IMODE(path.stat().st_mode))
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write the whole file or leave the old one as it was; text becomes UTF-8. Raises OSError."""
    with open_atomically(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def format_of(file: BinaryIO) -> str:
    """The name of the format that the first kilobyte shows, "" where it shows none; rewinds."""
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    file.seek(0)
    for offset, signature, name in _SIGNATURES:
        if head.startswith(signature, offset):
            return name
    if is_mpeg_audio(head):
        return "MP3"
    if b"<svg" in head.lower():
        return "SVG"
    return "plain text" if all(byte >= 32 or byte in b"\t\n\f\r" for byte in head) else ""


def is_mpeg_audio(head: bytes) -> bool:
    """Whether these bytes begin with a possible MPEG audio frame header (ISO 11172-3, 2.4.1)."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bit_rate, sample_rate = head[2] >> 4, head[2] >> 2 & 3
    return version != 1 and layer != 0 and bit_rate != 15 and sample_rate != 3


_LARGE_BYTES = 2**24  # seven minutes at 8 kHz; what is smaller stays in memory
_STRETCH = 2**20  # values worked on between two that give memory back


def empty(shape: tuple[int, ...]) -> Floats:
    """An array to be filled: in memory while it is small, else in a file that dies with it."""
    size = 4 * math.prod(shape)
    if size < _LARGE_BYTES or not hasattr(os, "posix_fallocate"):
        return np.empty(shape, np.float32)
    with contextlib.suppress(OSError), tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, size)  # where the disk is full this fails, not a write
        return np.ndarray(shape, np.float32, buffer=mmap.mmap(file.fileno(), size))
    return np.empty(shape, np.float32)


def settle(array: Floats) -> None:
    """Give the memory back that an array in a file has taken on the way; its values stay."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def stretches(array: Floats, step: int = 1) -> Iterator[slice]:
    """Slices of the first axis, at multiples of `step`, with memory given back between them."""
    each = math.prod(array.shape[1:])
    size = step * max(1, _STRETCH // max(1, each * step))
    for first in range(0, len(array), size):
        yield slice(first, min(first + size, len(array)))
        settle(array)


class Growing:
    """A sound that comes piece by piece."""

    def __init__(self, expected: int = 0) -> None:
        self._room = empty((max(expected, 2**16),))
        self._count = 0

    def add(self, piece: Floats) -> None:
        """Append the samples."""
        end = self._count + len(piece)
        if end > len(self._room):
            self._move(empty((max(end, 2 * len(self._room)),)))
        self._room[self._count : end] = piece
        if end // _STRETCH > self._count // _STRETCH:
            settle(self._room)
        self._count = end

    def whole(self) -> Floats:
        """All that came, (time,)."""
        return self._room[: self._count]

    def _move(self, room: Floats) -> None:
        held = self.whole()
        for part in stretches(held):
            room[part] = held[part]
            settle(room)
        self._room = room
