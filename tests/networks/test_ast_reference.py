"""AST beside transformers' own extractor and network, from the waveform on, at 12 x 101 patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from safetensors.torch import save_file
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from tests.networks.test_ast import published
from xai_demo import networks
from xai_demo.analysis import Analyser, heatmap
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.catalog.hub_models import AST
from xai_demo.networks import Architecture, ast
from xai_demo.records import Report
from xai_demo.settings import Settings

RATE_HZ = 16_000
NARROW = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
}
LAYER = ast.last_layernorm(3)


@pytest.fixture(scope="module")
def theirs() -> ASTForAudioClassification:
    """The library's network for 527 labels and 1024 frames, narrow, with random weights."""
    torch.manual_seed(2)
    config = ASTConfig(num_labels=527, attn_implementation="eager", **NARROW)
    network = ASTForAudioClassification(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.ndim != 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return network


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    time_s = np.arange(10 * RATE_HZ) / RATE_HZ
    samples = 0.4 * np.sin(2 * np.pi * (300 + 100 * time_s) * time_s) * (time_s % 3 < 1)
    samples += np.random.default_rng(0).normal(0, 0.02, len(time_s))
    path = tmp_path_factory.mktemp("clip") / "clip.wav"
    soundfile.write(path, samples.astype(np.float32), RATE_HZ, subtype="FLOAT")
    return path


@pytest.fixture
def asked(theirs, clip, tmp_path, monkeypatch):
    """What the demo answers with those weights, in a file with the published names."""
    narrow = Architecture(
        build=ast.builder(**NARROW),
        cuts={LAYER: ast.cut},
        kind="transformer",
        feature_maps=ast.feature_maps,
        tensor_renames=ast.TENSOR_RENAMES,
    )
    monkeypatch.setitem(networks.ARCHITECTURES, "ast", narrow)
    path = tmp_path / "model.safetensors"
    save_file({published(name): t for name, t in theirs.state_dict().items()}, path)
    settings = Settings(weights_dir=tmp_path, cache_dir=tmp_path, background_export=False)

    def ask(explainer: str, target: str | None = None) -> Report:
        analysis = Analyser(settings).analyse(
            AnalysisRequest(
                task="audioset",
                model="ast",
                weights=str(path),
                explainer=explainer,
                target=target,
                faithfulness=False,
            ),
            clip,
        )
        return analysis.report

    return ask


def seen(clip: Path) -> torch.Tensor:
    samples, _ = soundfile.read(clip, dtype="float32")
    features = ASTFeatureExtractor()(samples, sampling_rate=RATE_HZ, return_tensors="pt")
    return features["input_values"]  # (1, 1024, 128)


def test_the_probabilities_are_the_librarys_logits_through_a_sigmoid(theirs, clip, asked):
    got = {p.label: p.probability for p in asked("Attention rollout").predictions}
    with torch.inference_mode():
        expected = theirs(seen(clip)).logits[0].sigmoid().numpy()
    assert np.ptp(expected) > 0.2
    assert expected.sum() > 2  # no softmax
    assert np.abs(np.array([got[label] for label in AST.labels]) - expected).max() <= 1e-5


def test_rollout_is_that_of_the_librarys_attentions(theirs, clip, asked):
    found = asked("Attention rollout").explanations[0]
    with torch.inference_mode():
        body = theirs.audio_spectrogram_transformer
        attentions = body(seen(clip), output_attentions=True).attentions
    assert len(attentions) == 3
    matrix = torch.eye(1214)
    for attention in attentions:  # Abnar & Zuidema 2020, equation 1
        assert attention.shape == (1, 4, 1214, 1214)
        matrix = (attention[0].mean(dim=0) + torch.eye(1214)) / 2 @ matrix
    expected = ((matrix[0, 2:] + matrix[1, 2:]) / 2).reshape(12, 101).numpy()
    assert found.layer == LAYER
    check(found, expected)


def test_gradcam_is_that_of_pytorch_grad_cam_on_the_librarys_network(theirs, clip, asked):
    target = AST.labels[7]
    found = asked("Grad-CAM", target).explanations[0]
    assert found.target == target

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = theirs

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.network(x[:, 0].transpose(1, 2)).logits

    def laid_out(tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, 2:].reshape(len(tokens), 12, 101, -1).permute(0, 3, 1, 2)

    layer = theirs.audio_spectrogram_transformer.layers[2].layernorm_before
    theirs.requires_grad_(True)
    with GradCAM(model=Logits(), target_layers=[layer], reshape_transform=laid_out) as camera:
        picture = seen(clip).transpose(1, 2)[:, None]  # as pictures lie: (1, 1, 128, 1024)
        camera(input_tensor=picture, targets=[ClassifierOutputTarget(7)])
        activations = camera.activations_and_grads.activations[0].numpy()
        gradients = camera.activations_and_grads.gradients[0].numpy()
    theirs.requires_grad_(False)
    weights = gradients.mean(axis=(2, 3), keepdims=True)
    check(found, np.maximum((weights * activations).sum(axis=1), 0)[0])


def check(found, expected: np.ndarray) -> None:
    """Heat over the 998 frames of sound, from a map of the 1024 that the network was given."""
    assert np.ptp(expected) > 0
    over_all = heatmap.resize(heatmap.normalise(expected.astype(np.float32)), 12, 1024)
    heard = heatmap.normalise(heatmap.resize(over_all[:, :998], 128, 998))
    assert found.heatmap.shape == (128, 998)
    assert np.abs(found.heatmap - heard).max() <= 1e-3
