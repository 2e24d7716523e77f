"""The signal path: what passes, what is taken away, and that an hour is treated like a second."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from xai_demo.audio import filters
from xai_demo.audio.filters import (
    SignalPath,
    band_pass,
    denoise_wavelet,
    noise_level,
)
from xai_demo.errors import UnknownNameError, UnsuitableError

RATE = 8000


def tone(frequency_hz: float, duration_s: float = 2.0, rate: int = RATE) -> np.ndarray:
    time_s = np.arange(round(duration_s * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * frequency_hz * time_s)).astype(np.float32)


def chirp(duration_s: float = 4.0) -> np.ndarray:
    time_s = np.arange(round(duration_s * RATE)) / RATE
    return (0.5 * np.sin(2 * np.pi * (200 * time_s + 50 * time_s**2))).astype(np.float32)


def white(deviation: float, count: int, seed: int = 0) -> np.ndarray:
    return (deviation * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def middle(samples: np.ndarray) -> np.ndarray:
    return samples[len(samples) // 4 : -(len(samples) // 4)]


def decibels(power: float) -> float:
    return 10 * math.log10(max(power, 1e-30))


def gain_db(frequency_hz: float, **options: float) -> float:
    sound = tone(frequency_hz)
    passed = band_pass(sound, RATE, **options)
    return decibels(float(np.mean(middle(passed) ** 2) / np.mean(middle(sound) ** 2)))


def snr_db(clean: np.ndarray, other: np.ndarray) -> float:
    return decibels(float(np.sum(clean**2) / max(np.sum((clean - other) ** 2), 1e-30)))


# band-pass


@pytest.mark.parametrize(
    ("frequency_hz", "wanted_db"),
    [(100, -6.02), (1800, -6.02), (500, 0.0), (1000, 0.0)],
)
def test_the_ends_lie_at_half_the_amplitude(frequency_hz: float, wanted_db: float) -> None:
    assert gain_db(frequency_hz) == pytest.approx(wanted_db, abs=0.05)


@pytest.mark.parametrize("frequency_hz", [25, 3600])
def test_beyond_the_ends_hardly_anything_is_left(frequency_hz: float) -> None:
    assert gain_db(frequency_hz) < -60


def test_nothing_is_delayed() -> None:
    click = np.zeros(4000, np.float32)
    click[2000] = 1
    passed = band_pass(click, RATE)
    assert int(np.argmax(passed)) == 2000
    np.testing.assert_allclose(passed[1500:2500], passed[2500:1500:-1], atol=1e-6)


def test_an_end_beyond_the_sample_rate_is_left_open() -> None:
    high = tone(1300, rate=3000)
    passed = band_pass(high, 3000)
    assert snr_db(middle(high), middle(passed)) > 60
    assert float(np.std(band_pass(tone(20, rate=3000), 3000))) < 0.01


def test_a_band_from_zero_keeps_what_is_constant() -> None:
    level = np.full(1000, 0.25, np.float32)
    np.testing.assert_allclose(band_pass(level, RATE, low_hz=0), level, atol=1e-6)
    assert float(np.abs(band_pass(level, RATE)).max()) < 1e-6


def test_a_band_of_everything_changes_nothing() -> None:
    sound = white(0.1, 500)
    passed = band_pass(sound, RATE, low_hz=0, high_hz=math.inf)
    np.testing.assert_array_equal(passed, sound)
    assert passed is not sound


@pytest.mark.parametrize("count", [0, 1, 2, 3, 12, 13, 14, 100])
def test_short_sounds_keep_their_length(count: int) -> None:
    for result in (band_pass(white(0.1, count), RATE), denoise_wavelet(white(0.1, count))):
        assert result.shape == (count,)
        assert result.dtype == np.float32
        assert np.isfinite(result).all()


@pytest.mark.parametrize(
    ("low_hz", "high_hz", "words"),
    [
        (500, 500, "500 to 500 Hz"),
        (900, 200, "900 to 200 Hz"),
        (math.nan, 200, "nan to 200 Hz"),
        (100, math.nan, "100 to nan Hz"),
        (5000, 6000, "0 to 4000 Hz"),
        (-20, -10, "-20 to -10 Hz"),
    ],
)
def test_a_band_that_leaves_nothing_is_refused(low_hz: float, high_hz: float, words: str) -> None:
    with pytest.raises(UnsuitableError, match=words):
        band_pass(white(0.1, 100), RATE, low_hz=low_hz, high_hz=high_hz)


@pytest.mark.parametrize("order", [0, -1, 13])
def test_an_absurd_order_is_refused(order: int) -> None:
    with pytest.raises(UnsuitableError, match=f"order is {order}; expected 1 to 12"):
        band_pass(white(0.1, 100), RATE, order=order)


# denoising


@pytest.mark.parametrize("deviation", [0.003, 0.1])
def test_the_level_of_white_noise_is_its_deviation(deviation: float) -> None:
    assert noise_level(white(deviation, 40000)) == pytest.approx(deviation, rel=0.03)


def test_a_loud_tone_is_no_noise() -> None:
    sound = chirp() + white(0.01, len(chirp()))
    assert noise_level(sound) == pytest.approx(0.01, rel=0.05)


def test_the_noise_of_a_long_sound_is_measured_all_over_it() -> None:
    quiet, loud = white(0.01, 600_000), white(0.1, 700_000)
    assert 0.02 < noise_level(np.concatenate([quiet, loud])) < 0.1


def test_nothing_is_the_level_of_silence_and_of_too_few_samples() -> None:
    assert noise_level(np.zeros(1000, np.float32)) == 0
    assert noise_level(np.ones(3, np.float32)) == 0


@pytest.mark.parametrize(("input_db", "least_db"), [(0, 6), (10, 5), (20, 3)])
def test_a_chirp_comes_out_of_noise_clearer(input_db: float, least_db: float) -> None:
    clean = chirp()
    noise = white(0.5 / math.sqrt(2) * 10 ** (-input_db / 20), len(clean))
    before = snr_db(clean, clean + noise)
    assert before == pytest.approx(input_db, abs=0.2)
    assert snr_db(clean, denoise_wavelet(clean + noise)) > before + least_db


def test_a_clean_sound_is_left_as_it_is() -> None:
    assert snr_db(chirp(), denoise_wavelet(chirp())) > 40


def test_of_noise_alone_hardly_anything_is_left() -> None:
    noise = white(0.1, 40000)
    assert decibels(float(np.mean(denoise_wavelet(noise) ** 2)) / 0.01) < -20


def test_breath_noise_stronger_than_the_hiss_stays() -> None:
    breath = band_pass(white(0.5, 40000), RATE, low_hz=100, high_hz=600)
    sound = breath + white(0.01, 40000, seed=1)
    assert snr_db(breath, denoise_wavelet(sound)) > snr_db(breath, sound)


@pytest.mark.parametrize("count", [4000, 4001, 4095, 4097])
def test_every_length_comes_back(count: int) -> None:
    sound = chirp()[:count]
    assert denoise_wavelet(sound, noise=0.001).shape == (count,)


def test_more_levels_than_fit_are_as_many_as_fit() -> None:
    sound = chirp()[:200] + white(0.1, 200)
    np.testing.assert_array_equal(denoise_wavelet(sound, level=30), denoise_wavelet(sound))


def test_what_is_asked_amiss_is_named() -> None:
    with pytest.raises(UnknownNameError, match="wavelet named 'ripple'"):
        denoise_wavelet(chirp(), wavelet="ripple")
    with pytest.raises(UnsuitableError, match="level is 0; expected 1 or more"):
        denoise_wavelet(chirp(), level=0)


# long recordings


@pytest.mark.parametrize("count", [2**17, 2**17 + 1, 150_001])
def test_stretches_join_without_a_trace(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = np.resize(chirp(), count) + white(0.2, count)
    monkeypatch.setattr(filters, "_CHUNK_SAMPLES", 2**30)
    whole = SignalPath().run(sound, RATE)
    monkeypatch.setattr(filters, "_CHUNK_SAMPLES", 2**15)
    joined = SignalPath().run(sound, RATE)
    for one, other in zip(whole, joined, strict=True):
        np.testing.assert_allclose(other.samples, one.samples, atol=1e-6)


def test_stretches_cover_every_sample_once() -> None:
    kept = [(first, last) for first, last, _, _ in filters._overlapping_chunks(2**20 + 5, 999, 256)]
    assert kept[0][0] == 0
    assert kept[-1][1] == 2**20 + 5
    assert all(end == start for (_, end), (start, _) in itertools.pairwise(kept))
    assert all(first % 256 == 0 for first, _ in kept)


# the path


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (SignalPath(), ["raw", "filtered", "denoised"]),
        (SignalPath(denoise=False), ["raw", "filtered"]),
        (SignalPath(band_hz=None), ["raw", "denoised"]),
        (SignalPath(band_hz=None, denoise=False), ["raw"]),
    ],
)
def test_each_step_can_be_switched_off(path: SignalPath, names: list[str]) -> None:
    sound = chirp()
    stages = path.run(sound, RATE)
    assert [stage.name for stage in stages] == names
    assert all(stage.samples.shape == sound.shape for stage in stages)
    assert stages[0].samples is sound


def test_every_step_makes_a_noisy_chirp_clearer() -> None:
    clean = chirp()
    stages = SignalPath().run(clean + white(0.1, len(clean)), RATE)
    raw, filtered, clear = (snr_db(clean, stage.samples) for stage in stages)
    assert raw < filtered < clear


def test_the_input_is_never_changed() -> None:
    sound = white(0.1, 5000)
    before = sound.copy()
    SignalPath().run(sound, RATE)
    np.testing.assert_array_equal(sound, before)


def test_an_unknown_end_of_the_band_is_refused_by_the_path() -> None:
    with pytest.raises(UnsuitableError, match="300 to 200 Hz"):
        SignalPath(band_hz=(300, 200)).run(chirp(), RATE)
