"""A picture in cells: hidden, shown and summed cell by cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from xai_demo.explainers.subject import Meter, Subject
    from xai_demo.records import Floats

BATCH = 16  # pictures in one forward pass: a request to stop is heard after each batch
MOST_POOLED = 56 * 56  # cells of a map that was made pixel by pixel


def grid(shape: Sequence[int], most: int) -> tuple[int, int]:
    """Rows and columns of at most `most` cells, about square, of (…, rows, columns)."""
    rows, columns = shape[-2:]
    side = math.sqrt(rows * columns / most)
    n_rows = min(rows, max(1, int(rows / side)))
    return n_rows, min(columns, max(1, most // n_rows))


def masked(window: Floats, keep: Floats, background: float) -> Floats:
    """A window (1, rows, columns) under masks (n, cells, cells): 1 shows, 0 hides."""
    rows, columns = window.shape[-2:]
    row_of = np.arange(rows) * keep.shape[1] // rows
    column_of = np.arange(columns) * keep.shape[2] // columns
    large = keep[:, row_of][:, :, column_of][:, None].astype(np.float32)
    result: Floats = np.float32(background) + large * (window[None] - np.float32(background))
    return result


def answers(subject: Subject, window: Floats, targets: Sequence[int], meter: Meter) -> _Answers:
    """How to ask about one window under masks: (n, cells, cells) -> logits (n, targets)."""
    columns = list(targets)

    def ask(keep: Floats) -> Floats:
        logits = []
        for start in range(0, len(keep), BATCH):
            batch = keep[start : start + BATCH]
            logits.append(subject.forward(masked(window, batch, subject.background))[:, columns])
            meter.spend(len(batch))
        return np.concatenate(logits).astype(np.float32)

    return ask


def pooled(values: Floats, most: int = MOST_POOLED) -> Floats:
    """(…, rows, columns) averaged in at most so many cells: single pixels are noise to the eye."""
    rows, columns = grid(values.shape, most)
    for axis, (n, cells) in enumerate(
        zip(values.shape[-2:], (rows, columns), strict=True), start=-2
    ):
        edges = -(-np.arange(cells) * n // cells)
        shape = [1] * values.ndim
        shape[axis] = cells
        sizes = np.diff([*edges, n]).reshape(shape)
        values = (np.add.reduceat(values, edges, axis=axis) / sizes).astype(np.float32)
    return values


_Answers = Callable[["Floats"], "Floats"]
