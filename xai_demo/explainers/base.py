"""What an explainer is handed: what to explain, and how much that may cost.

A picture in cells: hidden, shown and summed cell by cell.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.errors import CancelledError, UnsuitableError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.records import Floats, Progress


def _ignore_progress(done: float, doing: str) -> None:
    """Nobody asked to be told."""


def _never_cancelled() -> bool:
    return False


def _identity(activations: Tensor) -> Tensor:
    return activations


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Windows of one file, and the network that answered for them."""

    inputs: Floats  # (windows, 1, rows, columns)
    activations: Tensor  # (windows, ...) at the cut
    head: nn.Module  # activations -> logits
    forward: Callable[[Floats], Floats]  # inputs -> logits (windows, labels), on any backend
    network: Callable[[Tensor], Tensor] | None  # the same, differentiable; None without torch
    background: float  # how a hidden pixel looks to the network
    # Activations, or their gradients, laid out as (windows, channels, rows, columns).
    maps: Callable[[Tensor], Tensor] = _identity

    def differentiable(self) -> Callable[[Tensor], Tensor]:
        """The whole network; raises UnsuitableError where there is none in torch."""
        if self.network is None:
            raise UnsuitableError(
                "This explainer needs the whole network in torch, which this backend does not "
                "have, wanted: the backend torch, or another explainer."
            )
        return self.network


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What an explanation may cost, who is told how far it is, and who may stop it."""

    passes: int | None = None  # forward passes per window; None: as many as the table says
    progress: Progress = _ignore_progress
    cancelled: Callable[[], bool] = _never_cancelled


class Meter:
    """Counts forward passes against a budget: tells the progress, and stops when asked to."""

    def __init__(self, budget: Budget, total: int) -> None:
        self._budget = budget
        self._total = max(total, 1)
        self._spent = 0
        self.check()

    def check(self) -> None:
        """Raise CancelledError if somebody asked to stop."""
        if self._budget.cancelled():
            raise CancelledError(
                f"Cancelled after {self._spent} of {self._total} forward passes, as asked."
            )

    def spend(self, passes: int) -> None:
        """So many more passes are done."""
        self._spent = min(self._spent + passes, self._total)
        self._budget.progress(
            self._spent / self._total, f"Forward pass {self._spent} of {self._total}"
        )
        self.check()


BATCH_SIZE = 16  # pictures in one forward pass: a request to stop is heard after each batch
MAX_POOLED_CELLS = 56 * 56  # cells of a map that was made pixel by pixel


def grid_size(shape: Sequence[int], most: int) -> tuple[int, int]:
    """Rows and columns of at most `most` cells, about square, of (…, rows, columns)."""
    rows, columns = shape[-2:]
    side = math.sqrt(rows * columns / most)
    n_rows = min(rows, max(1, int(rows / side)))
    return n_rows, min(columns, max(1, most // n_rows))


def apply_masks(window: Floats, keep: Floats, background: float) -> Floats:
    """A window (1, rows, columns) under masks (n, cells, cells): 1 shows, 0 hides."""
    rows, columns = window.shape[-2:]
    row_of = np.arange(rows) * keep.shape[1] // rows
    column_of = np.arange(columns) * keep.shape[2] // columns
    large = keep[:, row_of][:, :, column_of][:, None].astype(np.float32)
    result: Floats = np.float32(background) + large * (window[None] - np.float32(background))
    return result


def masked_forward(
    subject: Subject, window: Floats, targets: Sequence[int], meter: Meter
) -> MaskedForward:
    """How to ask about one window under masks: (n, cells, cells) -> logits (n, targets)."""
    columns = list(targets)

    def ask(keep: Floats) -> Floats:
        logits = []
        for start in range(0, len(keep), BATCH_SIZE):
            batch = keep[start : start + BATCH_SIZE]
            logits.append(
                subject.forward(apply_masks(window, batch, subject.background))[:, columns]
            )
            meter.spend(len(batch))
        return np.concatenate(logits).astype(np.float32)

    return ask


def pool_to_grid(values: Floats, most: int = MAX_POOLED_CELLS) -> Floats:
    """(…, rows, columns) averaged in at most so many cells: single pixels are noise to the eye."""
    rows, columns = grid_size(values.shape, most)
    for axis, (n, cells) in enumerate(
        zip(values.shape[-2:], (rows, columns), strict=True), start=-2
    ):
        edges = -(-np.arange(cells) * n // cells)
        shape = [1] * values.ndim
        shape[axis] = cells
        sizes = np.diff([*edges, n]).reshape(shape)
        values = (np.add.reduceat(values, edges, axis=axis) / sizes).astype(np.float32)
    return values


MaskedForward = Callable[["Floats"], "Floats"]
