"""Weights in half the bytes where the answers stay: float16, tried against what they were."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.training import asked

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.records import Model
    from xai_demo.training.dataset import DataSet

MOST_MOVED = 1e-3  # of any probability


def stored(network: nn.Module, model: Model, data: DataSet) -> tuple[dict[str, Tensor], str]:
    """What to keep of a trained network, and what to say of it.

    float32 only where float16 would move a probability of a validation sample by more than
    `MOST_MOVED`, as where a number is too large for it.
    """
    exact = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
    half = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in exact.items()
    }
    if not all(tensor.isfinite().all() for tensor in half.values()):
        return exact, "Weights are stored in float32: some are too large for float16."
    moved, count = _moved(network, half, model, data)
    told = f"a probability of {count} validation samples moves by {moved:.1e} at most"
    if moved <= MOST_MOVED:
        return half, f"Weights are stored in float16: {told}."
    return exact, f"Weights are stored in float32: in float16 {told}, more than {MOST_MOVED:g}."


def _moved(
    network: nn.Module, half: dict[str, Tensor], model: Model, data: DataSet
) -> tuple[float, int]:
    """The largest change of a probability, and of how many samples."""
    rounded = copy.deepcopy(network)
    rounded.load_state_dict(half)  # copied into what is float32
    before, after = (
        asked.probabilities(each, model, data, "validation")[0] for each in (network, rounded)
    )
    return float(np.abs(before - after).max()), len(before)
