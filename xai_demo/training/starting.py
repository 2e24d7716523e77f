"""Where a network's layers start from: nothing, or those of a model that ships with the demo."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xai_demo.engine import read_tensors
from xai_demo.errors import TrainingError
from xai_demo.hub import Hub

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.settings import Settings
    from xai_demo.training.schedule import Recipe


def started(network: nn.Module, recipe: Recipe, settings: Settings) -> tuple[str, ...]:
    """Give a network the layers that a recipe starts from; what to say of it in the card.

    Layers of another shape, as the last one, stay as they are. Raises CheckpointUnavailableError
    where that model is not here, TrainingError where it is of another architecture.
    """
    if recipe.start is None:
        return ()
    hub = Hub(settings)
    other, located = hub.model(recipe.start), hub.located(recipe.start)
    if other.architecture != recipe.model.architecture:
        raise TrainingError(
            f"{recipe.start} is a {other.architecture}, wanted to start {recipe.model.name} from: "
            f"a {recipe.model.architecture}."
        )
    state = network.state_dict()
    taken = {
        name: tensor.to(state[name].dtype)
        for name, tensor in read_tensors(located.path).items()
        if name in state and state[name].shape == tensor.shape
    }
    network.load_state_dict(state | taken)
    return (
        f"Started from {recipe.start}, sha256 {located.sha256}: {len(taken)} of {len(state)} "
        "tensors, all but those of another shape.",
    )
