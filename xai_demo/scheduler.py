"""Who works when: a first-come queue, progress and timing of the steps, jobs that can be stopped.

`TaskQueue` bounds how many analyses run at once. `StepTimer`, `MonotonicProgress` and
`download_progress` describe how far one analysis is. `Jobs` knows which visitor waits for what: a
visitor stops a job with the button, a client with `job.cancel()`, and both by leaving. Gradio then
cancels only the asyncio task that waits for the result; the working thread learns of it here.
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
Result = TypeVar("Result")
# Receives a function: has the job been stopped?
Work = Callable[[Callable[[], bool]], Result]

# A task that has stepped aside keeps its thread; further ones beyond these wait for one.
_MAX_SUSPENDED = 32
# How often a waiting task checks whether it was cancelled and how many are ahead of it.
_QUEUE_POLL_S = 0.25
# Shorter, because somebody waits for a job that was told to stop.
_STOP_POLL_S = 0.05
# A job that is loading a network cannot be interrupted: do not wait for it any longer than this.
_STOP_TIMEOUT_S = 3.0
# The fractions of the whole analysis at which a download starts and ends.
_DOWNLOAD_START, _DOWNLOAD_END = 0.06, 0.3
_CANCELLED = "Cancelled on request."


class TaskQueue:
    """At most `capacity` tasks at once; a free slot goes to the task that has waited longest.

    A plain semaphore would let a newcomer, or the task that has just finished, overtake the queue.
    `after_each` is called at the end of every task, before its slot is passed on.
    """

    def __init__(self, capacity: int, *, after_each: Callable[[], None] = lambda: None) -> None:
        self.capacity = capacity
        self._free = capacity
        self._after_each = after_each
        self._waiting: deque[threading.Event] = deque()
        self._lock = threading.Lock()
        # Which threads hold a slot: a nested call must not wait for a second one.
        self._thread_state = threading.local()
        self._workers = ThreadPoolExecutor(capacity + _MAX_SUSPENDED, thread_name_prefix="task")

    @property
    def n_busy(self) -> int:
        """How many slots are taken."""
        return self.capacity - self._free

    @contextmanager
    def slot(
        self, *, progress: Progress | None = None, cancelled: Callable[[], bool] | None = None
    ) -> Iterator[None]:
        """Wait for a slot and hold it for the block; a thread that holds one already keeps it.

        Raises CancelledError when `cancelled()` becomes true while waiting.
        """
        if self._has_slot:
            yield
            return
        self._acquire(progress, cancelled)
        with self._hold():
            yield

    def run(
        self,
        task: Callable[[], _T],
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> _T:
        """Run the task in a slot, on one of the queue's own worker threads, and return its result.

        Raises what the task raises, and CancelledError as `slot` does.
        """
        # A task that calls another one runs it at once: waiting for a slot while holding one could
        # deadlock.
        if self._has_slot:
            return task()
        self._acquire(progress, cancelled)
        # torch and ONNX Runtime keep memory and thread pools for every thread that has ever called
        # them, and a web server has many: so a fixed set of threads does all the work.
        try:
            # The worker sees the context variables of the caller, as if the task ran in its thread.
            context = contextvars.copy_context()
            future = self._workers.submit(context.run, self._run_held, task)
        # Nothing has run, so `_hold` will not return the slot.
        except BaseException:
            self._pass_on()
            raise
        return future.result()

    def _run_held(self, task: Callable[[], _T]) -> _T:
        with self._hold():
            return task()

    @contextmanager
    def _hold(self) -> Iterator[None]:
        self._has_slot = True
        try:
            yield
        finally:
            self._has_slot = False
            try:
                # Even if this fails, the slot must be passed on.
                self._after_each()
            finally:
                self._pass_on()

    @contextmanager
    def step_aside(self) -> Iterator[None]:
        """Give up the slot while waiting for something slow, then return to the head of the queue.

        Does nothing in a thread that holds no slot.
        """
        if not self._has_slot:
            yield
            return
        self._has_slot = False
        self._pass_on()
        try:
            yield
        finally:
            # Not cancellable, because the block's caller relies on holding a slot again.
            self._acquire(None, None, first=True)
            self._has_slot = True

    @property
    def _has_slot(self) -> bool:
        return getattr(self._thread_state, "has_slot", False)

    @_has_slot.setter
    def _has_slot(self, value: bool) -> None:
        self._thread_state.has_slot = value

    def _acquire(
        self,
        progress: Progress | None,
        cancelled: Callable[[], bool] | None,
        *,
        first: bool = False,
    ) -> None:
        with self._lock:
            # A slot is only ever free while nobody waits: `_pass_on` hands it over directly.
            if self._free:
                self._free -= 1
                return
            granted = threading.Event()
            if first:
                self._waiting.appendleft(granted)
            else:
                self._waiting.append(granted)
        try:
            self._wait(granted, progress, cancelled)
        except BaseException:
            # Otherwise the slot would be granted to a task that no longer waits for it.
            self._withdraw(granted)
            raise

    def _wait(
        self,
        granted: threading.Event,
        progress: Progress | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        reported = None
        while not granted.is_set():
            if cancelled and cancelled():
                raise CancelledError(_CANCELLED)
            ahead = self._tasks_ahead(granted)
            if progress and ahead != reported:
                reported = ahead
                progress(0.0, f"Waiting: {ahead} ahead in the queue")
            # With nothing to check or report, sleep until the slot is granted.
            granted.wait(_QUEUE_POLL_S if cancelled or progress else None)

    def _tasks_ahead(self, granted: threading.Event) -> int:
        """Tasks that run or wait before this one."""
        with self._lock:
            waiting = list(self._waiting)
        # All slots are taken while anybody waits, so `capacity` tasks run.
        return 0 if granted not in waiting else waiting.index(granted) + self.capacity

    def _withdraw(self, granted: threading.Event) -> None:
        with self._lock:
            if granted in self._waiting:
                self._waiting.remove(granted)
                return
        # The slot was granted just before the task gave up: somebody else shall have it.
        self._pass_on()

    def _pass_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._free += 1


def run_in_queue(method: Callable[_P, _T]) -> Callable[_P, _T]:
    """Decorate a method of an object with an `engine`: each call runs in that engine's queue.

    The call's keyword arguments `progress` and `cancelled`, if given, also apply while it waits.
    """

    @functools.wraps(method)
    def call_in_queue(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        # A ParamSpec says nothing about single arguments, hence the casts.
        owner, options = cast("Any", args[0]), cast("dict[str, Any]", kwargs)
        queue: TaskQueue = owner.engine.queue
        return queue.run(
            functools.partial(method, *args, **kwargs),
            progress=options.get("progress"),
            cancelled=options.get("cancelled"),
        )

    return call_in_queue


@dataclass(slots=True)
class StepTimer:
    """Milliseconds spent in each step of an analysis.

    >>> timer = StepTimer()
    >>> with timer("read"):
    ...     pass
    >>> list(timer.elapsed_ms)
    ['read']
    """

    elapsed_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Measure the block as this step."""
        start = time.perf_counter()
        yield
        self.elapsed_ms[step] = 1000 * (time.perf_counter() - start)


