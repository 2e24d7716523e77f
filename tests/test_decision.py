import dataclasses

import numpy as np
import pytest

from tests.support.small_models import model_of
from xai_demo.decision import (
    decide,
    decided_label_index,
    findings,
    operating_point_ratios,
    pool_windows,
)

THREE = model_of("resnet18")
TWO = dataclasses.replace(
    THREE,
    labels=("Normal", "Pneumonia"),
    normal_label="Normal",
    operating_points={"Pneumonia": 0.3, "Normal": 0.7},
    uncertain_margin=0.05,
)


def test_without_operating_points_the_most_probable_label_wins():
    assert decided_label_index(THREE, [0.2, 0.5, 0.3]) == 1


@pytest.mark.parametrize(("p", "index"), [(0.29, 0), (0.31, 1), (0.9, 1)])
def test_an_operating_point_decides_between_two(p, index):
    assert decided_label_index(TWO, [1 - p, p]) == index


def test_standing_weighs_each_label_against_its_point():
    assert operating_point_ratios(TWO, [0.7, 0.3]) == pytest.approx([0.5, 0.5])
    assert operating_point_ratios(THREE, [0.2, 0.5, 0.3]) == pytest.approx([0.2, 0.5, 0.3])


def test_two_labels_too_close_to_call_are_uncertain_and_named():
    answer = decide(TWO, [0.69, 0.31])
    assert answer.label is None
    assert "Pneumonia (0.31) and Normal (0.69)" in answer.reason


def test_far_from_the_operating_point_is_answered():
    assert decide(TWO, [0.6, 0.4]).label == "Pneumonia"
    assert decide(TWO, [0.9, 0.1]).label == "Normal"


def test_a_low_top_probability_is_uncertain():
    doubtful = dataclasses.replace(THREE, uncertain_below=0.5)
    assert decide(doubtful, [0.4, 0.3, 0.3]).label is None
    assert decide(doubtful, [0.6, 0.2, 0.2]).label == "normal"


def test_the_windows_of_a_recording_are_pooled_by_their_mean():
    windows = np.array([[0.8, 0.2, 0], [0.2, 0.8, 0]], np.float32)
    assert pool_windows(THREE, windows) == pytest.approx([0.5, 0.5, 0], abs=1e-5)
    windows = np.array([[0.9, 0.1, 0], [0.5, 0.5, 0]], np.float32)
    assert pool_windows(THREE, windows) == pytest.approx([0.7, 0.3, 0], abs=1e-5)


def test_pooled_answers_have_points_and_a_margin_of_their_own():
    pooling = dataclasses.replace(
        THREE,
        operating_points={"normal": 0.5, "crackle": 0.5, "wheeze": 0.5},
        recording_points={"normal": 0.8, "crackle": 0.2, "wheeze": 0.2},
        uncertain_margin=0.0,
        recording_margin=0.2,
    )
    assert decide(pooling, [0.6, 0.4, 0.0]).label == "normal"
    assert decide(pooling, [0.6, 0.4, 0.0], pooled=True).label == "crackle"
    assert decide(pooling, [0.8, 0.2, 0.0], pooled=True).label is None  # equally far above
    without = dataclasses.replace(pooling, recording_points={}, recording_margin=None)
    assert decide(without, [0.6, 0.4, 0.0], pooled=True).label == "normal"


def test_one_window_speaks_for_itself():
    assert pool_windows(THREE, np.array([[0.2, 0.5, 0.3]])) == pytest.approx([0.2, 0.5, 0.3])


def test_independent_labels_take_their_loudest_window():
    tags = dataclasses.replace(THREE, activation="sigmoid", normal_label=None)
    windows = np.array([[0.9, 0.1, 0.2], [0.1, 0.9, 0.3]], np.float32)
    assert pool_windows(tags, windows) == pytest.approx([0.9, 0.9, 0.3])


def test_exclusive_labels_without_a_normal_one_are_averaged():
    sounds = dataclasses.replace(THREE, normal_label=None)
    windows = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    assert pool_windows(sounds, windows) == pytest.approx([0.5, 0.5, 0])


FINDINGS = dataclasses.replace(
    THREE,
    labels=("Mass", "Nodule", "Effusion"),
    activation="sigmoid",
    normal_label=None,
    operating_points={"Mass": 0.1, "Nodule": 0.2, "Effusion": 0.5},
    uncertain_margin=0.4,
)


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ([0.09, 0.19, 0.49], ()),
        ([0.1, 0.19, 0.49], (0,)),
        ([0.11, 0.8, 0.6], (1, 2, 0)),  # 4, 1.2 and 1.1 times their points
        ([1.0, 1.0, 1.0], (0, 1, 2)),
    ],
)
def test_findings_are_at_their_operating_points_the_furthest_above_first(probabilities, expected):
    assert findings(FINDINGS, probabilities) == expected


def test_exclusive_labels_and_labels_without_points_are_no_findings():
    assert findings(TWO, [0.1, 0.9]) == ()
    assert findings(dataclasses.replace(FINDINGS, operating_points={}), [1, 1, 1]) == ()


def test_the_answer_of_findings_is_the_one_furthest_above_and_names_all():
    answer = decide(FINDINGS, [0.11, 0.8, 0.6])
    assert (answer.label, answer.kind) == ("Nodule", "answer")
    assert answer.findings == ("Nodule", "Effusion", "Mass")
    assert "3 of 3 labels reach" in answer.reason


def test_no_finding_is_an_answer_of_its_own_and_names_the_nearest():
    answer = decide(FINDINGS, [0.02, 0.15, 0.3])
    assert (answer.label, answer.kind, answer.findings) == (None, "nothing found", ())
    assert "nearest is Nodule at 0.15, whose point is 0.20" in answer.reason


def test_independent_labels_are_averaged_over_windows_before_their_maximum_counts():
    sounds = dataclasses.replace(THREE, activation="sigmoid", operating_points={})
    rows = np.array([[0.9, 0, 0.2], [0.1, 0, 0.2], [0.1, 0.6, 0.2], [0.3, 0.8, 0.2]], np.float32)
    assert pool_windows(sounds, rows) == pytest.approx([0.9, 0.8, 0.2])
    pairs = dataclasses.replace(sounds, averaged_windows=2)
    assert pool_windows(pairs, rows) == pytest.approx([0.5, 0.7, 0.2])
    # A recording of fewer windows: the mean of all of them.
    many = dataclasses.replace(sounds, averaged_windows=20)
    assert pool_windows(many, rows) == pytest.approx([0.35, 0.35, 0.2])
    assert pool_windows(many, rows[:1]) == pytest.approx(rows[0])
