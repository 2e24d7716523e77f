"""Coughs: told from breathing in short recordings, and from nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from xai_demo.audio.cough import (
    FEATURES,
    MIN_PROBABILITY,
    RATE_HZ,
    WEIGHTS,
    cough_probability,
    features,
)
from xai_demo.audio.quality import check_quality
from xai_demo.training.cough_fit import synthetic_breath, synthetic_cough


def alarms(sounds: list[np.ndarray]) -> float:
    found = [cough_probability(s, RATE_HZ) >= MIN_PROBABILITY for s in sounds]
    return float(np.mean(found))


def test_coughs_are_told_from_breathing() -> None:
    rng = np.random.default_rng(100)
    assert alarms([synthetic_cough(rng) for _ in range(60)]) > 0.9
    assert alarms([synthetic_breath(rng) for _ in range(60)]) < 0.12


def test_a_burst_that_starts_at_once_and_is_over_soon_has_the_statistics_of_one() -> None:
    sound = np.zeros(RATE_HZ, np.float32)
    burst = np.random.default_rng(0).standard_normal(RATE_HZ // 5).astype(np.float32)
    sound[1600:2400] = 0.3 * burst
    values = dict(zip(FEATURES, features(sound), strict=True))
    assert values["rise_db"] == values["attack_db"] == 40
    assert values["loud_s"] == pytest.approx(0.2, abs=0.02)
    assert values["burst_share"] == pytest.approx(1, abs=1e-3)
    assert values["median_db"] == -45
    assert len(WEIGHTS) == len(FEATURES)


def test_a_cough_is_named_and_nothing_else_is() -> None:
    sound = synthetic_cough(np.random.default_rng(100))
    (finding,) = check_quality(sound, RATE_HZ)
    assert finding.kind == "cough"
    assert finding.share == 1
    assert "a cough" in finding.sentence
    assert "no breathing" in finding.sentence


def test_long_recordings_and_silence_are_no_coughs() -> None:
    rng = np.random.default_rng(100)
    cough = synthetic_cough(rng)
    assert cough_probability(cough, RATE_HZ) > 0.9
    assert cough_probability(np.pad(cough, (0, 4 * RATE_HZ)), RATE_HZ) == 0
    assert cough_probability(cough[:800], RATE_HZ) == 0
    assert cough_probability(np.zeros(RATE_HZ, np.float32), RATE_HZ) == 0
    assert cough_probability(cough, 2000) == 0


def test_the_rate_and_the_level_make_no_difference() -> None:
    import soxr

    cough = synthetic_cough(np.random.default_rng(101))
    expected = cough_probability(cough, RATE_HZ)
    faster = soxr.resample(0.01 * cough, RATE_HZ, 16000).astype(np.float32)
    assert cough_probability(faster, 16000) == pytest.approx(expected, abs=0.03)
