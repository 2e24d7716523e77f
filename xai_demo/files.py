"""Files: opening an upload, detecting its format, writing atomically, memory-mapping large arrays.

A file's format is detected from its first bytes and never from its extension. Messages quote the
base name only, because the folders above it may name a user or a patient. Arrays that grow with a
recording live in an anonymous temporary file, so that memory use stays bounded.
"""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import stat
import struct
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
# A recording cut out of a stream starts with a piece of a frame, and some writers pad with zeros.
_SEARCHED_BYTES = 2**16
_MAX_ID3_TAGS = 16
_MAX_PADDING_BYTES = 2**24
_MAX_NAME_CHARACTERS = 80

# (offset, bytes at that offset, format). The first match wins, so the order matters: the specific
# ISO base media brands (AVIF, HEIC) come before the bare "ftyp" that they share with MP4.
_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    # First, because applications may put anything before it, such as the head of a TIFF.
    (128, b"DICM", "DICOM"),
    (8, b"WAVE", "WAV"),
    (8, b"AIFF", "AIFF"),
    (8, b"AIFC", "AIFF"),
    (0, b"fLaC", "FLAC"),
    (0, b"OggS", "Ogg"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (0, b"%PDF", "PDF"),
    (0, b"GIF8", "GIF"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
    (4, b"ftyp", "MP4 or M4A"),
    # QuickTime before it had brands.
    (4, b"moov", "MP4 or M4A"),
    (4, b"mdat", "MP4 or M4A"),
    (4, b"wide", "MP4 or M4A"),
    (0, b"\x1a\x45\xdf\xa3", "WebM or Matroska"),
    (0, b"\x30\x26\xb2\x75", "WMA"),
    (0, b"caff", "CAF"),
    (0, b"riff\x2e\x91\xcf\x11", "W64"),
    (0, b".snd", "AU"),
    (0, b"#!AMR", "AMR"),
    (0, b"\xff\xf1", "AAC"),
    (0, b"\xff\xf9", "AAC"),
    (0, b"MThd", "MIDI"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"\x1f\x8b", "gzip"),
)


def display_name(path: str | PathLike[str]) -> str:
    """The base name, made fit for a message: printable, on one line, at most 80 characters.

    >>> display_name("/home/someone/breath\\nsounds.wav")
    'breath?sounds.wav'
    """
    name = "".join(c if c.isprintable() else "?" for c in PurePath(fspath(path)).name)
    return name if len(name) <= _MAX_NAME_CHARACTERS else f"{name[: _MAX_NAME_CHARACTERS - 1]}…"


@contextmanager
def open_file(
    path: str | PathLike[str], *, expected: str, name: str | None = None
) -> Iterator[BinaryIO]:
    """Open a regular file that is not empty.

    `name` is shown in messages instead of the file's own. Raises UnreadableFileError, whose
    message ends with what was `expected`.
    """
    name = display_name(path if name is None else name)
    if "\0" in fspath(path):
        raise UnreadableFileError(f"{name} is not a valid file name; expected {expected}.")
    try:
        # Reading a pipe or a device might never end.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise UnreadableFileError(f"{name} is not a file; expected {expected}.")
        with Path(path).open("rb") as file:
            if not file.read(1):
                raise UnreadableFileError(f"{name} is empty (0 bytes); expected {expected}.")
            file.seek(0)
            yield file
    except OSError as error:
        reason = error.strerror or "the system refused access"
        raise UnreadableFileError(
            f"{name} cannot be read: {reason}; expected {expected}."
        ) from error


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


def detect_format(file: BinaryIO) -> str:
    """The format that the first kilobyte shows, or "" if it is unknown; rewinds the file.

    >>> import io
    >>> detect_format(io.BytesIO(b"fLaC"))
    'FLAC'
    """
    file.seek(0)
    if is_dicom(file.read(_HEAD_BYTES)):
        file.seek(0)
        return "DICOM"
    start = skip_id3_tags(file)
    file.seek(start)
    head = file.read(_HEAD_BYTES)
    rest = file.read(_SEARCHED_BYTES)
    file.seek(0)
    for offset, signature, name in _SIGNATURES:
        if head.startswith(signature, offset):
            return name
    # Behind an ID3 tag, nothing but sound is expected, so that a damaged MP3 is still called one.
    if start or is_mpeg_audio(head):
        return "MP3"
    if b"<svg" in head.lower():
        return "SVG"
    if all(byte >= 32 or byte in b"\t\n\f\r" for byte in head):
        return "plain text"
    return "MP3" if find_mpeg_audio(head + rest) is not None else ""


def skip_id3_tags(file: BinaryIO) -> int:
    """The position after the ID3v2 tags at the start of a file, and after zeros that follow them.

    0 for a file without such a tag. At most 16 MiB of zeros are skipped.
    """
    start = 0
    for _ in range(_MAX_ID3_TAGS):
        file.seek(start)
        tag = file.read(10)
        if len(tag) < 10 or not tag.startswith(b"ID3"):
            break
        # The length is in four bytes of seven bits, without the header of ten bytes.
        length = sum(
            (byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True)
        )
        start += 10 + length
    zeros, block = 0, b"" if start else b"\1"
    while not block.strip(b"\0") and zeros < _MAX_PADDING_BYTES:
        file.seek(start + zeros)
        block = file.read(_SEARCHED_BYTES)
        zeros += len(block) - len(block.lstrip(b"\0"))
        if len(block) < _SEARCHED_BYTES:
            break
    # An M4A starts with up to three zeros of its own.
    return start + (zeros if zeros > 3 else 0)


def find_mpeg_audio(data: bytes) -> int | None:
    """The position of the first of three MPEG audio frames in a row, or None if there are none.

    Fewer frames are enough where the data end with them.
    """
    position = data.find(b"\xff")
    while 0 <= position < len(data) - 3:
        at, frames = position, 0
        while frames < 3 and is_mpeg_audio(data[at : at + 4]):
            at += mpeg_frame_bytes(data[at : at + 4])
            frames += 1
            if at >= len(data) - 3:
                return position
        if frames == 3:
            return position
        position = data.find(b"\xff", position + 1)
    return None


def mpeg_frame_bytes(head: bytes) -> int:
    """Bytes of the MPEG audio frame with this valid header; at least 4.

    >>> mpeg_frame_bytes(b"\\xff\\xfb\\x90\\x64")
    417
    """
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    # ISO 11172-3, 2.4.2.3, and ISO 13818-3 for the lower sample rates, in kbit/s.
    first = (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448)
    second = (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
    third = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
    low_first = (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256)
    low = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
    full = version == 3
    table = ((first, second, third) if full else (low_first, low, low))[layer - 1]
    rate = (44100, 48000, 32000)[head[2] >> 2 & 3] >> (3 - max(version, 1) if not full else 0)
    index, padding = head[2] >> 4, head[2] >> 1 & 1
    # The free format does not say its bit rate.
    bits = 1000 * table[index - 1] if index else 0
    if layer == 1:
        return max(4, 4 * (12 * bits // rate + padding))
    return max(4, (72 if layer == 3 and not full else 144) * bits // rate + padding)


def is_dicom(head: bytes) -> bool:
    """Whether these bytes start a DICOM file, or a DICOM dataset without file meta information.

    >>> is_dicom(bytes(128) + b"DICM")
    True
    """
    return head.startswith(b"DICM", 128) or any(_has_dicom_elements(head, o) for o in "<>")


def _has_dicom_elements(head: bytes, order: str) -> bool:
    """Whether two elements of ascending tags begin these bytes: PS3.5, 7.1."""
    at = last = 0
    # Behind the meta information of a big-endian file, group 0008 reads as 0800.
    for groups in ((2, 4, 8), (*range(2, 0x30), 0x800)):
        if len(head) < at + 12:
            return False
        group, number, vr, length = struct.unpack_from(f"{order}HH2sH", head, at)
        if group not in groups or not last < group << 16 | number:
            return False
        last, at = group << 16 | number, at + 8
        if not (vr.isalpha() and vr.isupper()):
            # Implicit VR: all four bytes are the length.
            (length,) = struct.unpack_from(f"{order}I", head, at - 4)
        elif vr in (b"OB", b"SQ", b"UN", b"UT"):
            (length,) = struct.unpack_from(f"{order}I", head, at)
            at += 4
        at += length
    return True


def is_mpeg_audio(head: bytes) -> bool:
    """Whether these bytes start with a valid MPEG audio frame header (ISO 11172-3, 2.4.1).

    >>> is_mpeg_audio(b"\\xff\\xfb\\x90\\x64")
    True
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    # Version 1, layer 0, bit rate 15 and sample rate 3 are reserved or invalid. Other data may also
    # start with eleven set bits (AAC does), but seldom passes these checks as well.
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bit_rate, sample_rate = head[2] >> 4, head[2] >> 2 & 3
    return version != 1 and layer != 0 and bit_rate != 15 and sample_rate != 3


# Smaller arrays stay in memory; 16 MiB are nearly nine minutes of float32 samples at 8 kHz.
_MAPPED_FROM_BYTES = 2**24
# Values processed between two releases of memory pages: 4 MiB at a time.
_CHUNK_VALUES = 2**20


def allocate_array(shape: tuple[int, ...]) -> Floats:
    """An uninitialised float32 array, memory-mapped from a temporary file if it is large.

    The file has no name and disappears with the array. Where the disk has no room or the system
    cannot reserve it, the array is in memory.
    """
    size = 4 * math.prod(shape)
    if size < _MAPPED_FROM_BYTES or not hasattr(os, "posix_fallocate"):
        return np.empty(shape, np.float32)
    with contextlib.suppress(OSError), tempfile.TemporaryFile() as file:
        # Reserving the space makes a full disk fail here; a later write to an unbacked page would
        # kill the process with SIGBUS.
        os.posix_fallocate(file.fileno(), 0, size)
        return np.ndarray(shape, np.float32, buffer=mmap.mmap(file.fileno(), size))
    return np.empty(shape, np.float32)


def release_pages(array: Floats) -> None:
    """Release the memory pages of a memory-mapped array; its values stay in the file.

    Does nothing for an array in memory.
    """
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def chunks(array: Floats, step: int = 1) -> Iterator[slice]:
    """Slices that cover the first axis in chunks of 4 MiB, each starting at a multiple of `step`.

    The pages of a memory-mapped array are released after each chunk.

    >>> list(chunks(np.zeros((3, 2**19), np.float32)))
    [slice(0, 2, None), slice(2, 3, None)]
    """
    each = math.prod(array.shape[1:])
    size = step * max(1, _CHUNK_VALUES // max(1, each * step))
    for first in range(0, len(array), size):
        yield slice(first, min(first + size, len(array)))
        release_pages(array)


class GrowingArray:
    """A one-dimensional float32 array that samples are appended to; memory-mapped if large."""

    def __init__(self, expected_size: int = 0) -> None:
        self._buffer = allocate_array((max(expected_size, 2**16),))
        self._count = 0

    def append(self, samples: Floats) -> None:
        """Append samples, (time,); doubles the capacity when it is exhausted."""
        end = self._count + len(samples)
        if end > len(self._buffer):
            self._move_to(allocate_array((max(end, 2 * len(self._buffer)),)))
        self._buffer[self._count : end] = samples
        if end // _CHUNK_VALUES > self._count // _CHUNK_VALUES:
            release_pages(self._buffer)
        self._count = end

    def view(self) -> Floats:
        """All samples appended so far, (time,); not a copy."""
        return self._buffer[: self._count]

    def _move_to(self, buffer: Floats) -> None:
        samples = self.view()
        for chunk in chunks(samples):
            buffer[chunk] = samples[chunk]
            release_pages(buffer)
        self._buffer = buffer
