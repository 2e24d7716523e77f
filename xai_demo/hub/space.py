"""Deploy the Space: the files it needs, a trial run from them alone, one commit, a first answer.

The files are found from the imports, those inside functions included: `app.py`, the modules that it
and the exporting process import, the data files beside those modules, and the models.
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
from xai_demo.hub.download import failure_reason

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PACKAGE = "xai_demo"
# The second is started in a process of its own, so that no import leads to it.
_ENTRY_POINTS = ("app.py", f"{PACKAGE}/engine/onnx_export.py")
_TOP_LEVEL_FILES = ("README.md", "requirements.txt", "LICENSE")
_DATA_SUFFIXES = {".txt", ".css", ".js", ".flac", ".png", ".json", ".npz", ".safetensors", ".onnx"}
_DOC_SUFFIXES = {".md", ".svg", ".webp"}
_MODEL_FILES = {"config.json", "model.safetensors", "model.onnx", "MODEL_CARD.md"}
# A Space does not leave these stages without a new commit or its owner.
_BROKEN_STAGES = {
    "NO_APP_FILE",
    "CONFIG_ERROR",
    "BUILD_ERROR",
    "RUNTIME_ERROR",
    "PAUSED",
    "STOPPED",
}
# Until the Hub has noticed a commit, it reports the stage of the one before.
_GRACE_S = 60.0
_PROBE_FILE = f"{PACKAGE}/examples/wheeze.flac"


def required_files(root: Path) -> tuple[str, ...]:
    """The files that the Space needs, relative to the repository's root.

    Raises TrainingError where one is missing.
    """
    modules = _required_modules(root)
    # Examples and labels are opened by their path, so no import leads to them.
    folders = {Path(module).parent for module in modules} | {Path(PACKAGE) / "examples"}
    folders |= {Path(PACKAGE) / "catalog" / "labels"}
    data = {
        str(path.relative_to(root))
        # Of the root, only what `_TOP_LEVEL_FILES` names.
        for folder in folders - {Path()}
        for path in (root / folder).iterdir()
        if path.suffix in _DATA_SUFFIXES
    }
    weights = {
        str(path.relative_to(root))
        for path in (root / "weights").glob("*/*")
        if path.name in _MODEL_FILES
    }
    # The README is the Space's card: the pictures it shows and the pages it links to go with it.
    docs = {
        str(path.relative_to(root))
        for path in (root / "docs").rglob("*")
        if path.suffix in _DOC_SUFFIXES
    }
    names = sorted({*modules, *data, *weights, *docs, *_TOP_LEVEL_FILES})
    missing = [name for name in names if not (root / name).is_file()]
    if missing:
        raise TrainingError(
            f"{root / missing[0]} does not exist; a complete checkout of the repository is needed."
        )
    return tuple(names)


def list_files(root: Path, chosen: tuple[str, ...]) -> Iterator[str]:
    """Every file with its size, then the total."""
    sizes = {name: (root / name).stat().st_size for name in chosen}
    for name in chosen:
        yield f"{sizes[name]:>12,}  {name}"
    yield f"{sum(sizes.values()):>12,}  bytes in {len(sizes)} files"


@contextmanager
def serve_copy(root: Path, chosen: tuple[str, ...]) -> Iterator[RunningPage]:
    """Serve the page from a copy of those files alone, until the end of the block.

    Raises XaiDemoError where the page does not start.
    """
    with tempfile.TemporaryDirectory() as folder:
        for name in chosen:
            target = Path(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, target)
        with serve_page([sys.executable, "app.py"], Path(folder)) as page:
            yield page


def deploy(
    root: Path, chosen: tuple[str, ...], *, repo_id: str, message: str, api: HfApi | None = None
) -> str:
    """Make the Space hold exactly those files, in one commit; returns the commit's hash.

    Raises TrainingError with the Hub's reason.
    """
    from huggingface_hub import HfApi

    api = api or HfApi()
    try:
        commit = api.upload_folder(
            repo_id=repo_id,
            repo_type="space",
            folder_path=root,
            allow_patterns=list(chosen),
            # What an earlier deployment left is deleted in the same commit.
            delete_patterns="*",
            commit_message=message,
        )
    # The client's own messages contain addresses.
    except Exception as error:
        raise TrainingError(
            f"The Space was not updated: {failure_reason(error, repo_id)} It must be one that"
            " HF_TOKEN may write to."
        ) from error
    return str(commit.oid)


def wait_until_running(
    repo_id: str,
    commit: str,
    *,
    api: HfApi | None = None,
    within_s: float = 1800.0,
    pause_s: float = 15.0,
    grace_s: float = _GRACE_S,
) -> float:
    """Seconds until the Space runs that commit.

    While a Space is being built, the previous commit still answers: an answer alone proves nothing.
    Raises TrainingError where the build fails, or does not end in time.
    """
    from huggingface_hub import HfApi

    api = api or HfApi()
    start_s, state = time.perf_counter(), "its state is unknown"
    while (elapsed_s := time.perf_counter() - start_s) < within_s:
        try:
            runtime = api.get_space_runtime(repo_id)
        # The Hub may not answer for a moment.
        except Exception as error:
            state = failure_reason(error, repo_id)
        else:
            # Where the Hub does not name the commit, the stage has to be enough.
            stage, at = str(runtime.stage), runtime.raw.get("sha") or commit
            if stage == "RUNNING" and at == commit:
                return elapsed_s
            state = f"it is {stage} at {at}"
            if stage in _BROKEN_STAGES and elapsed_s > grace_s:
                break
        time.sleep(pause_s)
    raise TrainingError(f"{repo_id} does not run ({state}); expected RUNNING at {commit}.")


def wait_for_answer(
    where: str, root: Path, *, within_s: float = 1800.0, pause_s: float = 15.0
) -> float:
    """Seconds until a page, given by its address or a Space's name, has analysed an example.

    The request comes from Gradio's client, as any other program's would. Raises TrainingError.
    """
    from gradio_client import Client, handle_file
    from huggingface_hub import get_token

    # A private Space answers its owner only; no other server may see the token.
    token = None if "://" in where else get_token()
    start_s, fault = time.perf_counter(), "no request was sent"
    while time.perf_counter() - start_s < within_s:
        try:
            client = Client(where, token=token, verbose=False, analytics_enabled=False)
            answer: Any = client.predict(handle_file(root / _PROBE_FILE), api_name="/stethoscope")
            if answer[0]["predictions"]:
                return time.perf_counter() - start_s
            fault = "it answered without a prediction"
        # It is being built, or waking up.
        except Exception as error:
            fault = type(error).__name__
        time.sleep(pause_s)
    raise TrainingError(
        f"The page did not answer within {within_s:.0f} s ({fault}); expected predictions."
    )


def _required_modules(root: Path) -> set[str]:
    """The modules that the entry points import, directly or not."""
    queue, seen = [root / start for start in _ENTRY_POINTS], set[Path]()
    while queue:
        path = queue.pop()
        # Other packages, and names that are not modules, have no file here.
        if path in seen or not path.is_file():
            continue
        seen.add(path)
        for name in _imported_names(path):
            parts = name.split(".")
            # `from a.b import c` may mean the module a.b.c, and always runs the packages a and a.b.
            queue += [
                candidate
                for end in range(1, len(parts) + 1)
                for candidate in (
                    root.joinpath(*parts[:end]).with_suffix(".py"),
                    root.joinpath(*parts[:end], "__init__.py"),
                )
            ]
    return {str(path.relative_to(root)) for path in seen}


def _imported_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        # The project has no relative imports, whose module would lack its package.
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


START_TIMEOUT_S = 180.0
_POLL_INTERVAL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningPage:
    """A page that answers requests."""

    url: str
    seconds: float  # from the start of its process to its first response
    pid: int = 0


@contextmanager
def serve_page(
    command: list[str], folder: Path, environ: tuple[str, ...] = ()
) -> Iterator[RunningPage]:
    """Run a command that serves a page, on a free port, until the end of the block.

    `environ` holds further environment variables, as NAME=value. Raises XaiDemoError with the last
    line of its errors where the page does not start.
    """
    port = _free_port()
    variables = (*environ, "GRADIO_SERVER_NAME=127.0.0.1", f"GRADIO_SERVER_PORT={port}")
    start_s, url = time.perf_counter(), f"http://127.0.0.1:{port}/"
    # Variables are added by env(1), because only `settings` reads the environment of this process.
    # The log goes to a file: a pipe that nobody reads would stop the page once it is full.
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(  # noqa: S603 - our own program
            ["/usr/bin/env", *variables, *command],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=log,
        ) as process,
    ):
        try:
            while not _is_answering(url):
                if process.poll() is not None or time.perf_counter() - start_s > START_TIMEOUT_S:
                    process.kill()
                    process.wait()
                    log.seek(0)
                    errors = log.read().decode(errors="replace").strip()
                    last = (errors.splitlines() or ["nothing"])[-1]
                    raise XaiDemoError(f"The page did not start; the last line of its log: {last}")
                time.sleep(_POLL_INTERVAL_S)
            seconds = time.perf_counter() - start_s
            yield RunningPage(url=url, seconds=seconds, pid=process.pid)
        finally:
            # A server never ends by itself, and leaving the `with` block waits for its end.
            process.kill()


def _free_port() -> int:
    # Port 0 lets the system choose a free one.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _is_answering(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - this machine  # nosec B310
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
