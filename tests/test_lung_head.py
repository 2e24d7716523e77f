"""The classifier that is fitted on features: learns, folds, weighs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.lungs import TinyLung
from xai_demo.training import lung_head
from xai_demo.training.lung_head import Learnt


def toy(n=240, weight=1.0, power=1.0, seed=0, kinds=4) -> Learnt:
    """Classes around corners of a square, on scales that differ by a thousand, and a flat one."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % kinds
    corners = np.array([[0, 0], [6, 0], [0, 6], [6, 6]])[labels]
    spread = corners + rng.normal(0, 0.7, (n, 2))
    features = np.column_stack([spread[:, 0] * 100 + 50, spread[:, 1] / 10, np.full(n, 7.0)])
    return Learnt(
        features=features.astype(np.float32),
        kinds=labels,
        groups=tuple(f"p{i // 4}" for i in range(n)),
        weight=weight,
        power=power,
    )


def answers(learnt: Learnt, weight, bias) -> np.ndarray:
    return (learnt.features @ weight.T + bias).argmax(1)


@pytest.fixture
def strong(monkeypatch):
    """A penalty that is too weak to be felt."""
    monkeypatch.setattr(lung_head, "_RIDGE", 1e-4)


def test_classes_apart_are_learnt_and_the_standardisation_is_folded_in(strong):
    learnt = toy()
    weight, bias = lung_head.regression([learnt])
    assert (weight.shape, bias.shape) == ((4, 3), (4,))
    assert (answers(learnt, weight, bias) == learnt.kinds).mean() > 0.99
    unseen = toy(seed=1)
    assert (answers(unseen, weight, bias) == unseen.kinds).mean() > 0.99


def test_the_solution_is_that_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    learnt = toy()
    weight, bias = lung_head.regression([learnt])
    scaler = StandardScaler().fit(learnt.features)
    model = LogisticRegression(
        C=1 / (lung_head._RIDGE * len(learnt.kinds)), max_iter=1000, tol=1e-9
    )
    model.fit(scaler.transform(learnt.features), learnt.kinds)
    logits = torch.from_numpy(learnt.features @ weight.T + bias).softmax(1).numpy()
    expected = model.predict_proba(scaler.transform(learnt.features))
    np.testing.assert_allclose(logits, expected, atol=5e-3)


def test_a_start_makes_no_difference_and_the_result_is_always_the_same():
    learnt = toy()
    first, again = lung_head.regression([learnt]), lung_head.regression([learnt])
    np.testing.assert_array_equal(first[0], again[0])
    started = lung_head.regression([learnt], first)
    before, after = (
        torch.from_numpy(learnt.features @ w.T + b).softmax(1) for w, b in (first, started)
    )
    torch.testing.assert_close(before, after, atol=2e-3, rtol=0)


def test_a_class_that_nobody_taught_is_never_answered(strong):
    learnt = toy(kinds=3)
    weight, bias = lung_head.regression([learnt])
    assert bias[3] == -20
    assert not weight[3].any()
    assert set(answers(learnt, weight, bias)) == {0, 1, 2}


def test_the_weights_of_a_source_sum_up_to_its_own_and_rare_classes_count_more():
    learnt = toy(n=120, weight=0.3, power=0.5).of(np.r_[0:120:4, 1:40:4])  # 30 and 10
    weights = learnt.weights()
    assert weights.sum() == pytest.approx(0.3)
    shares = np.bincount(learnt.kinds, weights)
    assert shares[0] / shares[1] == pytest.approx((30 / 10) ** 0.5)
    balanced = toy(n=40, power=0.0).of(np.r_[0:40:4, 1:8:4])
    assert np.bincount(balanced.kinds, balanced.weights()) == pytest.approx([0.5, 0.5])


def test_a_heavier_source_is_followed_where_two_disagree(strong):
    learnt = toy(n=80)
    against = Learnt(
        features=learnt.features,
        kinds=(learnt.kinds + 1) % 4,
        groups=learnt.groups,
        weight=0.1,
        power=1.0,
    )
    weight, bias = lung_head.regression([learnt, against])
    assert (answers(learnt, weight, bias) == learnt.kinds).mean() > 0.98


def test_a_sample_may_be_half_of_one_kind_and_half_of_another(strong):
    learnt = dataclasses.replace(toy(), labels=np.full((240, 4), 0.25, np.float32))
    weight, bias = lung_head.regression([learnt])
    logits = torch.from_numpy(learnt.features @ weight.T + bias)
    torch.testing.assert_close(logits.softmax(1), torch.full((240, 4), 0.25), atol=0.01, rtol=0)
    few = learnt.of(np.arange(3))
    assert few.wanted().tolist() == [[0.25] * 4] * 3
    assert toy().of(np.arange(2)).wanted().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]


def test_samples_are_thinned_once_for_all_and_keep_their_order():
    learnt = toy()
    few, again = learnt.thinned(50), learnt.thinned(50)
    assert few.groups == again.groups
    assert len(few.kinds) == 50
    numbers = [int(name[1:]) for name in few.groups]
    assert numbers == sorted(numbers)
    assert learnt.thinned(240) is learnt


def test_the_network_answers_with_what_is_put_into_it():
    network = TinyLung(4).eval()
    weight = np.random.default_rng(0).normal(size=(4, 12)).astype(np.float32)
    lung_head.put(network, weight, np.arange(4, dtype=np.float32))
    windows = [np.random.default_rng(i).normal(size=(64, 50)).astype(np.float32) for i in range(70)]
    found = lung_head.features(network, iter(windows))  # more than one batch
    assert found.shape == (70, 12)
    with torch.inference_mode():
        logits = network(torch.from_numpy(np.stack(windows))[:, None])
    np.testing.assert_allclose(logits, found @ weight.T + np.arange(4), atol=0.1)
