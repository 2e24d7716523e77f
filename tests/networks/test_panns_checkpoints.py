"""The authors' checkpoints in every wrapping, and those that are for something else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from tests.analysis.test_selftest import MODEL, NAME, small_cnn14
from tests.support.small_models import analyser_of
from xai_demo import networks
from xai_demo.analysis import Analyser
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.audio.front_ends import mel_filters
from xai_demo.cli import main
from xai_demo.errors import CheckpointMismatchError
from xai_demo.networks import ARCHITECTURES
from xai_demo.records import LogMel

SPEC = MODEL.preprocessing
assert isinstance(SPEC, LogMel)
REAL, MEL = "spectrogram_extractor.stft.conv_real.weight", "logmel_extractor.melW"
LOWER = dataclasses.replace(SPEC, sample_rate_hz=16_000, n_fft=512, win_length=512)  # Cnn14_16k
WIDER = dataclasses.replace(SPEC, f_min_hz=0.0, f_max_hz=16_000.0)


def body(labels: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    names = tuple(f"Label {i}" for i in range(labels))
    return small_cnn14(dataclasses.replace(MODEL, labels=names)).state_dict()


def front_end(spec: LogMel) -> dict[str, torch.Tensor]:
    rows = spec.n_fft // 2 + 1
    return {
        REAL: torch.zeros(rows, 1, spec.n_fft),
        REAL.replace("real", "imag"): torch.zeros(rows, 1, spec.n_fft),
        MEL: torch.from_numpy(mel_filters(spec).T.copy()),
    }


@pytest.fixture
def analyser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Analyser:
    kind = dataclasses.replace(ARCHITECTURES["cnn14"], build=small_cnn14)
    monkeypatch.setitem(networks.ARCHITECTURES, NAME, kind)
    return analyser_of(tmp_path, MODEL, seed=5)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda: ({"model": body() | front_end(SPEC)}, ".pth"),
        lambda: (body(), ".pth"),
        lambda: ({f"backbone.{k}": v for k, v in body().items()}, ".safetensors"),
        lambda: (
            {f"backbone.{k}": v for k, v in (body() | front_end(SPEC)).items()},
            ".safetensors",
        ),
    ],
    ids=["the authors'", "bare", "prefixed", "prefixed, with the front end"],
)
def test_every_wrapping_is_read_and_answers_alike(analyser, tmp_path, wrapped):
    content, suffix = wrapped()
    path = tmp_path / f"Cnn14{suffix}"
    if suffix == ".pth":  # of the old, non-zip kind, as published
        torch.save(content, path, _use_new_zipfile_serialization=False)
    else:
        save_file(content, path)
    inputs = np.random.default_rng(0).uniform(-80, 0, (1, 1, 64, 200)).astype(np.float32)
    with torch.inference_mode():
        own = analyser.engine.network(NAME)
        read = analyser.engine.network(NAME, weights=str(path))
        assert torch.equal(read.head(read.features(inputs)), own.head(own.features(inputs)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            lambda: body() | front_end(LOWER),
            r"spectrogram_extractor\.stft\.conv_real\.weight \(257, 1, 512\); expected "
            r"\(513, 1, 1024\), for sounds at 32000 Hz",
        ),
        (
            lambda: body() | {MEL: torch.from_numpy(mel_filters(LOWER).T.copy())},
            r"logmel_extractor\.melW \(257, 64\); expected \(513, 64\)",
        ),
        (
            lambda: body() | front_end(WIDER),
            r"logmel_extractor\.melW \(513, 64\) with .*; expected .* bands from 50 to 14000 Hz",
        ),
        (
            lambda: body(labels=5),
            r"fc_audioset\.weight \(5, 32\); expected \(3, 32\)",
        ),
        (
            lambda: {"conv1.weight": torch.zeros(64, 1, 7, 7)},
            r"no tensor bn0\.weight \(64,\); "
            r"it has conv1\.weight \(64, 1, 7, 7\)",
        ),
        (
            lambda: body() | {"logmel_extractor.lowest": torch.zeros(1)},
            r"has a tensor logmel_extractor\.lowest \(1,\), which the network does not have",
        ),
    ],
    ids=[
        "16 kHz",
        "16 kHz, filters alone",
        "another band",
        "five labels",
        "a ResNet",
        "a front end of another kind",
    ],
)
def test_a_checkpoint_for_something_else_is_refused_by_its_first_tensor(
    analyser, tmp_path, content, said
):
    path = tmp_path / "other.pth"
    torch.save({"model": content()}, path)
    with pytest.raises(CheckpointMismatchError, match=said):
        analyser.engine.network(NAME, weights=str(path))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_file_that_was_cut_short_is_refused(analyser, tmp_path, suffix, share):
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"short{suffix}"
    if suffix == ".pth":
        torch.save({"model": body()}, whole, _use_new_zipfile_serialization=False)
    else:
        save_file(body(), whole)
    content = whole.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointMismatchError, match=r"short\..* cannot be read as tensors"):
        analyser.engine.network(NAME, weights=str(path))


class Harmful:
    """What a pickle could do: here it would leave a file behind."""

    def __init__(self, left: Path) -> None:
        self.left = left

    def __reduce__(self):
        return Path.touch, (self.left,)


@pytest.mark.parametrize("zipped", [True, False], ids=["new", "old"])
def test_a_pickle_that_carries_code_is_refused_and_nothing_of_it_runs(analyser, tmp_path, zipped):
    path, left = tmp_path / "harm.pth", tmp_path / "left"
    state = body() | {"bn0.bias": Harmful(left)}
    torch.save({"model": state}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointMismatchError, match="a pickle that holds only tensors"):
        analyser.engine.network(NAME, weights=str(path))
    assert not left.exists()
    torch.load(path, weights_only=False)  # it would have
    assert left.exists()


def test_a_clip_shorter_than_the_least_is_filled_up_and_said(analyser, tmp_path):
    path = tmp_path / "short.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(3200), 32_000)
    analysis = analyser.analyse(AnalysisRequest(task="audioset", faithfulness=False), path)
    warnings = " ".join(analysis.report.warnings)
    assert "The recording lasts 0.10 s. It was repeated to fill the 0.31 s" in warnings
    # What was filled up is not spoken of as sound.
    assert analysis.view.duration_s == pytest.approx(0.1)
    assert analysis.report.explanations[0].peak["time_s"] <= 0.1
    assert analysis.timeline.ends_s[-1] == pytest.approx(0.1)


def test_the_command_line_says_it_in_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "hello.pth").write_bytes(b"\x80\x02cos\nsystem\n")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, np.zeros(32_000) + 0.1, 32_000)
    command = ["analyse", "cnn14", str(clip), "--weights", str(tmp_path / "hello.pth")]
    assert main(command) == 3
    said = capsys.readouterr().err
    assert "hello.pth cannot be read as tensors" in said
    assert said.count("\n") == 1
