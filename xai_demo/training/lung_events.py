"""How far the events on the timeline of a recording agree with the annotated ones. Pure.

In time: an event of some seconds that covers a short one is right for its length alone. Crackles
and wheezes are counted each for themselves, and what is both counts as both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.training import metrics
from xai_demo.training.breathing import BOTH, CRACKLE, LABELS, WHEEZE
from xai_demo.training.lung_scores import share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from xai_demo.records import Event
    from xai_demo.training.breathing import Annotated
    from xai_demo.training.metrics import Array

_STEP_S = 0.01
_KINDS = ((CRACKLE, BOTH), (WHEEZE, BOTH))


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Seconds of one recording, crackles and wheezes added up."""

    lasts_s: float  # the recording
    agreed_s: float  # found and annotated
    found_s: float
    annotated_s: float
    anything_s: float  # found, of whatever kind
    agrees: bool  # some of what is annotated was found


def agreement(
    events: Iterable[Event], annotated: Iterable[Annotated], *, duration_s: float
) -> Agreement:
    """Of one recording; labels are those of `breathing`."""
    steps = max(1, round(duration_s / _STEP_S))
    found = _sounding(((e.start_s, e.end_s, LABELS.index(e.label)) for e in events), steps)
    truth = _sounding(((a.start_s, a.end_s, a.kind) for a in annotated), steps)
    both = found & truth
    return Agreement(
        lasts_s=steps * _STEP_S,
        agreed_s=float(both.sum()) * _STEP_S,
        found_s=float(found.sum()) * _STEP_S,
        annotated_s=float(truth.sum()) * _STEP_S,
        anything_s=float(found.any(axis=0).sum()) * _STEP_S,
        agrees=bool(both.any()),
    )


def as_json(rows: Sequence[Agreement], patients: Sequence[str]) -> dict[str, Any]:
    """Figures with 95 % intervals over bootstrap draws of patients."""
    calm = np.array([not row.annotated_s for row in rows])

    def column(name: str) -> Array:
        return np.array([getattr(row, name) for row in rows], np.float64)

    def figures(weights: Array) -> dict[str, float]:
        agreed, found, truth = (
            float(weights @ column(name)) for name in ("agreed_s", "found_s", "annotated_s")
        )
        quiet, loud = weights * calm, weights * ~calm
        anything = column("anything_s")
        return {
            "time_precision": share(agreed, found),
            "time_recall": share(agreed, truth),
            "time_f1": share(2 * agreed, found + truth),
            "abnormal_recordings_found": share(loud @ column("agrees"), loud.sum()),
            "normal_recordings_with_events": share(quiet @ (anything > 0), quiet.sum()),
            "false_seconds_per_minute": 60 * share(quiet @ anything, quiet @ column("lasts_s")),
        }

    return {
        "n": len(rows),
        "normal": int(calm.sum()),
        "metrics": metrics.as_json(metrics.with_intervals(figures, tuple(patients))),
    }


def _sounding(spans: Iterable[tuple[float, float, int]], steps: int) -> NDArray[np.bool_]:
    """When crackles and when wheezes sound, (2, steps)."""
    heard = np.zeros((len(_KINDS), steps), np.bool_)
    for start_s, end_s, kind in spans:
        span = slice(round(start_s / _STEP_S), round(end_s / _STEP_S))
        for row, kinds in enumerate(_KINDS):
            heard[row, span] |= kind in kinds
    return heard
