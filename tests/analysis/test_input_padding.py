"""Networks of a fixed input width: padding is neither explained, drawn nor masked."""

import numpy as np
import pytest

from tests.support import small_transformer
from xai_demo.analysis import heatmap, inputs
from xai_demo.analysis.inference import NetworkOutputs, run_faithfulness_test
from xai_demo.audio import spectrogram
from xai_demo.catalog.hub_models import AST
from xai_demo.records import Recording


def recording(seconds: float) -> Recording:
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, round(seconds * 16000)).astype(np.float32)
    return Recording(samples=samples, sample_rate_hz=16000, facts={})


def explained(prepared, windows):
    return prepared.explanation(
        windows,
        np.ones(len(windows), np.float32),
        explainer="x",
        target="y",
        probability=0.5,
        layer="z",
    )


@pytest.mark.parametrize(("seconds", "windows", "valid"), [(1, 1, 98), (10, 1, 998), (22, 4, 998)])
def test_windows_are_padded_to_the_networks_width_and_know_their_valid_columns(
    seconds, windows, valid
):
    prepared = inputs.prepare(AST, recording(seconds))
    assert prepared.inputs.shape == (windows, 1, 128, 1024)
    assert prepared.valid_columns == valid
    padding = prepared.inputs[..., valid:]
    assert padding == pytest.approx(4.2677393 / 9.1379948, abs=1e-6)  # 0 before normalisation
    assert prepared.decibels.shape[1] == 1 + (seconds * 16000 - 400) // 160


def test_the_windows_of_a_long_recording_cover_it_from_end_to_end():
    prepared = inputs.prepare(AST, recording(22))
    assert prepared.starts == (0, 500, 1000, 1200)
    assert prepared.starts[-1] + prepared.valid_columns == prepared.decibels.shape[1] == 2198


def test_attribution_on_padding_is_dropped():
    prepared = inputs.prepare(AST, recording(1))
    hot = np.zeros((1, 12, 101), np.float32)
    hot[0, :, 10:] = 9  # the sound ends in column 9.7
    hot[0, 3, 2] = 1
    about = explained(prepared, hot[:, :, :])
    assert about.heatmap.shape == prepared.decibels.shape == (128, 98)
    assert about.values.shape == (12, 10)
    assert about.peak["time_s"] < 1
    cold = np.zeros((1, 12, 101), np.float32)
    cold[0, :, 12:] = 9
    assert not explained(prepared, cold).heatmap.any()


def test_attribution_on_the_padding_of_a_window_does_not_reach_the_next_sound():
    prepared = inputs.prepare(AST, recording(22))
    hot = np.zeros((4, 12, 101), np.float32)
    hot[0, :, 99:] = 1  # frames from 1004 on, where window 0 has 998 of sound
    assert not explained(prepared, hot).heatmap.any()


def test_the_view_shows_the_sound_without_padding():
    prepared = inputs.prepare(AST, recording(1))
    view, sounds = prepared.view_and_sounds(explained(prepared, np.ones((1, 12, 101), np.float32)))
    assert view.pixels.shape == (128, 98)
    assert view.duration_s == 1
    assert view.row_frequencies_hz == spectrogram.mel_frequencies_hz(AST.preprocessing)
    assert 20 < view.row_frequencies_hz[0] < view.row_frequencies_hz[-1] < 8000
    assert sounds["explanation"].shape == sounds["original"].shape == (16000,)


def test_less_than_a_patch_is_repeated_with_a_warning():
    prepared = inputs.prepare(AST, recording(0.05))
    assert prepared.warnings == (
        "The recording lasts 0.05 s. It was repeated to fill the 0.2 s that this network needs.",
    )
    assert prepared.inputs.shape == (1, 1, 128, 1024)


def test_the_faithfulness_test_does_not_mask_padding():
    prepared = inputs.prepare(
        small_transformer.MODEL,
        Recording(
            samples=np.random.default_rng(0).normal(0, 0.1, 4000).astype(np.float32),
            sample_rate_hz=8000,
            facts={},
        ),
    )
    asked = []

    class Network:
        model = small_transformer.MODEL

        def features(self, inputs):
            import torch

            asked.append(inputs)
            return torch.zeros(len(inputs), 3)

        def head(self, activations):
            return activations

        def probabilities(self, logits):
            return logits.sigmoid().numpy()

    hot = np.ones((1, *small_transformer.GRID), np.float32)
    answer = NetworkOutputs(activations=[], probabilities=np.full((1, 3), 0.5, np.float32))
    run_faithfulness_test(Network(), prepared, answer, hot, 0)
    hidden = np.concatenate(asked)
    assert prepared.valid_columns == 47
    assert hidden.shape[1:] == prepared.inputs.shape[1:] == (1, 48, 64)
    assert np.array_equal(
        hidden[..., 47:], np.broadcast_to(prepared.inputs[..., 47:], (5, 1, 48, 17))
    )
    changed = (hidden != prepared.inputs).mean(axis=(1, 2, 3)) * 64 / 47
    assert changed == pytest.approx(0.2, abs=0.01)


def test_nothing_is_cropped_without_padding():
    windows = np.random.default_rng(0).random((2, 4, 5), dtype=np.float32)
    assert heatmap.crop_padding(windows, 100, 100) is windows
    assert heatmap.crop_padding(windows, 100, 60).shape == (2, 4, 60)
