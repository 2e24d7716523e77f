"""Sounds other than breath are reported: on synthetic sounds whose kind is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import lfilter

from xai_demo.audio import quality
from xai_demo.audio.quality import (
    FEATURES,
    KINDS,
    NON_BREATH_KINDS,
    check_quality,
    clipped_share,
    silent_share,
)
from xai_demo.errors import TrainingError
from xai_demo.synthesis.lung import Breathing, Crackles, Event, Wheeze, lung_sound
from xai_demo.training.input_checks import CLASSES, fit_quality

RATE = 8000


def resonance(sound: np.ndarray, frequency_hz: float, width_hz: float, rate: int) -> np.ndarray:
    radius = np.exp(-np.pi * width_hz / rate)
    poles = [1, -2 * radius * np.cos(2 * np.pi * frequency_hz / rate), radius**2]
    return lfilter([sum(poles)], poles, sound)


def speech(
    seed: int, pitch_hz: float = 120, duration_s: float = 10, rate: int = RATE
) -> np.ndarray:
    """A pulse train through three formants that change with every syllable, four a second."""
    rng = np.random.default_rng(seed)
    sound = []
    while sum(map(len, sound)) < duration_s * rate:
        count = round(rng.uniform(0.14, 0.26) * rate)
        at = np.arange(count) / count
        pitch = pitch_hz * rng.uniform(0.85, 1.2) * (1.08 - 0.16 * at)
        phase = np.cumsum(pitch) / rate
        pulses = np.diff(np.floor(phase), prepend=0) + 0.01 * rng.standard_normal(count)
        vowel = (rng.uniform(300, 750), rng.uniform(900, 1700), rng.uniform(2200, 2800))
        for formant_hz in vowel:
            pulses = resonance(pulses, formant_hz, 90, rate)
        sound.append(pulses / np.abs(pulses).max() * np.sin(np.pi * at) ** 0.6)
        noise = np.diff(rng.standard_normal(round(rng.uniform(0.03, 0.09) * rate)), prepend=0)
        sound.append(0.08 * noise)
        if rng.random() < 0.12:
            sound.append(np.zeros(round(0.25 * rate)))
    whole = np.concatenate(sound)[: round(duration_s * rate)]
    return (0.5 * whole + 1e-3 * rng.standard_normal(len(whole))).astype(np.float32)


def music(seed: int, duration_s: float = 10, rate: int = RATE) -> np.ndarray:
    """Chords of three notes with harmonics, two a second, and a melody over them."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(round(duration_s * rate)) / rate
    sound = 1e-3 * rng.standard_normal(len(time_s))

    def note(start_s: float, length_s: float, key: float, level: float) -> None:
        here = (time_s >= start_s) & (time_s < start_s + length_s)
        since_s = time_s[here] - start_s
        pitch_hz = 440 * 2 ** (key / 12)
        for harmonic in range(1, 7):
            wave = 0.6**harmonic * np.sin(2 * np.pi * pitch_hz * harmonic * since_s)
            sound[here] += level * wave * np.exp(-2 * since_s) * np.minimum(since_s / 0.005, 1)

    for beat, start_s in enumerate(np.arange(0, duration_s, 0.5)):
        root = (-21, -14, -16, -19)[beat // 2 % 4] + seed % 5
        for step in (0, 4, 7):
            note(start_s, 0.5, root + step, 0.25)
        note(start_s, 0.5, root + float(rng.choice((12, 16, 19, 24))), 0.3)
    return (sound / np.abs(sound).max() * 0.8).astype(np.float32)


def lung(seed: int, *events: Event, period_s: float = 2.0) -> np.ndarray:
    breathing = Breathing(
        duration_s=10, period_s=period_s, inspiration_s=0.4 * period_s, expiration_s=0.4 * period_s
    )
    return lung_sound(seed=seed, events=events, breathing=breathing).samples


def wheezes(frequency_hz: float, harmonics: int = 3) -> tuple[Event, ...]:
    return tuple(
        Wheeze(start_s=s, duration_s=0.8, frequency_hz=frequency_hz, harmonics=harmonics)
        for s in (1.2, 3.2, 5.2, 7.2)
    )


def crackles(kind: str) -> tuple[Event, ...]:
    return tuple(
        Crackles(start_s=s, duration_s=0.7, kind=kind, snr_db=8)  # type: ignore[arg-type]
        for s in (0.5, 2.5, 4.5, 6.5)
    )


def kinds(samples: np.ndarray, rate: int = RATE) -> list[str]:
    return [finding.kind for finding in check_quality(samples, rate)]


def halved(samples: np.ndarray) -> np.ndarray:
    import soxr

    return soxr.resample(samples, 8000, 4000)


# breath


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "events",
    [
        (),
        wheezes(180),
        wheezes(400),
        wheezes(800, harmonics=2),
        crackles("fine"),
        crackles("coarse"),
        wheezes(350) + crackles("coarse"),
    ],
)
def test_breath_with_or_without_events_is_left_in_peace(
    seed: int, events: tuple[Event, ...]
) -> None:
    sound = lung(seed, *events, period_s=1.5 + 0.7 * seed)
    assert kinds(sound) == []
    assert kinds(halved(sound), 4000) == []


