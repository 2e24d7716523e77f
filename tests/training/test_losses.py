"""Training objectives: which gradient reaches what, and the time-resolved loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tests.support.lung_datasets import TinyLung
from xai_demo.training import losses
from xai_demo.training.losses import BreathObjective, pack_target
from xai_demo.training.recipes import RECIPES

SCHEDULE = RECIPES["lung-resnet18"].schedule
COLUMNS = 40


def one(seed: int = 0) -> BreathObjective:
    torch.manual_seed(seed)
    objective = BreathObjective(TinyLung(4), 4, 3)
    objective.drop.p = 0.0
    return objective


def targets(kinds, sources, known=True, times=None) -> torch.Tensor:
    eye, source = np.eye(4, dtype=np.float32), np.eye(3, dtype=np.float32)
    blank = np.zeros((2, COLUMNS), np.float32) if times is None else times
    rows = [
        pack_target(eye[k], source[s], blank if known else None, COLUMNS)
        for k, s in zip(kinds, sources, strict=True)
    ]
    return torch.from_numpy(np.stack(rows))


def inputs(n: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(n, 1, 64, COLUMNS))).float()


def test_a_packed_target_says_whether_times_are_known():
    times = np.arange(2 * COLUMNS, dtype=np.float32).reshape(2, COLUMNS)
    row = pack_target(
        np.eye(4, dtype=np.float32)[2], np.eye(3, dtype=np.float32)[1], times, COLUMNS
    )
    assert row.tolist() == [0, 0, 1, 0, 0, 1, 0, 1, *range(2 * COLUMNS)]
    row = pack_target(np.eye(4, dtype=np.float32)[2], np.eye(3, dtype=np.float32)[1], None, COLUMNS)
    assert row.tolist() == [0, 0, 1, 0, 0, 1, 0, 0, *[0] * (2 * COLUMNS)]


def test_the_shared_classifier_is_trained_but_does_not_reach_the_features():
    objective = one()
    features = [p for n, p in objective.network.named_parameters() if n.startswith("features")]
    with torch.no_grad():
        for unused in (objective.classifiers, objective.in_time):
            unused.weight.zero_()
    objective.loss(inputs(6), targets([0, 1, 2, 3, 0, 1], [0] * 6), SCHEDULE).backward()
    # With the other classifiers at nought, only the common one could move the features.
    assert all(float(p.grad.abs().max()) == 0 for p in features)
    assert float(objective.network.fc.weight.grad.abs().max()) > 0


def test_every_source_has_a_classifier_of_its_own():
    objective = one()
    objective.loss(inputs(4), targets([0, 1, 2, 3], [1] * 4), SCHEDULE).backward()
    moved = objective.classifiers.weight.grad.abs().amax(1).reshape(3, 4)
    assert (moved[1] > 0).all()
    assert not moved[0].any()
    assert not moved[2].any()


def test_without_known_times_the_time_loss_has_no_gradient():
    objective = one()
    objective.loss(inputs(4), targets([0, 1, 2, 3], [0] * 4, known=False), SCHEDULE).backward()
    assert float(objective.in_time.weight.grad.abs().max()) == 0
    objective.zero_grad()
    objective.loss(inputs(4), targets([0, 1, 2, 3], [0] * 4), SCHEDULE).backward()
    assert float(objective.in_time.weight.grad.abs().max()) > 0


def test_the_loss_of_a_network_of_zeros_is_known_by_hand():
    objective = one()
    with torch.no_grad():
        for part in (objective.classifiers, objective.in_time, objective.network.fc):
            part.weight.zero_()
            part.bias.zero_()
    loss = objective.loss(inputs(4), targets([0, 1, 2, 3], [0] * 4), SCHEDULE)
    expected = 2 * math.log(4) + SCHEDULE.time_loss_weight * math.log(2)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-3)
    times = np.ones((2, COLUMNS), np.float32)
    loss = objective.loss(inputs(4), targets([0, 1, 2, 3], [0] * 4, times=times), SCHEDULE)
    expected = 2 * math.log(4) + SCHEDULE.time_loss_weight * 2 * math.log(2)  # a hit counts twice
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-3)


def test_a_recipe_without_sources_has_the_plain_objective():
    network = TinyLung(4)
    plain = losses.objective_for(network, RECIPES["everyday-cnn6"])
    assert type(plain) is losses.Objective
    assert isinstance(losses.objective_for(network, RECIPES["lung-resnet18"]), BreathObjective)
