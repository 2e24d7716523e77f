"""Sound files in: mono float32 at the rate asked for, what the file had, what is odd about it."""

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
    WANTED,
    Container,
    Stream,
    container,
    decoder,
)
from xai_demo.errors import UnreadableFileError
from xai_demo.files import opened, shown_name
from xai_demo.records import Recording

if TYPE_CHECKING:
    from xai_demo.records import Floats

SILENCE_DBFS = -200.0  # what a level of nothing is given as: JSON has no minus infinity

_BLOCK_FRAMES = 16384
_MAX_CHANNELS = 32
_RATES_HZ = (1000, 768_000)
_MOST_FRAMES = 2**48  # libsndfile's "unknown" is 2^63 - 1
_LOUDEST = 2.0**31  # floats up to here may be integers that were never scaled down
_LOUD = 2.0  # decoders overshoot a little; a float file beyond this is on another scale
_QUIET = 2.0**-14  # four steps of 16 bits from peak to peak: the noise of a converter
_SHORT_S = 0.5  # less than any breath
_MISSING_S, _MISSING_SHARE = 0.1, 0.01  # what a lossy encoder's padding may cost
_CLIPPED_SHARE = 1e-3  # a sine that just touches full scale stays under it
_FLAT_SHARE = 5e-4
_FLAT, _CLIFF = 3, 0.01  # samples of a flat top, and how far they stand above what is beside them


def read_audio(
    path: str | PathLike[str], *, sample_rate_hz: int, max_duration_s: float
) -> Recording:
    """Read a sound file; raises UnreadableFileError where it holds nothing to analyse.

    Memory is bounded by the result: the file is decoded, mixed and resampled block by block.
    """
    name = shown_name(path)
    with opened(path, wanted=WANTED) as file:
        header = container(file, name)
        numbers = header.numbers
        if numbers:  # before libsndfile, which has less to say about absurd ones
            _check_shape(name, numbers.sample_rate_hz, numbers.channels)
        try:
            with decoder(file, header) as sound:
                _check_shape(name, sound.samplerate, sound.channels)
                if sound.frames < _MOST_FRAMES:
                    _check_duration(name, sound.frames / sound.samplerate, max_duration_s)
                return _recording(sound, header, name, sample_rate_hz, max_duration_s)
        except soundfile.LibsndfileError as error:
            raise UnreadableFileError(
                f"{name} cannot be decoded as {header.format}"
                f" ({error.error_string.strip().rstrip('.')}); wanted: {WANTED}."
            ) from error


def peak_dbfs(samples: Floats) -> float:
    """The largest absolute sample in decibels re 1; SILENCE_DBFS where there is none."""
    return _decibels(float(np.max(np.abs(samples), initial=0.0)))


def rms_dbfs(samples: Floats) -> float:
    """The root mean square in decibels re 1: a sine of amplitude 1 has -3.01."""
    squares = np.square(samples, dtype=np.float64)
    return _decibels(math.sqrt(float(np.mean(squares)))) if squares.size else SILENCE_DBFS


def spoken_duration(seconds: float) -> str:
    """A duration as a person says it: "10 ms", "12.3 s", "3 h 0 min"."""
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def _decibels(amplitude: float) -> float:
    return max(20 * math.log10(amplitude), SILENCE_DBFS) if amplitude > 0 else SILENCE_DBFS


class _Tally:
    """What is learnt about the samples on the way through the file."""

    def __init__(self, step: float) -> None:
        self.step = step  # between two levels next to full scale
        self.frames = self.clipped = self.not_finite = 0
        self.first_not_finite = 0  # a frame
        self.peak = self.squares = 0.0
        self.low, self.high = math.inf, -math.inf  # of the mix
        self._tops: list[tuple[float, int]] = []  # of every block, both ways: how high, how flat

    @property
    def flat(self) -> int:
        """Samples on flat tops at the highest or the lowest value of all."""
        found = 0
        for sign in (0, 1):
            tops = self._tops[sign::2]
            top = max((height for height, _ in tops), default=0.0)
            found += sum(count for height, count in tops if height >= top * (1 - 1e-6))
        return found

    def add(self, block: Floats, mix: Floats) -> None:
        """Count a block: (frames, channels) as decoded, (frames,) mixed to one."""
        finite = np.isfinite(block)
        bad = finite.size - int(np.count_nonzero(finite))
        if bad and not self.not_finite:
            self.first_not_finite = self.frames + int(np.argmin(finite.all(axis=1)))
        self.not_finite += bad
        self.frames += len(block)
        if self.not_finite:
            return
        loudness = np.abs(block)
        self.peak = max(self.peak, float(loudness.max()))
        self.clipped += int(np.count_nonzero(np.abs(loudness - 1) <= self.step))
        self.squares += float(np.square(mix, dtype=np.float64).sum())
        self.low, self.high = min(self.low, float(mix.min())), max(self.high, float(mix.max()))
        self._tops += [_flat_top(block, self.step), _flat_top(-block, self.step)]


