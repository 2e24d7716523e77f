"""A page in a process of its own: how soon it answers, and its end."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from xai_demo.errors import XaiDemoError

UP_WITHIN_S = 180.0
_LOOK_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Up:
    """A page that answers."""

    url: str
    seconds: float  # from the start of its process


@contextmanager
def up(command: list[str], folder: Path, environ: tuple[str, ...] = ()) -> Iterator[Up]:
    """Start what serves a page on the port it is given, until the end of the block.

    `environ` are more variables, as NAME=value. Raises XaiDemoError with its last words where it
    does not come up.
    """
    port = _free_port()
    told = (*environ, "GRADIO_SERVER_NAME=127.0.0.1", f"GRADIO_SERVER_PORT={port}")
    begun, url = time.perf_counter(), f"http://127.0.0.1:{port}/"
    with subprocess.Popen(  # noqa: S603 - our own program
        ["/usr/bin/env", *told, *command],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            while not _answers(url):
                if process.poll() is not None or time.perf_counter() - begun > UP_WITHIN_S:
                    process.kill()
                    said = process.communicate()[1].decode(errors="replace").strip()
                    last = (said.splitlines() or ["nothing"])[-1]
                    raise XaiDemoError(f"The page did not come up; its last words: {last}")
                time.sleep(_LOOK_S)
            yield Up(url=url, seconds=time.perf_counter() - begun)
        finally:
            process.kill()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - this machine
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
