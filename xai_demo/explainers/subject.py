"""What an explainer is handed: what to explain, and how much that may cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xai_demo.errors import CancelledError, UnsuitableError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.records import Floats, Progress


def _silent(done: float, doing: str) -> None:
    """Nobody asked to be told."""


def _never() -> bool:
    return False


def _as_they_are(activations: Tensor) -> Tensor:
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
    maps: Callable[[Tensor], Tensor] = _as_they_are

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
    progress: Progress = _silent
    cancelled: Callable[[], bool] = _never


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
