"""Kaldi's filter bank: the numbers of transformers' own feature extractor, and some by hand."""

import dataclasses

import numpy as np
import pytest

from xai_demo.audio import front_ends, spectrogram
from xai_demo.catalog.hub_models import AST

SPEC = AST.preprocessing


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * 16000)).astype(np.float32)


def sine(hertz: float) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(16000) / 16000).astype(np.float32)


SOUNDS = {
    "noise": noise(10),
    "a short one": noise(0.7),
    "longer than the network sees": noise(11),
    "a sine": sine(440),
    "a step": np.repeat(np.array([0.5, -0.25], np.float32), 8000),
    "silence": np.zeros(16000, np.float32),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_what_the_network_sees_is_what_the_librarys_extractor_makes(name):
    from transformers import ASTFeatureExtractor

    samples = SOUNDS[name]
    expected = ASTFeatureExtractor()(samples, sampling_rate=16000)["input_values"][0].T
    got = spectrogram.pad_windows(spectrogram.network_input(samples, SPEC)[:, :1024], SPEC)
    assert got.shape == expected.shape == (128, 1024)
    assert got.dtype == np.float32
    assert np.abs(got - expected).max() <= 1e-4


def test_only_whole_frames_count():
    assert front_ends.kaldi_frame_count(400, SPEC) == 1
    assert front_ends.kaldi_frame_count(559, SPEC) == 1
    assert front_ends.kaldi_frame_count(560, SPEC) == 2
    assert front_ends.kaldi_frame_count(160_000, SPEC) == spectrogram.window_frames(SPEC) == 998
    assert front_ends.kaldi_log_mel(noise(1), SPEC).shape == (
        128,
        front_ends.kaldi_frame_count(16000, SPEC),
    )


def test_less_than_a_frame_is_filled_up_to_one():
    assert front_ends.kaldi_frame_count(10, SPEC) == 1
    assert front_ends.kaldi_log_mel(np.ones(10, np.float32), SPEC).shape == (128, 1)


def test_silence_and_a_constant_are_at_the_floor():
    floor = 10 * np.log10(2.0**-23)
    assert front_ends.kaldi_log_mel(np.zeros(16000, np.float32), SPEC) == pytest.approx(floor)
    assert front_ends.kaldi_log_mel(np.full(16000, 0.5, np.float32), SPEC) == pytest.approx(floor)


@pytest.mark.parametrize("hertz", [300, 1000, 5000])
def test_a_sine_is_loudest_in_the_band_of_its_frequency(hertz):
    mel = front_ends.kaldi_log_mel(sine(hertz), SPEC).mean(axis=1)
    centres = np.array(front_ends.kaldi_mel_frequencies_hz(SPEC))
    spacing = np.diff(centres)[np.searchsorted(centres, hertz) - 1]
    assert abs(centres[mel.argmax()] - hertz) <= max(spacing, 16000 / 512)


def test_a_bands_centre_is_where_its_filter_peaks():
    fine = dataclasses.replace(SPEC, n_fft=32768)  # bins of half a hertz
    peaks = front_ends.kaldi_mel_filters(fine).argmax(axis=1) * 16000 / 32768
    assert np.abs(peaks - np.array(front_ends.kaldi_mel_frequencies_hz(SPEC))).max() <= 0.5


def test_ten_times_the_sound_is_twenty_decibels_more():
    quiet, loud = (front_ends.kaldi_log_mel(gain * noise(1), SPEC) for gain in (0.1, 1.0))
    assert (loud - quiet)[quiet > -60] == pytest.approx(20, abs=1e-3)
