"""Regression on features: learns, folds, weighs, and points."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from xai_demo.training.lung import regression as lung_regression
from xai_demo.training.lung.regression import LocalisedWindows, SourceFeatures, fit_regression


def toy(n=240, weight=1.0, power=1.0, seed=0, kinds=4) -> SourceFeatures:
    """Classes around corners of a square, on scales that differ by a thousand, and a flat one."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % kinds
    corners = np.array([[0, 0], [6, 0], [0, 6], [6, 6]])[labels]
    spread = corners + rng.normal(0, 0.7, (n, 2))
    features = np.column_stack([spread[:, 0] * 100 + 50, spread[:, 1] / 10, np.full(n, 7.0)])
    return SourceFeatures(
        features=features.astype(np.float32),
        kinds=labels,
        groups=tuple(f"p{i // 4}" for i in range(n)),
        weight=weight,
        power=power,
    )


def answers(learnt: SourceFeatures, weight, bias) -> np.ndarray:
    return (learnt.features @ weight.T + bias).argmax(1)


@pytest.fixture
def strong(monkeypatch):
    """A penalty that is too weak to be felt."""
    monkeypatch.setattr(lung_regression, "_RIDGE", 1e-4)


def test_classes_apart_are_learnt_and_the_standardisation_is_folded_in(strong):
    learnt = toy()
    weight, bias = fit_regression([learnt])
    assert (weight.shape, bias.shape) == ((4, 3), (4,))
    assert (answers(learnt, weight, bias) == learnt.kinds).mean() > 0.99
    unseen = toy(seed=1)
    assert (answers(unseen, weight, bias) == unseen.kinds).mean() > 0.99


def test_the_solution_is_that_of_scikit_learn():
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    learnt = toy()
    weight, bias = fit_regression([learnt])
    scaler = StandardScaler().fit(learnt.features)
    model = LogisticRegression(
        C=1 / (lung_regression._RIDGE * len(learnt.kinds)), max_iter=1000, tol=1e-9
    )
    model.fit(scaler.transform(learnt.features), learnt.kinds)
    logits = torch.from_numpy(learnt.features @ weight.T + bias).softmax(1).numpy()
    expected = model.predict_proba(scaler.transform(learnt.features))
    np.testing.assert_allclose(logits, expected, atol=5e-3)


def test_a_start_makes_no_difference_and_the_result_is_always_the_same():
    learnt = toy()
    first, again = fit_regression([learnt]), fit_regression([learnt])
    np.testing.assert_array_equal(first[0], again[0])
    started = fit_regression([learnt], first)
    before, after = (
        torch.from_numpy(learnt.features @ w.T + b).softmax(1) for w, b in (first, started)
    )
    torch.testing.assert_close(before, after, atol=2e-3, rtol=0)


def test_a_class_that_nobody_taught_is_never_answered(strong):
    learnt = toy(kinds=3)
    weight, bias = fit_regression([learnt])
    assert bias[3] == -20
    assert not weight[3].any()
    assert set(answers(learnt, weight, bias)) == {0, 1, 2}


def test_the_weights_of_a_source_sum_up_to_its_own_and_rare_classes_count_more():
    learnt = toy(n=120, weight=0.3, power=0.5).subset(np.r_[0:120:4, 1:40:4])  # 30 and 10
    weights = learnt.weights()
    assert weights.sum() == pytest.approx(0.3)
    shares = np.bincount(learnt.kinds, weights)
    assert shares[0] / shares[1] == pytest.approx((30 / 10) ** 0.5)
    balanced = toy(n=40, power=0.0).subset(np.r_[0:40:4, 1:8:4])
    assert np.bincount(balanced.kinds, balanced.weights()) == pytest.approx([0.5, 0.5])


def test_a_heavier_source_is_followed_where_two_disagree(strong):
    learnt = toy(n=80)
    against = SourceFeatures(
        features=learnt.features,
        kinds=(learnt.kinds + 1) % 4,
        groups=learnt.groups,
        weight=0.1,
        power=1.0,
    )
    weight, bias = fit_regression([learnt, against])
    assert (answers(learnt, weight, bias) == learnt.kinds).mean() > 0.98


