import numpy as np
import pytest

from xai_demo.audio import spectrogram
from xai_demo.audio.front_ends import FRONT_ENDS
from xai_demo.records import LogMel

SPEC = LogMel(
    sample_rate_hz=8000,
    n_fft=512,
    win_length=320,
    hop_length=80,
    n_mels=64,
    f_min_hz=50,
    f_max_hz=2500,
    window_s=2,
    window_hop_s=1,
    min_s=2,
)
PANNS = LogMel(
    sample_rate_hz=32000,
    n_fft=1024,
    win_length=1024,
    hop_length=320,
    n_mels=64,
    f_min_hz=50,
    f_max_hz=14000,
    window_s=10,
    window_hop_s=5,
    min_s=0.31,
)


def noise(seconds: float, rate: int) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, round(seconds * rate)).astype(np.float32)


def sine(hertz: float, seconds: float, rate: int) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def test_ten_seconds_of_panns_are_1001_frames_of_64_bands():
    assert spectrogram.log_mel(noise(10, 32000), PANNS).shape == (64, 1001)


@pytest.mark.parametrize("spec", [SPEC, PANNS])
def test_the_log_mel_is_librosas(spec):
    import librosa

    samples = noise(1.5, spec.sample_rate_hz)
    power = librosa.feature.melspectrogram(
        y=samples,
        sr=spec.sample_rate_hz,
        n_fft=spec.n_fft,
        win_length=spec.win_length,
        hop_length=spec.hop_length,
        n_mels=spec.n_mels,
        fmin=spec.f_min_hz,
        fmax=spec.f_max_hz,
        pad_mode="reflect",
    )
    expected = librosa.power_to_db(power, ref=1.0, amin=1e-10, top_db=None)
    assert np.abs(spectrogram.log_mel(samples, spec) - expected).max() < 1e-3


def test_silence_is_minus_100_decibels():
    assert spectrogram.log_mel(np.zeros(8000, np.float32), SPEC) == pytest.approx(-100)


@pytest.mark.parametrize("hertz", [200, 440, 1000, 2000])
def test_a_sine_is_loudest_in_the_band_of_its_frequency(hertz):
    mel = spectrogram.log_mel(sine(hertz, 1, 8000), SPEC).mean(axis=1)
    centres = np.array(spectrogram.mel_frequencies_hz(SPEC))
    spacing = np.diff(centres)[np.searchsorted(centres, hertz) - 1]
    assert abs(centres[mel.argmax()] - hertz) <= spacing


def test_band_centres_are_librosas():
    import librosa

    expected = librosa.mel_frequencies(66, fmin=50, fmax=14000)[1:-1]
    assert spectrogram.mel_frequencies_hz(PANNS) == pytest.approx(expected)


@pytest.mark.parametrize("length", [700, 8000, 8001, 12345])
def test_a_spectrum_turns_back_into_its_sound(length):
    samples = noise(2, 8000)[:length]
    back = spectrogram.istft(spectrogram.stft(samples, 512, 320, 80), 512, 320, 80, length)
    assert back.shape == samples.shape
    assert np.abs(back - samples).max() < 1e-4


def test_a_sound_shorter_than_half_a_frame_still_has_a_spectrum():
    assert spectrogram.stft(np.ones(10, np.float32), 512, 320, 80).shape[0] == 257


def test_conditioning_floors_and_standardises():
    decibels = np.array([[0.0, -200.0], [-10.0, -10.0]], np.float32)
    import dataclasses

    spec = dataclasses.replace(SPEC, top_db=50, standardise=True)
    values = spectrogram.normalise_decibels(decibels, spec)
    assert values.mean() == pytest.approx(0, abs=1e-6)
    assert values.std() == pytest.approx(1, rel=1e-5)
    floored = np.array([[0, -50], [-10, -10]])
    assert values == pytest.approx((floored - floored.mean()) / floored.std(), abs=1e-5)


