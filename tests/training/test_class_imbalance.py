"""Class imbalance: weights, sampling, SMOTE and focal loss, each known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.support.small_models import model_of
from tests.support.tiny_network import TINY
from xai_demo import networks
from xai_demo.errors import TrainingError, UnknownNameError
from xai_demo.training import class_imbalance, losses
from xai_demo.training.class_imbalance import (
    BALANCES,
    balanced_schedule,
    label_weights,
    sampling_probabilities,
)
from xai_demo.training.datasets import Dataset, one_hot
from xai_demo.training.recipes import RECIPES
from xai_demo.training.train import refit_last_layer

EXCLUSIVE = np.array([0] * 6 + [1] * 3 + [2])
INDEPENDENT = np.array([[1, 0], [0, 0], [1, 1], [0, 0], [1, 0], [0, 0], [0, 0], [0, 0]])


def test_weights_are_inverse_to_size_and_a_sample_counts_one_on_average():
    weights = label_weights(EXCLUSIVE, 3, 1.0)
    assert (weights / weights[0]).tolist() == pytest.approx([1, 2, 6])
    assert weights[EXCLUSIVE].mean() == pytest.approx(1)
    root = label_weights(EXCLUSIVE, 3, 0.5)
    assert (root / root[0]).tolist() == pytest.approx([1, math.sqrt(2), math.sqrt(6)])
    assert label_weights(EXCLUSIVE, 3, 0.0) is None


def test_a_present_independent_label_counts_as_often_as_it_is_absent_up_to_a_bound():
    assert label_weights(INDEPENDENT, 2, 1.0).tolist() == pytest.approx([5 / 3, 7])
    rare = np.zeros((1000, 2), np.int64)
    rare[0, 0] = 1
    assert label_weights(rare, 2, 1.0).tolist() == [class_imbalance.MAX_LABEL_WEIGHT] * 2


def test_labels_are_drawn_alike_at_power_nought_and_as_they_are_at_one():
    even = sampling_probabilities(EXCLUSIVE, 3, 0.0)
    assert [even[k == EXCLUSIVE].sum() for k in range(3)] == pytest.approx([1 / 3] * 3)
    assert sampling_probabilities(EXCLUSIVE, 3, 1.0).tolist() == pytest.approx([0.1] * 10)


def test_a_sample_of_several_labels_is_drawn_as_its_rarest():
    even = sampling_probabilities(INDEPENDENT, 2, 0.0)
    assert even[2] == pytest.approx(3 * even[0])  # one sample has the second label, three the first
    assert even[0] == pytest.approx(even[1] * 5 / 3)  # five have none
    assert even.sum() == pytest.approx(1)


def test_every_choice_sets_all_that_balances():
    recipe = RECIPES["covid3-simplecnn"]
    assert balanced_schedule(recipe, None) == recipe.schedule
    keys = {"sampling_power", "label_weight_power", "focal_gamma", "smote"}
    assert {frozenset(settings) for settings in BALANCES.values()} == {frozenset(keys)}
    plain = balanced_schedule(recipe, "none")
    assert (plain.label_weight_power, plain.focal_gamma) == (0, 0)
    assert (plain.sampling_power, plain.smote) == (1, False)
    assert balanced_schedule(recipe, "weights").label_weight_power == 1
    assert balanced_schedule(recipe, "focal").focal_gamma == 2
    assert balanced_schedule(recipe, "oversampling").sampling_power == 0
    assert balanced_schedule(recipe, "smote").smote


def test_an_unknown_choice_and_a_recipe_that_balances_itself_are_refused():
    with pytest.raises(
        UnknownNameError, match="no balance named 'luck'; choose from: none, weights"
    ):
        balanced_schedule(RECIPES["covid3-simplecnn"], "luck")
    with pytest.raises(
        TrainingError, match="lung-resnet18 balances its samples itself; use --balance with"
    ):
        balanced_schedule(RECIPES["lung-resnet18"], "focal")


# Focal loss


def test_focal_loss_without_gamma_is_cross_entropy():
    logits = torch.tensor([[0.3, -1.0, 2.0], [1.0, 0.0, 0.0]])
    targets = torch.tensor([[0.0, 0.0, 1.0], [0.5, 0.5, 0.0]])
    rows = losses.focal_cross_entropy(logits, targets, 0.0)
    assert float(rows.sum(1).mean()) == pytest.approx(float(F.cross_entropy(logits, targets)))
    plain = losses.focal_binary_cross_entropy(logits, targets, 0.0)
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(plain, expected)


def test_focal_loss_at_even_odds_is_a_quarter_of_the_loss_for_gamma_two():
    even = torch.zeros(1, 2)
    one = torch.tensor([[1.0, 0.0]])
    rows = losses.focal_cross_entropy(even, one, 2.0)
    assert rows.tolist() == [pytest.approx([math.log(2) / 4, 0])]
    rows = losses.focal_binary_cross_entropy(even, one, 2.0)
    assert rows.tolist() == [pytest.approx([math.log(2) / 4] * 2)]


def test_a_present_label_counts_by_its_weight_in_the_objective():
    network = torch.nn.Linear(1, 2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    weights = np.array([3.0, 5.0], np.float32)
    objective = losses.FindingsObjective(network, weights)
    schedule = balanced_schedule(RECIPES["nih14-resnet50"], "weights")
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    loss = objective.loss(torch.zeros(2, 1), targets, schedule)
    assert float(loss.detach()) == pytest.approx(math.log(2) * (3 + 1 + 1 + 1) / 4, rel=1e-3)


# SMOTE


def test_smote_finds_the_line_between_two_labels_of_unequal_size():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(0, 1, (400, 2)), rng.normal((6, 0), 1, (12, 2))])
    targets = np.repeat([0, 1], [400, 12])
    weight, bias = class_imbalance.fit_balanced_layer(features, targets, 2)
    scores = features @ weight.T + bias
    assert (scores.argmax(axis=1) == targets).mean() > 0.99
    middle = np.array([3.0, 0.0]) @ weight.T + bias
    assert abs(middle[1] - middle[0]) < 1.5  # not pushed towards the rare label


def test_smote_fits_independent_labels_one_by_one_and_leaves_absent_ones_at_even_odds():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 3))
    targets = np.stack([features[:, 0] > 1, features[:, 1] > 0, np.zeros(300)], axis=1).astype(int)
    weight, bias = class_imbalance.fit_balanced_layer(features, targets, 3)
    scores = features @ weight.T + bias
    assert ((scores[:, :2] > 0) == targets[:, :2]).mean() > 0.95
    assert not weight[2].any()
    assert bias[2] == 0


def test_one_sample_of_a_label_is_not_multiplied():
    features, targets = np.eye(4), np.array([0, 0, 0, 1])
    weight, _ = class_imbalance.fit_balanced_layer(features, targets, 2)
    assert np.isfinite(weight).all()


def small_data(n: int = 40) -> Dataset:
    rng = np.random.default_rng(0)
    targets = (np.arange(n) % 4 == 0).astype(np.int64)
    pictures = rng.normal(0, 0.3, (n, 48, 48)) + targets[:, None, None]
    pictures = pictures.astype(np.float32)
    return Dataset(
        name="made",
        labels=("normal", "crackle", "wheeze"),
        targets=targets,
        groups=tuple(map(str, range(n))),
        splits=("train",) * n,
        load=lambda i, rng: (pictures[i], one_hot(int(targets[i]), 3)),
    )


def test_only_the_last_layer_of_a_network_is_refitted(monkeypatch):
    monkeypatch.setitem(networks.ARCHITECTURES, "tiny", TINY)
    model = model_of("tiny")
    torch.manual_seed(0)
    network = TINY.build(model).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    data = small_data()
    refit_last_layer(model, network, data)
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"head.3.weight", "head.3.bias"}
    with torch.no_grad():
        rows = torch.from_numpy(np.stack([data.load(i, None)[0] for i in range(40)]))[:, None]
        answers = network(rows).argmax(1).numpy()
    assert (answers == data.targets).mean() > 0.9


def test_a_network_without_one_last_layer_is_refused(monkeypatch):
    whole = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU())
    monkeypatch.setitem(
        networks.ARCHITECTURES,
        "odd",
        networks.Architecture(build=lambda m: whole, cuts={"0": lambda n: (n[0], n[1:])}),
    )
    with pytest.raises(
        TrainingError, match="odd does not end in one linear layer, which SMOTE needs"
    ):
        class_imbalance.split_last_layer(model_of("odd"), whole)