def _flat_top(block: Floats, step: float) -> tuple[float, int]:
    """The highest value of (frames, channels), and how many samples of flat tops are there.

    As `quality.clipped_share` has it: three or more in a row, with a cliff beside them.
    """
    top = float(block.max())
    count = 0
    if top > 0 and np.count_nonzero(block >= top * (1 - 1e-6)) >= _FLAT:
        for sound in block.T:
            edges = np.flatnonzero(np.diff(np.pad(sound >= top * (1 - 1e-6), 1).astype(np.int8)))
            for start, end in zip(edges[::2], edges[1::2], strict=True):
                beside = [sound[i] for i in (start - 1, end) if 0 <= i < len(sound)]
                cliff = bool(beside) and top - min(beside) >= max(_CLIFF * top, 4 * step)
                count += (end - start) * (end - start >= _FLAT and cliff)
    return top, int(count)


def _recording(
    sound: Stream, header: Container, name: str, rate_hz: int, max_duration_s: float
) -> Recording:
    tally = _Tally(step=1.001 * (2.0**-7 if sound.subtype.endswith("8") else 2.0**-15))
    expected = round(rate_hz * min(sound.frames / sound.samplerate, max_duration_s)) + 1
    held = files.Growing(expected)
    resampler = soxr.ResampleStream(sound.samplerate, rate_hz, 1, dtype="float32", quality="HQ")
    for block in _blocks(sound):
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is counted
            mix = block.mean(axis=1, dtype=np.float32)
            tally.add(block, mix)
        _check_duration(name, tally.frames / sound.samplerate, max_duration_s)
        if not tally.not_finite:
            held.add(resampler.resample_chunk(mix))
    promised_s = _promised_s(sound, header)
    _check_tally(name, tally, sound.samplerate, promised_s)
    held.add(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
    samples = held.whole()
    if not samples.size:
        raise UnreadableFileError(
            f"{name} holds {tally.frames} samples, too few for one at {rate_hz} Hz."
        )
    for part in files.stretches(samples):
        np.divide(samples[part], max(1.0, tally.peak), out=samples[part])
        np.clip(samples[part], -1, 1, out=samples[part])  # a resampler overshoots at clipped edges
    facts = {
        "duration_s": round(tally.frames / sound.samplerate, 6),
        "sample_rate_hz": sound.samplerate,
        "channels": sound.channels,
        "downmix": f"mean of {sound.channels} channels" if sound.channels > 1 else "none",
        "format": header.format,
        "subtype": sound.subtype,
        "peak_dbfs": round(_decibels(tally.peak), 2),
        "rms_dbfs": round(_decibels(math.sqrt(tally.squares / tally.frames)), 2),
        "clipped_share": round(_clipped_share(tally, sound.channels), 5),
    }
    warnings = tuple(_warnings(tally, facts, promised_s, rate_hz))
    return Recording(samples=samples, sample_rate_hz=rate_hz, facts=facts, warnings=warnings)


def _blocks(sound: Stream) -> Iterator[Floats]:
    """Blocks of (frames, channels), as far as the file can be decoded."""
    while True:
        try:
            block: Floats = sound.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:  # a file that was cut off: what came before it is good
            return
        if not len(block):
            return
        yield block


def _promised_s(sound: Stream, header: Container) -> float | None:
    """The duration the header gives, whether that much is there or not; None: it gives none."""
    frames = header.numbers.promised_frames if header.numbers else sound.frames
    return None if frames is None or frames >= _MOST_FRAMES else frames / sound.samplerate


def _check_shape(name: str, rate_hz: int, channels: int) -> None:
    least, most = _RATES_HZ
    if not least <= rate_hz <= most:
        raise UnreadableFileError(
            f"{name} has a sample rate of {rate_hz} Hz; wanted: {least} to {most} Hz."
        )
    if not 1 <= channels <= _MAX_CHANNELS:
        raise UnreadableFileError(f"{name} has {channels} channels; wanted: 1 to {_MAX_CHANNELS}.")


def _check_duration(name: str, duration_s: float, max_duration_s: float) -> None:
    if duration_s > max_duration_s:
        raise UnreadableFileError(
            f"{name} lasts {spoken_duration(duration_s)} or more;"
            f" wanted: at most {spoken_duration(max_duration_s)}."
        )


def _check_tally(name: str, tally: _Tally, rate_hz: int, promised_s: float | None) -> None:
    if not tally.frames and promised_s:
        raise UnreadableFileError(
            f"{name} promises {spoken_duration(promised_s)} of sound, but holds none that can be"
            f" decoded; wanted: a file that was written to its end."
        )
    if not tally.frames:
        raise UnreadableFileError(f"{name} holds 0 samples; wanted: a sound.")
    if tally.not_finite:
        count = f"{tally.not_finite} sample{'s' if tally.not_finite > 1 else ''}"
        where = spoken_duration(tally.first_not_finite / rate_hz)
        raise UnreadableFileError(
            f"{name} has {count} that are not finite numbers (NaN or infinite), the first at"
            f" {where}; wanted: finite samples between -1 and 1."
        )
    if tally.peak > _LOUDEST:
        raise UnreadableFileError(
            f"{name} has samples of up to {tally.peak:.3g}; wanted: samples between -1 and 1."
        )


def _warnings(
    tally: _Tally, facts: Mapping[str, Any], promised_s: float | None, rate_hz: int
) -> Iterator[str]:
    duration_s = facts["duration_s"]
    missing_s = (promised_s or 0) - duration_s
    if missing_s > min(_MISSING_S, _MISSING_SHARE * (promised_s or 0)):
        yield (
            f"The file is cut off: its header promises {spoken_duration(promised_s or 0)},"
            f" {spoken_duration(duration_s)} are there and were read."
        )
    if tally.high - tally.low <= 2 * _QUIET:
        yield _why_silent(tally)
    elif share := _clipped_share(tally, facts["channels"]):
        yield (
            f"The recording is clipped: {100 * share:.2g} % of its samples are at full scale or on"
            " flat tops. Distortion can look like a finding; record at a lower level."
        )
    if tally.peak > _LOUD:
        yield (
            f"The samples reach {tally.peak:.3g} where 1 is full scale; they were scaled down to 1."
        )
    if facts["sample_rate_hz"] < rate_hz:
        yield (
            f"The file's sample rate is {facts['sample_rate_hz']} Hz, the network's {rate_hz} Hz:"
            f" the file holds nothing above {facts['sample_rate_hz'] / 2:g} Hz."
        )
    if duration_s < _SHORT_S:
        yield (
            f"The recording lasts only {spoken_duration(duration_s)}; wanted: at least"
            f" {spoken_duration(_SHORT_S)} for an answer that means something."
        )


def _clipped_share(tally: _Tally, channels: int) -> float:
    """The share of samples that were cut off, at the rate of the file; 0: not worth saying."""
    count = tally.frames * channels
    if tally.high - tally.low <= 2 * _QUIET:
        return 0.0
    full, flat = tally.clipped / count, tally.flat / count
    return max(full if full > _CLIPPED_SHARE else 0.0, flat if flat >= _FLAT_SHARE else 0.0)


def _why_silent(tally: _Tally) -> str:
    level = (tally.high + tally.low) / 2
    if abs(level) > _QUIET:
        return f"The recording is constant at {level:.2g} of full scale: nothing to explain."
    if tally.peak > 4 * _QUIET:
        return "The channels cancel each other out in the mix: silent, nothing to explain."
    return f"The recording is silent: nothing to explain (peak {_decibels(tally.peak):.0f} dBFS)."