def test_windows_cover_everything_and_the_last_is_flush():
    assert spectrogram.window_starts(200, 200, 100) == (0,)
    assert spectrogram.window_starts(50, 200, 100) == (0,)
    assert spectrogram.window_starts(401, 200, 100) == (0, 100, 200, 201)


def test_repeating_fills_up_and_leaves_the_long_alone():
    assert spectrogram.repeat_to_length(np.array([1, 2, 3], np.float32), 7).tolist() == [
        1,
        2,
        3,
        1,
        2,
        3,
        1,
    ]
    assert spectrogram.repeat_to_length(np.array([1, 2, 3], np.float32), 2).tolist() == [1, 2, 3]


def test_heat_everywhere_lets_the_band_through_and_no_heat_is_silence():
    inside, outside = sine(1000, 1, 8000), sine(3500, 1, 8000)
    everywhere = np.ones((64, 101), np.float32)
    masked = spectrogram.mask_sound(inside + outside, everywhere, SPEC)[1000:-1000]
    assert np.abs(masked - inside[1000:-1000]).max() < 0.05
    assert not spectrogram.mask_sound(inside, 0 * everywhere, SPEC).any()


def test_heat_on_one_half_lets_one_half_through():
    heat = np.zeros((64, 201), np.float32)
    heat[:, :100] = 1
    masked = spectrogram.mask_sound(sine(500, 2, 8000), heat, SPEC)
    assert np.abs(masked[1000:7000]).max() > 0.9
    assert np.abs(masked[9000:]).max() < 0.01


def test_a_mask_reads_a_band_at_its_own_frequency():
    heat = np.zeros((64, 5), np.float32)
    heat[20] = 1
    mask = spectrogram.linear_frequency_mask(heat, 5, SPEC)
    hertz = mask[:, 0].argmax() * 8000 / 512
    assert abs(hertz - spectrogram.mel_frequencies_hz(SPEC)[20]) < 8000 / 512


def test_the_mean_and_the_deviation_that_a_network_is_used_to_are_taken_off():
    import dataclasses

    spec = dataclasses.replace(SPEC, mean_db=-20, deviation_db=40)
    decibels = np.array([[-20.0, 20.0, -60.0]], np.float32)
    assert spectrogram.normalise_decibels(decibels, spec).tolist() == [[0, 1, -1]]
    assert spectrogram.normalise_decibels(decibels, SPEC).tolist() == decibels.tolist()


def test_padding_is_zero_decibels_up_to_the_networks_width():
    import dataclasses

    spec = dataclasses.replace(SPEC, frames=5, mean_db=-20, deviation_db=40)
    windows = np.zeros((2, 1, 3, 4), np.float32)
    padded = spectrogram.pad_windows(windows, spec)
    assert padded.shape == (2, 1, 3, 5)
    assert padded[..., 4] == pytest.approx(0.5)
    assert padded.dtype == np.float32
    assert spectrogram.pad_windows(windows, SPEC).shape == windows.shape


@pytest.mark.parametrize("spec", [SPEC, PANNS])
def test_frames_are_counted_as_they_are_made(spec):
    for length in (spec.hop_length * 7, spec.hop_length * 7 + 1, spec.hop_length * 30 - 1):
        samples = noise(1, spec.sample_rate_hz)[:length]
        assert spectrogram.log_mel(samples, spec).shape[1] == spectrogram.frame_count(length, spec)
    assert spectrogram.window_frames(PANNS) == 1001


@pytest.mark.parametrize("name", FRONT_ENDS)
def test_every_front_end_hears_a_sine_in_the_band_it_names(name):
    import dataclasses

    spec = dataclasses.replace(SPEC, front_end=name)
    samples = sine(1000, 1, 8000)
    mel = spectrogram.log_mel(samples, spec)
    assert mel.shape == (64, spectrogram.frame_count(len(samples), spec))
    centre = spectrogram.mel_frequencies_hz(spec)[int(mel.mean(axis=1).argmax())]
    assert centre == pytest.approx(1000, abs=40)
    assert spectrogram.network_input(samples, spec).shape == mel.shape
