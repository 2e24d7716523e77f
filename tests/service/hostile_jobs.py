"""What a decoder that was taken over, or is merely broken, might do in a worker."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from xai_demo.errors import UnknownNameError, UnreadableFileError
from xai_demo.records import Recording

LOADED_MARK = "loaded"


def echo(value: Any) -> Any:
    return value


def recording(seconds: float) -> Recording:
    samples = np.random.default_rng(1).normal(0, 0.1, round(8000 * seconds)).astype(np.float32)
    return Recording(samples=samples, sample_rate_hz=8000, facts={"a": 0.1}, warnings=("short",))


def array(megabytes: int) -> Any:
    return np.arange(megabytes * 2**18, dtype=np.float32)


def many_arrays() -> Any:
    return {
        "empty": np.zeros((0, 3), np.float32),
        "odd": np.arange(7, dtype=np.uint8),
        "scalar": np.float64(0.1),
        "reversed": np.arange(24, dtype=">i4").reshape(2, 3, 4)[:, ::-1],
        "content": b"\0\1\2",
        "none": (None, [Path("a/b"), float("inf")]),
    }


def refuse() -> None:
    raise UnreadableFileError("breath.wav is empty (0 bytes); expected a sound.")


def ask_for_the_unknown() -> None:
    raise UnknownNameError("label", "x", ["a"])


def divide() -> float:
    return 1 / int("0")


def crash() -> None:
    ctypes.string_at(0)


def leave() -> None:
    os._exit(0)


def allocate_for_ever() -> None:
    held = []
    while True:
        held.append(np.ones(2**22))


def allocate(megabytes: int) -> int:
    return int(np.ones(megabytes * 2**17).size)


def spin() -> None:
    while True:
        pass


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def write_for_ever(descriptor: int) -> None:
    while True:
        os.write(descriptor, bytes(2**20))


def attempts(folder: str) -> dict[str, str]:
    """The name of the error that each forbidden deed ends in."""
    file = Path(folder, "there")
    deeds = {
        "socket": lambda: socket.socket(),
        "pair": lambda: socket.socketpair(),
        "fork": lambda: os.fork(),
        "execute": lambda: os.execv("/bin/true", ["true"]),
        "spawn": lambda: subprocess.run(["/bin/true"], check=False),
        "system": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        "write": lambda: file.write_text("changed"),
        "append": lambda: file.open("ab"),
        "make": lambda: Path(folder, "new").touch(),
        "remove": lambda: file.unlink(),
        "rename": lambda: file.rename(Path(folder, "new")),
        "kill": lambda: os.kill(os.getppid(), 9),
        "limits": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2**40, 2**40)),
        "shared": lambda: os.memfd_create("x"),
    }
    outcomes = {}
    for name, deed in deeds.items():
        try:
            deed()
            outcomes[name] = "done"
        except Exception as error:
            outcomes[name] = type(error).__name__
    return outcomes


def read_both(mine: Path, others: str) -> tuple[str, str]:
    """The visitor's own file, which the job is about, and one that it only knows the name of."""
    try:
        return mine.read_text(), Path(others).read_text()
    except PermissionError:
        return mine.read_text(), "refused"


def circumstances() -> dict[str, Any]:
    """What a worker sees of the server, and how it may run."""
    heavy = {"torch", "gradio", "pytest", "onnxruntime", "matplotlib", "__mp_main__"}
    threads = [threading.Thread(target=int) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Path("/proc/self/status").open() as file:
        status = dict(line.split(":", 1) for line in file)
    return {
        "environment": dict(os.environ),
        "heavy": sorted(heavy & set(sys.modules)),
        "main": sys.modules["__main__"].__dict__.get("__file__"),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "files": sorted(os.listdir("/proc/self/fd")),
        "resident_mb": int(status["VmRSS"].split()[0]) / 1000,
        "pid": os.getpid(),
    }


def send_garbage(content: bytes | None, length: int) -> None:
    """Write to the channel instead of answering; it is the first descriptor that is a socket."""
    import stat
    import struct

    content = b"" if content is None else content
    for descriptor in range(3, 10):
        try:
            is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        except OSError:
            continue
        if is_socket:
            os.write(descriptor, struct.pack("!Q", length) + content)
            os._exit(0)


def forge_recording(*_arguments: Any, **_options: Any) -> Recording:
    samples: Any = np.zeros((2, 2), np.float64)
    return Recording(samples=samples, sample_rate_hz=8000, facts={})
