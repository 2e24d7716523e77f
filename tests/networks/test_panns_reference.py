"""Cnn14 beside its authors' description of it, at full size and from the waveform on.

What is compared with is written anew here, tensor by tensor, behind their own front end.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.nn import functional as F
from torchlibrosa.stft import LogmelFilterBank, Spectrogram

from xai_demo import networks
from xai_demo.analysis import Analyser, inference, inputs
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.catalog.hub_models import CNN14
from xai_demo.engine.backends import Network, load_cut_network, torch_runner
from xai_demo.records import ModelInUse, Recording
from xai_demo.settings import Settings

RATE_HZ = 32_000
WIDTHS = (1, 64, 128, 256, 512, 1024, 2048)
FRAMEWISE = dataclasses.replace(CNN14, architecture="cnn14-decisionlevelmax")

State = dict[str, torch.Tensor]


def noise_and_tone(seconds: float) -> np.ndarray:
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    swell = 0.02 + 0.2 * np.sin(np.pi * time_s / seconds) ** 2
    sound = np.random.default_rng(1).standard_normal(len(time_s)) * swell
    sound += 0.3 * np.sin(2 * np.pi * (200 + 150 * time_s) * time_s) * (time_s % 2 < 1)
    return np.clip(sound, -0.99, 0.99).astype(np.float32)


def random_state() -> State:
    """Tensors under the authors' names, such that activations neither fade nor explode."""
    torch.manual_seed(11)
    state: State = {}

    def norm(name: str, width: int, mean: float = 0.0, variance: float = 1.0) -> None:
        state[f"{name}.weight"] = 1 + 0.1 * torch.randn(width)
        state[f"{name}.bias"] = 0.1 * torch.randn(width)
        state[f"{name}.running_mean"] = mean + 0.1 * torch.randn(width)
        state[f"{name}.running_var"] = variance * (0.5 + torch.rand(width))
        state[f"{name}.num_batches_tracked"] = torch.tensor(1)

    norm("bn0", 64, mean=-30.0, variance=400.0)
    for i in range(1, 7):
        for j, n_in in ((1, WIDTHS[i - 1]), (2, WIDTHS[i])):
            spread = (2 / (9 * n_in)) ** 0.5
            state[f"conv_block{i}.conv{j}.weight"] = spread * torch.randn(WIDTHS[i], n_in, 3, 3)
            norm(f"conv_block{i}.bn{j}", WIDTHS[i])
    for name, rows in (("fc1", 2048), ("fc_audioset", 527)):
        state[f"{name}.weight"] = (2 / 2048) ** 0.5 * torch.randn(rows, 2048)
        state[f"{name}.bias"] = 0.1 * torch.randn(rows)
    return state


def front_end() -> tuple[Spectrogram, LogmelFilterBank]:
    power = Spectrogram(n_fft=1024, hop_length=320, win_length=1024, freeze_parameters=True)
    mel = LogmelFilterBank(
        sr=RATE_HZ, n_fft=1024, n_mels=64, fmin=50, fmax=14_000, ref=1.0, amin=1e-10, top_db=None
    )
    return power.eval(), mel.eval()


def normalised(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    parts = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *parts, training=False, eps=1e-5)


def before_the_head(state: State, samples: np.ndarray) -> torch.Tensor:
    """(time,) -> what the authors' network has after its mean over mel: (1, 2048, steps)."""
    power, mel = front_end()
    x = mel(power(torch.from_numpy(samples)[None]))  # (1, 1, frames, 64)
    x = normalised(state, "bn0", x.transpose(1, 3)).transpose(1, 3)
    for i in range(1, 7):
        for j in (1, 2):
            x = F.conv2d(x, state[f"conv_block{i}.conv{j}.weight"], padding=1)
            x = torch.relu(normalised(state, f"conv_block{i}.bn{j}", x))
        x = F.avg_pool2d(x, kernel_size=2) if i < 6 else x
    return x.mean(dim=3)


