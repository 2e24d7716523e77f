"""EfficientAT's mn10 beside torchvision's MobileNetV3: any length, cut exactly, explained."""

import numpy as np
import pytest
import pytorch_grad_cam
import soundfile
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from tests.audio.test_front_ends import efficientat_input
from tests.support.audioset_networks import whole_network
from tests.support.explainer_subjects import subject_of
from tests.support.published_audioset import torchvision_mobilenet
from xai_demo import networks
from xai_demo.analysis import Analyser, heatmap
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.catalog.hub_models import EFFICIENTAT_MN10
from xai_demo.explainers import EXPLAINERS
from xai_demo.hub import adapters
from xai_demo.networks import ARCHITECTURES
from xai_demo.settings import Settings

RATE_HZ = 32_000
LAYERS = tuple(ARCHITECTURES["efficientat-mn10"].cuts)


def windows(frames: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 1, 128, frames, generator=torch.Generator().manual_seed(frames))


@pytest.mark.parametrize("frames", [1000, 417, 32])
def test_the_network_is_torchvisions_at_any_length(frames):
    whole = whole_network("efficientat-mn10")
    theirs = torchvision_mobilenet(whole.state_dict())
    with torch.inference_mode():
        expected, got = theirs(windows(frames)), whole(windows(frames))
    assert expected.shape == (2, 527)
    assert expected.std() > 0.1
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (got.sigmoid() - expected.sigmoid()).abs().max() <= 1e-5


def test_the_published_network_has_the_published_tensors():
    state = whole_network("efficientat-mn10").state_dict()
    # As others have counted them in the authors' file.
    assert len(state) == 312
    assert sum(t.numel() for t in state.values()) == 4_901_277
    assert state["features.0.0.weight"].shape == (16, 1, 3, 3)
    assert state["features.4.block.2.conc_se_layers.0.fc1.weight"].shape == (24, 72)
    assert state["features.16.1.running_var"].shape == (960,)
    assert state["classifier.2.weight"].shape == (1280, 960)
    assert state["classifier.5.bias"].shape == (527,)


@pytest.mark.parametrize(
    ("layer", "shape"), list(zip(LAYERS, [(960, 4, 32), (112, 8, 63)], strict=True))
)
def test_head_of_features_is_the_whole_network_and_the_map_has_this_size(layer, shape):
    whole = whole_network("efficientat-mn10")
    cut, inputs = networks.cut(EFFICIENTAT_MN10, whole, layer), windows(1000, 1)
    seen = []
    hook = whole.get_submodule(layer).register_forward_hook(lambda m, i, o: seen.append(o))
    with torch.inference_mode():
        logits = whole(inputs)
        hook.remove()
        activations = cut.features(inputs)
        assert activations.shape == (1, *shape)
        assert torch.equal(activations, seen[0])
        assert torch.equal(cut.head(activations), logits)


LIBRARY = {
    "Grad-CAM": "GradCAM",
    "Grad-CAM++": "GradCAMPlusPlus",
    "HiResCAM": "HiResCAM",
    "XGrad-CAM": "XGradCAM",
    "LayerCAM": "LayerCAM",
    "Eigen-CAM": "EigenCAM",
}


@pytest.mark.parametrize("name", LIBRARY)
def test_a_heatmap_by_the_cut_is_that_of_the_whole_network(name):
    whole, inputs = whole_network("efficientat-mn10"), windows(160)
    cut = networks.cut(EFFICIENTAT_MN10, whole)
    whole.requires_grad_(True)
    with getattr(pytorch_grad_cam, LIBRARY[name])(
        model=whole, target_layers=[whole.get_submodule(cut.layer)]
    ) as camera:
        expected = camera(input_tensor=inputs, targets=[ClassifierOutputTarget(1)] * 2)
    whole.requires_grad_(False)
    raw = EXPLAINERS[name].explain(subject_of(whole, cut, inputs), [1])
    for sample in range(2):
        got = heatmap.normalise(
            heatmap.resize(heatmap.normalise(raw[sample, 0]), *expected[sample].shape)
        )
        assert np.ptp(expected[sample]) > 0.9
        assert np.abs(got - expected[sample]).max() <= 1e-4


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mn10")
    torch.save(whole_network("efficientat-mn10").state_dict(), folder / "mn10.pt")
    made = folder / "made"
    adapters.adapt_checkpoint(EFFICIENTAT_MN10, "efficientat", folder / "mn10.pt", made)
    assert sorted(path.name for path in made.iterdir()) == ["config.json", "model.safetensors"]
    return made


def a_clip(path, seconds):
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    samples = 0.4 * np.sin(2 * np.pi * (300 + 100 * time_s) * time_s) * (time_s % 3 < 1)
    samples += np.random.default_rng(0).normal(0, 0.02, len(time_s))
    soundfile.write(path, samples.astype(np.float32), RATE_HZ, subtype="FLOAT")
    return samples.astype(np.float32)


@pytest.mark.parametrize("seconds", [0.1, 2.3, 17.0])
def test_recordings_of_any_length_are_answered_and_explained(model_directory, tmp_path, seconds):
    samples = a_clip(tmp_path / "clip.wav", seconds)
    settings = Settings(
        weights_dir=tmp_path, cache_dir=tmp_path / "cache", background_export=False, offline=True
    )
    request = AnalysisRequest(
        task="audioset",
        model="efficientat-mn10",
        weights=str(model_directory),
        backend="torch",
        faithfulness=False,
    )
    analysis = Analyser(settings).analyse(request, tmp_path / "clip.wav")
    report, found = analysis.report, analysis.report.explanations[0]
    assert found.layer == "features.16"
    assert found.heatmap.shape == analysis.view.pixels.shape
    assert np.isfinite(found.heatmap).all()
    assert len(analysis.timeline.starts_s) == (3 if seconds > 10 else 1)
    if seconds != 2.3:
        return
    # From the waveform on, by the description of the front end and torchvision's network.
    theirs = torchvision_mobilenet(whole_network("efficientat-mn10").state_dict())
    with torch.inference_mode():
        seen = torch.from_numpy(efficientat_input(samples)).float()[None, None]
        expected = theirs(seen)[0].sigmoid().numpy()
    got = {p.label: p.probability for p in report.predictions}
    assert np.ptp(expected) > 0.2
    difference = np.array([got[label] for label in EFFICIENTAT_MN10.labels]) - expected
    assert np.abs(difference).max() <= 1e-4
    assert found.values.shape == (4, 8)  # 230 frames, 32 a cell