def test_a_sample_may_be_half_of_one_kind_and_half_of_another(strong):
    learnt = dataclasses.replace(toy(), labels=np.full((240, 4), 0.25, np.float32))
    weight, bias = fit_regression([learnt])
    logits = torch.from_numpy(learnt.features @ weight.T + bias)
    torch.testing.assert_close(logits.softmax(1), torch.full((240, 4), 0.25), atol=0.01, rtol=0)
    few = learnt.subset(np.arange(3))
    assert few.label_probabilities().tolist() == [[0.25] * 4] * 3
    assert toy().subset(np.arange(2)).label_probabilities().tolist() == [[1, 0, 0, 0], [0, 1, 0, 0]]


def localised(parts: np.ndarray, inside: list[list[int]], kind: int = 1) -> LocalisedWindows:
    return LocalisedWindows(
        contributions=parts.astype(np.float32),
        inside=np.array(inside, bool),
        kinds=np.full(len(parts), kind),
    )


def test_of_two_features_that_tell_as_much_the_one_that_points_is_relied_on():
    kinds = np.arange(80) % 2
    told = kinds * 2.0 - 1
    learnt = SourceFeatures(
        features=np.column_stack([told, told]).astype(np.float32),
        kinds=kinds,
        groups=("p",) * 80,
        weight=1.0,
        power=1.0,
    )
    blind, _ = fit_regression([learnt])
    assert blind[1, 0] == pytest.approx(blind[1, 1], abs=1e-3)
    # In the first column, where the event is, the first feature is heard; the second elsewhere.
    where = localised(np.tile(np.eye(2), (10, 1, 1)), [[1, 0]] * 10)
    weight, bias = fit_regression([learnt], localised=where)
    assert weight[1, 0] > blind[1, 0] + 0.1
    assert weight[1, 1] < blind[1, 1] - 0.1
    assert (answers(learnt, weight, bias) == kinds).all()


def test_what_is_missed_by_pointing_and_its_slope_are_known():
    parts = np.zeros((1, 4, 1))
    parts[0, :2] = 1 / lung_regression._SHARPNESS  # so that the softmax is of 1, 1, 0 and 0
    (task,) = localised(parts, [[1, 0, 0, 0]]).pointing_losses(np.ones(1))
    missed, slope = task(np.ones(1, np.float32))
    assert missed == pytest.approx(-np.log(np.e / (2 * np.e + 2)), rel=1e-5)
    step = 1e-2
    ahead, _ = task(np.full(1, 1 + step, np.float32))
    behind, _ = task(np.full(1, 1 - step, np.float32))
    assert slope[0] == pytest.approx((ahead - behind) / (2 * step), rel=1e-2)


def test_an_event_everywhere_is_not_missed():
    (task,) = localised(
        np.random.default_rng(0).normal(size=(3, 5, 2)), [[1] * 5] * 3
    ).pointing_losses(np.ones(2))
    missed, slope = task(np.ones(2, np.float32))
    assert missed == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(slope, 0, atol=1e-6)


def test_rare_kinds_are_pointed_at_by_the_root_of_their_number():
    both = LocalisedWindows(
        contributions=np.ones((5, 2, 1), np.float32),
        inside=np.ones((5, 2), bool),
        kinds=np.array([1, 1, 1, 1, 2]),
    )
    often, rarely = both.pointing_losses(np.ones(1))
    assert (often.kind, rarely.kind) == (1, 2)
    assert often.shares.sum() / rarely.shares.sum() == pytest.approx(2)
    assert often.shares.sum() + rarely.shares.sum() == pytest.approx(lung_regression._POINTING)


def test_a_kind_that_no_source_teaches_is_not_pointed_at():
    learnt = toy(kinds=3)
    where = localised(np.ones((2, 2, 3)), [[1, 0], [0, 1]], kind=3)
    plain, pointed = fit_regression([learnt]), fit_regression([learnt], localised=where)
    np.testing.assert_array_equal(plain[0], pointed[0])
