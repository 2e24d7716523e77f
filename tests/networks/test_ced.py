"""CED beside plain arithmetic on its tensors: any length, cut exactly, and explained."""

import dataclasses

import numpy as np
import pytest
import pytorch_grad_cam
import soundfile
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from safetensors.torch import save_file

from tests.audio.test_front_ends import ced_input
from tests.support import audioset_networks
from tests.support.audioset_networks import SMALL_GRID, SMALL_MODEL, small_ced, whole_network
from tests.support.explainer_subjects import subject_of
from tests.support.published_audioset import ced_attentions, ced_logits
from tests.support.small_models import model_of, write_model
from xai_demo import explainers, networks
from xai_demo.analysis import Analyser, heatmap
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.catalog.hub_models import CED_TINY
from xai_demo.engine.backends import onnx_runner
from xai_demo.engine.onnx_export import export_features
from xai_demo.errors import UnsuitableError
from xai_demo.explainers import EXPLAINERS, Budget
from xai_demo.networks import ced
from xai_demo.settings import Settings

RATE_HZ = 16_000


@pytest.mark.parametrize("frames", [1001, 1012, 333, 16])
def test_the_network_is_what_its_authors_describe_at_any_length(frames):
    whole = whole_network("ced-tiny")
    decibels = torch.randn(2, 64, frames, generator=torch.Generator().manual_seed(frames)) * 15 - 30
    with torch.inference_mode():
        expected = ced_logits(whole.state_dict(), decibels, n_heads=3)
        got = whole(decibels[:, None])
    assert expected.std() > 0.1
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (got.sigmoid() - expected.sigmoid()).abs().max() <= 1e-5


def test_the_published_network_has_the_published_size_and_names():
    state = whole_network("ced-tiny").state_dict()
    learnt = sum(t.numel() for k, t in state.items() if "init_bn." not in k) + 2 * 64
    assert learnt == 5_503_183  # published as 5.5 million
    assert state["encoder.time_pos_embed"].shape == (1, 192, 1, 63)
    assert state["encoder.freq_pos_embed"].shape == (1, 192, 4, 1)
    assert state["encoder.patch_embed.proj.weight"].shape == (192, 1, 16, 16)
    assert state["encoder.blocks.11.attn.qkv.weight"].shape == (576, 192)
    assert {"encoder.init_bn.running_mean", "encoder.norm.bias", "outputlayer.1.bias"} <= set(state)
    assert len(state) == 2 + 2 + 5 + 12 * 12 + 2 + 4


def test_ten_seconds_are_four_rows_of_62_patches_lowest_band_first():
    whole = whole_network("ced-tiny")
    cut = networks.cut(CED_TINY, whole)
    with torch.inference_mode():
        activations = cut.features(torch.zeros(1, 1, 64, 1001))
    assert activations.shape == (1, 2 * 248, 192)
    tokens = torch.arange(2 * 248, dtype=torch.float32)[None, :, None]
    laid_out = networks.feature_maps(CED_TINY, tokens)
    assert laid_out.shape == (1, 1, 4, 62)
    assert laid_out[0, 0, 0, :2].tolist() == [0, 1]
    assert laid_out[0, 0, 1, 0] == 62
    assert laid_out[0, 0, -1, -1] == 247


def test_a_patch_lies_where_it_was_seen():
    whole, _, inputs = small_ced()
    touched = inputs.clone()
    touched[:, :, 33:47, 17:31] += 3  # under the highest row, in the second column
    with torch.inference_mode():
        change = (whole.encoder.embed(touched) - whole.encoder.embed(inputs)).abs().sum(2)
    both = torch.cat([change, change], dim=1)[:, :, None]
    laid_out = networks.feature_maps(SMALL_MODEL, both)[0, 0]
    assert laid_out.shape == SMALL_GRID
    assert [tuple(map(int, cell)) for cell in laid_out.nonzero()] == [(2, 1)]


def test_head_of_features_is_the_whole_network():
    whole, cut, inputs = small_ced()
    with torch.inference_mode():
        logits = cut.head(cut.features(inputs))
        assert logits.numpy() == pytest.approx(whole(inputs).numpy(), abs=1e-6)
    assert logits.std() > 0.01


LIBRARY = {
    "Grad-CAM": "GradCAM",
    "Grad-CAM++": "GradCAMPlusPlus",
    "HiResCAM": "HiResCAM",
    "LayerCAM": "LayerCAM",
    "EigenGrad-CAM": "EigenGradCAM",
    "Eigen-CAM": "EigenCAM",
}


@pytest.mark.parametrize("name", LIBRARY)
def test_a_heatmap_by_the_cut_is_that_of_the_whole_network(name):
    whole, cut, inputs = small_ced()

    def laid_out(tokens):  # as pytorch-grad-cam's documentation has it for vision transformers
        return tokens.reshape(len(tokens), *SMALL_GRID, -1).permute(0, 3, 1, 2)

    whole.requires_grad_(True)
    with getattr(pytorch_grad_cam, LIBRARY[name])(
        model=whole, target_layers=[whole.get_submodule(cut.layer)], reshape_transform=laid_out
    ) as camera:
        expected = camera(input_tensor=inputs, targets=[ClassifierOutputTarget(1)] * 2)
    whole.requires_grad_(False)
    raw = EXPLAINERS[name].explain(subject(whole, cut, inputs), [1])
    for sample in range(2):
        got = heatmap.normalise(
            heatmap.resize(heatmap.normalise(raw[sample, 0]), *expected[sample].shape)
        )
        assert np.ptp(expected[sample]) > 0.9
        assert np.abs(got - expected[sample]).max() <= 1e-4


