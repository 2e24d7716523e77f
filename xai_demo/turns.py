"""Taking turns: so many at once, the rest in the order in which they came."""

from __future__ import annotations

import contextvars
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from xai_demo.errors import CancelledError

if TYPE_CHECKING:
    from xai_demo.records import Progress

_P = ParamSpec("_P")
_T = TypeVar("_T")

_MOST_ASIDE = 32  # who has stepped aside keeps a thread
_LOOK_S = 0.25  # how often one who waits looks whether anybody still waits for the answer


class Turns:
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
        self._workers = ThreadPoolExecutor(at_once + _MOST_ASIDE, thread_name_prefix="turn")

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
            called.wait(_LOOK_S if cancelled or progress else None)

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


def in_turn(method: Callable[_P, _T]) -> Callable[_P, _T]:
    """A method of what has an engine, worked on when its turn among that engine's has come.

    Its `progress` and `cancelled`, where it is given them, are used while it waits.
    """

    @functools.wraps(method)
    def waited(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        owner, asked = cast("Any", args[0]), cast("dict[str, Any]", kwargs)
        turns: Turns = owner.engine.turns
        return turns.work(
            functools.partial(method, *args, **kwargs),
            progress=asked.get("progress"),
            cancelled=asked.get("cancelled"),
        )

    return waited
