"""Headers of sound files (WAV, AIFF, FLAC, Ogg, MP3), read before a decoder sees a byte.

WAV and AIFF headers are parsed here, and libsndfile only gets their samples as raw PCM or float:
libsndfile 1.2.2 decodes the first block of an ADPCM file as soon as it is opened, and overflows.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import SEEK_CUR, SEEK_END, SEEK_SET
from typing import BinaryIO

import soundfile

from xai_demo.errors import UnreadableFileError
from xai_demo.files import detect_format, is_mpeg_audio

SUPPORTED_FORMATS = "a WAV, AIFF, FLAC, Ogg (Vorbis or Opus) or MP3 recording"

# Bounds the walk through a malicious file; ordinary files have fewer than twenty chunks.
_MAX_CHUNKS = 1000
# When writing to a pipe, sox and ffmpeg do not know the size yet and write this value or more.
_UNKNOWN_SIZE = 0x7FFFF000
_WAV_PCM, _WAV_FLOAT, _WAV_EXTENSIBLE = 1, 3, 0xFFFE
# Names for the message that rejects them: RFC 2361 and mmreg.h.
_WAV_CODECS = {
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
class SampleFormat:
    """How uncompressed samples are stored."""

    subtype: str  # libsndfile's name, such as PCM_16
    endian: str
    sample_rate_hz: int
    channels: int
    declared_frames: int | None  # by the header; None: the writer did not know


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """The format of a file and the range of bytes that the decoder may read."""

    format: str
    start: int
    size: int
    sample_format: SampleFormat | None = None  # None: the decoder reads the header itself


class FileSlice:
    """A range of bytes of a file, presented as a file of its own to libsndfile's virtual I/O."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._position = file, start, size, 0

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer as far as the slice goes and return the number of bytes read."""
        self._file.seek(self._start + self._position)
        data = self._file.read(min(len(buffer), max(0, self._size - self._position)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read(self, count: int) -> bytes:
        """Return up to `count` of the next bytes."""
        buffer = bytearray(count)
        return bytes(buffer[: self.readinto(memoryview(buffer))])

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Move to a position, at the lowest 0, and return it."""
        origin = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self._size}[whence]
        # Clamped instead of refused: libsndfile's C callback would swallow an exception.
        self._position = max(0, origin + offset)
        return self._position

    def tell(self) -> int:
        """Return the position of the next byte to read."""
        return self._position


