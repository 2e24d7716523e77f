"""The Space: exactly the files that it needs, sent in one commit, and asked whether it answers.

What it needs is read from the imports, those inside of functions included: `app.py`, what that
imports, what the exporting process imports, the files beside those modules, and the models.

A page in a process of its own: how soon it answers, and its end.
"""

from __future__ import annotations

import ast
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.errors import TrainingError, XaiDemoError
from xai_demo.hub.download import reason

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PACKAGE = "xai_demo"
_STARTS = ("app.py", f"{PACKAGE}/engine/onnx_export.py")  # the second by a process of its own
_BESIDE = ("README.md", "requirements.txt", "LICENSE")
_DATA = {".txt", ".css", ".js", ".flac", ".png", ".json", ".npz", ".safetensors", ".onnx"}
_MODEL = {"config.json", "model.safetensors", "model.onnx", "MODEL_CARD.md"}
_BROKEN = {"NO_APP_FILE", "CONFIG_ERROR", "BUILD_ERROR", "RUNTIME_ERROR", "PAUSED", "STOPPED"}
_GRACE_S = 60.0  # for the Hub to notice a commit: until then it tells of the one before
_ASKED_FILE = f"{PACKAGE}/examples/wheeze.flac"


def files(root: Path) -> tuple[str, ...]:
    """The files of the Space, relative to the repository's root. Raises TrainingError."""
    modules = _needed(root)
    folders = {Path(module).parent for module in modules} | {Path(PACKAGE) / "examples"}
    folders |= {Path(PACKAGE) / "catalog" / "labels"}
    data = {
        str(path.relative_to(root))
        for folder in folders - {Path()}
        for path in (root / folder).iterdir()
        if path.suffix in _DATA
    }
    weights = {
        str(path.relative_to(root))
        for path in (root / "weights").glob("*/*")
        if path.name in _MODEL
    }
    found = sorted({*modules, *data, *weights, *_BESIDE})
    missing = [name for name in found if not (root / name).is_file()]
    if missing:
        raise TrainingError(f"{root / missing[0]} is not there; wanted: the whole repository.")
    return tuple(found)


def lines(root: Path, chosen: tuple[str, ...]) -> Iterator[str]:
    """Every file with its size, and all of them together."""
    sizes = {name: (root / name).stat().st_size for name in chosen}
    for name in chosen:
        yield f"{sizes[name]:>12,}  {name}"
    yield f"{sum(sizes.values()):>12,}  bytes in {len(sizes)} files"


@contextmanager
def started(root: Path, chosen: tuple[str, ...]) -> Iterator[Up]:
    """Those files alone, in a folder of their own, served until the end of the block.

    Raises XaiDemoError where the page does not come up.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target)
        with up([sys.executable, "app.py"], Path(folder)) as page:
            yield page


def deploy(
    root: Path, chosen: tuple[str, ...], *, repo_id: str, message: str, api: HfApi | None = None
) -> str:
    """Make the Space hold those files and no others, in one commit; returns the commit.

    Large files go where the Hub wants them. Raises TrainingError with the Hub's reason.
    """
    from huggingface_hub import HfApi

    api = api or HfApi()
    try:
        made = api.upload_folder(
            repo_id=repo_id,
            repo_type="space",
            folder_path=root,
            allow_patterns=list(chosen),
            delete_patterns="*",
            commit_message=message,
        )
    except Exception as error:  # the client's own hold addresses
        raise TrainingError(
            f"The Space was not updated: {reason(error, repo_id)} Wanted: a Space that HF_TOKEN"
            " may write to."
        ) from error
    return str(made.oid)


def running_s(
    repo_id: str,
    commit: str,
    *,
    api: HfApi | None = None,
    within_s: float = 1800.0,
    pause_s: float = 15.0,
    grace_s: float = _GRACE_S,
) -> float:
    """Seconds until the Space runs that commit; raises TrainingError where it breaks or never does.

    While a Space is built, the commit before goes on answering: an answer alone says nothing.
    """
    from huggingface_hub import HfApi

    api = api or HfApi()
    begun, seen = time.perf_counter(), "nothing was heard of it"
    while (passed_s := time.perf_counter() - begun) < within_s:
        try:
            runtime = api.get_space_runtime(repo_id)
        except Exception as error:  # the Hub may be away for a moment
            seen = reason(error, repo_id)
        else:
            stage, at = str(runtime.stage), runtime.raw.get("sha") or commit
            if stage == "RUNNING" and at == commit:
                return passed_s
            seen = f"it is {stage} at {at}"
            if stage in _BROKEN and passed_s > grace_s:
                break
        time.sleep(pause_s)
    raise TrainingError(f"{repo_id} does not run ({seen}); wanted: RUNNING at {commit}.")


def asked(where: str, root: Path, *, within_s: float = 1800.0, pause_s: float = 15.0) -> float:
    """Seconds until a page, by its address or a Space's name, answers for an example.

    It is asked through Gradio's client, as anybody's program would ask it. Raises TrainingError.
    """
    from gradio_client import Client, handle_file
    from huggingface_hub import get_token

    # A Space that only its owner sees is asked in the owner's name; no other page hears of it.
    token = None if "://" in where else get_token()
    begun, fault = time.perf_counter(), "it was not asked"
    while time.perf_counter() - begun < within_s:
        try:
            client = Client(where, token=token, verbose=False, analytics_enabled=False)
            answer: Any = client.predict(handle_file(root / _ASKED_FILE), api_name="/stethoscope")
            if answer[0]["predictions"]:
                return time.perf_counter() - begun
            fault = "it answered without a prediction"
        except Exception as error:  # it is being built, or wakes
            fault = type(error).__name__
        time.sleep(pause_s)
    raise TrainingError(
        f"The Space did not answer within {within_s:.0f} s ({fault}); wanted: predictions."
    )


def _needed(root: Path) -> set[str]:
    """The modules that the starts import, however deep."""
    waiting, known = [root / start for start in _STARTS], set[Path]()
    while waiting:
        path = waiting.pop()
        if path in known or not path.is_file():
            continue
        known.add(path)
        for name in _imported(path):
            parts = name.split(".")
            waiting += [
                candidate
                for end in range(1, len(parts) + 1)
                for candidate in (
                    root.joinpath(*parts[:end]).with_suffix(".py"),
                    root.joinpath(*parts[:end], "__init__.py"),
                )
            ]
    return {str(path.relative_to(root)) for path in known}


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


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
