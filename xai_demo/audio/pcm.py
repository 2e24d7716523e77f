"""Headers of uncompressed sound, WAV, W64, AIFF and CAF, and the records of any header.

A field that repeats another one never decides: the bytes of a frame follow from bits and channels.
A length is checked against the bytes that are there. libsndfile gets the samples only, as raw PCM
or float: version 1.2.2 decodes the first block of an ADPCM file as soon as it is opened, and
overflows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import SEEK_CUR, SEEK_END, SEEK_SET
from typing import Protocol

from xai_demo.errors import UnreadableFileError

SUPPORTED_FORMATS = (
    "a WAV, AIFF, FLAC, Ogg, MP3, M4A, 3GP, WebM, AMR, AAC, CAF, AU, W64 or WMA recording"
)

# Bounds the walk through a malicious file; ordinary files have fewer than twenty chunks.
_MAX_CHUNKS = 1000
_END = 2**40
# When writing to a pipe, sox and ffmpeg do not know the size yet and write this value or more.
_UNKNOWN_SIZE = 0x7FFFF000
_WAV_PCM, _WAV_FLOAT, _WAV_EXTENSIBLE = 1, 3, 0xFFFE
_WAV_LAWS = {6: "ALAW", 7: "ULAW"}
_AIFF_PCM = {
    **dict.fromkeys((b"NONE", b"twos", b"in24", b"in32", b"raw "), "BIG"),
    **dict.fromkeys((b"sowt", b"42ni", b"23ni"), "LITTLE"),
}
_AIFF_BITS = {b"in24": 24, b"42ni": 24, b"in32": 32, b"23ni": 32, b"raw ": 8}
_AIFF_SUBTYPES = {
    b"fl32": "FLOAT",
    b"FL32": "FLOAT",
    b"fl64": "DOUBLE",
    b"FL64": "DOUBLE",
    b"alaw": "ALAW",
    b"ALAW": "ALAW",
    b"ulaw": "ULAW",
    b"ULAW": "ULAW",
}
_SAMPLE_BYTES = {"ALAW": 1, "ULAW": 1, "FLOAT": 4, "DOUBLE": 8}
# What may follow the samples, even if it was cut off.
_CHUNK_NAMES = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"cue ", b"iXML", b"_PMX", b"PEAK", b"NAME")


class SeekableFile(Protocol):
    """What is read here: an open file, or a `FileSlice`."""

    def read(self, count: int = ..., /) -> bytes:
        """Return up to `count` of the next bytes."""

    def seek(self, offset: int, whence: int = ..., /) -> int:
        """Move to a position and return it."""

    def tell(self) -> int:
        """Return the position of the next byte to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFormat:
    """How uncompressed samples are stored."""

    subtype: str  # libsndfile's name, such as PCM_16
    endian: str
    sample_rate_hz: int
    channels: int
    gain: float = 1.0  # that brings the samples to full scale


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """The format of a file, the bytes that its decoder may read, and which decoder that is."""

    format: str
    start: int
    size: int
    sample_format: SampleFormat | None = None  # None: the decoder reads the header itself
    demuxer: str = ""  # FFmpeg's; "": libsndfile decodes the file
    links: tuple[int, ...] = ()  # where each of the streams of an Ogg file starts
    declared_s: float | None = None  # by the header; None: the decoder knows, or nobody
    has_length: bool = False  # whether what FFmpeg calls the duration is in the header
    warnings: tuple[str, ...] = ()

    @property
    def sound_bytes_s(self) -> float:
        """Seconds of uncompressed sound that the bytes hold; 0 for compressed sound."""
        if self.sample_format is None:
            return 0.0
        frames = self.size // max(1, _frame_bytes(self.sample_format))
        return frames / max(1, self.sample_format.sample_rate_hz)


