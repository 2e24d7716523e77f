"""A visitor of a page that is served in a process of its own, and what that process holds.

A visitor has an address and a session, and speaks to the queue as a browser does: upload, ask,
listen, fetch.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xai_demo.examples import EXAMPLES, example_path
from xai_demo.hub.space import RunningPage, serve_page

if TYPE_CHECKING:
    import httpx2

    from xai_demo.settings import Settings

TASKS = ("stethoscope", "chest_xray", "audioset")
API = "/gradio_api"
_TIMEOUT_S = 300.0
_ROOT = Path(__file__).resolve().parents[2]

Kind = Literal["answered", "busy", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one request."""

    visitor: int
    task: str
    seconds: float  # from asking to the answer
    kind: Kind
    text: str = ""  # what the visitor read, if it is not an answer
    rank: int = 0  # the place in the queue that the visitor was told first; 0: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a page's processes hold."""

    memory_mb: float  # shared pages counted once
    descriptors: int
    threads: int
    files: int  # uploads and results in its folder


@dataclass(frozen=True, slots=True)
class Page:
    """The addresses and arguments that a visitor's browser learns from the page."""

    url: str
    functions: Mapping[str, int]  # the index of each endpoint
    defaults: Mapping[str, list[Any]]  # of its arguments behind the file


@contextmanager
def serve(settings: Settings, *more: str) -> Iterator[tuple[RunningPage, Path]]:
    """The page, in a process of its own, and its folder of uploads."""
    with tempfile.TemporaryDirectory() as folder:
        environ = (
            f"XAI_DEMO_UPLOADS={folder}",
            f"XAI_DEMO_WEIGHTS={settings.weights_dir.resolve()}",
            f"XAI_DEMO_CACHE={settings.cache_dir.resolve()}",
            # So that each visitor can have an address.
            "XAI_DEMO_TRUSTED_PROXIES=127.0.0.1",
            "HF_HUB_OFFLINE=1",
            *more,
        )
        with serve_page([sys.executable, "app.py"], _ROOT, environ) as running:
            yield running, Path(folder)


@asynccontextmanager
async def connect(url: str, visitor: int) -> AsyncIterator[httpx2.AsyncClient]:
    """A browser with an address of its own, as a trusted proxy reports it."""
    import httpx2

    address = f"10.{77 + visitor // 62500}.{visitor // 250 % 250}.{visitor % 250 + 1}"
    headers = {"X-Forwarded-For": address}
    async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=_TIMEOUT_S) as http:
        yield http


async def open_page(url: str) -> Page:
    """Learn what a page offers."""
    async with connect(url, 0) as http:
        config = (await http.get("/config")).raise_for_status().json()
        info = (await http.get(f"{API}/info")).raise_for_status().json()
    functions = {each["api_name"]: each["id"] for each in config["dependencies"]}
    defaults = {}
    for task in TASKS:
        parameters = info["named_endpoints"][f"/{task}"]["parameters"]
        defaults[task] = [each.get("parameter_default") for each in parameters[1:]]
    return Page(url, {task: functions[task] for task in TASKS}, defaults)


async def ask(
    http: httpx2.AsyncClient,
    page: Page,
    task: str,
    *,
    visitor: int,
    path: Path | None = None,
    session: str = "",
) -> Outcome:
    """Upload a file, an example by default, ask for its analysis and wait for the answer.

    `session` is that of the visitor's page; by default it is a new one.
    """
    import httpx2

    session = session or f"{visitor}-{time.monotonic_ns():x}"
    listening = _Listening()
    began = time.monotonic()
    try:
        kind, text = await _ask(http, page, task, session, path or _example(task), listening)
    except httpx2.HTTPError as error:
        kind, text = "failed", f"{type(error).__name__}: {error}"
    seconds = time.monotonic() - began
    return Outcome(
        visitor=visitor, task=task, seconds=seconds, kind=kind, text=text, rank=listening.rank
    )


@dataclass(slots=True)
class _Listening:
    rank: int = 0
    # Of the answer.
    output: list[Any] = field(default_factory=list)


async def _ask(
    http: httpx2.AsyncClient,
    page: Page,
    task: str,
    session: str,
    path: Path,
    listening: _Listening,
) -> tuple[Kind, str]:
    content = await asyncio.to_thread(path.read_bytes)
    stored = await http.post(f"{API}/upload", files={"files": (path.name, content)})
    if not stored.is_success:
        return _refusal(stored.status_code, stored.text)
    file = {"path": stored.json()[0], "orig_name": path.name, "meta": {"_type": "gradio.FileData"}}
    body = {
        "data": [file, *page.defaults[task]],
        "fn_index": page.functions[task],
        "session_hash": session,
    }
    joined = await http.post(f"{API}/queue/join", json=body)
    if not joined.is_success:
        return _refusal(joined.status_code, joined.text)
    kind, text = await _listen(http, session, listening)
    if kind == "answered":
        # As the page does with the picture.
        picture = await http.get(f"{API}/file={listening.output[1]['path']}")
        if not picture.is_success:
            return "failed", f"picture: {picture.status_code}"
    return kind, text


async def _listen(
    http: httpx2.AsyncClient, session: str, listening: _Listening
) -> tuple[Kind, str]:
    """Read messages up to the answer of the only event of this session."""
    async with http.stream("GET", f"{API}/queue/data?session_hash={session}") as stream:
        async for line in stream.aiter_lines():
            if not line.startswith("data: "):
                continue
            message = json.loads(line.removeprefix("data: "))
            match message["msg"]:
                case "estimation":
                    listening.rank = listening.rank or int(message["rank"]) + 1
                case "process_completed" if message["success"]:
                    listening.output = message["output"]["data"]
                    has_answer = bool(listening.output[0]["predictions"])
                    return ("answered", "") if has_answer else ("failed", "no predictions")
                case "process_completed":
                    return _refusal(200, str(message["output"].get("error")))
                case "unexpected_error" | "server_stopped":
                    return "failed", str(message)
    return "failed", "the stream of messages ended"


def _refusal(status: int, text: str) -> tuple[Kind, str]:
    is_busy = status in (429, 503) or "is busy" in text
    return "busy" if is_busy else "failed", f"{status} {text[:200]}"


def _example(task: str) -> Path:
    return example_path(next(name for name, each in EXAMPLES.items() if each.task == task))


def usage(pid: int, folder: Path) -> Usage:
    """What a process and its children hold now, and how many files are in a folder (Linux)."""
    memory_kb, descriptors, threads = 0, 0, 0
    for each in process_tree(pid):
        process = Path(f"/proc/{each}")
        # A worker may end meanwhile.
        try:
            rows = dict(
                line.split(":", 1)
                for line in (process / "smaps_rollup").read_text().splitlines()[1:]
            )
            memory_kb += int(rows["Pss"].split()[0])
            descriptors += len(list((process / "fd").iterdir()))
            threads += len(list((process / "task").iterdir()))
        except (OSError, KeyError):
            continue
    files = sum(path.is_file() and path.suffix != ".lock" for path in folder.rglob("run-*/**/*"))
    return Usage(memory_mb=memory_kb / 1024, descriptors=descriptors, threads=threads, files=files)


def process_tree(pid: int) -> list[int]:
    """A process and its children, and theirs (Linux)."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name of a program, in parentheses, may contain spaces and parentheses.
            after = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(after[1])
    tree = [pid]
    for each in tree:
        tree += [child for child, parent in parents.items() if parent == each]
    return tree
