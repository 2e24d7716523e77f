"""Events on the timeline against annotated ones, in seconds."""

from __future__ import annotations

import pytest

from xai_demo.records import Event
from xai_demo.training.datasets.breathing import (
    BOTH,
    CRACKLE,
    NORMAL,
    WHEEZE,
    Annotation,
)
from xai_demo.training.lung import metrics


def event(label: str, start_s: float, end_s: float) -> Event:
    return Event(label=label, start_s=start_s, end_s=end_s, probability=0.9)


def truth(kind: int, start_s: float, end_s: float) -> Annotation:
    return Annotation(start_s=start_s, end_s=end_s, kind=kind)


def test_seconds_are_counted_for_crackles_and_wheezes_each():
    row = metrics.agreement(
        [event("both", 1, 3), event("wheeze", 5, 6)],
        [truth(CRACKLE, 2, 4), truth(NORMAL, 5, 6), truth(BOTH, 8, 9)],
        duration_s=10,
    )
    assert row.duration_s == pytest.approx(10)
    assert row.detected_s == pytest.approx(5)  # two of crackle, two and one of wheeze
    assert row.annotated_s == pytest.approx(4)
    assert row.agreed_s == pytest.approx(1)
    assert row.any_detected_s == pytest.approx(3)
    assert row.is_hit


def test_overlapping_events_count_once_and_none_beyond_the_end():
    row = metrics.agreement([event("crackle", 0, 2), event("crackle", 1, 12)], [], duration_s=10)
    assert row.detected_s == pytest.approx(10)
    assert not row.is_hit


def test_the_figures_of_several_recordings():
    rows = [
        metrics.agreement([event("wheeze", 0, 2)], [truth(WHEEZE, 1, 4)], duration_s=10),
        metrics.agreement([event("crackle", 0, 1)], [truth(WHEEZE, 0, 1)], duration_s=10),
        metrics.agreement([event("crackle", 0, 3)], [truth(NORMAL, 0, 3)], duration_s=10),
        metrics.agreement([], [truth(NORMAL, 0, 3)], duration_s=20),
    ]
    found = metrics.agreement_as_json(rows, ["a", "b", "c", "d"])
    assert (found["n"], found["normal"]) == (4, 2)
    values = {name: row["value"] for name, row in found["metrics"].items()}
    assert values == {
        "time_precision": pytest.approx(1 / 6, abs=1e-4),
        "time_recall": pytest.approx(1 / 4, abs=1e-4),
        "time_f1": pytest.approx(2 / 10, abs=1e-4),
        "abnormal_recordings_found": 0.5,
        "normal_recordings_with_events": 0.5,
        "false_seconds_per_minute": pytest.approx(6.0, abs=1e-4),
    }
    for row in found["metrics"].values():
        assert row["low"] <= row["value"] <= row["high"]
