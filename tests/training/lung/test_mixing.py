"""What training varies and makes: events of every kind, stethoscopes, noise, pitch and pace."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.lung_datasets import SPEC
from tests.training.lung.test_windows import levels, made
from xai_demo.training.lung import windows


def test_the_bank_holds_short_events_of_finite_power_and_is_reproducible():
    bank, again = (windows.event_bank(5, 3, SPEC) for _ in range(2))
    assert set(bank) == {"crackle", "wheeze"}
    for kind, sounds in bank.items():
        assert len(sounds) == 5
        for power, same in zip(sounds, again[kind], strict=True):
            assert power.shape[0] == SPEC.n_mels
            assert 8 <= power.shape[1] <= 200
            assert np.isfinite(power).all()
            assert (power >= 0).all()
            np.testing.assert_array_equal(power, same)


def test_a_wheeze_stands_on_few_bands_and_a_crackle_on_many():
    bank = windows.event_bank(12, 0, SPEC)

    def bands(power):
        mean = np.sort(power.mean(1))[::-1]
        return int(np.searchsorted(np.cumsum(mean) / mean.sum(), 0.8))

    means = {kind: np.mean([bands(p) for p in sounds]) for kind, sounds in bank.items()}
    assert means["wheeze"] < 0.6 * means["crackle"]


def test_a_stethoscope_comes_four_times_in_five_and_noise_two_times_in_five():
    rng = np.random.default_rng(0)
    changes = [windows.draw_augmentation(rng, made(levels()), 200, SPEC, 1) for _ in range(300)]
    assert {c.stage for c in changes} == {1}
    assert np.mean([c.gain_db is not None for c in changes]) == pytest.approx(0.8, abs=0.08)
    assert np.mean([c.noise is not None for c in changes]) == pytest.approx(0.4, abs=0.09)
    noises = [c.noise for c in changes if c.noise is not None]
    assert {n.shape for n in noises} == {(64, 200)}
    assert all((n > 0).all() for n in noises)
    assert np.mean([n[0].mean() / n[10].mean() for n in noises]) < 0.5  # filtered as well


def test_known_times_go_along_with_a_changed_pace():
    times = np.zeros((2, 200), np.float32)
    times[0, 90:110] = 1
    window = np.zeros((64, 200), np.float32)
    window[:, 90:110] = 50.0
    for seed in range(30):
        changed, moved = windows.augment(window, times, np.random.default_rng(seed))
        assert changed.shape == (64, 200)
        assert changed.dtype == np.float32
        assert moved.shape == (2, 200)
        assert not moved[1].any()
        loud = changed.max(0) > 25
        assert not (loud & (moved[0] == 0)).any()
        assert 16 <= moved[0].sum() <= 25
    np.testing.assert_array_equal(times[0, 90:110], 1)  # its input is left as it was
