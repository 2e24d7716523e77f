"""The server's end of the nursery and its workers: forking, talking, killing.

Whatever arrives from a worker may be a lie: lengths are bounded, sizes compared with the file, and
a file is only mapped into memory if nobody can shorten it.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping

from xai_demo.errors import CancelledError
from xai_demo.service.sandbox import FRAME, Limits, write_frame
from xai_demo.service.transfer import parse

# How often a caller who waits is asked whether it still does.
_POLL_S = 0.05
# An answer without its arrays is small; this is ten times the largest.
_MAX_MESSAGE_BYTES = 2**24
# From here on mapping a file is cheaper than copying it.
_MAPPED_FROM_BYTES = 2**20


class Nursery:
    """The process that forks the workers; it has the readers imported."""

    def __init__(
        self, environment: Mapping[str, str], preload: tuple[str, ...], limits: Limits
    ) -> None:
        self._control, remote = socket.socketpair()
        program = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            "from xai_demo.service.sandbox import Limits, serve; "
            f"serve({remote.fileno()}, {[*preload]!r}, {limits!r})"
        )
        with remote:
            self._process = subprocess.Popen(  # noqa: S603
                # Isolated: neither the user's site packages nor this directory come first.
                [sys.executable, "-I", "-c", program],
                env=dict(environment),
                pass_fds=[remote.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # An interrupt of the terminal ends the server only, which ends the nursery.
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    def fork(self) -> Worker:
        """Ask for a worker; raises OSError if the nursery is gone."""
        own, remote = socket.socketpair()
        worker = Worker(own, _result_files())
        with remote:
            try:
                socket.send_fds(self._control, [b"w"], [remote.fileno(), *worker.files])
            except OSError:
                worker.close()
                raise
        return worker

    def close(self) -> None:
        """End the nursery; workers that wait for a job end by themselves."""
        self._control.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _result_files() -> list[int]:
    """Two files without names for a result: in memory, and on the disk unless there is no room."""
    memory = os.memfd_create("worker", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    # Shortened, it would kill whoever has it mapped.
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    try:
        with tempfile.TemporaryFile() as file:
            return [memory, os.dup(file.fileno())]
    except OSError:
        return [memory]


class Worker:
    """The server's end of one worker. Whatever arrives from it may be a lie."""

    def __init__(self, channel: socket.socket, files: list[int]) -> None:
        self._channel, self.files = channel, files
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._received = b""
        self._process: int | None = None
        self._pid = 0

    def is_alive(self) -> bool:
        """Whether the worker has not hung up."""
        return not any(event & select.POLLHUP for _, event in self._poll.poll(0))

    def greeting(self, end: float, cancelled: Callable[[], bool]) -> str:
        """Wait until the worker is ready and return what confines it; as `answer` otherwise."""
        # Sent before the worker has seen any file, so that it is true.
        fields = parse(self._frame(end, cancelled))
        self._pid = int(fields["pid"])
        # A process descriptor never means another process, as a number one day may.
        with contextlib.suppress(OSError, AttributeError):
            self._process = os.pidfd_open(self._pid)
        return str(fields["isolation"])

    def answer(self, call: bytes, end: float, cancelled: Callable[[], bool]) -> bytes:
        """Send the job and wait for the answer.

        Raises OSError or ValueError if the worker has died or sends nonsense, TimeoutError after
        `end` (of the monotonic clock), and CancelledError.
        """
        write_frame(self._channel.fileno(), call)
        return self._frame(end, cancelled)

    def contents(self, place: int, size: int) -> bytearray | mmap.mmap:
        """The contents of one of the files; raises ValueError if it has fewer bytes than that."""
        if place >= len(self.files) or not 0 <= size <= os.fstat(self.files[place]).st_size:
            raise ValueError("a file or a size that is not there")
        descriptor = self.files[place]
        if size < _MAPPED_FROM_BYTES:
            content = bytearray(size)
            os.preadv(descriptor, [content], 0)
            return content
        if place == 0:
            # All pages at once: each by itself would take longer than what is done with it.
            return mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
        # Whoever maps a file dies if another one shortens it. The one in memory is sealed against
        # that; the one on the disk is mapped when the worker is dead.
        self.kill()
        self._wait_for_end()
        # Raises ValueError if the file has become shorter in its last moment.
        return mmap.mmap(descriptor, size)

    def kill(self) -> None:
        """Kill the worker; does nothing if it has ended."""
        with contextlib.suppress(OSError):
            if self._process is not None:
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            elif self._pid:
                os.kill(self._pid, signal.SIGKILL)

    def close(self) -> None:
        """Kill the worker and give its descriptors back."""
        self.kill()
        self._channel.close()
        for descriptor in self.files:
            os.close(descriptor)
        if self._process is not None:
            os.close(self._process)
        self._process, self._pid, self.files = None, 0, []

    def _frame(self, end: float, cancelled: Callable[[], bool]) -> bytes:
        while True:
            if len(self._received) >= FRAME.size:
                (count,) = FRAME.unpack_from(self._received)
                if count > _MAX_MESSAGE_BYTES:
                    raise ValueError(f"a message of {count} bytes")
                if len(self._received) >= FRAME.size + count:
                    frame = self._received[FRAME.size : FRAME.size + count]
                    self._received = self._received[FRAME.size + count :]
                    return frame
            if cancelled():
                raise CancelledError("Cancelled on request.")
            if time.monotonic() > end:
                raise TimeoutError
            if not self._poll.poll(1000 * _POLL_S):
                continue
            part = self._channel.recv(2**20)
            if not part:
                raise ConnectionError("the worker has hung up")
            self._received += part

    def _wait_for_end(self) -> None:
        for _ in range(200):
            if not self._poll.poll(1000 * _POLL_S):
                continue
            try:
                if not self._channel.recv(2**20):
                    return
            except ConnectionError:
                return
        raise ValueError("a worker that cannot be killed")