def subject(whole, cut, inputs):
    return dataclasses.replace(
        subject_of(whole, cut, inputs),
        feature_maps=lambda activations: ced.feature_maps(SMALL_MODEL, activations),
    )


@pytest.mark.parametrize("name", ["Score-CAM", "Occlusion", "Integrated gradients"])
def test_an_explainer_that_runs_the_network_answers(name):
    assert name in explainers.fitting_names("transformer")
    raw = EXPLAINERS[name].explain(subject(*small_ced()), [0, 2], Budget(passes=48))
    assert raw.shape[:2] == (2, 2)
    assert np.isfinite(raw).all()
    assert raw.max() > 0


def test_rollout_reads_the_mean_of_all_patches():
    whole, cut, inputs = small_ced()
    raw = EXPLAINERS["Attention rollout"].explain(subject(whole, cut, inputs), [0])
    with torch.inference_mode():
        _, attentions = ced_attentions(whole.state_dict(), inputs[:, 0], n_heads=3)
    assert len(attentions) == 3
    for i in range(2):
        matrix = torch.eye(12)
        for attention in attentions:  # Abnar & Zuidema 2020, equation 1
            matrix = (attention[i].mean(dim=0) + torch.eye(12)) / 2 @ matrix
        expected = matrix.mean(dim=0).reshape(SMALL_GRID)
        assert raw[i, 0] == pytest.approx(expected.numpy(), abs=1e-6)
        assert np.ptp(raw[i, 0]) > 0


def test_exported_features_are_torchs_at_another_length(tmp_path):
    _, cut, inputs = small_ced()
    path = export_features(SMALL_MODEL, cut, tmp_path / "model.onnx")
    run = onnx_runner(path)
    for part in (inputs, inputs[:1, ..., :40]):
        with torch.inference_mode():
            expected = cut.features(part)
        assert run(part.numpy()).numpy() == pytest.approx(expected.numpy(), abs=1e-4)


def test_windows_beyond_the_position_embeddings_are_refused():
    spec = dataclasses.replace(CED_TINY.preprocessing, window_s=10.2)
    with pytest.raises(UnsuitableError, match="for 1012 frames; the windows of ced-tiny have 1021"):
        ced.builder()(dataclasses.replace(CED_TINY, preprocessing=spec))
    bands = dataclasses.replace(CED_TINY.preprocessing, n_mels=60)
    with pytest.raises(UnsuitableError, match="a multiple of 16 mel bands"):
        ced.builder()(dataclasses.replace(CED_TINY, preprocessing=bands))
    with pytest.raises(UnsuitableError, match="is preprocessed by Raster"):
        ced.builder()(model_of("resnet18"))


def a_clip(path, seconds):
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    samples = 0.4 * np.sin(2 * np.pi * (300 + 100 * time_s) * time_s) * (time_s % 3 < 1)
    samples += np.random.default_rng(0).normal(0, 0.02, len(time_s))
    soundfile.write(path, samples.astype(np.float32), RATE_HZ, subtype="FLOAT")
    return samples.astype(np.float32)


def analyser(tmp_path):
    settings = Settings(
        weights_dir=tmp_path / "weights",
        cache_dir=tmp_path / "cache",
        background_export=False,
        offline=True,
    )
    return Analyser(settings)


def test_from_the_waveform_on_the_probabilities_are_those_of_the_description(tmp_path):
    state = whole_network("ced-tiny").state_dict()
    save_file(state, tmp_path / "model.safetensors")
    samples = a_clip(tmp_path / "clip.wav", 4.3)
    request = AnalysisRequest(
        task="audioset",
        model="ced-tiny",
        weights=str(tmp_path / "model.safetensors"),
        backend="torch",
        faithfulness=False,
    )
    report = analyser(tmp_path).analyse(request, tmp_path / "clip.wav").report
    seen = torch.from_numpy(ced_input(samples)).float()[None]
    with torch.inference_mode():
        expected = ced_logits(state, seen, n_heads=3)[0].sigmoid().numpy()
    got = {p.label: p.probability for p in report.predictions}
    assert np.ptp(expected) > 0.2
    assert np.abs(np.array([got[label] for label in CED_TINY.labels]) - expected).max() <= 1e-4
    found = report.explanations[0]
    assert found.layer == "encoder.blocks.11.norm1"
    assert found.values.shape == (4, 431 // 16)


@pytest.mark.parametrize("seconds", [0.05, 3.1])
def test_recordings_of_any_length_are_answered_and_explained(tmp_path, monkeypatch, seconds):
    monkeypatch.setitem(networks.ARCHITECTURES, "ced-tiny", audioset_networks.SMALL_CED)
    spec = dataclasses.replace(CED_TINY.preprocessing, window_s=1.0, window_hop_s=0.5)
    model = dataclasses.replace(CED_TINY, labels=("a", "b", "c"), preprocessing=spec)
    write_model(tmp_path / "weights" / "ced-tiny", model)
    a_clip(tmp_path / "clip.wav", seconds)
    request = AnalysisRequest(task="audioset", model="ced-tiny")
    analysis = analyser(tmp_path).analyse(request, tmp_path / "clip.wav")
    found = analysis.report.explanations[0]
    assert found.layer == audioset_networks.SMALL_LAYER
    assert found.heatmap.shape == analysis.view.pixels.shape
    assert np.isfinite(found.heatmap).all()
    windows = 1 if seconds < 1 else 6
    assert len(analysis.timeline.starts_s) == windows
    # It is the best one, so that nothing better is suggested.
    assert analysis.report.suggestion == ""
