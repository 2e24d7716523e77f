import dataclasses
import functools

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from tests.support.audioset_networks import calibrate
from tests.support.small_models import model_of
from xai_demo import networks
from xai_demo.analysis import heatmap
from xai_demo.audio.front_ends import mel_filters
from xai_demo.catalog.hub_models import CNN14
from xai_demo.errors import CheckpointMismatchError, UnknownNameError
from xai_demo.networks import ARCHITECTURES
from xai_demo.networks.timm_modules import MeanMaxPool

# Transformers have tests of their own: their activations are tokens.
MAPPED = [name for name, kind in ARCHITECTURES.items() if kind.kind == "convolutional"]
CUTS = [(name, layer) for name in MAPPED for layer in ARCHITECTURES[name].cuts]
every_cut = pytest.mark.parametrize(("name", "layer"), CUTS)


@functools.cache
def whole_of(name: str) -> torch.nn.Module:
    model = model_of(name)
    torch.manual_seed(0)
    whole = networks.architecture(model).build(model).eval()
    if name == "efficientat-mn10":
        # As it starts, untrained, nothing of the input is left behind its forty normalisations.
        calibrate(whole, torch.randn(4, 1, 96, 96))
    return whole


def built(
    name: str, layer: str | None = None
) -> tuple[torch.nn.Module, networks.Cut, torch.Tensor]:
    model, whole = model_of(name), whole_of(name)
    shape = (2, 1, 64, 120) if model.task != "chest_xray" else (2, 1, 96, 96)
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return whole, networks.cut(model, whole, layer), inputs


def as_drawn(name: str, activations: torch.Tensor) -> torch.Tensor:
    """The inside of the PANNs is (time, mel), ours is (mel, time)."""
    return activations.transpose(2, 3) if name.startswith("cnn") else activations


@every_cut
def test_head_of_features_is_the_whole_network(name, layer):
    whole, cut, inputs = built(name, layer)
    with torch.inference_mode():
        assert torch.equal(cut.head(cut.features(inputs)), whole(inputs))


@every_cut
def test_the_cut_layer_is_the_one_named(name, layer):
    whole, cut, inputs = built(name, layer)
    seen = []
    hook = whole.get_submodule(layer).register_forward_hook(lambda m, i, o: seen.append(o))
    with torch.inference_mode():
        whole(inputs)
        hook.remove()
        activations = cut.features(inputs)
    assert cut.layer == layer
    assert torch.equal(activations, as_drawn(name, seen[0]))


@every_cut
def test_the_head_leaves_the_activations_as_they_were(name, layer):
    _, cut, inputs = built(name, layer)
    with torch.inference_mode():
        activations = cut.features(inputs)
        before = activations.clone()
        cut.head(activations)
    assert torch.equal(activations, before)


