"""Figures of merit of lung sounds and the pictures of them, against answers known by hand."""

import math

import numpy as np
import pytest
from PIL import Image

from xai_demo.training import metrics, plots
from xai_demo.training.datasets.breathing import (
    BOTH,
    CRACKLE,
    NORMAL,
    WHEEZE,
)
from xai_demo.training.lung import metrics as lung_scores

# Of 10 normal, 4 crackle, 4 wheeze and 2 both; 8, 2, 3 and 1 of them are called right.
COUNTS = np.array(
    [
        [8, 1, 1, 0],
        [1, 2, 1, 0],
        [1, 0, 3, 0],
        [0, 0, 1, 1],
    ],
    dtype=float,
)


def answers(counts=COUNTS, certainty=0.7):
    """Samples whose confusion matrix is `counts`, two of each patient."""
    n = len(counts)
    pairs = [(t, d) for t in range(n) for d in range(n) for _ in range(int(counts[t, d]))]
    targets = np.array([t for t, _ in pairs])
    probabilities = np.full((len(pairs), n), (1 - certainty) / (n - 1))
    probabilities[np.arange(len(pairs)), [d for _, d in pairs]] = certainty
    patients = tuple(f"p{i // 2}" for i in range(len(pairs)))
    return lung_scores.decide(probabilities, targets, patients)


def test_the_challenge_scores_of_four_classes():
    found = lung_scores.challenge_scores(COUNTS)
    sensitivity, specificity = 6 / 10, 8 / 10
    harmonic = 2 * 0.6 * 0.8 / 1.4
    assert found == pytest.approx(
        {
            "sensitivity": sensitivity,
            "specificity": specificity,
            "average_score": 0.7,
            "harmonic_score": harmonic,
            "total_score": (0.7 + harmonic) / 2,
        }
    )


def test_with_two_classes_any_abnormal_answer_to_an_abnormal_sound_is_right():
    merged = lung_scores.two_classes(COUNTS)
    assert merged.tolist() == [[8, 2], [2, 8]]
    found = lung_scores.challenge_scores(merged)
    assert found == pytest.approx(dict.fromkeys(found, 0.8))


def test_poor_quality_is_one_more_class_to_be_called_right():
    counts = np.zeros((5, 5))
    counts[NORMAL, NORMAL] = 3
    counts[NORMAL, 4] = 1
    counts[CRACKLE, CRACKLE] = 1
    counts[4, 4] = 2
    counts[4, NORMAL] = 1
    found = lung_scores.challenge_scores(counts)
    assert found["sensitivity"] == pytest.approx(3 / 4)
    assert found["specificity"] == pytest.approx(3 / 4)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (np.diag([5.0, 0, 0, 0]), (math.nan, 1.0)),
        (np.diag([0.0, 5, 0, 0]), (1.0, math.nan)),
        (np.array([[0.0, 2], [2, 0]]), (0.0, 0.0)),
    ],
)
def test_a_side_that_is_absent_is_not_a_number_and_never_right_is_zero(counts, expected):
    found = lung_scores.challenge_scores(counts)
    assert (found["sensitivity"], found["specificity"]) == pytest.approx(expected, nan_ok=True)
    total = 0.0 if expected == (0.0, 0.0) else math.nan
    assert found["harmonic_score"] == pytest.approx(total, nan_ok=True)
    assert found["total_score"] == pytest.approx(total, nan_ok=True)


def test_the_balanced_accuracy_of_three_classes_leaves_both_out():
    targets = np.array([NORMAL, NORMAL, CRACKLE, WHEEZE, WHEEZE, BOTH])
    decided = np.array([NORMAL, CRACKLE, CRACKLE, NORMAL, WHEEZE, CRACKLE])
    value = lung_scores.balanced_accuracy_of_three(targets, decided, np.ones(6))
    assert value == pytest.approx((1 / 2 + 1 + 1 / 2) / 3)
    weights = np.array([1.0, 0, 1, 0, 0, 9])  # no wheeze was drawn
    assert lung_scores.balanced_accuracy_of_three(targets, decided, weights) == 1.0
    nobody = lung_scores.balanced_accuracy_of_three(targets, decided, np.zeros(6))
    assert math.isnan(nobody)


def test_where_both_is_no_choice_the_next_best_is_taken():
    probabilities = np.array([[0.1, 0.3, 0.1, 0.5], [0.5, 0.1, 0.3, 0.1]])
    found = lung_scores.decide(probabilities, np.array([BOTH, NORMAL]), ("a", "b"))
    assert found.decided.tolist() == [BOTH, NORMAL]
    assert found.decided_of_three.tolist() == [CRACKLE, NORMAL]


