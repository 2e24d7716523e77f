"""Reading hostile files in processes that may do nothing else, one process a file.

`WorkerPool.run` calls a function in a worker, see `service.sandbox`, and returns what it returns.
A worker that crashes, hangs or takes too much costs its visitor one sentence and is replaced.

Why not `multiprocessing`, `pebble` or `loky`: they unpickle whatever a worker sends, so that a
decoder that was taken over would take over the server; they share one pipe among the workers,
import the main module again and hand the server's environment down. Here nothing is unpickled, see
`service.transfer`. Arrays come in a file without a name, which disappears with them.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar, cast

from xai_demo import errors
from xai_demo.errors import CancelledError, RequestError, UnreadableFileError, XaiDemoError
from xai_demo.scheduler import TaskQueue
from xai_demo.service.processes import Nursery, Worker
from xai_demo.service.sandbox import Limits
from xai_demo.service.transfer import Encoder, decode, parse

_T = TypeVar("_T")

# Importing the readers on a busy machine takes some seconds.
_START_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCounts:
    """What the workers have done so far, for metrics."""

    jobs: int = 0
    lost: int = 0  # workers that died, or sent what no worker sends
    timed_out: int = 0
    over_limit: int = 0  # of memory or of the size of a result
    cancelled: int = 0
    restarted: int = 0  # nurseries that had to be replaced
    seconds: float = 0.0  # in workers, all jobs together


class WorkerPool:
    """At most `size` jobs at once, each in a confined process of its own; for many threads.

    `environment` is all that the workers see of it. `preload` names modules to import before the
    first job, `records` the dataclasses that results may contain. Linux only: elsewhere, and in a
    fork of this process, `run` calls the function in the calling thread.
    """

    def __init__(
        self,
        size: int = 2,
        *,
        environment: Mapping[str, str],
        deadline_s: float = 60.0,
        limits: Limits | None = None,
        preload: Iterable[str] = (),
        records: Iterable[type] = (),
    ) -> None:
        self.size, self.deadline_s = size, deadline_s
        self.limits = limits or Limits(cpu_s=deadline_s)
        self._environment = dict(environment)
        self._preload, self._records = tuple(preload), tuple(records)
        self._owner = os.getpid()
        self._queue = TaskQueue(size)
        self._lock = threading.Lock()
        self._counts = WorkerCounts()
        self._nursery: Nursery | None = None
        self._ready: list[Worker] = []
        self._working: set[Worker] = set()
        self._isolation = ""
        self._is_closed = False

    @property
    def counts(self) -> WorkerCounts:
        """What the workers have done so far."""
        return self._counts

    @property
    def busy(self) -> int:
        """How many workers are at work."""
        return self._queue.n_busy

    @property
    def isolation(self) -> str:
        """What keeps workers from network, programs and files: seccomp, an audit hook, or nothing.

        Empty until the first worker has said it.
        """
        return self._isolation if self._is_usable else "none"

    @property
    def _is_usable(self) -> bool:
        # In a fork of the server the locks and sockets are those of the server.
        return sys.platform == "linux" and os.getpid() == self._owner

    def start(self) -> None:
        """Start the workers without waiting for them; the first job does so otherwise."""
        if not self._is_usable:
            return
        atexit.register(self.close)
        with self._lock:
            self._fill()

    def close(self) -> None:
        """End all workers, those at work included; `run` then raises CancelledError."""
        if os.getpid() != self._owner:
            return
        with self._lock:
            self._is_closed = True
            nursery, self._nursery = self._nursery, None
            ready, self._ready = self._ready, []
            # Their callers notice, and close them.
            for worker in self._working:
                worker.kill()
        for worker in ready:
            worker.close()
        if nursery:
            nursery.close()
        atexit.unregister(self.close)

    def run(
        self,
        function: Callable[..., _T],
        *args: Any,
        deadline_s: float | None = None,
        cancelled: Callable[[], bool] | None = None,
        **kwargs: Any,
    ) -> _T:
        """Call a module-level function in a worker and return its result.

        Files are given as `Path`: the worker can read these, and no others but the libraries.
        Raises what the function raises, if that is an `XaiDemoError`; UnreadableFileError if the
        worker died, took more than it may or longer than `deadline_s` (None: the pool's);
        CancelledError soon after `cancelled()` becomes true; RuntimeError for an error of ours.
        """
        if not self._is_usable:
            return function(*args, **kwargs)
        encoder = Encoder()
        name = f"{function.__module__}:{function.__qualname__}"
        call = encoder.encode({"function": name, "args": list(args), "kwargs": kwargs})
        if encoder.size:
            raise TypeError("a worker takes no arrays or bytes")
        is_cancelled = cancelled or (lambda: False)
        with self._queue.slot(cancelled=is_cancelled):
            worker = self._take(is_cancelled)
            began = time.monotonic()
            try:
                limit_s = self.deadline_s if deadline_s is None else deadline_s
                answer = worker.answer(call, began + limit_s, is_cancelled)
                return cast("_T", self._result(worker, answer))
            except TimeoutError:
                self._count(timed_out=1)
                raise UnreadableFileError(
                    f"Reading this file took longer than the {limit_s:.3g} s that are allowed here;"
                    " try a shorter or smaller one."
                ) from None
            except (OSError, ValueError):
                self._check_open()
                self._count(lost=1)
                raise UnreadableFileError(
                    "This file made the program that reads it stop, so it is probably damaged; "
                    "expected a file that can be read. Try to save it again, in another format."
                ) from None
            except CancelledError:
                self._count(cancelled=1)
                raise
            finally:
                self._end(worker, time.monotonic() - began)

    def _result(self, worker: Worker, answer: bytes) -> Any:
        """The function's result, or its error raised; ValueError if it is neither."""
        match parse(answer):
            case {"file": 0 | 1 as place, "size": int(size), "value": value}:
                return decode(value, worker.contents(place, size), records=self._records)
            case {"error": str(name), "message": str(message)}:
                raise _error(name, message)
            case {"limit": "memory"}:
                self._count(over_limit=1)
                raise UnreadableFileError(
                    f"Reading this file takes more than the {self.limits.memory_bytes / 1e9:.2g} GB"
                    " of memory that are allowed here; try a shorter or smaller one."
                )
            case {"limit": "size"}:
                self._count(over_limit=1)
                raise UnreadableFileError(
                    "What is in this file takes more room than is allowed or free here; try a "
                    "shorter or smaller one."
                )
            case {"fault": str(text)}:
                raise RuntimeError(f"in a worker: {text}")
        raise ValueError("not an answer")

    def _take(self, cancelled: Callable[[], bool]) -> Worker:
        """A worker that waits for its job."""
        end = time.monotonic() + _START_S
        while True:
            with self._lock:
                self._fill()
                worker = self._ready.pop(0)
                self._working.add(worker)
            try:
                self._isolation = worker.greeting(end, cancelled)
                return worker
            except CancelledError:
                self._end(worker, 0.0)
                raise
            # It died while it waited, which is nobody's fault.
            except (OSError, ValueError) as error:
                self._end(worker, 0.0)
                self._count(jobs=-1, lost=1)
                if time.monotonic() > end:
                    raise RuntimeError("no worker can be started") from error

    def _fill(self) -> None:
        """Have as many workers ready as may work at once."""
        self._check_open()
        for worker in [each for each in self._ready if not each.is_alive()]:
            self._ready.remove(worker)
            worker.close()
        while len(self._ready) < self.size:
            if self._nursery is None:
                self._nursery = Nursery(self._environment, self._preload, self.limits)
            try:
                self._ready.append(self._nursery.fork())
            # It has died, say for want of memory.
            except OSError:
                self._nursery.close()
                self._nursery = None
                self._counts = replace(self._counts, restarted=self._counts.restarted + 1)

    def _end(self, worker: Worker, seconds: float) -> None:
        worker.close()
        with self._lock:
            self._working.discard(worker)
            if not self._is_closed:
                # While nobody waits for it.
                with contextlib.suppress(OSError):
                    self._fill()
        self._count(jobs=1, seconds=seconds)

    def _check_open(self) -> None:
        if self._is_closed:
            raise CancelledError("The server is stopping.")

    def _count(self, **more: float) -> None:
        with self._lock:
            counts = asdict(self._counts)
            self._counts = WorkerCounts(**{k: v + more.get(k, 0) for k, v in counts.items()})


def _error(name: str, message: str) -> XaiDemoError:
    kind = getattr(errors, name, None)
    # One whose constructor takes more than a message becomes its parent.
    if kind is errors.UnknownNameError or not isinstance(kind, type):
        return RequestError(message)
    return kind(message) if issubclass(kind, XaiDemoError) else RequestError(message)