def answered_by(state: State, x: torch.Tensor) -> torch.Tensor:
    hidden = torch.relu(F.linear(x, state["fc1.weight"], state["fc1.bias"]))
    logits = F.linear(hidden, state["fc_audioset.weight"], state["fc_audioset.bias"])
    return torch.sigmoid(logits)


def published(path: Path, state: State) -> Path:
    """A file as the authors publish theirs: an old pickle, with the front end's tensors."""
    power, mel = front_end()
    whole = dict(state)
    whole["spectrogram_extractor.stft.conv_real.weight"] = power.stft.conv_real.weight.data
    whole["spectrogram_extractor.stft.conv_imag.weight"] = power.stft.conv_imag.weight.data
    whole["logmel_extractor.melW"] = mel.melW.data
    assert len(whole) == 84
    torch.save({"model": whole}, path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.parametrize("layer", ["conv_block6.conv2", "conv_block5"])
def test_cnn14_answers_as_its_authors_describe_it(tmp_path: Path, layer: str) -> None:
    state, samples = random_state(), noise_and_tone(10.0)
    weights, clip = published(tmp_path / "Cnn14_mAP=0.431.pth", state), tmp_path / "clip.wav"
    soundfile.write(clip, samples, RATE_HZ, subtype="FLOAT")
    settings = Settings(weights_dir=tmp_path, cache_dir=tmp_path, background_export=False)
    report = (
        Analyser(settings)
        .analyse(
            AnalysisRequest(
                task="audioset",
                model="cnn14",
                weights=str(weights),
                layer=layer,
                backend="torch",
                faithfulness=False,
            ),
            clip,
        )
        .report
    )
    with torch.inference_mode():
        x = before_the_head(state, samples)
        expected = answered_by(state, x.max(dim=2).values + x.mean(dim=2))[0].numpy()
    assert np.ptp(expected) > 0.5  # there is something to compare
    got = {p.label: p.probability for p in report.predictions}
    assert len(got) == 527
    assert np.abs(np.array([got[label] for label in CNN14.labels]) - expected).max() <= 1e-5
    assert report.explanations[0].layer == layer
    wanted = [2, 31] if layer == "conv_block6.conv2" else [4, 62]
    assert list(report.explanations[0].values.shape) == wanted


def test_cnn14_decisionlevelmax_answers_as_its_authors_describe_it(tmp_path: Path) -> None:
    state, samples = random_state(), noise_and_tone(4.0)
    cut = load_cut_network(FRAMEWISE, published(tmp_path / "Cnn14_DecisionLevelMax.pth", state))
    in_use = ModelInUse(
        name="cnn14",
        architecture=FRAMEWISE.architecture,
        source="local",
        repo_id=None,
        revision=None,
        sha256="",
        backend="torch",
        device="cpu",
    )
    network = Network(
        model=FRAMEWISE,
        features=torch_runner(cut.features),
        head=cut.head,
        layer=cut.layer,
        in_use=in_use,
    )
    recording = Recording(samples=samples, sample_rate_hz=RATE_HZ, facts={})
    made = inputs.prepare(FRAMEWISE, recording)
    given = inference.run_network(network, made.inputs)
    with torch.inference_mode():
        x = before_the_head(state, samples)
        around = F.max_pool1d(x, 3, stride=1, padding=1) + F.avg_pool1d(x, 3, stride=1, padding=1)
        segments = answered_by(state, around.transpose(1, 2))[0].numpy()  # (steps, 527)
        framewise = networks.architecture(FRAMEWISE).framewise
        assert framewise is not None
        features = torch.cat(given.activations)
        frames = framewise(network.head, features, 401).sigmoid()[0].numpy()
    assert segments.shape == (12, 527)
    assert np.ptp(segments, axis=0).max() > 0.1
    assert np.abs(given.probabilities[0] - segments.max(axis=0)).max() <= 1e-5
    repeated = np.repeat(segments, 32, axis=0)
    assert np.abs(frames[:, :384].T - repeated).max() <= 1e-5
    assert np.abs(frames[:, 384:].T - segments[-1]).max() <= 1e-5  # the rest holds the last
