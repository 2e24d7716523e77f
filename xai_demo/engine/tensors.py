"""Networks filled with the tensors of a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from xai_demo import networks
from xai_demo.hub.tensors import check, read_tensors

if TYPE_CHECKING:
    from xai_demo.records import Model


def filled(model: Model, weights: Path, layer: str | None = None) -> networks.Cut:
    """The network of a model with the weights of a file, cut in two, ready to answer.

    Raises CheckpointMismatchError where the file does not hold exactly this network's tensors.
    """
    whole = networks.architecture(model).whole(model)
    state = {
        networks.tensor_name(model, k): v
        for k, v in read_tensors(weights, model.preprocessing).items()
    }
    check(state, whole.state_dict(), weights.name)
    whole.load_state_dict(state, strict=False)  # checked; some files leave out batch counters
    whole.eval().requires_grad_(False)
    return networks.cut(model, whole, layer)
