"""How long each step of the work takes, and how far the work is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from xai_demo.errors import CancelledError
from xai_demo.records import Progress

_BRINGING, _BROUGHT = 0.06, 0.3  # of the whole work: where a download begins and ends


@dataclass(slots=True)
class Clock:
    """Milliseconds spent on each step."""

    elapsed_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Time what is done inside."""
        start = time.perf_counter()
        yield
        self.elapsed_ms[step] = 1000 * (time.perf_counter() - start)


class Rising:
    """Tells how far the work is, and nothing that is less far than what was told before."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._told = progress, (-1.0, "")

    def __call__(self, done: float, doing: str) -> None:
        """Say that so much is done, 0..1, and what comes now."""
        if self._progress and done >= self._told[0] and (done, doing) != self._told:
            self._told = done, doing
            self._progress(done, doing)


def bringing_to(tell: Progress, cancelled: Callable[[], bool]) -> Progress:
    """Tells of a download as its part of the whole; it ends where nobody waits any more.

    What has come by then is kept, and gone on with by who asks next.
    """

    def told(done: float, doing: str) -> None:
        if cancelled():
            raise CancelledError("Cancelled, as asked.")
        tell(_BRINGING + (_BROUGHT - _BRINGING) * done, doing)

    return told
