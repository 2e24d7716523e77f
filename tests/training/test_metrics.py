"""Figures of merit, against answers known by hand and against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn import metrics as reference

from xai_demo.training import metrics

ONES = np.ones(4)


def area(scores, positive, weights=None):
    scores = np.array(scores, dtype=float)
    return metrics.auroc(
        scores, np.array(positive, dtype=bool), np.ones(len(scores)) if weights is None else weights
    )


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 0.0),
        ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1], 0.5),  # all tied: a coin
        ([0.1, 0.4, 0.3, 0.8], [0, 0, 1, 1], 0.75),  # three of four pairs in order
        ([0.3, 0.3, 0.8], [0, 1, 1], 0.75),  # one pair in order, one tied
    ],
)
def test_auroc_counts_the_pairs_in_order_and_half_of_the_tied(scores, positive, expected):
    assert area(scores, positive) == pytest.approx(expected)


def test_auroc_of_one_class_alone_is_not_a_number():
    assert math.isnan(area([0.1, 0.9], [1, 1]))
    assert math.isnan(area([0.1, 0.9], [0, 0]))


def test_a_weight_is_a_repeat():
    scores, positive = [0.1, 0.4, 0.3, 0.8], [0, 0, 1, 1]
    repeated = area([*scores, 0.4, 0.4, 0.3], [*positive, 0, 0, 1])
    assert area(scores, positive, np.array([1.0, 3.0, 2.0, 1.0])) == pytest.approx(repeated)
    assert area(scores, positive, np.array([1.0, 0.0, 1.0, 1.0])) == 1.0  # never drawn


def random_predictions(n=200, labels=3, seed=1):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(labels), size=n).round(2) + 1e-3  # some ties
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    targets = rng.integers(labels, size=n)
    return probabilities, targets, probabilities.argmax(axis=1), rng.integers(0, 4, n).astype(float)


def test_the_summary_is_that_of_scikit_learn():
    probabilities, targets, decisions, weights = random_predictions()
    found = metrics.summary(probabilities, targets, decisions, weights, normal=0)
    about = {"sample_weight": weights}
    macro = about | {"average": "macro"}
    expected = {
        "accuracy": reference.accuracy_score(targets, decisions, **about),
        "balanced_accuracy": reference.balanced_accuracy_score(targets, decisions, **about),
        "precision": reference.precision_score(targets, decisions, **macro),
        "recall": reference.recall_score(targets, decisions, **macro),
        "f1": reference.f1_score(targets, decisions, **macro),
        "auroc": np.mean(
            [reference.roc_auc_score(targets == k, probabilities[:, k], **about) for k in range(3)]
        ),
        "auroc_abnormal": reference.roc_auc_score(targets != 0, 1 - probabilities[:, 0], **about),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_the_figures_of_each_label_are_those_of_scikit_learn():
    probabilities, targets, decisions, weights = random_predictions(seed=2)
    found = metrics.per_class(probabilities, targets, decisions, weights)
    expected = reference.precision_recall_fscore_support(targets, decisions, sample_weight=weights)
    for k in range(3):
        assert found[k]["precision"] == pytest.approx(expected[0][k])
        assert found[k]["recall"] == pytest.approx(expected[1][k])
        assert found[k]["f1"] == pytest.approx(expected[2][k])
        assert found[k]["auroc"] == pytest.approx(
            reference.roc_auc_score(targets == k, probabilities[:, k], sample_weight=weights)
        )
        right = reference.accuracy_score(targets == k, decisions == k, sample_weight=weights)
        assert found[k]["accuracy"] == pytest.approx(right)


def test_confusion_has_a_row_per_true_label_and_a_column_per_decision():
    targets, decisions = np.array([0, 0, 1, 2]), np.array([0, 1, 1, 0])
    counts = metrics.confusion(targets, decisions, np.array([1.0, 2.0, 3.0, 4.0]), 3)
    assert counts.tolist() == [[1, 2, 0], [0, 3, 0], [4, 0, 0]]


def test_four_right_of_five_at_a_confidence_of_four_fifths_is_perfect_calibration():
    probabilities = np.tile([0.8, 0.2], (5, 1))
    targets = np.array([0, 0, 0, 0, 1])
    error = metrics.expected_calibration_error(probabilities, targets, np.ones(5))
    assert error == pytest.approx(0, abs=1e-12)


def test_certainty_that_is_right_half_of_the_time_has_an_error_of_one_half():
    probabilities = np.tile([1.0, 0.0], (4, 1))
    targets = np.array([0, 0, 1, 1])
    assert metrics.expected_calibration_error(probabilities, targets, ONES) == pytest.approx(0.5)


def test_overconfidence_and_underconfidence_do_not_cancel():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4]])
    targets = np.array([1, 0])  # wrong at 0.9, right at 0.6
    error = metrics.expected_calibration_error(probabilities, targets, np.ones(2))
    assert error == pytest.approx((0.9 + 0.4) / 2)


def test_the_scores_of_abnormal_versus_normal_are_known_by_hand():
    # 4 normal, 3 of them called normal; 5 crackles: 2 called crackle, 1 wheeze, 2 normal;
    # 1 wheeze called crackle.
    targets = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 2])
    decisions = np.array([0, 0, 0, 1, 1, 1, 2, 0, 0, 1])
    found = metrics.summary(np.eye(3)[decisions], targets, decisions, np.ones(10), normal=0)
    sensitivity, specificity = 4 / 6, 3 / 4  # a wheeze called crackle is still found
    average = (sensitivity + specificity) / 2
    harmonic = 2 * sensitivity * specificity / (sensitivity + specificity)
    assert found["sensitivity"] == pytest.approx(sensitivity)
    assert found["specificity"] == pytest.approx(specificity)
    assert found["average_score"] == pytest.approx(average)
    assert found["harmonic_score"] == pytest.approx(harmonic)
    assert found["total_score"] == pytest.approx((average + harmonic) / 2)
    assert found["accuracy"] == pytest.approx(5 / 10)
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 2 / 5 + 0) / 3)


def test_without_a_normal_label_there_are_no_abnormal_figures():
    probabilities, targets, decisions, weights = random_predictions()
    found = metrics.summary(probabilities, targets, decisions, weights, normal=None)
    assert set(found) == {
        "accuracy",
        "balanced_accuracy",
        "precision",
        "recall",
        "f1",
        "auroc",
        "ece",
    }


def accuracy_figure(right):
    return lambda weights: {"share": float((weights * right).sum() / weights.sum())}


def test_the_interval_contains_the_value_and_shrinks_with_more_groups():
    widths = []
    for n in (20, 80, 320):
        right = (np.arange(n) % 4 > 0).astype(float)
        found = metrics.with_intervals(accuracy_figure(right), [f"person{i}" for i in range(n)])
        share = found["share"]
        assert share.value == 0.75
        assert share.low < share.value < share.high
        expected = 2 * 1.96 * math.sqrt(0.75 * 0.25 / n)
        assert share.high - share.low == pytest.approx(expected, rel=0.2)
        widths.append(share.high - share.low)
    assert widths == sorted(widths, reverse=True)


def test_a_bootstrap_draw_takes_whole_patients():
    groups = ["a", "b", "a", "c", "a", "b"]
    seen = []

    def figures(weights):
        seen.append(weights.tolist())
        return {"n": 1.0}

    metrics.with_intervals(figures, groups)
    assert seen[0] == [1] * 6  # the figure itself
    assert len(seen) == 1 + metrics.DRAWS
    for a, b, again, c, third, other in seen:
        assert a == again == third
        assert b == other
        assert a + b + c == 3
    assert len({tuple(weights) for weights in seen}) == 10  # all ways to draw 3 of 3


def test_the_same_seed_gives_the_same_interval():
    right = np.arange(30) % 3 > 0
    groups = [str(i // 2) for i in range(30)]
    first, again = (metrics.with_intervals(accuracy_figure(right), groups) for _ in range(2))
    other = metrics.with_intervals(accuracy_figure(right), groups, seed=1)
    assert first == again
    assert first != other


def test_a_figure_that_is_not_defined_is_null():
    metric = metrics.Metric(value=0.123456, low=float("nan"), high=1.0)
    assert metrics.as_json({"auroc": metric}) == {
        "auroc": {"value": 0.1235, "low": None, "high": 1.0}
    }