@every_cut
def test_a_heatmap_by_the_cut_is_that_of_the_whole_network(name, layer):
    whole, cut, inputs = built(name, layer)
    with pytorch_grad_cam.GradCAMPlusPlus(
        model=whole,
        target_layers=[whole.get_submodule(layer)],
        reshape_transform=lambda t: as_drawn(name, t),
    ) as camera:
        expected = camera(input_tensor=inputs, targets=[ClassifierOutputTarget(1)] * 2)
    identity = torch.nn.Identity()
    head = torch.nn.Sequential(identity, cut.head)
    with pytorch_grad_cam.GradCAMPlusPlus(model=head, target_layers=[identity]) as camera:
        activations = cut.features(inputs).detach().requires_grad_(True)
        maps = camera(input_tensor=activations, targets=[ClassifierOutputTarget(1)] * 2)
    for got, wanted in zip(maps, expected, strict=True):
        shown = heatmap.normalise(heatmap.resize(got, *wanted.shape))
        assert np.ptp(wanted) == pytest.approx(1, abs=1e-3)  # there is something to compare
        assert np.abs(shown - wanted).max() <= 1e-5


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("resnet18", 32),
        ("resnet18-fine", 16),
        ("densenet121", 32),
        ("efficientnet-lite0", 32),
        ("simplecnn", 4),
    ],
)
def test_the_map_is_so_much_coarser_than_the_picture(name, stride):
    _, cut, _ = built(name)
    with torch.inference_mode():
        activations = cut.features(torch.zeros(1, 1, 64, 96))
    assert activations.shape[2:] == (64 // stride, 96 // stride)


def test_cnn14_has_the_authors_size_and_maps():
    model = dataclasses.replace(model_of("cnn14"), labels=tuple(map(str, range(527))))
    whole = networks.architecture(model).build(model).eval()
    assert sum(p.numel() for p in whole.parameters()) == 80_753_615
    inputs = torch.randn(1, 1, 64, 1001)
    with torch.inference_mode():
        assert networks.cut(model, whole).features(inputs).shape == (1, 2048, 2, 31)
        finer = networks.cut(model, whole, "conv_block5").features(inputs)
    assert finer.shape == (1, 1024, 4, 62)


def test_cnn14_has_the_authors_tensor_names():
    model = model_of("cnn14")
    names = set(networks.architecture(model).build(model).state_dict())
    assert len(names) == 84 - 3  # without the three of the front end
    assert {"bn0.weight", "conv_block6.conv2.weight", "fc1.bias", "fc_audioset.weight"} <= names


def test_simplecnn_is_three_convolutions_and_one_linear_layer():
    whole, _, _ = built("simplecnn")
    convolutions = 9 * (1 * 32 + 32 * 64 + 64 * 128) + 32 + 64 + 128
    assert sum(p.numel() for p in whole.parameters()) == convolutions + 3 * 128 * 16 + 3
    assert [m.p for m in whole.modules() if isinstance(m, torch.nn.Dropout)] == [0.4]


@pytest.mark.parametrize("name", MAPPED)
def test_a_cut_network_trains_or_answers_as_the_whole_does(name):
    for training in (True, False):  # the last leaves it as it was
        cut = networks.cut(model_of(name), whole_of(name).train(training))
        parts = [*cut.features.modules(), *cut.head.modules()]
        assert {part.training for part in parts} == {training}


@pytest.mark.parametrize("name", ["cnn6", "cnn14", "resnet18"])
def test_the_head_alone_holds_on_to_no_convolution_of_the_features(name):
    _, cut, _ = built(name)
    assert not [m for m in cut.head.modules() if isinstance(m, torch.nn.Conv2d)]


def test_an_unknown_architecture_names_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"'vgg16'.*resnet18"):
        networks.architecture(dataclasses.replace(model_of("resnet18"), architecture="vgg16"))


def test_an_unknown_layer_names_the_known_ones():
    with pytest.raises(
        UnknownNameError, match=r"'conv1'; choose from: conv_block6\.conv2, conv_block5"
    ):
        networks.explained_layer(model_of("cnn14"), "conv1")
    assert networks.explained_layer(model_of("cnn14")) == "conv_block6.conv2"


# Cnn14_DecisionLevelMax


