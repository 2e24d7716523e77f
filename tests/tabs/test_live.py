"""The live microphone: no sample lost or doubled, whatever the pieces, and memory that stays."""

from __future__ import annotations

import copy
import tracemalloc

import numpy as np
import pytest
import soxr

from xai_demo.errors import UnsuitableError
from xai_demo.tabs.live import AudioBuffer

RATE = 8000


def sine(rate: int, duration_s: float, frequency_hz: float = 440.0) -> np.ndarray:
    time_s = np.arange(round(rate * duration_s)) / rate
    return (0.5 * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


def pieces(sound: np.ndarray, rng: np.random.Generator, most: int) -> list[np.ndarray]:
    cuts = np.cumsum(rng.integers(0, most, size=4 * len(sound) // most))
    return np.split(sound, cuts[cuts < len(sound)])


def collected(buffer: AudioBuffer, rate: int, chunks: list[np.ndarray]) -> np.ndarray:
    """Everything that went through the ring, taken whenever it is due."""
    parts, seen = [], 0
    for chunk in chunks:
        if buffer.add(rate, chunk):
            kept = buffer.take()
            parts.append(kept[len(kept) - (buffer.received - seen) :])
            seen = buffer.received
    buffer.finish()
    kept = buffer.take()
    parts.append(kept[len(kept) - (buffer.received - seen) :])
    return np.concatenate(parts)


@pytest.mark.parametrize("rate", [48000, 44100, 16000, 8000, 4000])
def test_ten_minutes_in_random_pieces_are_the_sound_in_one_go(rate: int) -> None:
    sound = sine(rate, 600)
    chunks = pieces(sound, np.random.default_rng(rate), most=rate)
    assert len(chunks) > 500
    buffer = AudioBuffer(sample_rate_hz=RATE)
    heard = collected(buffer, rate, chunks)
    whole = soxr.resample(sound, rate, RATE, quality="HQ") if rate != RATE else sound
    assert len(heard) == len(whole) == 600 * RATE
    assert buffer.received_s == 600
    np.testing.assert_allclose(heard, whole, atol=1e-5)


def test_the_last_seconds_are_kept_in_order() -> None:
    buffer = AudioBuffer(sample_rate_hz=1000, keep_s=2.0, step_s=0.5)
    ramp = np.arange(5300, dtype=np.float32) / 10000
    for start in range(0, 5300, 700):
        buffer.add(1000, ramp[start : start + 700])
    np.testing.assert_array_equal(buffer.take(), ramp[3300:])


def test_before_the_first_seconds_are_full_there_is_less() -> None:
    buffer = AudioBuffer(sample_rate_hz=1000, keep_s=2.0)
    assert buffer.take().shape == (0,)
    buffer.add(1000, np.ones(300, np.float32))
    np.testing.assert_array_equal(buffer.take(), np.ones(300))


def test_it_is_due_once_for_every_second() -> None:
    buffer = AudioBuffer(sample_rate_hz=1000)
    due = []
    for _ in range(40):
        due.append(buffer.add(1000, np.zeros(250, np.float32)))
        if due[-1]:
            buffer.take()
            assert not buffer.is_due
    assert due == [False, False, False, True] * 10


def test_a_chunk_longer_than_what_is_kept_leaves_its_end() -> None:
    buffer = AudioBuffer(sample_rate_hz=1000, keep_s=2.0)
    buffer.add(1000, np.arange(10_000) / 10_000)
    np.testing.assert_allclose(buffer.take(), np.arange(8000, 10_000) / 10_000, atol=1e-7)


@pytest.mark.parametrize(
    ("chunk", "level"),
    [
        (np.full(100, 16384, np.int16), 0.5),
        (np.full(100, -(2**30), np.int32), -0.5),
        (np.full(100, 192, np.uint8), 0.5),
        (np.full(100, 0.25, np.float32), 0.25),
        (np.full(100, 0.25, np.float64), 0.25),
        (np.full((100, 2), 16384, np.int16), 0.5),
        (np.tile(np.array([0.5, -0.25], np.float32), (100, 1)), 0.125),
        (np.full(100, np.nan, np.float32), 0.0),
        (np.full(100, -np.inf, np.float32), 0.0),
    ],
)
def test_every_kind_of_sample_comes_to_the_same_scale(chunk: np.ndarray, level: float) -> None:
    buffer = AudioBuffer(sample_rate_hz=1000)
    buffer.add(1000, chunk)
    np.testing.assert_allclose(buffer.take(), np.full(100, level), atol=1e-7)


def test_a_change_of_rate_loses_nothing() -> None:
    buffer = AudioBuffer(sample_rate_hz=RATE)
    buffer.add(48000, sine(48000, 2.0))
    buffer.add(16000, sine(16000, 3.0))
    buffer.finish()
    assert buffer.received == 5 * RATE
    kept = buffer.take()
    np.testing.assert_allclose(kept[RATE : 2 * RATE - 200], sine(RATE, 1)[:-200], atol=1e-3)
    np.testing.assert_allclose(kept[2 * RATE + 200 : 3 * RATE], sine(RATE, 1)[200:], atol=1e-3)


def test_memory_does_not_grow() -> None:
    buffer = AudioBuffer(sample_rate_hz=RATE)
    chunk = sine(48000, 0.5)

    def half_a_minute() -> int:
        for _ in range(60):
            if buffer.add(48000, chunk):
                buffer.take()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        half_a_minute()
        before = half_a_minute()
        for _ in range(10):
            after = half_a_minute()
    finally:
        tracemalloc.stop()
    assert abs(after - before) < 20_000


def test_a_fresh_one_can_be_copied_and_the_copy_is_its_own() -> None:
    first = AudioBuffer(sample_rate_hz=1000)
    second = copy.deepcopy(first)
    second.add(1000, np.ones(10, np.float32))
    assert (first.received, second.received) == (0, 10)


def test_an_empty_chunk_is_nothing() -> None:
    buffer = AudioBuffer(sample_rate_hz=1000)
    assert buffer.add(48000, np.zeros(0, np.int16)) is False
    assert buffer.received == 0


def test_what_is_kept_is_not_what_was_given() -> None:
    buffer = AudioBuffer(sample_rate_hz=1000)
    chunk = np.ones(10, np.float32)
    buffer.add(1000, chunk)
    taken = buffer.take()
    chunk[:], taken[:] = 0, 0
    np.testing.assert_array_equal(buffer.take(), np.ones(10))


@pytest.mark.parametrize("rate", [0, -1, 999, 1_000_000])
def test_an_absurd_rate_is_refused(rate: int) -> None:
    with pytest.raises(UnsuitableError, match=f"{rate} samples per second; 1000 to 768000 are"):
        AudioBuffer(sample_rate_hz=1000).add(rate, np.zeros(10, np.float32))


@pytest.mark.parametrize(
    "chunk",
    [
        np.zeros(10, bool),
        np.zeros(10, complex),
        np.zeros((10, 2, 2), np.float32),
        np.zeros((10, 33), np.float32),
        np.zeros((10, 0), np.float32),
        np.array(["a"]),
    ],
)
def test_what_is_no_sound_is_refused(chunk: np.ndarray) -> None:
    with pytest.raises(UnsuitableError, match=r"integers or floats of .* are needed"):
        AudioBuffer(sample_rate_hz=1000).add(1000, chunk)


@pytest.mark.parametrize(("keep_s", "step_s"), [(1, 2), (1, 0), (0, 0)])
def test_absurd_lengths_are_refused(keep_s: float, step_s: float) -> None:
    with pytest.raises(
        UnsuitableError, match=f"A step of {step_s:g} s does not fit a buffer of {keep_s:g} s"
    ):
        AudioBuffer(sample_rate_hz=1000, keep_s=keep_s, step_s=step_s)
