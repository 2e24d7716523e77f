"""Decoders: blocks of samples from libsndfile (raw PCM, Ogg) or FFmpeg (everything else).

FFmpeg, by way of PyAV, gets a Python file object and the name of one demuxer, so that it probes
nothing, opens nothing else and reaches no network; only the codecs in `_CODEC_NAMES` are used.
Files are decoded packet by packet to the end, whatever length they declare. PyAV is imported when
the first such file is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import soundfile

from xai_demo.audio.pcm import SUPPORTED_FORMATS, Container, FileSlice, SeekableFile
from xai_demo.errors import UnreadableFileError

if TYPE_CHECKING:
    from xai_demo.records import Floats

_BLOCK_FRAMES = 16384
# From this many frames on, the length is unknown; libsndfile reports 2^63 - 1.
_UNKNOWN_FRAMES = 2**48
# FFmpeg has some 200 audio decoders; these are the ones that recorders and phones write.
_CODEC_NAMES = (
    "aac alac flac opus vorbis speex mp1 mp1float mp2 mp2float mp3 mp3float amrnb amrwb gsm gsm_ms"
    " wmav1 wmav2 wmapro wmalossless wmavoice adpcm_ms adpcm_ima_wav adpcm_ima_qt"
    " pcm_alaw pcm_mulaw pcm_u8 pcm_s8 pcm_s16le pcm_s16be pcm_s24le pcm_s24be pcm_s32le pcm_s32be"
    " pcm_f32le pcm_f32be pcm_f64le pcm_f64be"
)
_CODECS = frozenset(_CODEC_NAMES.split())
_SUBTYPES = {"mp1": "MPEG_LAYER_I", "mp2": "MPEG_LAYER_II", "mp3": "MPEG_LAYER_III"}
# FFmpeg's sample formats; those that end in "p" have one plane for each channel.
_FRAME_TYPES = {"u8": "u1", "s16": "<i2", "s32": "<i4", "s64": "<i8", "flt": "<f4", "dbl": "<f8"}
# Demuxers whose header gives the length. Others estimate it from the bit rate.
_LENGTH_IN_STREAM = ("mov", "caf", "au", "flac")


@dataclass(frozen=True, slots=True)
class Block:
    """Decoded samples, (frames, channels), and their sample rate, which may change in a file."""

    samples: Floats
    sample_rate_hz: int


class Decoder(Protocol):
    """A sound file that is read from front to back."""

    sample_rate_hz: int  # of the first block, as is `channels`
    channels: int
    subtype: str
    declared_s: float | None  # the length that the header gives; None: it gives none
    warnings: tuple[str, ...]
    lost: int  # parts that could not be decoded, among others that could

    def blocks(self) -> Iterator[Block]:
        """The blocks of the file, up to where it can be decoded."""


@contextmanager
def open_decoder(file: SeekableFile, header: Container, name: str) -> Iterator[Decoder]:
    """Open the decoder that the header asks for; raises UnreadableFileError if it cannot."""
    try:
        decoder = None if header.demuxer else _LibsndfileDecoder(file, header)
        if decoder is None or (header.links and not decoder.declared_s):
            # libsndfile finds no sound in an Ogg file with damaged pages; FFmpeg skips them.
            header = replace(header, demuxer=header.demuxer or "ogg")
            with _open_container(file, header, name) as container:
                yield _FFmpegDecoder(container, header, name)
        else:
            yield decoder
    except soundfile.LibsndfileError as error:
        reason = str(error.error_string).strip().rstrip(".")
        raise _undecodable(name, header, reason) from error


def is_floating_point(decoder: Decoder) -> bool:
    """Whether the samples are stored as floating-point numbers, whose scale must be found."""
    return decoder.subtype in ("FLOAT", "DOUBLE") or decoder.subtype.startswith("PCM_F")


class _SoundStream(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that soundfile does not seek in.

    After every read, it would seek to the current position, which in some formats leaves a gap.
    """

    def seekable(self) -> bool:
        """Return False, so that soundfile does not seek."""
        return False


class _LibsndfileDecoder:
    """Raw samples, or the streams of an Ogg file one after the other."""

    def __init__(self, file: SeekableFile, header: Container) -> None:
        self._file, self._header, self.lost = file, header, 0
        self.warnings: tuple[str, ...] = ()
        self._links = header.links or (0,)
        self._first = self._open(0)
        self.sample_rate_hz: int = self._first.samplerate
        self.channels: int = self._first.channels
        self.subtype: str = self._first.subtype
        frames = self._first.frames if self._first.frames < _UNKNOWN_FRAMES else 0
        self.declared_s = header.declared_s
        if header.sample_format is None:
            self.declared_s = frames / self.sample_rate_hz

    def blocks(self) -> Iterator[Block]:
        """The blocks of every stream, up to where it can be decoded."""
        gain = self._header.sample_format.gain if self._header.sample_format else 1.0
        for link in range(len(self._links)):
            try:
                with self._open(link) if link else self._first as sound:
                    while len(samples := sound.read(_BLOCK_FRAMES, "float32", always_2d=True)):
                        yield Block(gain * samples if gain != 1 else samples, sound.samplerate)
            # What was decoded so far is good, and a warning says what is missing.
            except soundfile.LibsndfileError:
                self.lost += len(self._links) > 1

    def _open(self, link: int) -> _SoundStream:
        header, raw = self._header, self._header.sample_format
        start = self._links[link]
        end = self._links[link + 1] if link + 1 < len(self._links) else header.size
        data = FileSlice(self._file, header.start + start, end - start)
        if raw is None:
            return _SoundStream(data)
        return _SoundStream(
            data,
            format="RAW",
            subtype=raw.subtype,
            endian=raw.endian,
            samplerate=raw.sample_rate_hz,
            channels=raw.channels,
        )


