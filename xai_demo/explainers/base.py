"""What every explainer works with: the network and its input, a budget, masks on a coarse grid.

A `Subject` holds what to explain and a `Budget` what that may cost; a `Meter` counts forward passes
against the budget. The functions below hide, show and average an input cell by cell.
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

# Inputs in one forward pass. A request to stop is honoured after each batch, so it is kept small.
BATCH_SIZE = 16
# Pixel-wise attributions are averaged down to at most this many cells.
MAX_POOLED_CELLS = 56 * 56

# Masks (n, cells, cells) -> logits (n, targets).
MaskedForward = Callable[["Floats"], "Floats"]


def _ignore_progress(fraction: float, step: str) -> None:
    """Report nothing."""


def _never_cancelled() -> bool:
    return False


def _identity(activations: Tensor) -> Tensor:
    return activations


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The windows of one file, and the network that predicted them."""

    inputs: Floats  # (windows, 1, rows, columns)
    activations: Tensor  # (windows, ...) at the cut
    head: nn.Module  # activations -> logits
    # Inputs -> logits (windows, labels), on any backend.
    forward: Callable[[Floats], Floats]
    # The same, differentiable; None without torch.
    network: Callable[[Tensor], Tensor] | None
    # The value of a hidden pixel in `inputs`.
    background: float
    # Lays out activations, or their gradients, as (windows, channels, rows, columns).
    feature_maps: Callable[[Tensor], Tensor] = _identity

    def differentiable_network(self) -> Callable[[Tensor], Tensor]:
        """The whole network in torch; raises UnsuitableError if the backend has none."""
        if self.network is None:
            raise UnsuitableError(
                "This explainer needs the whole network in torch, which this backend does not "
                "have; use the backend torch or another explainer."
            )
        return self.network


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What an explanation may cost, and the callbacks that report and stop it."""

    # Forward passes per window; None: the explainer's default.
    passes: int | None = None
    progress: Progress = _ignore_progress
    cancelled: Callable[[], bool] = _never_cancelled


class Meter:
    """Counts forward passes, reports the progress and stops when the budget says so.

    Raises CancelledError from the start, `check` and `spend` once the budget is cancelled.
    """

    def __init__(self, budget: Budget, total: int) -> None:
        self._budget = budget
        # Never 0, because the progress is a share of it.
        self._total = max(total, 1)
        self._spent = 0
        self.check()

    def check(self) -> None:
        """Raise CancelledError if the budget has been cancelled."""
        if self._budget.cancelled():
            raise CancelledError(
                f"Cancelled on request after {self._spent} of {self._total} forward passes."
            )

    def spend(self, passes: int) -> None:
        """Count this many more passes."""
        # An explainer may need a few passes more than planned: the progress stops at 100 %.
        self._spent = min(self._spent + passes, self._total)
        self._budget.progress(
            self._spent / self._total, f"Forward pass {self._spent} of {self._total}"
        )
        self.check()


def grid_size(shape: Sequence[int], max_cells: int) -> tuple[int, int]:
    """Rows and columns of a grid over (..., rows, columns), with nearly square cells.

    >>> grid_size((1, 224, 224), 49)
    (7, 7)
    >>> grid_size((64, 801), 100)
    (2, 50)
    """
    rows, columns = shape[-2:]
    # The side of a square cell, in pixels, if the cells filled the area exactly.
    side = math.sqrt(rows * columns / max_cells)
    n_rows = min(rows, max(1, int(rows / side)))
    return n_rows, min(columns, max(1, max_cells // n_rows))


def apply_masks(window: Floats, masks: Floats, background: float) -> Floats:
    """A window (1, rows, columns) under masks (n, cells, cells), where 1 shows and 0 hides.

    Returns (n, 1, rows, columns).
    """
    rows, columns = window.shape[-2:]
    # The cell of every row and column; cells differ by one pixel where the division is not exact.
    row_of = np.arange(rows) * masks.shape[1] // rows
    column_of = np.arange(columns) * masks.shape[2] // columns
    enlarged = masks[:, row_of][:, :, column_of][:, None].astype(np.float32)
    result: Floats = np.float32(background) + enlarged * (window[None] - np.float32(background))
    return result


def masked_forward(
    subject: Subject, window: Floats, targets: Sequence[int], meter: Meter
) -> MaskedForward:
    """A function that predicts one window under masks: (n, cells, cells) -> logits (n, targets)."""
    columns = list(targets)

    def predict(masks: Floats) -> Floats:
        logits = []
        for start in range(0, len(masks), BATCH_SIZE):
            batch = masks[start : start + BATCH_SIZE]
            hidden = apply_masks(window, batch, subject.background)
            # Only the targets' columns: AudioSet has 527 labels.
            logits.append(subject.forward(hidden)[:, columns])
            meter.spend(len(batch))
        return np.concatenate(logits).astype(np.float32)

    return predict


def pool_to_grid(values: Floats, max_cells: int = MAX_POOLED_CELLS) -> Floats:
    """(..., rows, columns) averaged into at most `max_cells` cells: single pixels are too noisy."""
    rows, columns = grid_size(values.shape, max_cells)
    # One axis after the other: the mean over a cell is separable.
    for axis, (n, cells) in enumerate(
        zip(values.shape[-2:], (rows, columns), strict=True), start=-2
    ):
        # Cells start at ceil(i * n / cells), as in `apply_masks`; their sizes differ by at most 1.
        edges = -(-np.arange(cells) * n // cells)
        shape = [1] * values.ndim
        shape[axis] = cells
        sizes = np.diff([*edges, n]).reshape(shape)
        values = (np.add.reduceat(values, edges, axis=axis) / sizes).astype(np.float32)
    return values
