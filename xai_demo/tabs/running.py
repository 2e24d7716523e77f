"""What is being worked on and for whom, so that it can be stopped.

A visitor stops it by the button, another program by `job.cancel()`, and both by leaving. Gradio
cancels the task that waits for the answer; the thread that works on it learns of that here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

_LOOK_S = 0.05
_PATIENCE_S = 3.0  # a network that is being loaded does not hear of a stop

Answer = TypeVar("Answer")
Work = Callable[[Callable[[], bool]], Answer]  # is told whether it was stopped


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    visitor: str
    place: str | None
    stop: threading.Event = field(default_factory=threading.Event)


class Running:
    """The pieces of work in hand: as many as the queue lets in, each gone when it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: list[_Piece] = []

    def __len__(self) -> int:
        with self._lock:
            return len(self._pieces)

    @contextmanager
    def begun(self, visitor: str, place: str | None = None) -> Iterator[Callable[[], bool]]:
        """A piece of work, and whether it was stopped; after it, whoever still works on it is.

        At a named place a visitor has one piece at a time: a new one stops the old one.
        """
        piece = _Piece(visitor, place)
        if place is not None:
            self.stop(visitor, place)
        with self._lock:
            self._pieces.append(piece)
        try:
            yield piece.stop.is_set
        finally:
            piece.stop.set()
            with self._lock:
                self._pieces.remove(piece)

    def stop(self, visitor: str, place: str | None = None) -> None:
        """Stop what a visitor waits for at a place, or everywhere."""
        for piece in self._of(visitor, place):
            piece.stop.set()

    async def ended(self, visitor: str, place: str | None = None) -> bool:
        """Stop it and wait a little until it has; whether it has."""
        self.stop(visitor, place)
        for _ in range(round(_PATIENCE_S / _LOOK_S)):
            if not self._of(visitor, place):
                return True
            await asyncio.sleep(_LOOK_S)
        return not self._of(visitor, place)

    def _of(self, visitor: str, place: str | None) -> list[_Piece]:
        with self._lock:
            return [p for p in self._pieces if p.visitor == visitor and place in (None, p.place)]

    async def worked(self, visitor: str | None, place: str | None, work: Work[Answer]) -> Answer:
        """The outcome of `work` in a thread of its own; it is stopped if nobody waits any more."""
        with self.begun(visitor or "", place) as stopped:
            return await asyncio.to_thread(work, stopped)