# speech and music


@pytest.mark.parametrize("pitch_hz", [100, 140, 220])
@pytest.mark.parametrize("seed", [0, 1])
def test_speech_is_found_at_both_rates(seed: int, pitch_hz: float) -> None:
    sound = speech(seed, pitch_hz)
    assert kinds(sound) == ["speech"]
    assert kinds(halved(sound), 4000) == ["speech"]
    assert check_quality(sound, RATE)[0].share > 0.6


@pytest.mark.parametrize("seed", range(4))
def test_music_is_found_at_both_rates(seed: int) -> None:
    sound = music(seed)
    assert kinds(sound) == ["music"]
    assert kinds(halved(sound), 4000) == ["music"]


def test_the_share_is_that_of_the_recording() -> None:
    sound = np.concatenate([lung(0)[:64_000], lung(1)[:64_000], speech(0, duration_s=8)])
    (finding,) = check_quality(sound, RATE)
    assert finding.kind == "speech"
    assert finding.share == pytest.approx(1 / 3, abs=0.1)
    assert f"{100 * finding.share:.2g} %" in finding.sentence


def test_a_recording_of_nothing_else_is_said_to_be_it_all_through() -> None:
    (finding,) = check_quality(speech(0, duration_s=4), RATE)
    assert finding.share == pytest.approx(1)
    assert finding.sentence.startswith("There seems to be speech throughout the recording. The")


@pytest.mark.parametrize("level", [0.003, 1.0])
def test_loudness_does_not_matter(level: float) -> None:
    assert kinds(level * speech(0)) == ["speech"]
    assert kinds(level * lung(0)) == []


def test_a_long_recording_is_sampled_and_not_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = quality.features
    monkeypatch.setattr(quality, "features", lambda w: seen.append(len(w)) or real(w))
    monkeypatch.setattr(quality, "_MAX_WINDOWS", 5)
    assert kinds(np.tile(lung(0), 6)) == []
    assert seen == [16000] * 5


@pytest.mark.parametrize("rate", [1000, 3000])
def test_what_a_low_rate_cannot_show_is_not_told(rate: int) -> None:
    assert kinds(speech(0)[: 5 * rate], rate) == []


# silence, clipping, length


def test_silence_is_found_and_measured() -> None:
    sound = lung(0)
    sound[16_000:40_000] = 0
    assert silent_share(sound, RATE) == pytest.approx(0.3, abs=0.011)
    (finding,) = check_quality(sound, RATE)
    assert (finding.kind, "30 % of the recording is silent" in finding.sentence) == (
        "silence",
        True,
    )


def test_all_silence_is_all_of_it_and_nothing_else() -> None:
    (finding,) = check_quality(np.zeros(40_000, np.float32), RATE)
    assert (finding.kind, finding.share) == ("silence", 1.0)
    assert finding.sentence.startswith("All of the recording is silent")


def test_a_constant_and_a_converters_noise_are_silence() -> None:
    steps = np.random.default_rng(0).integers(-1, 2, 40_000) / 32768
    assert silent_share(np.full(40_000, 0.3, np.float32), RATE) == 1
    assert silent_share(steps.astype(np.float32), RATE) == 1


def test_the_pause_between_breaths_is_no_silence() -> None:
    sound = lung(0)
    sound[8000:11_000] = 0
    assert silent_share(sound, RATE) == 0


@pytest.mark.parametrize("ceiling", [1.0, 0.3, 0.01])
def test_flat_tops_are_clipping_at_any_height(ceiling: float) -> None:
    time_s = np.arange(RATE) / RATE
    wave = np.sin(2 * np.pi * 100 * time_s)  # cut at 1/2: flat for 2/3 of the time
    flat = (2 * ceiling * np.clip(wave, -0.5, 0.5)).astype(np.float32)
    assert clipped_share(flat) == pytest.approx(2 / 3, abs=0.02)