def test_decisions_are_relative_to_the_operating_points():
    probabilities = np.array([[0.5, 0.1, 0.3, 0.1]])
    points = np.array([0.6, 0.2, 0.2, 0.2])
    found = lung_scores.decide(probabilities, np.array([WHEEZE]), ("a",), points=points)
    assert found.decided.tolist() == found.decided_of_three.tolist() == [WHEEZE]


def test_all_figures_of_a_known_confusion():
    some = answers()
    found = lung_scores.figures(some, np.ones(20))
    harmonic = 2 * 0.6 * 0.8 / 1.4
    expected = {
        "accuracy": 14 / 20,
        "balanced_accuracy": (0.8 + 0.5 + 0.75 + 0.5) / 4,
        "precision": (8 / 10 + 2 / 3 + 3 / 6 + 1) / 4,
        "f1": (16 / 20 + 4 / 7 + 6 / 10 + 2 / 3) / 4,
        "sensitivity": 0.8,
        "specificity": 0.8,
        "total_score": 0.8,
        "sensitivity_4": 0.6,
        "specificity_4": 0.8,
        "average_score_4": 0.7,
        "harmonic_score_4": harmonic,
        "total_score_4": (0.7 + harmonic) / 2,
        "balanced_accuracy_3": (0.8 + 0.5 + 0.75) / 3,
        "auroc_abnormal": 0.8,  # 64 pairs in order, 32 tied, 4 the other way round
        "ece": 0.0,  # certain by 0.7, right in 14 of 20
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert "icbhi_score" not in found


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr(metrics, "DRAWS", 50)


@pytest.mark.usefixtures("few_draws")
def test_intervals_hold_the_figure_and_are_the_same_for_the_same_seed():
    found = lung_scores.scores(answers(), seed=1)
    assert found == lung_scores.scores(answers(), seed=1)
    assert found != lung_scores.scores(answers(), seed=2)
    for metric in found.values():
        assert metric.low <= metric.value <= metric.high
    assert found["accuracy"].low < found["accuracy"].high


@pytest.mark.usefixtures("few_draws")
def test_the_average_score_is_the_icbhi_score_on_its_official_test_split_alone():
    elsewhere = lung_scores.as_json(answers())["metrics"]
    official = lung_scores.as_json(answers(), is_icbhi_test=True)["metrics"]
    assert "icbhi_score" not in elsewhere
    assert official == elsewhere | {"icbhi_score": elsewhere["average_score_4"]}


@pytest.mark.usefixtures("few_draws")
def test_one_patient_alone_has_no_interval():
    some = answers()
    alone = lung_scores.decide(some.probabilities, some.targets, ("p",) * 20)
    accuracy = lung_scores.scores(alone)["accuracy"]
    assert (accuracy.low, accuracy.value, accuracy.high) == pytest.approx((0.7, 0.7, 0.7))


@pytest.mark.usefixtures("few_draws")
def test_each_class_has_its_own_figures():
    found = lung_scores.class_scores(answers())
    assert list(found) == ["normal", "crackle", "wheeze", "both"]
    crackle = {name: metric.value for name, metric in found["crackle"].items()}
    assert crackle["recall"] == pytest.approx(2 / 4)
    assert crackle["precision"] == pytest.approx(2 / 3)
    assert crackle["f1"] == pytest.approx(4 / 7)


@pytest.mark.usefixtures("few_draws")
def test_the_report_counts_samples_and_patients():
    report = lung_scores.as_json(answers())
    assert (report["n"], report["groups"]) == (20, 10)
    assert report["confusion"]["labels"] == ["normal", "crackle", "wheeze", "both"]
    assert report["confusion"]["counts"] == COUNTS.astype(int).tolist()
    assert report["metrics"]["accuracy"]["value"] == 0.7
    assert set(report["per_class"]["both"]) == {"precision", "recall", "f1", "auroc", "accuracy"}


def test_a_recording_holds_what_its_surest_windows_hold():
    windows = np.array(
        [
            [0.8, 0.2, 0.0, 0.0],
            [0.5, 0.1, 0.0, 0.4],  # a crackle by 0.5, a wheeze by 0.4
            [1.0, 0.0, 0.0, 0.0],
        ]
    )
    found = lung_scores.recording_probabilities(windows, np.array([0, 0, 2]), 3)
    np.testing.assert_allclose(found[0], [0.3, 0.3, 0.2, 0.2])
    np.testing.assert_allclose(found[1:], [[1, 0, 0, 0], [1, 0, 0, 0]])


# Pictures


def test_the_curve_goes_from_corner_to_corner_and_ties_are_one_step():
    scores = np.array([0.9, 0.5, 0.5, 0.1])
    false, true = plots.roc_curve(scores, np.array([True, True, False, False]))
    assert false.tolist() == [0, 0, 0.5, 1]
    assert true.tolist() == [0, 0.5, 1, 1]


def test_confidence_and_accuracy_by_bin():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]])
    confidence, accuracy, count = plots.reliability(probabilities, np.array([0, 1, 1]), bins=4)
    assert count.tolist() == [0, 0, 1, 2]
    np.testing.assert_allclose(confidence, [0, 0, 0.6, 0.85])
    np.testing.assert_allclose(accuracy, [0, 0, 1, 0.5])


