"""Sound files from the outside: what the header says, before any decoder sees a byte.

The header of a WAV or AIFF is read here and its samples are handed to libsndfile as raw numbers:
libsndfile 1.2.2 decodes the first block of an ADPCM file as soon as it is opened, and overflows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import SEEK_CUR, SEEK_END, SEEK_SET
from typing import BinaryIO

import soundfile

from xai_demo.errors import UnreadableFileError
from xai_demo.files import format_of, is_mpeg_audio

WANTED = "a sound as WAV, AIFF, FLAC, Ogg (Vorbis, Opus) or MP3"

_MAX_CHUNKS = 1000  # a sane file has fewer than twenty
_UNKNOWN_SIZE = 0x7FFFF000  # sox and ffmpeg write this and more where they cannot know it yet
_WAV_PCM, _WAV_FLOAT, _WAV_EXTENSIBLE = 1, 3, 0xFFFE
_WAV_CODECS = {  # RFC 2361 and mmreg.h
    0x02: "Microsoft ADPCM",
    0x06: "A-law",
    0x07: "mu-law",
    0x11: "IMA ADPCM",
    0x31: "GSM 6.10",
    0x50: "MPEG",
    0x55: "MP3 inside a WAV",
}
_AIFF_PCM = {b"NONE": "BIG", b"twos": "BIG", b"in24": "BIG", b"in32": "BIG", b"sowt": "LITTLE"}
_AIFF_FLOAT = (b"fl32", b"FL32", b"fl64", b"FL64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """How samples are stored that need no decoder."""

    subtype: str  # libsndfile's name of it
    endian: str
    sample_rate_hz: int
    channels: int
    promised_frames: int | None  # None: the writer did not know


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What a header says, and where the bytes lie that a decoder may see."""

    format: str
    start: int
    size: int
    numbers: Numbers | None = None  # None: the decoder reads its own header


