"""Taking turns: so many at once, the rest in the order in which they came.

How long each step of the work takes, and how far the work is.

What is being worked on and for whom, so that it can be stopped.

A visitor stops it by the button, another program by `job.cancel()`, and both by leaving. Gradio
cancels the task that waits for the answer; the thread that works on it learns of that here.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar, cast

from xai_demo.errors import CancelledError
from xai_demo.records import Progress

_P = ParamSpec("_P")
_T = TypeVar("_T")

_MAX_SUSPENDED = 32  # who has stepped aside keeps a thread
_QUEUE_POLL_S = 0.25  # how often one who waits looks whether anybody still waits for the answer


class TaskQueue:
    """At most so many at once; a turn that ends goes straight to who has waited longest.

    A plain semaphore lets a newcomer, or the one who just had a turn, in before those who wait.
    """

    def __init__(self, at_once: int, *, after: Callable[[], None] = lambda: None) -> None:
        self.at_once = at_once
        self._free = at_once
        self._after = after  # called at the end of every turn, before it is handed on
        self._waiting: deque[threading.Event] = deque()
        self._lock = threading.Lock()
        self._mine = threading.local()
        self._workers = ThreadPoolExecutor(at_once + _MAX_SUSPENDED, thread_name_prefix="turn")

    @property
    def busy(self) -> int:
        """Turns that are taken now."""
        return self.at_once - self._free

    @contextmanager
    def one(
        self, *, progress: Progress | None = None, cancelled: Callable[[], bool] | None = None
    ) -> Iterator[None]:
        """Wait for a turn and hold it. Raises CancelledError once `cancelled()` while waiting.

        Who holds a turn already goes on in that one.
        """
        if self._held:
            yield
            return
        self._take(progress, cancelled)
        with self._holding():
            yield

    def work(
        self,
        what: Callable[[], _T],
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> _T:
        """Do it in a turn, by one of a few threads that are always the same.

        Libraries keep memory, and threads of their own, for every thread that ever asked them; a
        server has many. Raises what `what` raises, and CancelledError as `one` does.
        """
        if self._held:
            return what()
        self._take(progress, cancelled)
        try:
            context = contextvars.copy_context()
            done = self._workers.submit(context.run, self._worked, what)
        except BaseException:
            self._hand_on()
            raise
        return done.result()

    def _worked(self, what: Callable[[], _T]) -> _T:
        with self._holding():
            return what()

    @contextmanager
    def _holding(self) -> Iterator[None]:
        self._held = True
        try:
            yield
        finally:
            self._held = False
            try:
                self._after()
            finally:
                self._hand_on()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Let others go on while this one waits for something slow; then the next turn is its."""
        if not self._held:
            yield
            return
        self._held = False
        self._hand_on()
        try:
            yield
        finally:
            self._take(None, None, first=True)
            self._held = True

    @property
    def _held(self) -> bool:
        return getattr(self._mine, "held", False)

    @_held.setter
    def _held(self, held: bool) -> None:
        self._mine.held = held

    def _take(
        self,
        progress: Progress | None,
        cancelled: Callable[[], bool] | None,
        *,
        first: bool = False,
    ) -> None:
        with self._lock:
            if self._free:  # then nobody waits
                self._free -= 1
                return
            called = threading.Event()
            if first:
                self._waiting.appendleft(called)
            else:
                self._waiting.append(called)
        try:
            self._wait(called, progress, cancelled)
        except BaseException:
            self._give_up(called)
            raise

    def _wait(
        self,
        called: threading.Event,
        progress: Progress | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        told = None
        while not called.is_set():
            if cancelled and cancelled():
                raise CancelledError("Cancelled, as asked.")
            before = self._before(called)
            if progress and before != told:
                told = before
                progress(0.0, f"Waiting: {before} before this one")
            called.wait(_QUEUE_POLL_S if cancelled or progress else None)

    def _before(self, called: threading.Event) -> int:
        with self._lock:
            ahead = list(self._waiting)
        return 0 if called not in ahead else ahead.index(called) + self.at_once

    def _give_up(self, called: threading.Event) -> None:
        with self._lock:
            if called in self._waiting:
                self._waiting.remove(called)
                return
        self._hand_on()  # it was called at the same moment

    def _hand_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1


def run_in_queue(method: Callable[_P, _T]) -> Callable[_P, _T]:
    """A method of what has an engine, worked on when its turn among that engine's has come.

    Its `progress` and `cancelled`, where it is given them, are used while it waits.
    """

    @functools.wraps(method)
    def waited(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        owner, asked = cast("Any", args[0]), cast("dict[str, Any]", kwargs)
        turns: TaskQueue = owner.engine.turns
        return turns.work(
            functools.partial(method, *args, **kwargs),
            progress=asked.get("progress"),
            cancelled=asked.get("cancelled"),
        )

    return waited


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


class MonotonicProgress:
    """Tells how far the work is, and nothing that is less far than what was told before."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._told = progress, (-1.0, "")

    def __call__(self, done: float, doing: str) -> None:
        """Say that so much is done, 0..1, and what comes now."""
        if self._progress and done >= self._told[0] and (done, doing) != self._told:
            self._told = done, doing
            self._progress(done, doing)


def download_progress(tell: Progress, cancelled: Callable[[], bool]) -> Progress:
    """Tells of a download as its part of the whole; it ends where nobody waits any more.

    What has come by then is kept, and gone on with by who asks next.
    """

    def told(done: float, doing: str) -> None:
        if cancelled():
            raise CancelledError("Cancelled, as asked.")
        tell(_BRINGING + (_BROUGHT - _BRINGING) * done, doing)

    return told


_STOP_POLL_S = 0.05
_STOP_TIMEOUT_S = 3.0  # a network that is being loaded does not hear of a stop

Answer = TypeVar("Answer")
Work = Callable[[Callable[[], bool]], Answer]  # is told whether it was stopped


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    visitor: str
    place: str | None
    stop: threading.Event = field(default_factory=threading.Event)


class Jobs:
    """The pieces of work in hand: as many as the queue lets in, each gone when it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: list[_Job] = []

    def __len__(self) -> int:
        with self._lock:
            return len(self._pieces)

    @contextmanager
    def begun(self, visitor: str, place: str | None = None) -> Iterator[Callable[[], bool]]:
        """A piece of work, and whether it was stopped; after it, whoever still works on it is.

        At a named place a visitor has one piece at a time: a new one stops the old one.
        """
        piece = _Job(visitor, place)
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
        for _ in range(round(_STOP_TIMEOUT_S / _STOP_POLL_S)):
            if not self._of(visitor, place):
                return True
            await asyncio.sleep(_STOP_POLL_S)
        return not self._of(visitor, place)

    def _of(self, visitor: str, place: str | None) -> list[_Job]:
        with self._lock:
            return [p for p in self._pieces if p.visitor == visitor and place in (None, p.place)]

    async def worked(self, visitor: str | None, place: str | None, work: Work[Answer]) -> Answer:
        """The outcome of `work` in a thread of its own; it is stopped if nobody waits any more."""
        with self.begun(visitor or "", place) as stopped:
            return await asyncio.to_thread(work, stopped)