def authors_framewise(whole, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities of every frame and of the clip, from the authors' description.

    (batch, 1, mel, time) -> (batch, frames, labels), (batch, labels). Cnn14 up to the mean over
    mel; then maximum plus mean over three steps, `fc1` with ReLU and a sigmoid for each; the clip's
    is the maximum; each step is repeated for 32 frames and the last one for the rest.
    """
    x = whole.bn0(x.permute(0, 2, 3, 1)).permute(0, 3, 2, 1)
    for i in range(1, 7):
        block = getattr(whole, f"conv_block{i}")
        x = torch.relu(block.bn1(block.conv1(x)))
        x = torch.relu(block.bn2(block.conv2(x)))
        x = torch.nn.functional.avg_pool2d(x, 2) if i < 6 else x
    x = x.mean(dim=3)
    steps = x.shape[2]
    padded = torch.nn.functional.pad(x, (1, 1))
    windows = torch.stack([padded[:, :, i : i + steps] for i in range(3)])  # x is never negative
    x = (windows.amax(dim=0) + windows.sum(dim=0) / 3).transpose(1, 2)
    x = torch.relu(x @ whole.fc1.weight.T + whole.fc1.bias)
    segments = torch.sigmoid(x @ whole.fc_audioset.weight.T + whole.fc_audioset.bias)
    return segments, segments.amax(dim=1)


@pytest.mark.parametrize("layer", ARCHITECTURES["cnn14-decisionlevelmax"].cuts)
def test_the_framewise_network_is_the_authors(layer):
    name = "cnn14-decisionlevelmax"
    whole, cut, inputs = built(name, layer)
    whole.eval()
    inputs = torch.cat([inputs, inputs.flip(3)], dim=3)  # 240 frames: 7 steps
    with torch.inference_mode():
        segments, clip = authors_framewise(whole, inputs)
        activations = cut.features(inputs)
        assert (whole(inputs).sigmoid() - clip).abs().max() <= 1e-6
        assert (cut.head(activations).sigmoid() - clip).abs().max() <= 1e-6
        framewise = ARCHITECTURES[name].framewise(cut.head, activations, 240).sigmoid()
    assert segments.shape[1] == 7
    assert segments.std(dim=1).min() > 0
    assert framewise.shape == (2, 3, 240)
    for frame in (0, 31, 32, 100, 223, 224, 239):
        wanted = segments[:, min(frame // 32, 6)]
        assert (framewise[:, :, frame] - wanted).abs().max() <= 1e-6


def test_the_framewise_network_has_the_authors_tensor_names():
    names = {
        name: set(networks.architecture(model_of(name)).build(model_of(name)).state_dict())
        for name in ("cnn14", "cnn14-decisionlevelmax")
    }
    assert names["cnn14"] == names["cnn14-decisionlevelmax"]


def test_the_framewise_network_is_loaded_from_the_authors_file(tmp_path):
    from xai_demo.engine.backends import load_cut_network

    model = model_of("cnn14-decisionlevelmax", preprocessing=CNN14.preprocessing)
    whole = whole_of("cnn14-decisionlevelmax").eval()
    front_end = {
        "spectrogram_extractor.stft.conv_real.weight": torch.zeros(513, 1, 1024),
        "spectrogram_extractor.stft.conv_imag.weight": torch.zeros(513, 1, 1024),
        "logmel_extractor.melW": torch.from_numpy(mel_filters(CNN14.preprocessing).T.copy()),
    }
    path = tmp_path / "Cnn14_DecisionLevelMax.pth"
    state = whole.state_dict() | front_end
    torch.save({"model": state}, path, _use_new_zipfile_serialization=False)
    cut, inputs = load_cut_network(model, path), torch.randn(1, 1, 64, 100)
    with torch.inference_mode():
        assert torch.equal(cut.head(cut.features(inputs)), whole(inputs))
    torch.save({"model": state | {"att_block.bias": torch.zeros(3)}}, path)
    with pytest.raises(
        CheckpointMismatchError, match=r"a tensor att_block\.bias \(3,\), which the network"
    ):
        load_cut_network(model, path)


def test_architectures_say_what_they_call_the_tensors_of_a_file():
    assert networks.tensor_name(model_of("cnn14"), "fc1.weight") == "fc1.weight"
    activations = torch.zeros(1, 2, 3, 4)
    assert networks.feature_maps(model_of("cnn14"), activations) is activations


def test_columns_add_up_to_the_mean_and_the_most():
    pool = MeanMaxPool()
    maps = torch.tensor([[[[1.0, 5.0, 0.0], [3.0, 1.0, 2.0]]]])  # over frequency: 2, 3, 1
    assert pool(maps).tolist() == [[2.0, 3.0]]
    parts = pool.column_contributions(maps)
    assert parts.shape == (1, 3, 2)
    torch.testing.assert_close(parts[0, :, 0], torch.tensor([2 / 3, 1.0, 1 / 3]))
    assert parts[0, :, 1].tolist() == [0.0, 3.0, 0.0]
    random = torch.rand(2, 4, 3, 7)
    torch.testing.assert_close(pool.column_contributions(random).sum(1), pool(random))