def spoken(figure) -> str:
    return " ".join(text.get_text() for axes in figure.axes for text in [axes.title, *axes.texts])


@pytest.fixture
def drawn(monkeypatch):
    """The words of every figure that is saved."""
    from matplotlib.figure import Figure

    words, save = [], Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *a, **k: (words.append(spoken(self)), save(self, *a, **k))
    )
    return words


@pytest.mark.parametrize("normal", [NORMAL, None])
def test_every_picture_is_a_png_that_names_the_model_the_number_and_its_limits(
    tmp_path, drawn, normal
):
    some = answers()
    paths = plots.write_plots(
        tmp_path / "new",
        model="lung-test",
        labels=some.labels,
        predictions=(some.probabilities, some.targets, some.decided),
        normal=normal,
    )
    assert [path.name for path in paths] == ["confusion.png", "reliability.png", "roc.png"]
    for path in paths:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) >= 600
            assert len(set(picture.convert("L").tobytes())) > 10  # something is drawn
    assert len(drawn) == 3
    for words in drawn:
        assert "lung-test, n = 20\nnot a medical device" in words
    assert "8\n80%" in drawn[0]


def test_a_class_that_nobody_has_gets_no_curve_and_no_complaint(tmp_path):
    some = answers(np.diag([3.0, 2.0, 0.0, 0.0]))
    alone = some.targets == NORMAL
    plots.write_plots(
        tmp_path,
        model="lung-test",
        labels=some.labels,
        predictions=(some.probabilities[alone], some.targets[alone], some.decided[alone]),
        normal=NORMAL,
    )
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_drawing_leaves_no_figure_behind(tmp_path):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    plots.draw_roc_curves(
        tmp_path / "a.png",
        {"x": (np.array([0.1, 0.9]), np.array([False, True]))},
        heading="lung-test, n = 2",
    )
    assert pyplot.get_fignums() == before


def test_a_sound_is_found_if_the_decision_contains_it():
    targets = np.array([CRACKLE, CRACKLE, CRACKLE, NORMAL, NORMAL, WHEEZE])
    decided = np.array([CRACKLE, BOTH, WHEEZE, NORMAL, BOTH, BOTH])
    given = lung_scores.decide(np.eye(4)[decided], targets, tuple("abcdef"))
    names = ["Fine", "Fine", "Coarse", "Normal", "Normal", "Wheezing"]
    table = lung_scores.found_by_detail(given, names)
    assert {name: (row["n"], row["found"]["value"]) for name, row in table.items()} == {
        "Coarse": (1, 0.0),
        "Fine": (2, 1.0),
        "Normal": (2, 0.5),
        "Wheezing": (1, 1.0),
    }


def test_every_device_is_judged_by_its_own_samples():
    targets = np.array([NORMAL, CRACKLE, NORMAL, WHEEZE, NORMAL])
    normal = np.array([0.9, 0.2, 0.3, 0.8, 0.5])
    rows = np.column_stack([normal, 1 - normal, 0 * normal, 0 * normal])
    given = lung_scores.decide(rows, targets, tuple("aabbc"))
    table = lung_scores.abnormal_by_device(given, ["good", "good", "bad", "bad", "alone"])
    assert {name: row["auroc_abnormal"]["value"] for name, row in table.items()} == {
        "alone": None,  # no abnormal sample: nothing to tell apart
        "bad": 0.0,
        "good": 1.0,
    }
    assert table["bad"] | {"auroc_abnormal": 0} == {
        "n": 2,
        "groups": 1,
        "abnormal": 1,
        "auroc_abnormal": 0,
    }