def test_a_clipped_breath_is_said_to_be() -> None:
    sound = lung(0)
    limit = np.quantile(np.abs(sound), 0.99)
    found = check_quality(np.clip(sound, -limit, limit), RATE)
    assert [finding.kind for finding in found] == ["clipping"]
    assert 0.005 < found[0].share <= 0.01
    assert "flat tops" in found[0].sentence


@pytest.mark.parametrize("frequency_hz", [5, 20, 50, 400, 2000])
@pytest.mark.parametrize("amplitude", [1.0, 0.003])
def test_a_wave_that_is_whole_is_not_clipped(frequency_hz: float, amplitude: float) -> None:
    time_s = np.arange(4 * RATE) / RATE
    wave = amplitude * np.sin(2 * np.pi * frequency_hz * time_s + 0.1)
    stepped = np.round(32768 * wave) / 32768
    assert clipped_share(stepped.astype(np.float32)) == 0


@pytest.mark.parametrize("samples", [[], [1.0], [1, 1, 1], [0, 0, 0, 0, 0, 0]])
def test_next_to_nothing_is_not_clipped(samples: list[float]) -> None:
    assert clipped_share(np.array(samples, np.float32)) == 0


@pytest.mark.parametrize("count", [0, 1, 3, 2000, 3999])
def test_too_short_is_said_for_anything_below_half_a_second(count: int) -> None:
    found = check_quality(lung(0)[:count], RATE)
    assert found[0].kind == "too short"
    assert "at least 0.5 s is needed" in found[0].sentence


@pytest.mark.parametrize("count", [4000, 8000, 12_345])
def test_half_a_second_of_breath_is_enough(count: int) -> None:
    assert "too short" not in kinds(lung(0)[20_000 : 20_000 + count])


# the model


def test_every_statistic_is_a_finite_number_with_a_name() -> None:
    for sound in (lung(0)[:16_000], np.zeros(16_000), np.ones(3), np.eye(1, 16_000)[0]):
        values = quality.features(sound.astype(np.float32))
        assert values.shape == (len(FEATURES),)
        assert np.isfinite(values).all()
    assert set(quality.COEFFICIENTS) == set(FEATURES)


def test_a_tone_held_is_one_line_and_a_chord_three() -> None:
    time_s = np.arange(16_000) / 4000
    noise = 1e-3 * np.random.default_rng(0).standard_normal(16_000)
    tones = [np.sin(2 * np.pi * hertz * time_s) for hertz in (300, 500, 900)]
    one = dict(zip(FEATURES, quality.features(tones[0] + noise), strict=True))
    three = dict(zip(FEATURES, quality.features(sum(tones) + noise), strict=True))
    assert one["held_tones"] == pytest.approx(1, abs=0.05)
    assert three["held_tones"] == pytest.approx(3, abs=0.1)
    assert (one["chords"], three["chords"]) == (0, pytest.approx(1, abs=0.05))
    assert three["held_top_hz"] == pytest.approx(0.9, abs=0.01)


def test_modulation_is_found_where_it_was_put() -> None:
    time_s = np.arange(16_000) / 4000
    noise = np.random.default_rng(0).standard_normal(16_000)
    slow, syllables = (
        quality.features(noise * (1 + 0.9 * np.sin(2 * np.pi * hertz * time_s))) for hertz in (1, 5)
    )
    at = FEATURES.index("syllables")
    assert slow[at] < 0.3 < 0.6 < syllables[at]


def test_probabilities_add_up_to_one() -> None:
    chances = quality.probabilities(quality.features(speech(0)[:16_000]))
    assert list(chances) == ["breath", *NON_BREATH_KINDS]
    assert sum(chances.values()) == pytest.approx(1)
    assert set(NON_BREATH_KINDS) < set(KINDS)


def test_a_fit_tells_apart_what_is_apart() -> None:
    rng = np.random.default_rng(0)
    names = [CLASSES[i % 4] for i in range(400)]
    values = rng.standard_normal((400, len(FEATURES)))
    for row, name in enumerate(names):
        values[row, CLASSES.index(name)] += 8
    fitted = fit_quality(values, names)
    slopes = np.array([fitted.coefficients[name] for name in FEATURES])
    logits = np.column_stack([np.zeros(400), values @ slopes + np.array(fitted.intercepts)])
    found = [CLASSES[i] for i in logits.argmax(axis=1)]
    assert np.mean([a == b for a, b in zip(found, names, strict=True)]) > 0.97


def test_a_fit_wants_every_kind() -> None:
    with pytest.raises(
        TrainingError, match="kinds breath, hum; a fit needs windows of each of breath"
    ):
        fit_quality(np.zeros((2, len(FEATURES))), ["breath", "hum"])