class MonotonicProgress:
    """A progress callback that never goes backwards: it drops repeated and smaller fractions.

    >>> reports = []
    >>> progress = MonotonicProgress(lambda fraction, step: reports.append(fraction))
    >>> progress(0.5, "predict"); progress(0.2, "read"); progress(0.9, "explain")
    >>> reports
    [0.5, 0.9]
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._last = progress, (-1.0, "")

    def __call__(self, fraction: float, step: str) -> None:
        """Report the fraction done, 0..1, and the step that starts now."""
        if self._progress and fraction >= self._last[0] and (fraction, step) != self._last:
            self._last = fraction, step
            self._progress(fraction, step)


def download_progress(progress: Progress, cancelled: Callable[[], bool]) -> Progress:
    """A progress callback for a download, scaled to its share of the whole analysis.

    It raises CancelledError once `cancelled()` is true. The part downloaded by then is kept, and
    the next request resumes it.
    """

    def report(fraction: float, step: str) -> None:
        if cancelled():
            raise CancelledError(_CANCELLED)
        progress(_DOWNLOAD_START + (_DOWNLOAD_END - _DOWNLOAD_START) * fraction, step)

    return report


# Compared by identity: two jobs of one visitor at one place are still two jobs.
@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    visitor: str
    place: str | None
    key: object = None
    stop: threading.Event = field(default_factory=threading.Event)


class Jobs:
    """The jobs in progress, each with its visitor and the place on the page that waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: list[_Job] = []
        # The file that the newest job of a visitor at a place is about.
        self._subjects: dict[tuple[str, str], str] = {}

    def __len__(self) -> int:
        with self._lock:
            return len(self._jobs)

    @contextmanager
    def start(
        self, visitor: str, place: str | None = None, key: object = None
    ) -> Iterator[Callable[[], bool]]:
        """Register a job for the block; yields a function that tells whether it has been stopped.

        A visitor has one job at each named place: a new one stops the old one. The job also counts
        as stopped once the block is left, so that a thread left behind gives up.
        """
        job = _Job(visitor, place, key)
        if place is not None:
            # Before the new job is registered, or it would be stopped as well.
            self.stop(visitor, place)
        with self._lock:
            self._jobs.append(job)
        try:
            yield job.stop.is_set
        finally:
            job.stop.set()
            with self._lock:
                self._jobs.remove(job)

    def stop(self, visitor: str, place: str | None = None) -> None:
        """Stop a visitor's jobs at a place, or everywhere."""
        for job in self._jobs_of(visitor, place):
            job.stop.set()

    def forget(self, visitor: str) -> None:
        """Stop the jobs of a visitor who has left."""
        self.stop(visitor)
        with self._lock:
            for known in [each for each in self._subjects if each[0] == visitor]:
                del self._subjects[known]

    async def stop_and_wait(self, visitor: str, place: str | None = None) -> bool:
        """Stop the jobs and wait up to three seconds; return whether they have ended."""
        self.stop(visitor, place)
        for _ in range(round(_STOP_TIMEOUT_S / _STOP_POLL_S)):
            if not self._jobs_of(visitor, place):
                return True
            await asyncio.sleep(_STOP_POLL_S)
        return not self._jobs_of(visitor, place)

    def stop_others(self, visitor: str, place: str, subject: str | None) -> bool:
        """Stop the jobs at a place, unless the newest one there is about this file.

        Returns whether what is shown there belongs to another file.
        """
        with self._lock:
            if subject is not None and self._subjects.get((visitor, place)) == subject:
                return False
        self.stop(visitor, place)
        return True

    def is_running(self, visitor: str, place: str) -> bool:
        """Whether a job that nobody has stopped runs for a visitor at a place."""
        return any(not job.stop.is_set() for job in self._jobs_of(visitor, place))

    def _jobs_of(self, visitor: str, place: str | None) -> list[_Job]:
        with self._lock:
            return [j for j in self._jobs if j.visitor == visitor and place in (None, j.place)]

    async def run(self, visitor: str | None, place: str | None, work: Work[Result]) -> Result:
        """Run `work` in a thread and return its result; cancelling this task stops the job."""
        # Leaving the block stops the job even if this task is cancelled; the thread cannot be.
        with self.start(visitor or "", place) as is_stopped:
            return await asyncio.to_thread(work, is_stopped)

    async def run_once(
        self, visitor: str | None, place: str, subject: str, key: object, work: Work[Result]
    ) -> Result | None:
        """Run `work` about a file, like `run`; None if the same job, by its key, runs there now.

        So a second press of a button neither starts the work anew nor is held back.
        """
        visitor = visitor or ""
        with self._lock:
            self._subjects[visitor, place] = subject
        running = [each for each in self._jobs_of(visitor, place) if not each.stop.is_set()]
        if any(each.key == key for each in running):
            return None
        with self.start(visitor, place, key) as is_stopped:
            return await asyncio.to_thread(work, is_stopped)
