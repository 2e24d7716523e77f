"""Reading sound files: mono float32 samples at the requested rate, facts about the file, warnings.

The file is decoded, mixed down, checked and resampled block by block, so that memory is bounded by
the result. Headers are read by `audio.containers`, samples by `audio.decoders`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import soxr

from xai_demo import files
from xai_demo.audio.containers import read_container
from xai_demo.audio.decoders import Block, Decoder, is_floating_point, open_decoder
from xai_demo.audio.levels import (
    MAX_OVERSHOOT,
    MAX_SAMPLE,
    SILENCE_AMPLITUDE,
    UNIT_SCALE,
    FullScale,
    SampleStatistics,
    find_full_scale,
)
from xai_demo.audio.pcm import SUPPORTED_FORMATS, Container
from xai_demo.errors import UnreadableFileError
from xai_demo.files import display_name, open_file
from xai_demo.records import Recording

if TYPE_CHECKING:
    from xai_demo.records import Floats

# The level reported for digital silence: JSON has no minus infinity.
SILENCE_DBFS = -200.0

_MAX_CHANNELS = 32
_SAMPLE_RATE_RANGE_HZ = (1000, 768_000)
# Channels times rate times seconds: an hour of two channels at 192 kHz.
_MAX_VALUES = 1_400_000_000
_SHORT_S = 0.5  # shorter than any breath
# A file that falls short of its header by more than this is called truncated.
_MISSING_S, _MISSING_SHARE = 0.1, 0.01


def read_audio(
    path: str | PathLike[str],
    *,
    sample_rate_hz: int,
    max_duration_s: float,
    name: str | None = None,
) -> Recording:
    """Read a sound file as mono samples, (time,), at `sample_rate_hz`, between -1 and 1.

    Messages call the file `name`, or by the name it has on disk if that is None.
    Raises UnreadableFileError if the file is not a supported sound file, is damaged, lasts longer
    than `max_duration_s` or holds nothing to analyse.
    """
    name = display_name(path if name is None else name)
    limits = _Limits(name=name, sample_rate_hz=sample_rate_hz, max_duration_s=max_duration_s)
    with open_file(path, expected=SUPPORTED_FORMATS, name=name) as file:
        header = read_container(file, name)
        sample_format = header.sample_format
        # Checked before a decoder opens the file: its own errors say less about absurd values.
        if sample_format:
            _check_shape(name, sample_format.sample_rate_hz, sample_format.channels)
        return _decode_recording(file, header, limits)


def measure_duration_s(path: str | PathLike[str]) -> float | None:
    """The length of the sound in a file in seconds; None if it is no sound or an empty one.

    Uncompressed sound is measured by its bytes, and anything else is decoded.
    """
    try:
        with open_file(path, expected=SUPPORTED_FORMATS) as file:
            header = read_container(file, "")
            if header.sample_format:
                return header.sound_bytes_s or None
            with open_decoder(file, header, "") as decoder:
                blocks = decoder.blocks()
                return sum(len(block.samples) / block.sample_rate_hz for block in blocks) or None
    except UnreadableFileError:
        return None


def peak_dbfs(samples: Floats) -> float:
    """Peak level in decibels relative to full scale; SILENCE_DBFS for digital silence.

    >>> round(peak_dbfs(np.array([0.5, -0.25], np.float32)), 2)
    -6.02
    """
    return _decibels(float(np.max(np.abs(samples), initial=0.0)))


def rms_dbfs(samples: Floats) -> float:
    """Root mean square level in decibels relative to 1: a full-scale sine has -3.01."""
    squares = np.square(samples, dtype=np.float64)
    return _decibels(math.sqrt(float(np.mean(squares)))) if squares.size else SILENCE_DBFS


def format_duration(seconds: float) -> str:
    """A duration in the unit that suits its length.

    >>> format_duration(0.01), format_duration(12.3), format_duration(10_800)
    ('10 ms', '12.3 s', '3 h 0 min')
    """
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _decibels(amplitude: float) -> float:
    return max(20 * math.log10(amplitude), SILENCE_DBFS) if amplitude > 0 else SILENCE_DBFS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """What is asked for, and the name for messages."""

    name: str
    sample_rate_hz: int
    max_duration_s: float


def _decode_recording(file: BinaryIO, header: Container, limits: _Limits) -> Recording:
    """Decode the file; twice, if its samples are floats on a scale that has to be found first."""
    name = limits.name
    scale = UNIT_SCALE
    with open_decoder(file, header, name) as decoder:
        _check_shape(name, decoder.sample_rate_hz, decoder.channels)
        # Of uncompressed sound, no more is read than there is.
        seconds = header.sound_bytes_s or decoder.declared_s or 0
        _check_duration(name, seconds, limits.max_duration_s)
        _check_size(name, round(seconds * decoder.sample_rate_hz * decoder.channels))
        resampled = _Resampler(decoder, limits)
        if not _resample(decoder, resampled):
            with open_decoder(file, header, name) as again:
                scale = find_full_scale(block.samples for block in again.blocks())
            with open_decoder(file, header, name) as again:
                resampled = _Resampler(again, limits, scale)
                for block in again.blocks():
                    resampled.add(block)
        return _recording(decoder, header, resampled, scale, limits)


def _resample(decoder: Decoder, resampled: _Resampler) -> bool:
    """Resample the whole file; False once it turns out to be floats on another scale than 1."""
    is_float = is_floating_point(decoder)
    for block in decoder.blocks():
        resampled.add(block)
        if is_float and MAX_OVERSHOOT < resampled.statistics.peak <= MAX_SAMPLE:
            return False
    return True


class _Resampler:
    """Mixes blocks to mono, collects their statistics and resamples them to the rate asked for."""

    def __init__(self, decoder: Decoder, limits: _Limits, scale: FullScale = UNIT_SCALE) -> None:
        self._limits, self._scale = limits, scale
        # A little more than one step of 8 or 16 bits, for the rounding of float32.
        is_8_bit = decoder.subtype.endswith(("S8", "U8"))
        self.statistics = SampleStatistics(
            1.001 * (2.0**-7 if is_8_bit else 2.0**-15),
            has_full_scale=scale == UNIT_SCALE or scale.bits is not None,
        )
        expected_s = min(decoder.declared_s or 0, limits.max_duration_s)
        self._output = files.GrowingArray(round(limits.sample_rate_hz * expected_s) + 1)
        self._stream: soxr.ResampleStream | None = None
        self._shape = (decoder.sample_rate_hz, decoder.channels)
        # Seconds at which the sample rate or the number of channels changes, and to what.
        self.changes: list[tuple[float, int, int]] = []

    def add(self, block: Block) -> None:
        """Add a block; raises UnreadableFileError beyond a limit."""
        statistics, name = self.statistics, self._limits.name
        shape = (block.sample_rate_hz, block.samples.shape[1])
        if shape != self._shape:
            _check_shape(name, *shape)
            self.changes.append((statistics.duration_s, *shape))
            if shape[0] != self._shape[0]:
                self._flush()
            self._shape = shape
        # NaN and infinity are counted and reported, so numpy need not warn about them.
        with np.errstate(over="ignore", invalid="ignore"):
            samples = block.samples
            if self._scale != UNIT_SCALE:
                samples = samples / np.float32(self._scale.value)
            mix = samples.mean(axis=1, dtype=np.float32)
            statistics.add(samples, mix, shape[0])
        _check_duration(name, statistics.duration_s, self._limits.max_duration_s)
        _check_size(name, statistics.values)
        if statistics.not_finite:
            return
        if self._stream is None:
            self._stream = soxr.ResampleStream(
                shape[0], self._limits.sample_rate_hz, 1, dtype="float32", quality="HQ"
            )
        self._output.append(self._stream.resample_chunk(mix))

    def samples(self) -> Floats:
        """Everything that was added, (time,)."""
        self._flush()
        return self._output.view()

    def _flush(self) -> None:
        if self._stream is not None:
            self._output.append(self._stream.resample_chunk(np.zeros(0, np.float32), last=True))
        self._stream = None


def _recording(
    decoder: Decoder, header: Container, resampled: _Resampler, scale: FullScale, limits: _Limits
) -> Recording:
    statistics, name = resampled.statistics, limits.name
    _check_content(name, statistics, decoder.declared_s)
    samples = resampled.samples()
    if not samples.size:
        raise UnreadableFileError(
            f"{name} holds {statistics.frames} samples, too few to make one sample at"
            f" {limits.sample_rate_hz} Hz."
        )
    for chunk in files.chunks(samples):
        np.divide(samples[chunk], max(1.0, statistics.peak), out=samples[chunk])
        # The resampling filter overshoots at the edges of clipped peaks.
        np.clip(samples[chunk], -1, 1, out=samples[chunk])
    channels = decoder.channels
    facts = {
        "duration_s": round(statistics.duration_s, 6),
        "sample_rate_hz": decoder.sample_rate_hz,
        "channels": channels,
        "downmix": f"mean of {channels} channels" if channels > 1 else "none",
        "format": header.format,
        "subtype": decoder.subtype,
        "peak_dbfs": round(_decibels(statistics.peak), 2),
        "rms_dbfs": round(_decibels(math.sqrt(statistics.squares / statistics.frames)), 2),
        "clipped_share": round(statistics.clipped_share, 5),
    }
    warnings = (
        *header.warnings,
        *decoder.warnings,
        *_damage_warnings(decoder, header, resampled),
        *_scale_warnings(statistics, scale),
        *_warnings(statistics, facts, limits.sample_rate_hz),
    )
    return Recording(
        samples=samples,
        sample_rate_hz=limits.sample_rate_hz,
        facts=facts,
        warnings=warnings,
        is_silent=statistics.is_silent,
    )


def _check_shape(name: str, rate_hz: int, channels: int) -> None:
    lowest, highest = _SAMPLE_RATE_RANGE_HZ
    if not lowest <= rate_hz <= highest:
        raise UnreadableFileError(
            f"{name} has a sample rate of {rate_hz} Hz; expected {lowest} to {highest} Hz."
        )
    if not 1 <= channels <= _MAX_CHANNELS:
        raise UnreadableFileError(f"{name} has {channels} channels; expected 1 to {_MAX_CHANNELS}.")


def _check_duration(name: str, duration_s: float, max_duration_s: float) -> None:
    if duration_s > max_duration_s:
        raise UnreadableFileError(
            f"{name} lasts {format_duration(duration_s)} or more;"
            f" expected at most {format_duration(max_duration_s)}."
        )


def _check_size(name: str, values: int) -> None:
    if values > _MAX_VALUES:
        raise UnreadableFileError(
            f"{name} holds {values / 1e6:,.0f} million samples in all channels or more;"
            f" expected at most {_MAX_VALUES / 1e6:,.0f} million."
        )


def _check_content(name: str, statistics: SampleStatistics, declared_s: float | None) -> None:
    if not statistics.frames and declared_s:
        raise UnreadableFileError(
            f"{name} declares {format_duration(declared_s)} of sound in its header, but none can be"
            f" decoded; expected a complete file."
        )
    if not statistics.frames:
        raise UnreadableFileError(f"{name} holds 0 samples; expected a sound.")
    if statistics.not_finite:
        count = f"{statistics.not_finite} sample{'s' if statistics.not_finite > 1 else ''}"
        where = format_duration(statistics.first_not_finite_s)
        raise UnreadableFileError(
            f"{name} has {count} that are not finite numbers (NaN or infinite), the first at"
            f" {where}; expected finite samples between -1 and 1."
        )
    if statistics.peak > MAX_SAMPLE:
        raise UnreadableFileError(
            f"{name} has samples of up to {statistics.peak:.3g}; expected samples between -1 and 1."
        )


def _damage_warnings(decoder: Decoder, header: Container, resampled: _Resampler) -> Iterator[str]:
    duration_s, declared_s = resampled.statistics.duration_s, decoder.declared_s or 0.0
    # An encoder's padding may make compressed sound this much shorter than its header says.
    slack_s = min(_MISSING_S, _MISSING_SHARE * declared_s) if header.sample_format else _MISSING_S
    if declared_s - duration_s > slack_s:
        yield (
            f"The file is truncated or damaged: its header declares {format_duration(declared_s)},"
            f" but only {format_duration(duration_s)} could be read."
        )
    if decoder.lost:
        parts = "1 part was" if decoder.lost == 1 else f"{decoder.lost} parts were"
        yield f"The file is damaged: {parts} left out, because decoding failed there."
    for at_s, rate_hz, channels in resampled.changes[:1]:
        more = len(resampled.changes) - 1
        yield (
            f"The recording changes from {decoder.sample_rate_hz} Hz and {decoder.channels}"
            f" channel(s) to {rate_hz} Hz and {channels} at {format_duration(at_s)}"
            f"{f', and {more} more times' if more else ''}; all of it was read."
        )


def _scale_warnings(statistics: SampleStatistics, scale: FullScale) -> Iterator[str]:
    if scale.bits:
        yield (
            f"The samples are floating-point numbers on the scale of {scale.bits}-bit integers,"
            f" although 1 should be full scale; they were divided by {scale.value:.0f}."
        )
    elif scale.value > MAX_OVERSHOOT or statistics.peak > MAX_OVERSHOOT:
        peak = max(scale.value, statistics.peak)
        yield (
            f"The samples reach {peak:.3g}, although 1 is full scale; they were scaled down to 1."
        )


def _warnings(
    statistics: SampleStatistics, facts: Mapping[str, Any], rate_hz: int
) -> Iterator[str]:
    duration_s = facts["duration_s"]
    if statistics.is_silent:
        yield _silence_warning(statistics)
    elif share := statistics.clipped_share:
        yield (
            f"The recording is clipped: {100 * share:.2g} % of its samples are at full scale or on"
            " flat tops. Distortion can look like a finding; record at a lower level."
        )
    if facts["sample_rate_hz"] < rate_hz:
        yield (
            f"The file's sample rate is {facts['sample_rate_hz']} Hz and the network's {rate_hz}"
            f" Hz: the file contains nothing above {facts['sample_rate_hz'] / 2:g} Hz."
        )
    if duration_s < _SHORT_S:
        yield (
            f"The recording lasts only {format_duration(duration_s)}; a meaningful answer needs at"
            f" least {format_duration(_SHORT_S)}."
        )


def _silence_warning(statistics: SampleStatistics) -> str:
    level = (statistics.high + statistics.low) / 2
    if abs(level) > SILENCE_AMPLITUDE:
        return (
            f"The recording is constant at {level:.2g} of full scale: there is nothing to explain."
        )
    if statistics.peak > 4 * SILENCE_AMPLITUDE:
        return (
            "The channels cancel each other out when mixed to mono: the result is silent and there"
            " is nothing to explain."
        )
    peak = f"peak {_decibels(statistics.peak):.0f} dBFS"
    return f"The recording is silent ({peak}): there is nothing to explain."
