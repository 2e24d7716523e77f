"""Independent labels: operating points, calibration and figures, known by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.support.small_models import model_of
from xai_demo import decision
from xai_demo.training import findings, plots

MODEL = dataclasses.replace(
    model_of("resnet18", labels=("Mass", "Edema"), normal_label=None, activation="sigmoid"),
    operating_points={"Mass": 0.5, "Edema": 0.25},
)
P = np.array([[0.9, 0.3], [0.6, 0.1], [0.4, 0.2], [0.1, 0.8]])
TARGETS = np.array([[1, 0], [0, 0], [1, 0], [0, 1]])
ONES = np.ones(4)


def test_a_label_is_found_from_its_own_operating_point_on():
    assert findings.decide(MODEL, P).tolist() == [[1, 1], [1, 0], [0, 0], [0, 1]]
    assert findings.decide(MODEL, np.array([[0.5, 0.25]])).tolist() == [[1, 1]]


def test_figures_of_each_label_are_those_counted_by_hand():
    by_figure = findings.per_label(P, TARGETS, findings.decide(MODEL, P), ONES)
    assert by_figure["accuracy"].tolist() == [0.5, 0.75]
    assert by_figure["precision"].tolist() == [0.5, 0.5]
    assert by_figure["recall"].tolist() == [0.5, 1.0]
    assert by_figure["specificity"].tolist() == pytest.approx([0.5, 2 / 3])
    assert by_figure["f1"].tolist() == pytest.approx([0.5, 2 / 3])
    assert by_figure["auroc"].tolist() == [0.75, 1.0]


def test_a_sample_of_weight_two_counts_as_two():
    decisions = findings.decide(MODEL, P)
    twice = findings.per_label(P[[0, 0, 1, 2, 3]], TARGETS[[0, 0, 1, 2, 3]],
                               decisions[[0, 0, 1, 2, 3]], np.ones(5))  # fmt: skip
    weighted = findings.per_label(P, TARGETS, decisions, np.array([2.0, 1, 1, 1]))
    for name, values in twice.items():
        np.testing.assert_allclose(values, weighted[name])


def test_a_label_without_samples_is_left_out_of_the_means():
    targets = TARGETS.copy()
    targets[:, 1] = 0
    decisions = findings.decide(MODEL, P)
    by_figure = findings.per_label(P, targets, decisions, ONES)
    assert np.isnan(by_figure["auroc"][1])
    assert np.isnan(by_figure["recall"][1])
    found = findings.summary(P, targets, decisions, ONES)
    assert found["auroc"] == 0.75
    assert found["f1"] == 0.5
    assert found["sensitivity"] == found["recall"]


def test_the_calibration_error_is_the_gap_of_probability_and_frequency():
    p = np.full((10, 1), 0.7)
    targets = np.array([[1]] * 5 + [[0]] * 5)
    assert findings.calibration_error(p, targets, np.ones(10)) == pytest.approx(0.2)


def overconfident_logits(n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits twice too large and then one too high, and labels drawn from the right ones."""
    rng = np.random.default_rng(0)
    right = rng.normal((-2, 0), 1.5, (n, 2))
    targets = (rng.random((n, 2)) < findings.sigmoid(right)).astype(np.int64)
    return 2 * right + 1, targets


def test_calibration_undoes_a_factor_and_a_shift():
    logits, targets = overconfident_logits()
    calibration = findings.fit_calibration(logits, targets, targets.mean(axis=0))
    assert calibration.temperature == pytest.approx(2, rel=0.1)
    assert calibration.shifts.tolist() == pytest.approx([-1, -1], abs=0.25)
    p = calibration.probabilities(logits)
    assert p.mean(axis=0).tolist() == pytest.approx(targets.mean(axis=0).tolist(), abs=1e-3)
    assert findings.calibration_error(p, targets, np.ones(len(p))) < 0.03


def test_an_operating_point_follows_youden_where_there_are_many_and_the_rate_where_there_are_few():
    p = np.concatenate([np.full(200, 0.6), np.full(200, 0.2)])[:, None]
    many = np.repeat([1, 0], 200)[:, None]
    (point,) = findings.operating_points(p, many, np.array([0.5]))
    assert 0.38 < point < 0.45
    none = np.zeros((400, 1), np.int64)
    assert findings.operating_points(p, none, np.array([0.03])).tolist() == [0.03]