class SoundStream(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is read from front to back.

    After every read, soundfile seeks to the current position. In an MP3 this discards the bit
    reservoir, the bits that the next frame borrows from earlier ones, and leaves a gap per block.
    """

    def seekable(self) -> bool:
        """Return False, so that soundfile does not seek."""
        return False


def read_container(file: BinaryIO, name: str) -> Container:
    """Read the header of a sound file; raises UnreadableFileError for an unsupported format."""
    detected = detect_format(file)
    size = file.seek(0, SEEK_END)
    match detected:
        case "WAV":
            return _read_wav(file, size, name)
        case "AIFF":
            return _read_aiff(file, size, name)
        case "FLAC":
            return Container(format="FLAC", start=0, size=size)
        case "Ogg":
            return _read_ogg(file, size, name)
        case "MP3":
            return _read_mp3(file, size, name)
    kind = f"a file of type {detected}" if detected else "a file of an unknown type"
    raise UnreadableFileError(
        f"{name} is {kind}, not a supported sound file; expected {SUPPORTED_FORMATS}."
    )


def open_decoder(file: BinaryIO, header: Container) -> SoundStream:
    """Open libsndfile on the samples of a file; raises its LibsndfileError."""
    data = FileSlice(file, header.start, header.size)
    if not header.sample_format:
        return SoundStream(data)
    return SoundStream(
        data,
        format="RAW",
        subtype=header.sample_format.subtype,
        endian=header.sample_format.endian,
        samplerate=header.sample_format.sample_rate_hz,
        channels=header.sample_format.channels,
    )


def _read_wav(file: BinaryIO, size: int, name: str) -> Container:
    order = ">" if _read_bytes(file, 0, 4) == b"RIFX" else "<"
    chunks = _find_chunks(file, order, needed={b"fmt ", b"data"})
    fmt = _read_bytes(file, *chunks.get(b"fmt ", (0, 0)), limit=40)
    if len(fmt) < 16 or b"data" not in chunks:
        missing = "format" if len(fmt) < 16 else "data"
        raise UnreadableFileError(
            f"{name} is a WAV file without a {missing} chunk; expected {SUPPORTED_FORMATS}."
        )
    tag, channels, rate, _, frame_bytes, bits = struct.unpack_from(f"{order}HHIIHH", fmt)
    # WAVE_FORMAT_EXTENSIBLE keeps the actual format tag in the first bytes of the subformat GUID.
    if tag == _WAV_EXTENSIBLE and len(fmt) >= 26:
        (tag,) = struct.unpack_from(f"{order}H", fmt, 24)
    if tag not in (_WAV_PCM, _WAV_FLOAT):
        raise _unsupported_codec(name, "WAV", _WAV_CODECS.get(tag, f"format {tag:#06x}"))
    start, declared = chunks[b"data"]
    # RF64 (EBU Tech 3306): sizes beyond 4 GB are in the ds64 chunk.
    if b"ds64" in chunks and declared == 0xFFFFFFFF:
        (declared,) = struct.unpack_from(
            "<Q", _read_bytes(file, *chunks[b"ds64"], limit=16).ljust(16), 8
        )
    subtype = _libsndfile_subtype(bits, is_float=tag == _WAV_FLOAT, unsigned_byte=True)
    if not subtype or frame_bytes != channels * ((bits + 7) // 8):
        raise _unsupported_codec(name, "WAV", f"{bits} bits in {frame_bytes} bytes per frame")
    remaining = size - start
    # A program that writes to a pipe cannot go back to correct the placeholder in both sizes.
    unknown = declared > remaining and declared >= _UNKNOWN_SIZE
    unknown |= declared == 0 and _read_bytes(file, 4, 4) in (b"\0\0\0\0", b"\xff\xff\xff\xff")
    return Container(
        format="WAV",
        start=start,
        size=remaining if unknown else min(declared, remaining),
        sample_format=SampleFormat(
            subtype=subtype,
            endian="BIG" if order == ">" else "LITTLE",
            sample_rate_hz=rate,
            channels=channels,
            declared_frames=None if unknown else declared // max(1, frame_bytes),
        ),
    )


def _read_aiff(file: BinaryIO, size: int, name: str) -> Container:
    chunks = _find_chunks(file, ">", needed={b"COMM", b"SSND"})
    comm = _read_bytes(file, *chunks.get(b"COMM", (0, 0)), limit=22)
    if len(comm) < 18 or b"SSND" not in chunks:
        missing = "COMM" if len(comm) < 18 else "SSND"
        raise UnreadableFileError(
            f"{name} is an AIFF file without a {missing} chunk; expected {SUPPORTED_FORMATS}."
        )
    channels, frames, bits, exponent, mantissa = struct.unpack_from(">HIHHQ", comm)
    codec = comm[18:22] if _read_bytes(file, 8, 4) == b"AIFC" and len(comm) == 22 else b"NONE"
    subtype = _libsndfile_subtype(bits, is_float=codec in _AIFF_FLOAT, unsigned_byte=False)
    if not subtype or codec not in (*_AIFF_PCM, *_AIFF_FLOAT):
        text = codec.decode("ascii", "replace").strip()
        codec_name = f"{text} of {bits} bits" if text.isprintable() else "unknown"
        raise _unsupported_codec(name, "AIFF", codec_name)
    # The SSND chunk starts with an offset and a block size, of four bytes each.
    start, declared = chunks[b"SSND"]
    offset = int.from_bytes(_read_bytes(file, start, 4), "big")
    start = min(size, start + 8 + offset)
    frame_bytes = channels * ((bits + 7) // 8)
    return Container(
        format="AIFF",
        start=start,
        size=min(max(0, declared - 8 - offset), size - start, frames * frame_bytes),
        sample_format=SampleFormat(
            subtype=subtype,
            endian=_AIFF_PCM.get(codec, "BIG"),
            # An 80-bit float whose mantissa has 63 bits after the point: value = mantissa
            # * 2^(exponent - 16383 - 63). Rates from 2^21 Hz on become 0, which is rejected.
            sample_rate_hz=mantissa >> (16446 - exponent) if 16383 <= exponent <= 16403 else 0,
            channels=channels,
            declared_frames=frames,
        ),
    )


def _read_ogg(file: BinaryIO, size: int, name: str) -> Container:
    segments = int.from_bytes(_read_bytes(file, 26, 1), "big")
    # The first packet follows the page header and its segment table: RFC 3533, section 6.
    packet = _read_bytes(file, 27 + segments, 8)
    if not packet.startswith((b"\x01vorbis", b"OpusHead")):
        raise _unsupported_codec(name, "Ogg", "neither Vorbis nor Opus")
    return Container(format="Ogg", start=0, size=size)


def _read_mp3(file: BinaryIO, size: int, name: str) -> Container:
    start = 0
    # ID3v2 tags give their length in four bytes of seven bits, without the header of ten bytes.
    while (tag := _read_bytes(file, start, 10)).startswith(b"ID3") and len(tag) == 10:
        length = sum(
            (byte & 0x7F) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True)
        )
        start += 10 + length
    head = _read_bytes(file, start, 4)
    if head == b"fLaC":
        return Container(format="FLAC", start=start, size=size - start)
    if not is_mpeg_audio(head):
        raise UnreadableFileError(
            f"{name} has an ID3 tag but no MP3 data after it; expected {SUPPORTED_FORMATS}."
        )
    return Container(format="MP3", start=start, size=size - start)


def _find_chunks(file: BinaryIO, order: str, *, needed: set[bytes]) -> dict[bytes, tuple[int, int]]:
    """Start and size of the first chunk of each name, read until every needed one is found."""
    chunks: dict[bytes, tuple[int, int]] = {}
    position = 12
    for _ in range(_MAX_CHUNKS):
        head = _read_bytes(file, position, 8)
        if len(head) < 8 or needed <= chunks.keys():
            break
        chunk, size = struct.unpack(f"{order}4sI", head)
        chunks.setdefault(chunk, (position + 8, size))
        # Chunks of odd size are padded to an even one.
        position += 8 + size + size % 2
    return chunks


def _libsndfile_subtype(bits: int, *, is_float: bool, unsigned_byte: bool) -> str:
    """libsndfile's name of a sample format, or "" if it has none."""
    if is_float:
        return {32: "FLOAT", 64: "DOUBLE"}.get(bits, "")
    byte = "PCM_U8" if unsigned_byte else "PCM_S8"
    return {1: byte, 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}.get((bits + 7) // 8, "")


def _unsupported_codec(name: str, container: str, codec: str) -> UnreadableFileError:
    article = "an" if container[0] in "AO" else "a"
    return UnreadableFileError(
        f"{name} is {article} {container} file whose samples are {codec}; expected PCM of 8 to 32"
        f" bits or float, or {SUPPORTED_FORMATS}."
    )


def _read_bytes(file: BinaryIO, start: int, size: int, *, limit: int | None = None) -> bytes:
    """Read `size` bytes, but no more than `limit`; fewer where the file ends."""
    file.seek(start)
    return file.read(size if limit is None else min(size, limit))
