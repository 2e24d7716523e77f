"""What a visitor brought: a regular file, told by its first bytes, named by its base name."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path, PurePath
from typing import BinaryIO

from xai_demo.errors import UnreadableFileError

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