class FileSlice:
    """A range of bytes of a file, presented as a file of its own."""

    def __init__(self, file: SeekableFile, start: int, size: int) -> None:
        self._file, self._start, self._size, self._position = file, start, size, 0

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer as far as the slice goes and return the number of bytes read."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, count: int = -1) -> bytes:
        """Return up to `count` of the next bytes, all of them if it is negative."""
        left = self._size - self._position
        # A header may send a decoder to where no file reaches, and where seeking would fail.
        if left <= 0:
            return b""
        self._file.seek(self._start + self._position)
        data = self._file.read(left if count < 0 else min(count, left))
        self._position += len(data)
        return data

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Move to a position, at the lowest 0, and return it."""
        origin = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self._size}[whence]
        # Clamped instead of refused: libsndfile's C callback would swallow an exception.
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        """Return the position of the next byte to read."""
        return self._position


def read_wav(file: SeekableFile, size: int, name: str) -> Container:
    """Read the header of a WAV, RF64 or BW64 file; raises UnreadableFileError."""
    order = ">" if read_bytes(file, 0, 4) == b"RIFX" else "<"
    chunks = _find_chunks(file, order, needed={b"fmt ", b"data"})
    fmt = read_bytes(file, *chunks.get(b"fmt ", (0, 0)), limit=40)
    if len(fmt) < 16 or b"data" not in chunks:
        raise _missing_chunk(name, "WAV", "format" if len(fmt) < 16 else "data")
    start, declared = chunks[b"data"]
    # RF64 (EBU Tech 3306): sizes beyond 4 GB are in the ds64 chunk.
    if b"ds64" in chunks and declared == 0xFFFFFFFF:
        (declared,) = struct.unpack_from(
            "<Q", read_bytes(file, *chunks[b"ds64"], limit=16).ljust(16), 8
        )
    return _wave_container(file, name, fmt, _Extent("WAV", start, declared, size, order))


def read_w64(file: SeekableFile, size: int, name: str) -> Container:
    """Read the header of a Sony Wave64 file; raises UnreadableFileError."""
    chunks = _find_chunks(file, "w64", needed={b"fmt ", b"data"})
    fmt = read_bytes(file, *chunks.get(b"fmt ", (0, 0)), limit=40)
    if len(fmt) < 16 or b"data" not in chunks:
        raise _missing_chunk(name, "W64", "format" if len(fmt) < 16 else "data")
    start, declared = chunks[b"data"]
    return _wave_container(file, name, fmt, _Extent("W64", start, declared, size, "w64"))


def _wave_container(file: SeekableFile, name: str, fmt: bytes, extent: _Extent) -> Container:
    order = ">" if extent.order == ">" else "<"
    tag, channels, rate, _, frame_bytes, bits = struct.unpack_from(f"{order}HHIIHH", fmt)
    # WAVE_FORMAT_EXTENSIBLE keeps the actual format tag in the first bytes of the subformat GUID.
    if tag == _WAV_EXTENSIBLE:
        # Without one, or with none of its bytes set, the samples are plain.
        tag = int.from_bytes(fmt[24:26], "big" if order == ">" else "little") or _WAV_PCM
    if tag not in (_WAV_PCM, _WAV_FLOAT, *_WAV_LAWS):
        demuxer = extent.kind.lower()
        return Container(format=extent.kind, start=0, size=extent.size, demuxer=demuxer)
    # The bytes of a frame follow from bits and channels: only a header without bits needs them.
    bits = bits or 8 * frame_bytes // max(1, channels)
    subtype = _WAV_LAWS.get(tag) or _subtype(bits, is_float=tag == _WAV_FLOAT, byte="PCM_U8")
    if not subtype:
        kind = "floating-point numbers" if tag == _WAV_FLOAT else "whole numbers"
        raise _unsupported_codec(name, extent.kind, f"{kind} of {bits} bits")
    gain = 1.0
    if subtype == "PCM_24" and order == "<" and frame_bytes == 4 * channels:
        subtype, gain = _format_of_24_bits(read_bytes(file, extent.start, 2**16))
    sample_format = SampleFormat(
        subtype=subtype,
        endian="BIG" if order == ">" else "LITTLE",
        sample_rate_hz=rate,
        channels=channels,
        gain=gain,
    )
    return _pcm_container(file, sample_format, extent)


def read_caf(file: SeekableFile, size: int, name: str) -> Container:
    """Read the header of a Core Audio file; raises UnreadableFileError."""
    chunks = _find_chunks(file, "caf", needed={b"desc", b"data"})
    desc = read_bytes(file, *chunks.get(b"desc", (0, 0)), limit=32)
    if len(desc) < 32 or b"data" not in chunks:
        raise _missing_chunk(name, "CAF", "desc" if len(desc) < 32 else "data")
    rate, codec, flags, _, _, channels, bits = struct.unpack_from(">d4sIIIII", desc)
    subtype = {b"ulaw": "ULAW", b"alaw": "ALAW"}.get(codec, "")
    if codec == b"lpcm":
        subtype = _subtype(bits, is_float=bool(flags & 1), byte="PCM_S8")
    if not subtype:
        return Container(format="CAF", start=0, size=size, demuxer="caf")
    sample_format = SampleFormat(
        subtype=subtype,
        endian="LITTLE" if flags & 2 and codec == b"lpcm" else "BIG",
        sample_rate_hz=round(rate) if 0 < rate < 2**31 else 0,
        channels=channels,
    )
    # The samples follow a count of edits, of four bytes.
    start, declared = chunks[b"data"]
    extent = _Extent("CAF", min(size, start + 4), max(0, declared - 4), size, "caf")
    return _pcm_container(file, sample_format, extent)


def read_aiff(file: SeekableFile, size: int, name: str) -> Container:
    """Read the header of an AIFF or AIFF-C file; raises UnreadableFileError."""
    chunks = _find_chunks(file, ">", needed={b"COMM", b"SSND"})
    comm = read_bytes(file, *chunks.get(b"COMM", (0, 0)), limit=22)
    if len(comm) < 18 or b"SSND" not in chunks:
        raise _missing_chunk(name, "AIFF", "COMM" if len(comm) < 18 else "SSND")
    channels, frames, bits, exponent, mantissa = struct.unpack_from(">HIHHQ", comm)
    codec = comm[18:22] if read_bytes(file, 8, 4) == b"AIFC" and len(comm) == 22 else b"NONE"
    if codec not in (*_AIFF_PCM, *_AIFF_SUBTYPES):
        return Container(format="AIFF", start=0, size=size, demuxer="aiff")
    bits = _AIFF_BITS.get(codec, bits or 16)
    byte = "PCM_U8" if codec == b"raw " else "PCM_S8"
    subtype = _AIFF_SUBTYPES.get(codec) or _subtype(bits, is_float=False, byte=byte)
    if not subtype:
        raise _unsupported_codec(name, "AIFF", f"whole numbers of {bits} bits")
    sample_format = SampleFormat(
        subtype=subtype,
        endian=_AIFF_PCM.get(codec, "BIG"),
        # An 80-bit float whose mantissa has 63 bits after the point: value = mantissa
        # * 2^(exponent - 16383 - 63). Rates from 2^21 Hz on become 0, which is rejected.
        sample_rate_hz=mantissa >> (16446 - exponent) if 16383 <= exponent <= 16403 else 0,
        channels=channels,
    )
    # The SSND chunk starts with an offset and a block size, of four bytes each.
    start, declared = chunks[b"SSND"]
    offset = int.from_bytes(read_bytes(file, start, 4), "big")
    start = min(size, start + 8 + offset)
    declared = max(0, declared - 8 - offset)
    # Both lengths are of the same samples: the longer one is what a cut file falls short of.
    if declared < _UNKNOWN_SIZE:
        declared = max(declared, frames * _frame_bytes(sample_format))
    return _pcm_container(file, sample_format, _Extent("AIFF", start, declared, size, ">"))


@dataclass(frozen=True, slots=True)
class _Extent:
    """Where the samples start, how many bytes the header declares, and the size of the file."""

    kind: str
    start: int
    declared: int
    size: int
    order: str  # of the bytes in the chunks, or "caf" or "w64" for chunks of their own kind


def _pcm_container(file: SeekableFile, sample_format: SampleFormat, extent: _Extent) -> Container:
    """A container of uncompressed samples, whose length is checked against the bytes there are."""
    frame_bytes, rate = max(1, _frame_bytes(sample_format)), max(1, sample_format.sample_rate_hz)
    remaining = max(0, extent.size - extent.start)
    declared, said = extent.declared, ""
    there = f"{remaining // frame_bytes / rate:.1f} s"
    # Less than a tenth of a second after the declared end may be anything.
    spare = rate * frame_bytes // 10 if declared else 0
    is_open = declared == 0 or (declared > remaining and declared >= _UNKNOWN_SIZE)
    if remaining and is_open and not _has_chunks(file, extent, extent.start + declared):
        said = f"The header does not give the length of the sound; all {there} of it were read."
    elif declared + spare < remaining and not _has_chunks(file, extent, extent.start + declared):
        declares = f"{declared // frame_bytes / rate:.1f} s"
        said = f"The header declares {declares} of sound, but there are {there}; all were read."
    if said:
        declared = remaining
    return Container(
        format=extent.kind,
        start=extent.start,
        size=min(declared, remaining),
        sample_format=sample_format,
        declared_s=declared // frame_bytes / rate,
        warnings=(said,) if said else (),
    )


def _has_chunks(file: SeekableFile, extent: _Extent, position: int) -> bool:
    """Whether what follows the samples is no sound: chunks, a tag, zeros, or next to nothing."""
    rest = read_bytes(file, position, 2**16)
    if extent.declared > extent.size:
        return False
    if rest.startswith((b"TAG", b"ID3", b"APETAGEX", *_CHUNK_NAMES)) or not rest.strip(b"\0"):
        return True
    for pad in {extent.declared % 2, -extent.declared % 8, 0}:
        at = position + pad
        for _ in range(_MAX_CHUNKS):
            chunk = _read_chunk(file, at, extent.order)
            if chunk is None or not _is_chunk_name(chunk.name):
                break
            at = chunk.end + (chunk.end % 2 if extent.order in "<>" else 0)
        # The last chunk may lack its byte of padding.
        if at > position + pad and extent.size - 8 < at <= extent.size + 8:
            return True
    return False


def _format_of_24_bits(data: bytes) -> tuple[str, float]:
    """Samples of 24 bits with 4 bytes for each: which bytes, and the gain to full scale.

    The header may mean either; in the samples, the fourth byte is zero or repeats the sign.
    """
    data = data[: len(data) // 4 * 4]
    if not any(data[::4]):
        return "PCM_32", 1.0
    signs = bytes(255 if byte & 128 else 0 for byte in data[2::4])
    return ("PCM_32", 256.0) if data[3::4] == signs else ("PCM_24", 1.0)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A chunk of a file: its name, and where its content starts and ends."""

    name: bytes
    start: int
    end: int


