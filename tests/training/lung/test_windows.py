"""Windows cut from recordings: as the demo would see them, and what every change does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.support.lung_datasets import (
    RATE_HZ,
    SPEC,
    noise,
    write,
)
from xai_demo.audio import spectrogram
from xai_demo.audio.filters import SignalPath
from xai_demo.training.datasets.breathing import (
    CRACKLE,
    NORMAL,
    Annotation,
    Take,
)
from xai_demo.training.lung import windows
from xai_demo.training.lung.devices import Device
from xai_demo.training.lung.windows import (
    STAGES,
    EventOverlay,
    RecordingSpectrograms,
    WindowAugmentation,
    cut_window,
    read_spectrograms,
    stage_gain_db,
)

RAW = dataclasses.replace(SPEC, top_db=None)


def made(decibels: np.ndarray) -> RecordingSpectrograms:
    """A recording with the same spectrogram at every stage, every column in its statistics."""
    take = Take(path=None, name="made", site="sprsound", patient="sprsound:1", kind=0)  # type: ignore[arg-type]
    each = (decibels.astype(np.float16),) * len(STAGES)
    return RecordingSpectrograms(take=take, decibels=each, sparse=each, events=())


def levels(frames: int = 300, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(-40, 8, (SPEC.n_mels, frames)).astype(np.float16)


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """Six seconds of noise with a crackle from 1 to 2 s, read through the signal path."""
    path = write(tmp_path_factory.mktemp("sound") / "a.wav", noise(6.0))
    take = Take(
        path=path,
        name="a",
        site="sprsound",
        patient="sprsound:1",
        kind=1,
        annotations=(
            Annotation(start_s=1.0, end_s=2.0, kind=CRACKLE),
            Annotation(start_s=3.0, end_s=3.001, kind=NORMAL),
        ),
    )
    (found,) = read_spectrograms([take], SPEC, lambda done, doing: None)
    return found


def test_a_recording_is_held_after_every_step_with_its_events_in_frames(recording):
    assert recording.frames == spectrogram.frame_count(6 * RATE_HZ, SPEC)
    assert recording.events == ((100, 200, CRACKLE), (300, 302, NORMAL))
    raw, filtered, _ = (each.astype(np.float32) for each in recording.decibels)
    assert (raw[0] - filtered[0]).mean() > 4  # at 75 Hz; 100 Hz is where the band begins
    assert abs((raw[30] - filtered[30]).mean()) < 0.5


def test_a_take_that_is_part_of_a_file_is_cut_out_of_it(tmp_path):
    path = write(tmp_path / "a.wav", noise(6.0))
    event = Annotation(start_s=2.5, end_s=3.0, kind=CRACKLE)
    take = Take(
        path=path,
        name="a",
        site="icbhi",
        patient="icbhi:1",
        kind=None,
        annotations=(event,),
        start_s=2.0,
        end_s=4.0,
    )
    (found,) = read_spectrograms([take], SPEC, lambda done, doing: None)
    assert found.frames == spectrogram.frame_count(2 * RATE_HZ, SPEC)
    assert found.events == ((50, 100, CRACKLE),)


@pytest.mark.parametrize("stage", range(3))
def test_an_unchanged_window_is_what_the_demo_makes_of_the_recording(recording, stage):
    samples = noise(6.0)
    path = (
        SignalPath(band_hz=None, denoise=False),
        SignalPath(denoise=False),
        SignalPath(),
    )[stage]
    # Written as 16 bit, so nearly the same samples.
    whole = spectrogram.network_input(path.run(samples, RATE_HZ)[-1].samples, SPEC)
    window = cut_window(recording, 150, 200, WindowAugmentation(stage=stage), SPEC)
    assert window.shape == (64, 200)
    assert window.dtype == np.float32
    # Statistics of every seventh column, and decibels in float16.
    assert np.abs(window - whole[:, 150:350]).mean() < 0.02


def test_with_all_columns_in_the_statistics_only_float16_is_lost():
    decibels = levels()
    whole = spectrogram.normalise_decibels(decibels.astype(np.float32), SPEC)
    window = cut_window(made(decibels), 40, 200, WindowAugmentation(stage=0), SPEC)
    np.testing.assert_allclose(window, whole[:, 40:240], atol=2e-3)


def test_beyond_the_recording_and_the_blot_there_is_the_mean():
    window = cut_window(made(levels(100)), -50, 200, WindowAugmentation(stage=0), SPEC)
    silent = (window == 0).all(axis=0)
    assert np.flatnonzero(~silent).tolist() == list(range(50, 150))
    window = cut_window(
        made(levels(300)), 40, 200, WindowAugmentation(stage=0), SPEC, range(60, 90)
    )
    silent = (window == 0).all(axis=0)
    assert np.flatnonzero(~silent).tolist() == list(range(20, 50))


def test_the_stage_asked_for_is_the_one_that_is_cut():
    take = made(levels())
    stages = tuple(levels(seed=seed) for seed in range(3))
    take = dataclasses.replace(take, decibels=stages, sparse=stages)
    cuts = [cut_window(take, 0, 200, WindowAugmentation(stage=stage), SPEC) for stage in range(3)]
    for stage in range(3):
        alone = cut_window(made(stages[stage]), 0, 200, WindowAugmentation(stage=0), SPEC)
        np.testing.assert_array_equal(cuts[stage], alone)
    assert not np.allclose(cuts[0], cuts[1])


def test_a_gain_is_added_to_its_bands_before_the_standardisation():
    decibels = levels()
    gain = np.linspace(-12, 12, 64).astype(np.float32)
    window = cut_window(
        made(decibels), 0, 200, WindowAugmentation(stage=0, device=Device(gain_db=gain)), RAW
    )
    whole = spectrogram.normalise_decibels(decibels.astype(np.float32) + gain[:, None], RAW)
    np.testing.assert_allclose(window, whole[:, :200], atol=2e-3)
    flat = cut_window(
        made(decibels),
        0,
        200,
        WindowAugmentation(stage=0, device=Device(gain_db=np.full(64, 9.0))),
        SPEC,
    )
    np.testing.assert_allclose(
        flat, cut_window(made(decibels), 0, 200, WindowAugmentation(stage=0), SPEC), atol=2e-3
    )


def test_noise_adds_its_power():
    quiet = np.full((64, 300), -60.0)
    quiet[:, ::2] = -20.0
    noise_power = np.full((64, 200), 1e-4, np.float32)  # -40 dB
    window = cut_window(made(quiet), 0, 200, WindowAugmentation(stage=0, noise=noise_power), RAW)
    # -20 and -60 dB become -19.957 and -39.957 dB: two values, one deviation from their mean.
    np.testing.assert_allclose(np.unique(window.round(3)), [-1, 1], atol=2e-3)
    drowned = cut_window(
        made(levels()), 0, 200, WindowAugmentation(stage=0, noise=noise_power * 1e6), SPEC
    )
    assert np.abs(drowned).max() < 10


def test_the_floor_is_that_far_below_the_loudest():
    decibels = levels()
    decibels[3, 7] = 60.0
    window = cut_window(made(decibels), 0, 200, WindowAugmentation(stage=0), SPEC)
    assert window.min() == pytest.approx(np.unique(window)[0])
    assert (window == window.min()).mean() > 0.5  # all below -15 dB


def test_an_event_is_as_loud_as_asked_where_it_is_put():
    flat = np.full((64, 300), -50.0)
    power = np.zeros((64, 20), np.float32)
    power[10:14] = 3.0
    for snr_db in (-4.0, 0.0, 10.0):
        change = WindowAugmentation(
            stage=0, overlays=(EventOverlay(power=power, first_frame=30, snr_db=snr_db),)
        )
        louder = windows._overlay_events(flat[:, :200].astype(np.float32), change, SPEC)
        gained = 10 ** (louder / 10) - 1e-5
        assert np.flatnonzero(gained.sum(0) > 1e-9).tolist() == list(range(30, 50))
        assert np.flatnonzero(gained.sum(1) > 1e-9).tolist() == list(range(10, 14))
        ratio = gained.sum() / (64 * 20 * 1e-5)
        assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=0.01)


def test_an_event_passes_the_filter_that_the_recording_has_passed():
    gain = stage_gain_db(SPEC, STAGES.index("filtered"))
    hertz = np.array(spectrogram.mel_frequencies_hz(SPEC))
    inside = (hertz > 150) & (hertz < 1400)
    np.testing.assert_allclose(gain[inside], 0, atol=0.5)
    assert gain[0] < -4  # at 75 Hz
    assert stage_gain_db(SPEC, 0).tolist() == [0.0] * 64


@pytest.mark.parametrize(
    ("band_hz", "denoise", "stage"),
    [
        (None, False, "raw"),
        ((100.0, 1800.0), False, "filtered"),
        ((100.0, 1800.0), True, "denoised"),
    ],
)
def test_a_model_hears_the_stage_that_its_preprocessing_names(band_hz, denoise, stage):
    spec = dataclasses.replace(SPEC, band_hz=band_hz, denoise=denoise)
    assert STAGES[windows.default_stage(spec)] == stage
