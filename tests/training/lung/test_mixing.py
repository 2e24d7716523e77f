"""What training varies and makes: events of every kind, stethoscopes, noise, pitch and pace."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.lung_datasets import SPEC
from tests.training.lung.test_windows import levels, made
from xai_demo.audio import spectrogram
from xai_demo.training.lung import devices, event_bank, windows
from xai_demo.training.lung.devices import Device


def test_the_bank_holds_short_events_of_finite_power_and_is_reproducible():
    bank, again = (event_bank.event_bank(5, 3, SPEC) for _ in range(2))
    assert set(bank) == {"crackle", "fine crackle", "wheeze", "voice"}
    for kind, sounds in bank.items():
        assert len(sounds) == 5
        for power, same in zip(sounds, again[kind], strict=True):
            assert power.shape[0] == SPEC.n_mels
            assert 8 <= power.shape[1] <= 200
            assert np.isfinite(power).all()
            assert (power >= 0).all()
            np.testing.assert_array_equal(power, same)


def test_a_wheeze_stands_on_few_bands_and_a_crackle_on_many():
    bank = event_bank.event_bank(12, 0, SPEC)

    def bands(power):
        mean = np.sort(power.mean(1))[::-1]
        return int(np.searchsorted(np.cumsum(mean) / mean.sum(), 0.8))

    means = {kind: np.mean([bands(p) for p in sounds]) for kind, sounds in bank.items()}
    assert means["wheeze"] < 0.6 * means["crackle"]


def test_a_stethoscope_comes_four_times_in_five_and_noise_two_times_in_five():
    rng = np.random.default_rng(0)
    changes = [windows.draw_augmentation(rng, made(levels()), 200, SPEC, 1) for _ in range(300)]
    assert {c.stage for c in changes} == {1}
    assert np.mean([c.device is not None for c in changes]) == pytest.approx(0.8, abs=0.08)
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


def test_fine_crackles_are_shorter_and_higher_than_a_mixture_of_all():
    bank = event_bank.event_bank(12, 0, SPEC)

    def centre(power):
        mean = power.mean(1)
        return float(mean @ np.arange(len(mean)) / mean.sum())

    centres = {
        kind: np.mean([centre(p) for p in bank[kind]]) for kind in ("crackle", "fine crackle")
    }
    assert centres["fine crackle"] > centres["crackle"]
    # About 650 Hz: between 480 and 900.
    hertz = spectrogram.mel_frequencies_hz(SPEC)
    assert all(400 < hertz[round(centre(p))] < 1200 for p in bank["fine crackle"])


def test_half_of_the_crackles_are_fine_and_most_of_those_late_in_the_breath():
    sound = np.ones((64, 10), np.float32)
    bank = {
        kind: [sound * (kind == "fine crackle")] * event_bank.SIZE
        for kind in ("crackle", "fine crackle")
    }
    fine, first = 0, []
    for seed in range(200):
        times = np.zeros(200, np.float32)
        drawn = event_bank.draw_crackles(bank, np.random.default_rng(seed), (0, 200), times)
        assert times.any()
        if drawn[0].power.any():
            fine += 1
            first += [overlay.first_frame for overlay in drawn]
    assert 75 < fine < 125
    assert np.mean([30 <= at <= 120 for at in first]) > 0.65


def test_a_level_control_evens_out_slow_changes_and_leaves_a_click():
    quiet = np.full((64, 200), -60.0, np.float32)
    quiet[:, 100:] += 20
    quiet[:, 50] += 20  # a click
    device = Device(gain_db=np.zeros(64, np.float32), compression=0.5)
    window, sparse = devices.apply(device, quiet, quiet[:, ::7], 7)
    assert window[:, 150].mean() - window[:, 20].mean() == pytest.approx(10, abs=1)
    assert window[:, 50].mean() - window[:, 20].mean() > 18
    assert sparse.shape == (64, 29)


def test_a_codec_lowers_what_a_loud_band_masks_and_nothing_else():
    sound = np.full((64, 200), -60.0, np.float32)
    sound[10], sound[20] = 0.0, -20.0
    device = Device(gain_db=np.zeros(64, np.float32), masked_below_db=30.0)
    window, _ = devices.apply(device, sound, sound[:, ::7], 7)
    assert (window[10] == 0).all()
    assert (window[20] == -20).all()
    assert (np.delete(window, (10, 20), axis=0) == -75).all()


def test_drawn_devices_differ_and_are_finite():
    rng = np.random.default_rng(0)
    drawn = [devices.draw(rng, SPEC) for _ in range(200)]
    assert all(np.isfinite(d.gain_db).all() and d.gain_db.shape == (64,) for d in drawn)
    assert 0.1 < np.mean([d.compression > 0 for d in drawn]) < 0.4
    assert 0.05 < np.mean([d.masked_below_db is not None for d in drawn]) < 0.3
