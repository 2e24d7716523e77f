"""Reading sound files: mono float32 samples at the requested rate, facts about the file, warnings.

The file is decoded, mixed down, checked and resampled block by block, so that memory is bounded by
the result. Headers are read by `audio.containers`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
import soxr

from xai_demo import files
from xai_demo.audio.containers import (
    SUPPORTED_FORMATS,
    Container,
    SoundStream,
    open_decoder,
    read_container,
)
from xai_demo.errors import UnreadableFileError
from xai_demo.files import display_name, open_file
from xai_demo.records import Recording

if TYPE_CHECKING:
    from xai_demo.records import Floats

# The level reported for digital silence: JSON has no minus infinity.
SILENCE_DBFS = -200.0

_BLOCK_FRAMES = 16384
_MAX_CHANNELS = 32
_SAMPLE_RATE_RANGE_HZ = (1000, 768_000)
# From this many frames on, the length is unknown; libsndfile reports 2^63 - 1.
_UNKNOWN_FRAMES = 2**48
# Float samples up to this value may be 32-bit integers that were never scaled down.
_MAX_SAMPLE = 2.0**31
# Decoders overshoot full scale a little; a float file beyond this uses another scale.
_MAX_OVERSHOOT = 2.0
# Two steps of 16 bits: the noise of an analogue-to-digital converter without a signal.
_SILENCE_AMPLITUDE = 2.0**-14
_SHORT_S = 0.5  # shorter than any breath
# A lossy encoder's padding may make the decoded sound this much shorter than the header says.
_MISSING_S, _MISSING_SHARE = 0.1, 0.01
# A sine that just touches full scale stays below this share.
_MIN_CLIPPED_SHARE = 1e-3
_MIN_FLAT_SHARE = 5e-4
# Consecutive samples that make a flat top, and how far it must rise above its neighbours.
_MIN_FLAT_SAMPLES, _MIN_CLIFF = 3, 0.01


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
    with open_file(path, expected=SUPPORTED_FORMATS, name=name) as file:
        header = read_container(file, name)
        sample_format = header.sample_format
        # Checked before libsndfile opens the file: its own errors say less about absurd values.
        if sample_format:
            _check_shape(name, sample_format.sample_rate_hz, sample_format.channels)
        try:
            with open_decoder(file, header) as sound:
                _check_shape(name, sound.samplerate, sound.channels)
                if sound.frames < _UNKNOWN_FRAMES:
                    _check_duration(name, sound.frames / sound.samplerate, max_duration_s)
                return _decode_recording(sound, header, name, sample_rate_hz, max_duration_s)
        except soundfile.LibsndfileError as error:
            raise UnreadableFileError(
                f"{name} cannot be decoded as {header.format}"
                f" ({error.error_string.strip().rstrip('.')}); expected {SUPPORTED_FORMATS}."
            ) from error


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


class _SampleStatistics:
    """Statistics of the decoded samples, collected block by block."""

    def __init__(self, step: float) -> None:
        self.step = step  # between two quantisation levels near full scale
        self.frames = self.clipped = self.not_finite = 0
        self.first_not_finite = 0  # index of a frame
        self.peak = self.squares = 0.0
        self.low, self.high = math.inf, -math.inf  # of the mono mix
        # Height and number of samples of the flat tops of each block, positive and negative ones
        # in turn: which height is the overall extreme is known only at the end.
        self._tops: list[tuple[float, int]] = []

    @property
    def flat(self) -> int:
        """Number of samples on flat tops at the overall highest or lowest value."""
        total = 0
        for sign in (0, 1):
            tops = self._tops[sign::2]
            top = max((height for height, _ in tops), default=0.0)
            total += sum(count for height, count in tops if height >= top * (1 - 1e-6))
        return total

    def add(self, block: Floats, mix: Floats) -> None:
        """Add a block: (frames, channels) as decoded and (frames,) mixed to mono."""
        finite = np.isfinite(block)
        not_finite = finite.size - int(np.count_nonzero(finite))
        if not_finite and not self.not_finite:
            self.first_not_finite = self.frames + int(np.argmin(finite.all(axis=1)))
        self.not_finite += not_finite
        self.frames += len(block)
        if self.not_finite:
            return
        loudness = np.abs(block)
        self.peak = max(self.peak, float(loudness.max()))
        self.clipped += int(np.count_nonzero(np.abs(loudness - 1) <= self.step))
        self.squares += float(np.square(mix, dtype=np.float64).sum())
        self.low, self.high = min(self.low, float(mix.min())), max(self.high, float(mix.max()))
        self._tops += [_count_flat_top(block, self.step), _count_flat_top(-block, self.step)]


def _count_flat_top(block: Floats, step: float) -> tuple[float, int]:
    """The highest value of a block, (frames, channels), and how many samples lie on its flat tops.

    Uses the criterion of `quality.clipped_share`: three or more equal samples with a cliff beside.
    """
    top = float(block.max())
    count = 0
    if top > 0 and np.count_nonzero(block >= top * (1 - 1e-6)) >= _MIN_FLAT_SAMPLES:
        for sound in block.T:
            edges = np.flatnonzero(np.diff(np.pad(sound >= top * (1 - 1e-6), 1).astype(np.int8)))
            for start, end in zip(edges[::2], edges[1::2], strict=True):
                neighbours = [sound[i] for i in (start - 1, end) if 0 <= i < len(sound)]
                cliff = max(_MIN_CLIFF * top, 4 * step)
                has_cliff = bool(neighbours) and top - min(neighbours) >= cliff
                count += (end - start) * (end - start >= _MIN_FLAT_SAMPLES and has_cliff)
    return top, int(count)


def _decode_recording(
    sound: SoundStream, header: Container, name: str, rate_hz: int, max_duration_s: float
) -> Recording:
    # A little more than one step of 8 or 16 bits, for the rounding of float32.
    step = 1.001 * (2.0**-7 if sound.subtype.endswith("8") else 2.0**-15)
    statistics = _SampleStatistics(step)
    expected_size = round(rate_hz * min(sound.frames / sound.samplerate, max_duration_s)) + 1
    resampled = files.GrowingArray(expected_size)
    resampler = soxr.ResampleStream(sound.samplerate, rate_hz, 1, dtype="float32", quality="HQ")
    for block in _decoded_blocks(sound):
        # NaN and infinity are counted and reported, so numpy need not warn about them.
        with np.errstate(over="ignore", invalid="ignore"):
            mix = block.mean(axis=1, dtype=np.float32)
            statistics.add(block, mix)
        _check_duration(name, statistics.frames / sound.samplerate, max_duration_s)
        if not statistics.not_finite:
            resampled.append(resampler.resample_chunk(mix))
    declared_s = _declared_duration_s(sound, header)
    _check_content(name, statistics, sound.samplerate, declared_s)
    resampled.append(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = resampled.view()
    if not samples.size:
        raise UnreadableFileError(
            f"{name} holds {statistics.frames} samples, too few to make one sample at {rate_hz} Hz."
        )
    for chunk in files.chunks(samples):
        np.divide(samples[chunk], max(1.0, statistics.peak), out=samples[chunk])
        # The resampling filter overshoots at the edges of clipped peaks.
        np.clip(samples[chunk], -1, 1, out=samples[chunk])
    facts = {
        "duration_s": round(statistics.frames / sound.samplerate, 6),
        "sample_rate_hz": sound.samplerate,
        "channels": sound.channels,
        "downmix": f"mean of {sound.channels} channels" if sound.channels > 1 else "none",
        "format": header.format,
        "subtype": sound.subtype,
        "peak_dbfs": round(_decibels(statistics.peak), 2),
        "rms_dbfs": round(_decibels(math.sqrt(statistics.squares / statistics.frames)), 2),
        "clipped_share": round(_clipped_share(statistics, sound.channels), 5),
    }
    warnings = tuple(_warnings(statistics, facts, declared_s, rate_hz))
    return Recording(samples=samples, sample_rate_hz=rate_hz, facts=facts, warnings=warnings)


def _decoded_blocks(sound: SoundStream) -> Iterator[Floats]:
    """Blocks of (frames, channels), up to where the file can be decoded."""
    while True:
        try:
            block: Floats = sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
        # A truncated file: what was decoded so far is good, and a warning says what is missing.
        except soundfile.LibsndfileError:
            return
        if not len(block):
            return
        yield block


def _declared_duration_s(sound: SoundStream, header: Container) -> float | None:
    """The duration that the header declares, which the data may fall short of; None: unknown."""
    sample_format = header.sample_format
    frames = sample_format.declared_frames if sample_format else sound.frames
    return None if frames is None or frames >= _UNKNOWN_FRAMES else frames / sound.samplerate


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


def _check_content(
    name: str, statistics: _SampleStatistics, rate_hz: int, declared_s: float | None
) -> None:
    if not statistics.frames and declared_s:
        raise UnreadableFileError(
            f"{name} declares {format_duration(declared_s)} of sound in its header, but none can be"
            f" decoded; expected a complete file."
        )
    if not statistics.frames:
        raise UnreadableFileError(f"{name} holds 0 samples; expected a sound.")
    if statistics.not_finite:
        count = f"{statistics.not_finite} sample{'s' if statistics.not_finite > 1 else ''}"
        where = format_duration(statistics.first_not_finite / rate_hz)
        raise UnreadableFileError(
            f"{name} has {count} that are not finite numbers (NaN or infinite), the first at"
            f" {where}; expected finite samples between -1 and 1."
        )
    if statistics.peak > _MAX_SAMPLE:
        raise UnreadableFileError(
            f"{name} has samples of up to {statistics.peak:.3g}; expected samples between -1 and 1."
        )


def _warnings(
    statistics: _SampleStatistics, facts: Mapping[str, Any], declared_s: float | None, rate_hz: int
) -> Iterator[str]:
    duration_s = facts["duration_s"]
    missing_s = (declared_s or 0) - duration_s
    if missing_s > min(_MISSING_S, _MISSING_SHARE * (declared_s or 0)):
        yield (
            f"The file is truncated: its header declares {format_duration(declared_s or 0)},"
            f" but only {format_duration(duration_s)} could be read."
        )
    if statistics.high - statistics.low <= 2 * _SILENCE_AMPLITUDE:
        yield _silence_warning(statistics)
    elif share := _clipped_share(statistics, facts["channels"]):
        yield (
            f"The recording is clipped: {100 * share:.2g} % of its samples are at full scale or on"
            " flat tops. Distortion can look like a finding; record at a lower level."
        )
    if statistics.peak > _MAX_OVERSHOOT:
        yield (
            f"The samples reach {statistics.peak:.3g}, although 1 is full scale;"
            " they were scaled down to 1."
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


def _clipped_share(statistics: _SampleStatistics, channels: int) -> float:
    """The share of clipped samples at the file's own rate; 0 if it is too small to mention."""
    count = statistics.frames * channels
    if statistics.high - statistics.low <= 2 * _SILENCE_AMPLITUDE:
        return 0.0
    full, flat = statistics.clipped / count, statistics.flat / count
    return max(full if full > _MIN_CLIPPED_SHARE else 0.0, flat if flat >= _MIN_FLAT_SHARE else 0.0)


def _silence_warning(statistics: _SampleStatistics) -> str:
    level = (statistics.high + statistics.low) / 2
    if abs(level) > _SILENCE_AMPLITUDE:
        return (
            f"The recording is constant at {level:.2g} of full scale: there is nothing to explain."
        )
    if statistics.peak > 4 * _SILENCE_AMPLITUDE:
        return (
            "The channels cancel each other out when mixed to mono: the result is silent and there"
            " is nothing to explain."
        )
    peak = f"peak {_decibels(statistics.peak):.0f} dBFS"
    return f"The recording is silent ({peak}): there is nothing to explain."