class _FFmpegDecoder:
    """The first sound track of a file, decoded by FFmpeg."""

    def __init__(self, container: Any, header: Container, name: str) -> None:
        self._container, self.lost = container, 0
        if not container.streams.audio:
            raise UnreadableFileError(f"{name} has no sound track; expected {SUPPORTED_FORMATS}.")
        self._stream = container.streams.audio[0]
        tracks = len(container.streams.audio)
        self.warnings: tuple[str, ...] = (
            (f"The file has {tracks} sound tracks; the first was read.",) if tracks > 1 else ()
        )
        codec = self._stream.codec_context.codec.name if self._stream.codec_context else "unknown"
        if codec not in _CODECS:
            raise UnreadableFileError(
                f"{name} is a file of type {header.format} whose codec is {codec};"
                f" expected {SUPPORTED_FORMATS}."
            )
        self._stream.codec_context.thread_count = 1
        family = codec.removesuffix("float")
        self.subtype = _SUBTYPES.get(family, codec.upper())
        self.declared_s = header.declared_s or self._declared_s(header)
        self._frames = self._decode()
        self._first = next(self._frames, None)
        if self._first is None:
            declared = f", although {self.declared_s:.1f} s are declared" if self.declared_s else ""
            raise UnreadableFileError(
                f"{name} holds 0 samples that can be decoded as {header.format}{declared};"
                f" expected a sound."
            )
        self.sample_rate_hz: int = self._first.sample_rate
        self.channels: int = self._first.layout.nb_channels

    def blocks(self) -> Iterator[Block]:
        """The blocks of the first sound track, without the packets that cannot be decoded."""
        parts: list[Floats] = []
        shape, count = (self.sample_rate_hz, self.channels), 0
        frame, self._first = self._first, None
        while frame is not None:
            samples = _frame_samples(frame)
            changed = (frame.sample_rate, samples.shape[1]) != shape
            if parts and (changed or count >= _BLOCK_FRAMES):
                yield Block(np.concatenate(parts), shape[0])
                parts, count = [], 0
            shape = (frame.sample_rate, samples.shape[1])
            parts.append(samples)
            count += len(samples)
            frame = next(self._frames, None)
        if parts:
            yield Block(np.concatenate(parts), shape[0])

    def _decode(self) -> Iterator[Any]:
        import av

        failed, decoded = 0, False
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError:
                return
            # A damaged file can announce a further track on its way, which PyAV does not know.
            except IndexError:
                self.lost += 1
                return
            if packet is None:
                return
            try:
                frames = packet.decode()
            # One damaged packet: those after it may be good.
            except av.error.FFmpegError:
                # A tag between two MP3s that were joined is no damage.
                failed += decoded and not bytes(packet).startswith((b"ID3", b"TAG", b"APETAG"))
                continue
            for frame in frames:
                if frame.samples:
                    # Packets after the last good one are a tag, or the ragged end of a cut file.
                    self.lost, decoded = failed, True
                    yield frame

    def _declared_s(self, header: Container) -> float | None:
        if header.demuxer in _LENGTH_IN_STREAM and self._stream.duration:
            return float(self._stream.duration * self._stream.time_base)
        if header.has_length and self._container.duration:
            return float(self._container.duration / 1e6)
        return None


@contextmanager
def _open_container(file: SeekableFile, header: Container, name: str) -> Iterator[Any]:
    import av

    data = FileSlice(file, header.start, header.size)
    try:
        container = av.open(
            data,
            format=header.demuxer,
            metadata_errors="ignore",
            io_open=_refuse_to_open,
            options={"protocol_whitelist": "none"},
        )
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "its header is damaged"
        raise _undecodable(name, header, str(reason)) from error
    try:
        yield container
    finally:
        container.close()


def _refuse_to_open(url: str, flags: int, options: dict[str, str]) -> None:
    raise PermissionError("A sound file may not refer to other files.")


def _frame_samples(frame: Any) -> Floats:
    """The samples of a decoded frame, (frames, channels), at full scale 1."""
    channels, is_planar = frame.layout.nb_channels, frame.format.is_planar
    dtype = np.dtype(_FRAME_TYPES[frame.format.name.removesuffix("p")])
    # Not `frame.to_ndarray()`: PyAV 18 takes what follows the eighth pointer for more planes.
    planes = frame.planes[: channels if is_planar else 1]
    count = frame.samples * (1 if is_planar else channels)
    values = np.stack([np.frombuffer(plane, dtype, count) for plane in planes])
    values = values.T if is_planar else values.reshape(frame.samples, channels)
    if dtype.kind == "f":
        return np.array(values, np.float32)
    bits = 8 * dtype.itemsize
    zero = 2 ** (bits - 1) if dtype.kind == "u" else 0
    return np.asarray((values.astype(np.float64) - zero) / 2 ** (bits - 1), np.float32)


def _undecodable(name: str, header: Container, reason: str) -> UnreadableFileError:
    return UnreadableFileError(
        f"{name} cannot be decoded as {header.format} ({reason}); expected {SUPPORTED_FORMATS}."
    )