def test_a_calibrated_model_names_its_points_and_the_shifts_go_to_the_last_layer():
    logits, targets = overconfident_logits()
    model, shifts = findings.calibrate_model(MODEL, logits, targets, targets.mean(axis=0))
    assert set(model.operating_points) == set(MODEL.labels)
    assert shifts.shape == (2,)
    p = findings.sigmoid((logits + shifts) / model.temperature)
    assert p.mean(axis=0).tolist() == pytest.approx(targets.mean(axis=0).tolist(), abs=1e-2)


def test_an_evaluation_has_intervals_over_patients_and_two_by_two_counts():
    decisions = findings.decide(MODEL, P)
    found = findings.figures(P, TARGETS, decisions, ["a", "a", "b", "c"], MODEL)
    assert set(found) == {"metrics", "per_class", "confusion"}
    assert found["confusion"] == {
        "labels": ["Mass", "Edema"],
        "counts": [[[1, 1], [1, 1]], [[2, 1], [0, 1]]],
    }
    assert found["per_class"]["Mass"]["recall"]["value"] == 0.5
    for row in found["metrics"].values():
        assert row["low"] <= row["value"] <= row["high"]


def test_plots_are_drawn_for_independent_labels(tmp_path):
    decisions = findings.decide(MODEL, P)
    paths = plots.write_plots(
        tmp_path, model="m", labels=MODEL.labels, predictions=(P, TARGETS, decisions), normal=None
    )
    assert [path.name for path in paths] == ["confusion.png", "reliability.png", "roc.png"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths)


def test_nothing_is_listed_where_the_probability_of_any_label_is_too_low():
    gated = dataclasses.replace(MODEL, any_label_point=0.7)
    # 1 - 0.1 * 0.7, 1 - 0.4 * 0.9, 1 - 0.6 * 0.8 and 1 - 0.9 * 0.2
    assert findings.decide(gated, P).tolist() == [[1, 1], [0, 0], [0, 0], [0, 1]]
    for row, listed in zip(P, findings.decide(gated, P), strict=True):
        labels = [k for k in range(2) if listed[k]]
        assert sorted(decision.findings(gated, row)) == labels
    assert decision.decide(gated, P[1]).kind == "nothing found"
    assert "is 0.64, below 0.70" in decision.decide(gated, P[1]).reason


def test_the_point_of_any_label_leaves_as_many_false_alarms_as_are_allowed():
    rng = np.random.default_rng(0)
    p = np.vstack([rng.random((200, 2)) * 0.5, 0.5 + 0.5 * rng.random((50, 2))])
    targets = np.vstack([np.zeros((200, 2)), np.ones((50, 2))]).astype(np.int64)
    for most in (0.0, 0.05, 0.3):
        point = findings.point_of_any_label(p, targets, most)
        reaching = (1 - np.prod(1 - p[:200], axis=1) >= point).mean()
        assert most - 0.006 <= reaching <= most
    assert findings.point_of_any_label(p[200:], targets[200:], 0.05) is None


def test_a_calibration_with_a_limit_lists_few_labels_where_there_are_none():
    logits, targets = overconfident_logits()
    rates = targets.mean(axis=0)
    without = ~targets.any(axis=1)
    shares = {}
    for most in (None, 0.1):
        model, shifts = findings.calibrate_model(MODEL, logits, targets, rates, most=most)
        p = findings.sigmoid((logits + shifts) / model.temperature)
        listed = findings.decide(model, p)
        shares[most] = listed[without].any(axis=1).mean()
        summary = findings.summary(p, targets, listed, np.ones(len(p)))
        assert summary["samples_with_findings"] == pytest.approx(listed.any(axis=1).mean())
        assert summary["findings_per_sample"] == pytest.approx(listed.sum(axis=1).mean())
        present = listed[targets.astype(bool)].mean()
        assert summary["present_findings_listed"] == pytest.approx(present)
    assert shares[0.1] <= 0.1 < shares[None]


def test_operating_points_are_lowered_until_enough_of_the_labels_present_is_listed():
    logits, targets = overconfident_logits()
    rates = targets.mean(axis=0)
    shares, alarms = [], []
    for listed in (0.0, 0.7):
        model, shifts = findings.calibrate_model(
            MODEL, logits, targets, rates, most=0.4, listed=listed
        )
        p = findings.sigmoid((logits + shifts) / model.temperature)
        decisions = findings.decide(model, p)
        shares.append(decisions[targets.astype(bool)].mean())
        alarms.append(decisions[~targets.any(axis=1)].any(axis=1).mean())
    assert shares[0] < 0.7 <= shares[1] < 0.8
    # The point of any label still holds.
    assert max(alarms) <= 0.4