def _read_chunk(file: SeekableFile, position: int, order: str) -> _Chunk | None:
    """The chunk at a position; None where the file ends."""
    if order == "w64":
        # A GUID that starts with the name, and the size of all of it, of eight bytes.
        head = read_bytes(file, position, 24)
        length = int.from_bytes(head[16:24], "little") or 24
        return _Chunk(head[:4], position + 24, position + length) if len(head) == 24 else None
    if order == "caf":
        head = read_bytes(file, position, 12)
        # -1 for the last chunk means that it reaches to the end.
        length = int.from_bytes(head[4:12], "big")
        return _Chunk(head[:4], position + 12, position + 12 + length) if len(head) == 12 else None
    head = read_bytes(file, position, 8)
    if len(head) < 8:
        return None
    name, length = struct.unpack(f"{order}4sI", head)
    return _Chunk(name, position + 8, position + 8 + length)


def _find_chunks(
    file: SeekableFile, order: str, *, needed: set[bytes]
) -> dict[bytes, tuple[int, int]]:
    """Start and size of the first chunk of each name, read until every needed one is found."""
    chunks: dict[bytes, tuple[int, int]] = {}
    position = {"w64": 40, "caf": 8}.get(order, 12)
    for _ in range(_MAX_CHUNKS):
        chunk = _read_chunk(file, position, order)
        if chunk is None or needed <= chunks.keys():
            break
        chunks.setdefault(chunk.name, (chunk.start, max(0, chunk.end - chunk.start)))
        position = max(chunk.end, chunk.start)
        if order == "w64":
            position = -(-position // 8) * 8
        # Chunks of odd size are padded to an even one, although some programs forget it.
        elif order != "caf" and (chunk.end - chunk.start) % 2:
            names = read_bytes(file, position, 5)
            position += not (names[:1] != b"\0" and _is_chunk_name(names[:4]))
    return chunks


def _is_chunk_name(name: bytes) -> bool:
    return len(name) == 4 and all(32 <= byte < 127 for byte in name)


def _frame_bytes(sample_format: SampleFormat) -> int:
    subtype = sample_format.subtype
    bits = subtype.rpartition("_")[2].lstrip("US")
    return sample_format.channels * (_SAMPLE_BYTES.get(subtype) or int(bits) // 8)


def _subtype(bits: int, *, is_float: bool, byte: str) -> str:
    """libsndfile's name of a sample format, or "" if it has none."""
    if is_float:
        return {32: "FLOAT", 64: "DOUBLE"}.get(bits, "")
    return {1: byte, 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}.get((bits + 7) // 8, "")


def _missing_chunk(name: str, container: str, chunk: str) -> UnreadableFileError:
    article = "an" if container[0] in "AO" else "a"
    return UnreadableFileError(
        f"{name} is {article} {container} file without a {chunk} chunk;"
        f" expected {SUPPORTED_FORMATS}."
    )


def _unsupported_codec(name: str, container: str, codec: str) -> UnreadableFileError:
    article = "an" if container[0] in "AO" else "a"
    return UnreadableFileError(
        f"{name} is {article} {container} file whose samples are {codec}; expected PCM of 8 to 32"
        f" bits or float, or {SUPPORTED_FORMATS}."
    )


def read_bytes(file: SeekableFile, start: int, size: int, *, limit: int | None = None) -> bytes:
    """Read `size` bytes, but no more than `limit`; fewer where the file ends."""
    # Sizes of 64 bits in a header may point beyond what a file can have.
    file.seek(min(start, _END))
    return file.read(min(size, _END if limit is None else limit))
