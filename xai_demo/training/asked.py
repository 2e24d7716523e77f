"""A trained network asked about a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xai_demo.training import findings, judging, loop
from xai_demo.training.calibration import softmax

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model
    from xai_demo.training.dataset import DataSet, Split
    from xai_demo.training.metrics import Array, Labels
    from xai_demo.training.schedule import Evaluation


def probabilities(
    network: nn.Module, model: Model, data: DataSet, split: Split
) -> tuple[Array, Labels]:
    """Calibrated, (samples, labels), and the targets of one part."""
    logits, targets = loop.outputs(network, data, split)
    scaled = logits.numpy().astype(np.float64) / model.temperature
    of = softmax if model.activation == "softmax" else findings.sigmoid
    return of(scaled), targets.numpy()


def answered(network: nn.Module, model: Model, data: DataSet) -> Evaluation:
    """What it makes of the test part."""
    return judging.evaluation(model, data, *probabilities(network, model, data, "test"))
