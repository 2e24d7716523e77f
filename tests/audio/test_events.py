"""What overlapping windows say of a moment, and the events that come of it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.support.small_models import model_of
from xai_demo.analysis import inference, inputs
from xai_demo.audio import events
from xai_demo.records import Recording
from xai_demo.training import calibration
from xai_demo.training.datasets import RecordingPredictions

PLAIN = model_of("cnn14")
MODEL = dataclasses.replace(PLAIN, event_points={"crackle": 0.4, "wheeze": 0.6})


def test_a_moment_is_the_mean_of_the_windows_that_hear_it():
    rows = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], np.float32)
    edges, found = events.event_probabilities_over_time([0, 100, 200], [200, 300, 400], rows)
    assert edges.tolist() == [0, 100, 200, 300, 400]
    assert found == pytest.approx(np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]))


def test_a_moment_that_no_window_hears_is_nothing():
    edges, found = events.event_probabilities_over_time(
        [0, 300], [100, 400], np.array([[1.0], [1.0]], np.float32)
    )
    assert edges.tolist() == [0, 100, 300, 400]
    assert found[:, 0].tolist() == [1, 0, 1]


def test_moments_agree_with_a_plain_count_whatever_the_windows():
    rng = np.random.default_rng(0)
    for _ in range(20):
        starts = rng.integers(0, 500, 12)
        ends = starts + rng.integers(1, 300, 12)
        rows = rng.random((12, 3)).astype(np.float32)
        edges, found = events.event_probabilities_over_time(starts.tolist(), ends.tolist(), rows)
        for first, last, row in zip(edges, edges[1:], found, strict=False):
            heard = (starts <= first) & (ends >= last)
            wanted = rows[heard].mean(axis=0) if heard.any() else np.zeros(3)
            assert row == pytest.approx(wanted, abs=1e-5)


def test_events_are_neighbouring_moments_above_the_point_of_their_label():
    rows = np.array(
        [[0.7, 0.3, 0.0], [0.5, 0.4, 0.1], [0.3, 0.7, 0.0], [0.9, 0.1, 0.0], [0.2, 0.1, 0.7]],
        np.float32,
    )
    edges = np.array([0, 100, 200, 300, 400, 550])
    found = events.detect_events(MODEL, edges, rows, seconds_at=seconds)
    assert [(e.label, e.start_s, e.end_s, e.probability) for e in found] == [
        ("crackle", 1, 3, 0.7),
        ("wheeze", 4, 5.5, 0.7),
    ]
    assert events.detect_events(MODEL, edges[:2], rows[:1], seconds_at=seconds) == ()


def seconds(frame: int) -> float:
    return frame / 100


def test_an_event_keeps_the_stretches_with_most_evidence():
    rows = np.array([[0.1, 0.8, 0.1]], np.float32)
    line = np.zeros(400, np.float32)
    line[50:90], line[100:120], line[200:260], line[350:400] = 1.0, 0.5, 0.3, 0.19
    calls = []

    def evidence(label: int, first: int, last: int) -> np.ndarray:
        calls.append((label, first, last))
        return line

    found = events.detect_events(
        MODEL, np.array([100, 500]), rows, seconds_at=seconds, evidence=evidence
    )
    assert calls == [(1, 100, 500)]
    # What is 0.1 s apart is one; what has less than a fifth of the highest is none.
    assert [(e.start_s, e.end_s) for e in found] == [(1.5, 2.2), (3.0, 3.6)]
    assert {e.probability for e in found} == {0.8}
    line[:] = 0
    line[10:20], line[200:205] = 1, 1  # all too short: the longest is kept
    (short,) = events.detect_events(
        MODEL, np.array([100, 500]), rows, seconds_at=seconds, evidence=evidence
    )
    assert (short.start_s, short.end_s) == (1.1, 1.2)
    line[300:330] = 1
    (long,) = events.detect_events(
        MODEL, np.array([100, 500]), rows, seconds_at=seconds, evidence=evidence
    )
    assert (long.start_s, long.end_s) == (4.0, 4.3)
    line[:] = 0
    (whole,) = events.detect_events(
        MODEL, np.array([100, 500]), rows, seconds_at=seconds, evidence=evidence
    )
    assert (whole.start_s, whole.end_s) == (1.0, 5.0)


def test_columns_of_windows_are_stitched_to_a_line_where_the_highest_counts():
    columns = np.array([[0, 1, 0, 0], [0, 0, 0, 2], [9, 9, 9, 9]], np.float32)
    spans = [(0, 200), (100, 300), (600, 800)]
    line = events.evidence_over_time(spans, columns, frames=200, first=50, last=300)
    assert line.shape == (250,)
    assert line[75 - 50] == pytest.approx(1, abs=0.05)  # the middle of the second of four columns
    assert line[275 - 50] == pytest.approx(2, abs=0.05)
    assert line.max() <= 2  # the third window lies elsewhere
    assert line[[150 - 50]] == pytest.approx(0, abs=0.05)


def test_evidence_of_a_head_that_averages_is_what_each_column_adds_to_the_logit():
    torch.manual_seed(0)
    head = torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(5, 3, bias=False)
    )
    maps = torch.rand(2, 5, 4, 7)
    found = inference.column_evidence(head, maps)
    assert found.shape == (2, 3, 7)
    with torch.no_grad():
        added = torch.einsum("kc,ncrt->nkt", head[2].weight, maps) / (4 * 7)
        assert added.sum(2) == pytest.approx(head(maps).numpy(), abs=1e-5)
    assert found == pytest.approx(added.clamp(min=0).numpy(), abs=1e-5)


def test_of_two_labels_above_their_points_the_further_one_is_called():
    rows = np.array([[0.0, 0.45, 0.55], [0.0, 0.38, 0.62]], np.float32)
    assert events.event_labels(MODEL, rows).tolist() == [1, 2]
    assert events.event_labels(PLAIN, rows).tolist() == [-1, -1]  # without points nothing is


def a_sound(seconds: float) -> inputs.PreparedInput:
    noise = np.random.default_rng(0).normal(0, 0.1, round(seconds * 8000)).astype(np.float32)
    made = inputs.prepare(
        MODEL,
        Recording(samples=noise, sample_rate_hz=8000, facts={}),
    )
    return dataclasses.replace(made, doubt="")  # noise is no breath


def test_an_event_that_one_window_alone_hears_is_shorter_than_its_window():
    made = a_sound(6.0)
    rows = np.tile(np.array([[0.9, 0.05, 0.05]], np.float32), (len(made.inputs), 1))
    rows[1:3] = [0.1, 0.8, 0.1]  # heard from 1 to 3 s, and from 2 to 4 s
    (event,) = made.events(MODEL, rows)
    assert (event.label, event.probability) == ("crackle", 0.8)
    assert (event.start_s, event.end_s) == pytest.approx((1.0, 4.0), abs=0.05)
    evidence = np.zeros((len(rows), 3, 20), np.float32)
    evidence[1, 1, 5:8] = 1  # of the window from 1 s on, 0.5 to 0.8 s
    (short,) = made.events(MODEL, rows, None, evidence)
    assert (short.label, short.probability) == ("crackle", 0.8)
    assert (short.start_s, short.end_s) == pytest.approx((1.5, 1.8), abs=0.1)
    rows[2] = rows[0]
    rows[1] = [0.0, 0.75, 0.25]
    points = {"crackle": 0.5, "wheeze": 0.6}
    assert made.events(dataclasses.replace(MODEL, event_points=points), rows) == ()
    (whole,) = made.events(PLAIN, rows)
    assert (whole.start_s, whole.end_s) == pytest.approx((1.0, 3.0), abs=0.05)


def test_a_single_window_is_decided_as_ever():
    made = a_sound(2.0)
    rows = np.array([[0.1, 0.8, 0.1]], np.float32)
    assert made.events(MODEL, rows) == made.events(PLAIN, rows)
    assert len(made.events(MODEL, rows)) == 1


# The points, chosen on validation


def recordings(scores: list[float], sounding_s: list[float]) -> RecordingPredictions:
    """Moments of two seconds, of which the crackle sounds for some."""
    sounding = np.array(sounding_s)
    calm = np.zeros_like(sounding)
    return RecordingPredictions(
        probabilities=np.full((2, 3), 1 / 3),
        targets=np.array([0, 1]),
        moments=np.column_stack([1 - np.array(scores), scores, calm]),
        sounding_s=np.column_stack([2 - sounding, sounding, calm]),
    )


def test_the_point_of_a_label_is_where_its_time_agrees_best():
    scores = [0.9] * 20 + [0.7] * 20 + [0.5] * 20 + [0.1] * 200
    sounding = [2.0] * 20 + [1.5] * 20 + [0.2] * 20 + [0.0] * 200
    found = recordings(scores, sounding)

    def f1(point: float) -> float:
        above = found.moments[:, 1] >= point
        agreed = found.sounding_s[above, 1].sum()
        return 2 * agreed / (2 * above.sum() + found.sounding_s[:, 1].sum())

    points = calibration.event_points(PLAIN, found)
    assert points["crackle"] == 0.7
    assert f1(0.7) == max(f1(point) for point in (0.1, 0.5, 0.7, 0.9))


def test_a_label_that_is_hardly_heard_has_the_largest_point_of_the_others():
    points = calibration.event_points(PLAIN, recordings([0.8] * 20 + [0.1] * 20, [2.0] * 40))
    assert points["wheeze"] == points["crackle"]
    assert set(points) == {"crackle", "wheeze"}  # normal is what is left


def test_without_anything_heard_there_are_no_points():
    assert calibration.event_points(PLAIN, recordings([0.5] * 40, [0.0] * 40)) == {}
