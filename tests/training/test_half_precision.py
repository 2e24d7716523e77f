"""Weights are stored in float16 only if the probabilities stay, and the note says what changed."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from tests.support.small_models import model_of
from tests.support.tiny_network import TINY
from xai_demo import networks
from xai_demo.records import Raster
from xai_demo.training import predict, train
from xai_demo.training.datasets import Dataset, one_hot

N = 40


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(networks.ARCHITECTURES, "tiny", TINY)


def model(activation: str = "softmax"):
    spec = Raster(height=48, width=48, mean=0.0, std=1.0)
    return model_of("tiny", preprocessing=spec, activation=activation, normal_label=None)


def data() -> Dataset:
    pictures = np.random.default_rng(0).normal(0, 1, (N, 48, 48)).astype(np.float32)
    return Dataset(
        name="made",
        labels=("normal", "crackle", "wheeze"),
        targets=np.arange(N) % 3,
        groups=tuple(f"person{i}" for i in range(N)),
        splits=("validation",) * N,
        load=lambda i, rng: (pictures[i], one_hot(i % 3, 3)),
    )


def network(scale: float = 1.0) -> torch.nn.Module:
    """A network with seeded weights, those of the last layer multiplied by a factor."""
    torch.manual_seed(0)
    whole = TINY.build(model())
    with torch.no_grad():
        whole.get_submodule("head.3").weight.mul_(scale)
    return whole.eval()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_float16_is_stored_if_no_probability_changes_by_a_thousandth(activation):
    whole = network()
    state, note = train.half_precision_state(whole, model(activation), data())
    assert {t.dtype for t in state.values() if t.is_floating_point()} == {torch.float16}
    assert state["features.1.num_batches_tracked"].dtype == torch.int64
    match = re.fullmatch(
        r"Weights are stored in float16, which changes the probabilities of 40 validation samples "
        r"by at most (\S+)\.",
        note,
    )
    other = TINY.build(model(activation)).eval()
    other.load_state_dict({k: v.float() for k, v in state.items()})
    answers = [
        predict.split_probabilities(each, model(activation), data(), "validation")[0]
        for each in (whole, other)
    ]
    moved = np.abs(answers[0] - answers[1]).max()
    assert 0 < moved <= train.MAX_PROBABILITY_SHIFT
    assert float(match[1]) == pytest.approx(moved, rel=0.06)


def test_float32_is_stored_if_probabilities_would_change():
    whole = network(scale=3000.0)
    state, note = train.half_precision_state(whole, model(), data())
    assert {t.dtype for t in state.values() if t.is_floating_point()} == {torch.float32}
    assert note.startswith(
        "Weights are stored in float32: float16 changes the probabilities of 40 validation samples "
    )
    assert note.endswith("more than the 0.001 allowed.")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(state[name], tensor)


def test_a_number_that_overflows_float16_is_stored_in_float32():
    whole = network()
    with torch.no_grad():
        whole.get_submodule("features.1").running_var.fill_(1e6)  # float16 ends at 65504
    state, note = train.half_precision_state(whole, model(), data())
    assert state["features.1.running_var"].tolist() == [1e6] * 8
    assert note == "Weights are stored in float32 because some overflow float16."
