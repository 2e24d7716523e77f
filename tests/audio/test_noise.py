"""Noise by known answers: ratios exact, slopes known, voices in number and pace."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from xai_demo import files
from xai_demo.audio import noise
from xai_demo.audio.noise import (
    KINDS,
    Noise,
    add_noise,
    mix_noise,
    noise_loop,
)
from xai_demo.errors import UnknownNameError, UnsuitableError
from xai_demo.records import Recording

RATE_HZ = 16_000
every_kind = pytest.mark.parametrize("kind", KINDS)


def tone(seconds: float = 2.0, rate_hz: int = RATE_HZ, level: float = 0.05) -> np.ndarray:
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (level * np.sin(2 * np.pi * 440 * time_s)).astype(np.float32)


def ratio_db(samples: np.ndarray, mixed: np.ndarray) -> float:
    hiss = mixed.astype(float) - samples.astype(float)
    return 10 * np.log10(np.mean(samples.astype(float) ** 2) / np.mean(hiss**2))


def band_db(samples: np.ndarray, rate_hz: int, low_hz: float, high_hz: float) -> float:
    power = np.abs(np.fft.rfft(samples.astype(float))) ** 2
    hertz = np.fft.rfftfreq(len(samples), 1 / rate_hz)
    return 10 * np.log10(power[(hertz >= low_hz) & (hertz < high_hz)].sum())


@every_kind
@pytest.mark.parametrize("snr_db", [-10.0, 0.0, 12.5, 30.0])
@pytest.mark.parametrize("seconds", [0.3, 2.0, 27.0])  # less, and more, than a round
def test_the_ratio_is_the_one_asked_for_to_a_hundredth_of_a_decibel(kind, snr_db, seconds):
    samples = tone(seconds)
    mixed, gain_db = mix_noise(samples, RATE_HZ, Noise(kind=kind, snr_db=snr_db))
    scale = 10 ** (gain_db / 20)
    assert ratio_db(scale * samples, mixed) == pytest.approx(snr_db, abs=0.01)
    assert np.abs(mixed).max() <= 1 + 1e-6
    assert mixed.dtype == np.float32


def test_a_mixture_that_would_clip_is_made_quieter_and_says_so():
    recording = Recording(
        samples=tone(level=0.9), sample_rate_hz=RATE_HZ, facts={"channels": 1}, warnings=("Old.",)
    )
    loud = add_noise(recording, Noise(kind="white", snr_db=0))
    assert np.abs(loud.samples).max() == pytest.approx(1, abs=1e-6)
    told = loud.facts["noise"]
    assert (told["kind"], told["snr_db"], loud.facts["channels"]) == ("white", 0, 1)
    assert told["gain_db"] < -6  # the noise alone reaches four times its deviation
    assert loud.warnings[0] == "Old."
    assert f"made {-told['gain_db']:.1f} dB quieter" in loud.warnings[1]
    quiet = add_noise(recording, Noise(kind="white", snr_db=40))
    assert quiet.facts["noise"]["gain_db"] == 0
    assert "quieter" not in quiet.warnings[1]
    assert "with white noise at a signal-to-noise ratio of 40 dB." in quiet.warnings[1]


@every_kind
def test_noise_has_power_one_no_offset_and_is_the_same_each_time(kind):
    loop = noise_loop(kind, RATE_HZ)
    assert len(loop) == noise.LOOP_S * RATE_HZ
    assert np.mean(loop.astype(float) ** 2) == pytest.approx(1, abs=1e-6)
    assert np.mean(loop.astype(float)) == pytest.approx(0, abs=1e-6)
    noise_loop.cache_clear()
    np.testing.assert_array_equal(noise_loop(kind, RATE_HZ), loop)


def test_white_noise_has_as_much_power_in_every_hertz():
    loop = noise_loop("white", RATE_HZ)
    for low_hz in (100, 1000, 5000):
        share = 10 * np.log10(1000 / (RATE_HZ / 2))
        whole = band_db(loop, RATE_HZ, 0, RATE_HZ)
        assert band_db(loop, RATE_HZ, low_hz, low_hz + 1000) - whole == pytest.approx(
            share, abs=0.2
        )


def test_pink_noise_has_as_much_power_in_every_octave_and_falls_by_three_decibels():
    loop = noise_loop("pink", RATE_HZ)
    octaves = [band_db(loop, RATE_HZ, low, 2 * low) for low in (62.5, 125, 250, 500, 1000, 2000)]
    assert max(octaves) - min(octaves) < 0.8
    # Power density, fitted over the logarithm of frequency: -10 dB a decade.
    power = np.abs(np.fft.rfft(loop.astype(float))) ** 2
    hertz = np.fft.rfftfreq(len(loop), 1 / RATE_HZ)
    edges = np.geomspace(50, 7000, 30)
    centres = np.sqrt(edges[1:] * edges[:-1])
    density = [
        10 * np.log10(power[(hertz >= a) & (hertz < b)].mean())
        for a, b in itertools.pairwise(edges)
    ]
    slope = np.polyfit(np.log10(centres), density, 1)[0]
    assert slope == pytest.approx(-10, abs=0.3)
    assert band_db(loop, RATE_HZ, 0, 19) < band_db(loop, RATE_HZ, 20, 40) - 100


@every_kind
def test_the_end_of_a_round_fits_its_beginning(kind):
    loop = noise_loop(kind, RATE_HZ).astype(float)
    steps = np.abs(np.diff(loop))
    assert abs(loop[0] - loop[-1]) <= steps.max()
    twice, _ = mix_noise(tone(41.0), RATE_HZ, Noise(kind=kind, snr_db=-20))
    alone = twice - 10 ** (
        mix_noise(tone(41.0), RATE_HZ, Noise(kind=kind, snr_db=-20))[1] / 20
    ) * tone(41.0)
    count = len(loop)
    np.testing.assert_allclose(alone[:1000], alone[count : count + 1000], atol=1e-6)


def modulation(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """The envelope, 100 values a second, relative to its mean."""
    step = rate_hz // 100
    rows = samples[: len(samples) // step * step].astype(float).reshape(-1, step)
    envelope = np.sqrt((rows**2).mean(axis=1))
    return envelope / envelope.mean() - 1


@pytest.mark.parametrize("rate_hz", [4000, 16_000, 32_000])
def test_babble_has_the_spectrum_of_speech(rate_hz):
    loop = noise_loop("babble", rate_hz)

    def third_db(centre_hz: float) -> float:
        return band_db(loop, rate_hz, centre_hz * 2 ** (-1 / 6), centre_hz * 2 ** (1 / 6))

    wanted = {hz: db for hz, db in noise.SPEECH_SPECTRUM if 200 <= hz <= min(10_000, 0.4 * rate_hz)}
    off = {hz: third_db(hz) - third_db(500) - db for hz, db in wanted.items()}
    assert max(map(abs, off.values())) < 8, off  # eight voices have few pitches
    assert np.mean(np.abs(list(off.values()))) < 3, off


def test_babble_comes_and_goes_at_the_pace_of_syllables():
    babble, white = (modulation(noise_loop(kind, RATE_HZ), RATE_HZ) for kind in ("babble", "white"))
    assert babble.std() > 3 * white.std()
    power = np.abs(np.fft.rfft(babble)) ** 2
    per_s = np.fft.rfftfreq(len(babble), 0.01)
    syllables = power[(per_s >= 1) & (per_s < 9)].sum()
    assert syllables > 3 * power[(per_s >= 9) & (per_s < 30)].sum()


def test_eight_voices_are_steadier_than_one_and_no_two_rounds_of_theirs_are_alike():
    rng = np.random.default_rng(0)
    one = noise._voice(rng, 10 * RATE_HZ, RATE_HZ)
    other = noise._voice(rng, 10 * RATE_HZ, RATE_HZ)
    assert (
        modulation(one, RATE_HZ).std()
        > 2 * modulation(noise_loop("babble", RATE_HZ), RATE_HZ).std()
    )
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


def test_what_is_no_noise_is_refused_by_name():
    with pytest.raises(
        UnknownNameError, match="no kind of noise named 'brown'; choose from: white, pin"
    ):
        Noise(kind="brown", snr_db=0)  # type: ignore[arg-type]
    for snr_db in (-21, 61, float("nan")):
        with pytest.raises(UnsuitableError, match="dB; expected -20 to 60 dB"):
            Noise(kind="white", snr_db=snr_db)
    with pytest.raises(UnsuitableError, match="is silent, so it has no signal-to-noise ratio"):
        mix_noise(np.zeros(1000, np.float32), RATE_HZ, Noise(kind="pink", snr_db=10))


def test_a_recording_worked_on_in_stretches_hears_the_same_noise(monkeypatch):
    samples = tone(3.0)
    whole, _ = mix_noise(samples, RATE_HZ, Noise(kind="pink", snr_db=5))
    monkeypatch.setattr(files, "_CHUNK_VALUES", 1000)
    np.testing.assert_allclose(mix_noise(samples, RATE_HZ, Noise(kind="pink", snr_db=5))[0], whole)
