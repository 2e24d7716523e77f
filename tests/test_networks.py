import dataclasses

import pytest
import torch

from xai_demo import networks
from xai_demo.errors import UnknownNameError
from xai_demo.networks import ARCHITECTURES
from small import model_of


def built(name: str) -> tuple[torch.nn.Module, networks.Cut, torch.Tensor]:
    model = model_of(name)
    torch.manual_seed(0)
    whole = networks.architecture(model).whole(model).eval()
    shape = (2, 1, 64, 120) if model.task != "chest_xray" else (2, 1, 96, 96)
    return whole, networks.cut(model, whole), torch.randn(shape)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_head_of_features_is_the_whole_network(name):
    whole, cut, inputs = built(name)
    with torch.inference_mode():
        assert torch.equal(cut.head(cut.features(inputs)), whole(inputs))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_cut_layer_is_the_one_named(name):
    whole, cut, inputs = built(name)
    seen = []
    whole.get_submodule(cut.layer).register_forward_hook(lambda m, i, o: seen.append(o.detach()))
    with torch.inference_mode():
        whole(inputs)
        activations = cut.features(inputs)
    turned = seen[0].transpose(2, 3) if name.startswith("cnn") else seen[0]
    assert torch.equal(activations, turned)


def test_cnn14_has_the_authors_size_and_map():
    model = dataclasses.replace(model_of("cnn14"), labels=tuple(map(str, range(527))))
    whole = networks.architecture(model).whole(model).eval()
    assert sum(p.numel() for p in whole.parameters()) == 80_753_615
    with torch.inference_mode():
        activations = networks.cut(model, whole).features(torch.randn(1, 1, 64, 1001))
    assert activations.shape == (1, 2048, 2, 31)


def test_cnn14_has_the_authors_tensor_names():
    model = model_of("cnn14")
    names = set(networks.architecture(model).whole(model).state_dict())
    assert len(names) == 84 - 3  # without the three of the front end
    assert {"bn0.weight", "conv_block6.conv2.weight", "fc1.bias", "fc_audioset.weight"} <= names


def test_an_unknown_architecture_names_the_known_ones():
    with pytest.raises(UnknownNameError, match="'vgg16'.*resnet18"):
        networks.architecture(dataclasses.replace(model_of("resnet18"), architecture="vgg16"))
