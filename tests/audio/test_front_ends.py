"""CED's and EfficientAT's front ends beside the same written with torch, in double precision."""

import dataclasses

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank

from xai_demo.audio import front_ends, spectrogram
from xai_demo.catalog.hub_models import CED_TINY, EFFICIENTAT_MN10
from xai_demo.records import LogMel

CED, EFFICIENTAT = CED_TINY.preprocessing, EFFICIENTAT_MN10.preprocessing
assert isinstance(CED, LogMel)
assert isinstance(EFFICIENTAT, LogMel)


def sounds(rate_hz: int) -> dict[str, np.ndarray]:
    rng, time_s = np.random.default_rng(0), np.arange(2 * rate_hz) / rate_hz
    chirp = 0.5 * np.sin(2 * np.pi * (200 + 1500 * time_s) * time_s)
    click = np.zeros(rate_hz)
    click[rate_hz // 3] = 1
    return {
        "noise": rng.normal(0, 0.1, 10 * rate_hz).astype(np.float32),
        "a chirp over noise": (chirp + rng.normal(0, 1e-3, len(chirp))).astype(np.float32),
        "a click": click.astype(np.float32),
        "a short one": rng.normal(0, 0.01, rate_hz // 5 + 7).astype(np.float32),
        "silence": np.zeros(rate_hz, np.float32),
    }


def ced_input(samples: np.ndarray) -> np.ndarray:
    """What CED's feature extractor does: mel energies of the power spectrum, in decibels."""
    spectrum = torch.stft(
        torch.from_numpy(samples).double(),
        512,
        160,
        window=torch.hann_window(512, dtype=torch.float64),
        pad_mode="reflect",
        return_complex=True,
    )
    bank = mel_filter_bank(257, 64, 0, 8000, 16_000, norm=None, mel_scale="htk")
    mel = torch.from_numpy(bank).T @ spectrum.abs() ** 2
    decibels = 10 * mel.clamp(min=1e-10).log10()
    return decibels.clamp(min=decibels.max() - 120).numpy()


def efficientat_input(samples: np.ndarray) -> np.ndarray:
    """What EfficientAT's `AugmentMelSTFT` does outside of training."""
    wave = torch.from_numpy(samples).double()
    spectrum = torch.stft(
        wave[1:] - 0.97 * wave[:-1],
        1024,
        320,
        800,
        window=torch.hann_window(800, periodic=False, dtype=torch.float64),
        pad_mode="reflect",
        return_complex=True,
    )
    # Of Kaldi, whose triangles are straight on the mel scale; 1 kHz below half the sample rate.
    bank = mel_filter_bank(
        513, 128, 0, 15_000, 32_000, norm=None, mel_scale="kaldi", triangularize_in_mel_space=True
    )
    mel = torch.from_numpy(bank).T @ spectrum.abs() ** 2
    return (((mel + 1e-5).log() + 4.5) / 5).numpy()


@pytest.mark.parametrize("name", sounds(16_000))
def test_ced_sees_what_its_extractor_makes(name):
    samples = sounds(16_000)[name]
    expected, got = ced_input(samples), spectrogram.network_input(samples, CED)
    assert got.shape == expected.shape == (64, len(samples) // 160 + 1)
    error = np.abs(got - expected)  # decibels
    assert error.max() <= 0.01  # single precision, as the original has it
    assert error[expected > expected.max() - 50].max() <= 1e-3


@pytest.mark.parametrize("name", sounds(32_000))
def test_efficientat_sees_what_its_authors_compute(name):
    samples = sounds(32_000)[name]
    expected, got = efficientat_input(samples), spectrogram.network_input(samples, EFFICIENTAT)
    assert got.shape == expected.shape == (128, (len(samples) - 1) // 320 + 1)
    error = np.abs(got - expected)
    assert error.max() <= 5e-4  # single precision, as the original has it: torch's differs as much
    assert error.mean() <= 1e-5


def test_ten_seconds_are_the_frames_of_the_published_networks():
    assert spectrogram.window_frames(CED) == 1001
    assert spectrogram.window_frames(EFFICIENTAT) == 1000


def test_silence_is_at_the_floor_of_each_front_end():
    assert spectrogram.log_mel(np.zeros(16_000, np.float32), CED) == pytest.approx(-100)
    assert spectrogram.log_mel(np.zeros(32_000, np.float32), EFFICIENTAT) == pytest.approx(-50)


@pytest.mark.parametrize("spec", [CED, EFFICIENTAT])
def test_a_bands_centre_is_where_its_filter_peaks(spec):
    fine = dataclasses.replace(spec, n_fft=65_536)
    filters = {"htk": front_ends.htk_mel_filters, "efficientat": front_ends.kaldi_mel_filters}
    peaks = filters[spec.front_end](fine).argmax(axis=1) * spec.sample_rate_hz / 65_536
    assert np.abs(peaks - np.array(spectrogram.mel_frequencies_hz(spec))).max() <= 0.5


def test_preemphasis_in_chunks_is_that_of_the_whole_sound():
    samples = np.random.default_rng(1).normal(0, 0.1, 32_000).astype(np.float32)
    whole = front_ends.efficientat_log_mel(samples, EFFICIENTAT)
    for part in (range(0, 30), range(30, 70), range(70, 100)):
        got = front_ends.efficientat_log_mel(samples, EFFICIENTAT, part)
        assert got == pytest.approx(whole[:, part.start : part.stop], abs=1e-4)