class Window:
    """A stretch of a file as a file of its own, for libsndfile's virtual input."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer as far as the stretch goes; how many bytes that was."""
        self._file.seek(self._start + self._at)
        data = self._file.read(min(len(buffer), max(0, self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def read(self, count: int) -> bytes:
        """The next bytes."""
        buffer = bytearray(count)
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Move, never to before the start: an exception here would be lost inside libsndfile."""
        origin = {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at


class Stream(soundfile.SoundFile):  # type: ignore[misc]
    """A sound read from front to back.

    After every read, soundfile seeks to where it is, which makes an MP3 lose the bits that its
    next frame borrows from the last ones: a gap in every block.
    """

    def seekable(self) -> bool:
        """Say no, so that nothing seeks."""
        return False


def container(file: BinaryIO, name: str) -> Container:
    """Read the header; raises UnreadableFileError for all that is not on the list of formats."""
    found = format_of(file)
    size = file.seek(0, SEEK_END)
    match found:
        case "WAV":
            return _wav(file, size, name)
        case "AIFF":
            return _aiff(file, size, name)
        case "FLAC":
            return Container(format="FLAC", start=0, size=size)
        case "Ogg":
            return _ogg(file, size, name)
        case "MP3":
            return _mp3(file, size, name)
    what = found or "of an unknown format"
    raise UnreadableFileError(f"{name} is {what}, not a sound that can be read; wanted: {WANTED}.")


def decoder(file: BinaryIO, header: Container) -> Stream:
    """Open libsndfile on the samples of a container; raises its LibsndfileError."""
    window = Window(file, header.start, header.size)
    if not header.numbers:
        return Stream(window)
    return Stream(
        window,
        format="RAW",
        subtype=header.numbers.subtype,
        endian=header.numbers.endian,
        samplerate=header.numbers.sample_rate_hz,
        channels=header.numbers.channels,
    )


def _wav(file: BinaryIO, size: int, name: str) -> Container:
    order = ">" if _bytes(file, 0, 4) == b"RIFX" else "<"
    chunks = _chunks(file, order, wanted={b"fmt ", b"data"})
    fmt = _bytes(file, *chunks.get(b"fmt ", (0, 0)), most=40)
    if len(fmt) < 16 or b"data" not in chunks:
        missing = "format" if len(fmt) < 16 else "data"
        raise UnreadableFileError(f"{name} is a WAV without a {missing} chunk; wanted: {WANTED}.")
    tag, channels, rate, _, frame_bytes, bits = struct.unpack_from(f"{order}HHIIHH", fmt)
    if tag == _WAV_EXTENSIBLE and len(fmt) >= 26:
        (tag,) = struct.unpack_from(f"{order}H", fmt, 24)
    if tag not in (_WAV_PCM, _WAV_FLOAT):
        raise _unread(name, "WAV", _WAV_CODECS.get(tag, f"format {tag:#06x}"))
    start, declared = chunks[b"data"]
    if b"ds64" in chunks and declared == 0xFFFFFFFF:
        (declared,) = struct.unpack_from("<Q", _bytes(file, *chunks[b"ds64"], most=16).ljust(16), 8)
    subtype = _subtype(bits, is_float=tag == _WAV_FLOAT, unsigned_byte=True)
    if not subtype or frame_bytes != channels * ((bits + 7) // 8):
        raise _unread(name, "WAV", f"{bits} bits in {frame_bytes} bytes a frame")
    left = size - start
    # A writer into a pipe leaves its first guess in both sizes.
    unknown = declared > left and declared >= _UNKNOWN_SIZE
    unknown |= declared == 0 and _bytes(file, 4, 4) in (b"\0\0\0\0", b"\xff\xff\xff\xff")
    return Container(
        format="WAV",
        start=start,
        size=left if unknown else min(declared, left),
        numbers=Numbers(
            subtype=subtype,
            endian="BIG" if order == ">" else "LITTLE",
            sample_rate_hz=rate,
            channels=channels,
            promised_frames=None if unknown else declared // max(1, frame_bytes),
        ),
    )


def _aiff(file: BinaryIO, size: int, name: str) -> Container:
    chunks = _chunks(file, ">", wanted={b"COMM", b"SSND"})
    comm = _bytes(file, *chunks.get(b"COMM", (0, 0)), most=22)
    if len(comm) < 18 or b"SSND" not in chunks:
        missing = "COMM" if len(comm) < 18 else "SSND"
        raise UnreadableFileError(f"{name} is an AIFF without a {missing} chunk; wanted: {WANTED}.")
    channels, frames, bits, exponent, mantissa = struct.unpack_from(">HIHHQ", comm)
    codec = comm[18:22] if _bytes(file, 8, 4) == b"AIFC" and len(comm) == 22 else b"NONE"
    subtype = _subtype(bits, is_float=codec in _AIFF_FLOAT, unsigned_byte=False)
    if not subtype or codec not in (*_AIFF_PCM, *_AIFF_FLOAT):
        what = codec.decode("ascii", "replace").strip()
        raise _unread(name, "AIFF", f"{what} of {bits} bits" if what.isprintable() else "unknown")
    start, declared = chunks[b"SSND"]
    offset = int.from_bytes(_bytes(file, start, 4), "big")
    start = min(size, start + 8 + offset)
    frame_bytes = channels * ((bits + 7) // 8)
    return Container(
        format="AIFF",
        start=start,
        size=min(max(0, declared - 8 - offset), size - start, frames * frame_bytes),
        numbers=Numbers(
            subtype=subtype,
            endian=_AIFF_PCM.get(codec, "BIG"),
            # An 80-bit float: the mantissa has 63 bits after the point. Rates end below 2^20.
            sample_rate_hz=mantissa >> (16446 - exponent) if 16383 <= exponent <= 16403 else 0,
            channels=channels,
            promised_frames=frames,
        ),
    )


def _ogg(file: BinaryIO, size: int, name: str) -> Container:
    segments = int.from_bytes(_bytes(file, 26, 1), "big")
    packet = _bytes(file, 27 + segments, 8)  # the first page: RFC 3533, section 6
    if not packet.startswith((b"\x01vorbis", b"OpusHead")):
        raise _unread(name, "Ogg", "neither Vorbis nor Opus")
    return Container(format="Ogg", start=0, size=size)


def _mp3(file: BinaryIO, size: int, name: str) -> Container:
    start = 0
    while (tag := _bytes(file, start, 10)).startswith(b"ID3") and len(tag) == 10:
        length = sum(
            (byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True)
        )
        start += 10 + length
    head = _bytes(file, start, 4)
    if head == b"fLaC":
        return Container(format="FLAC", start=start, size=size - start)
    if not is_mpeg_audio(head):
        raise UnreadableFileError(f"{name} has an ID3 tag but no MP3 after it; wanted: {WANTED}.")
    return Container(format="MP3", start=start, size=size - start)


def _chunks(file: BinaryIO, order: str, *, wanted: set[bytes]) -> dict[bytes, tuple[int, int]]:
    """Start and size of the first chunk of each name, as far as all that is wanted is found."""
    found: dict[bytes, tuple[int, int]] = {}
    at = 12
    for _ in range(_MAX_CHUNKS):
        head = _bytes(file, at, 8)
        if len(head) < 8 or wanted <= found.keys():
            break
        chunk, size = struct.unpack(f"{order}4sI", head)
        found.setdefault(chunk, (at + 8, size))
        at += 8 + size + size % 2
    return found


def _subtype(bits: int, *, is_float: bool, unsigned_byte: bool) -> str:
    """Return libsndfile's name of such numbers, "" where it is not known."""
    if is_float:
        return {32: "FLOAT", 64: "DOUBLE"}.get(bits, "")
    byte = "PCM_U8" if unsigned_byte else "PCM_S8"
    return {1: byte, 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}.get((bits + 7) // 8, "")


def _unread(name: str, container: str, codec: str) -> UnreadableFileError:
    article = "an" if container[0] in "AO" else "a"
    return UnreadableFileError(
        f"{name} is {article} {container} whose samples are {codec}; wanted: PCM of 8 to 32 bits or"
        f" float, or {WANTED}."
    )


def _bytes(file: BinaryIO, start: int, size: int, *, most: int | None = None) -> bytes:
    """Up to that many bytes from there; fewer where the file ends."""
    file.seek(start)
    return file.read(size if most is None else min(size, most))
