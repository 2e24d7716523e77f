"""Attacks on one real server: a stranger who brings a 9 s wheeze meanwhile is answered in 15 s.

The server is a process of its own. `prlimit` allows each of its processes 6 GB of data, and a
watcher adds up what all of them hold, shared pages counted once: that must stay below 6 GB too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.support import asynchronous
from tests.support.hostile_files import wav_bytes
from xai_demo.bench.visitor import (
    API,
    Outcome,
    Page,
    ask,
    connect,
    open_page,
    process_tree,
    usage,
)
from xai_demo.examples import example_path
from xai_demo.hub.space import serve_page

_T = TypeVar("_T")

ROOT = Path(__file__).resolve().parents[2]
LIMIT_BYTES = 6 * 2**30
STRANGER_S = 15.0
QUOTA_MB, LARGEST_MB = 120, 50
QUEUE_LENGTH = "xai_demo_queue_length{"
START_S = 120


@dataclass
class Server:
    """The server, and what its processes held at most."""

    url: str
    pid: int
    uploads: Path
    page: Page
    strangers: int = 0
    peak_mb: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self.stop.wait(0.2):
            self.peak_mb = max(self.peak_mb, usage(self.pid, self.uploads).memory_mb)

    def files(self) -> int:
        return usage(self.pid, self.uploads).files

    async def stranger(self) -> Outcome:
        """Somebody who has never been here, with a wheeze."""
        self.strangers += 1
        number = 60_000 + self.strangers
        async with connect(self.url, number) as http:
            path = example_path("wheeze")
            return await ask(http, self.page, "stethoscope", visitor=number, path=path)

    async def check(self) -> None:
        """The stranger is answered soon, and memory has stayed below the limit."""
        outcome = await asyncio.wait_for(self.stranger(), 4 * STRANGER_S)
        assert outcome.kind == "answered", outcome
        assert outcome.seconds < STRANGER_S, outcome
        assert self.peak_mb < LIMIT_BYTES / 2**20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    uploads = tmp_path_factory.mktemp("uploads")
    environ = (
        f"XAI_DEMO_UPLOADS={uploads}",
        f"XAI_DEMO_UPLOADS_MB={QUOTA_MB}",
        f"XAI_DEMO_MAX_UPLOAD_MB={LARGEST_MB}",
        f"XAI_DEMO_CACHE={tmp_path_factory.mktemp('cache')}",
        "XAI_DEMO_MIN_FREE_MB=1",
        "XAI_DEMO_TRUSTED_PROXIES=127.0.0.1",
        "XAI_DEMO_EXPORT=off",
        "XAI_DEMO_LOG=json",
        "HF_HUB_OFFLINE=1",
    )
    limited = [shutil.which("prlimit") or "prlimit", f"--data={LIMIT_BYTES}"]
    command = [*limited, sys.executable, "app.py"]
    with serve_page(command, ROOT, environ) as running:
        page = asynchronous.run(open_page(running.url))
        served = Server(running.url, running.pid, uploads, page)
        watcher = threading.Thread(target=served.watch, daemon=True)
        watcher.start()
        wait_until_ready(running.url)
        asynchronous.run(served.stranger())
        yield served
        served.stop.set()
        watcher.join()


def wait_until_ready(url: str) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        if httpx2.get(f"{url}readyz", timeout=30).status_code == 200:
            return
        time.sleep(0.2)
    raise AssertionError("the server is not ready")


# What attackers send


def webp_bomb(side: int) -> bytes:
    """A lossless WebP of one colour: 38 bytes, whatever its size."""
    size = struct.pack("<I", (side - 1) | (side - 1) << 14)
    data = b"\x2f" + size + bytes.fromhex("0750ad6a55abff8188e87f00")
    chunk = b"WEBPVP8L" + struct.pack("<I", len(data)) + data + bytes(len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(chunk)) + chunk


def dicom_bomb(side: int = 10_000, components: int = 40) -> bytes:
    """564 bytes: JPEG 2000 of 40 components of 100 megapixels, and a DICOM that knows of one."""

    def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
        return struct.pack("<HH2sH", group, number, kind, len(value)) + value

    def short(number: int, value: int) -> bytes:
        return element(0x28, number, b"US", struct.pack("<H", value))

    def item(data: bytes) -> bytes:
        return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(data)) + data

    size = struct.pack(">HHIIIIIIIIH", 38 + 3 * components, 0, side, side, 0, 0, side, side, 0, 0,
                       components)  # fmt: skip
    stream = b"\xff\x4f\xff\x51" + size + b"\x07\x01\x01" * components
    stream += bytes.fromhex("ff52000c00000001000504040001")
    stream += bytes.fromhex("ff5c001340081010181010181010181010181010 18".replace(" ", ""))
    comment = b"Created by OpenJPEG version 2.5.2"
    stream += b"\xff\x64" + struct.pack(">HH", 4 + len(comment), 1) + comment
    stream += bytes.fromhex("ff90000a0000000000170001ff93d100087f8080808080ffd900")
    head = bytes(128) + b"DICM" + element(2, 0x10, b"UI", b"1.2.840.10008.1.2.4.90")
    head += element(8, 0x60, b"CS", b"DX") + short(2, 1) + element(0x28, 4, b"CS", b"MONOCHROME2 ")
    head += short(0x10, side) + short(0x11, side) + short(0x100, 8) + short(0x101, 8)
    head += (
        short(0x102, 7)
        + short(0x103, 0)
        + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 2**32 - 1)
    )
    return head + item(bytes(4)) + item(stream) + b"\xfe\xff\xdd\xe0" + bytes(4)


def overlapping_cycles(count: int) -> bytes:
    """Lines of an annotation: each of these cycles is nearly as long as the recording."""
    return b"".join(b"0.%06d\t8.9\t0\t1\n" % number for number in range(count))


# How they send it


async def upload(http: httpx2.AsyncClient, name: str, content: bytes) -> httpx2.Response:
    return await http.post(f"{API}/upload", files={"files": (name, content)})


def file_data(path: str, name: str) -> dict[str, Any]:
    return {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}


async def join(
    http: httpx2.AsyncClient, function: int, data: list[Any], session: str
) -> httpx2.Response:
    body = {"data": data, "fn_index": function, "session_hash": session}
    return await http.post(f"{API}/queue/join", json=body)


async def messages(http: httpx2.AsyncClient, session: str) -> list[dict[str, Any]]:
    """Listen to everything that a session is told, until its last event has ended."""
    told = []
    async with http.stream("GET", f"{API}/queue/data?session_hash={session}") as stream:
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                told.append(json.loads(line.removeprefix("data: ")))
    return told


def end_of(told: list[dict[str, Any]]) -> dict[str, Any]:
    """The message with which the only event of a session ended."""
    (completed,) = [each for each in told if each["msg"] == "process_completed"]
    return completed


async def function_of(server: Server, element: str, event: str) -> int:
    """The index of the page's event on an element."""
    async with connect(server.url, 0) as http:
        config = (await http.get("/config")).json()
    ids = {each["id"] for each in config["components"] if each["props"].get("elem_id") == element}
    matching = [
        each["id"]
        for each in config["dependencies"]
        if each["queue"] is not False
        and any(t[0] in ids and t[1] == event for t in each["targets"])
    ]
    return int(matching[0])


async def until_idle(server: Server) -> None:
    """Wait until those who attacked before have been missed: their requests fill the lanes."""
    end = time.monotonic() + 30
    async with connect(server.url, 0) as http:
        while time.monotonic() < end:
            lines = (await http.get("/metrics")).text.splitlines()
            lengths = [line.split()[-1] for line in lines if line.startswith(QUEUE_LENGTH)]
            assert lengths
            if not any(map(float, lengths)):
                return
            await asyncio.sleep(0.2)
    raise AssertionError("the queue does not empty")


async def while_attacked(
    server: Server, attackers: list[Coroutine[Any, Any, _T]], *, seen: Callable[[], bool]
) -> list[_T | BaseException]:
    """Attack, and have the stranger answered once the attack is `seen`; then let go."""
    await until_idle(server)
    tasks = [asyncio.ensure_future(each) for each in attackers]
    try:
        end = time.monotonic() + 30
        while not seen() and time.monotonic() < end:
            await asyncio.sleep(0.1)
        assert seen(), "the attack did not begin"
        await server.check()
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    return list(results)


# The attacks


def test_the_bomb_is_what_it_is_said_to_be() -> None:
    assert len(dicom_bomb()) == 564
    assert len(webp_bomb(10_000)) == 38


def test_after_a_dicom_bomb(server: Server) -> None:
    async def attack() -> None:
        async with connect(server.url, 1) as http:
            stored = await upload(http, "film.dcm", dicom_bomb())
            # Refused at the door, or when it is to be read: never decoded.
            if stored.is_success:
                file = file_data(stored.json()[0], "film.dcm")
                joined = await join(
                    http,
                    server.page.functions["chest_xray"],
                    [file, *server.page.defaults["chest_xray"]],
                    "bomb",
                )
                assert joined.is_success
                assert not end_of(await messages(http, "bomb"))["success"]
            else:
                assert stored.status_code == 422, stored.text
        await server.check()

    asynchronous.run(attack())


@pytest.mark.parametrize("side", [10_000, 7_700])
def test_during_forty_previews_of_a_large_webp(server: Server, side: int) -> None:
    joined: list[int] = []

    async def preview(function: int, number: int) -> None:
        async with connect(server.url, 100 + number) as http:
            stored = (await upload(http, "film.webp", webp_bomb(side))).json()[0]
            session = f"preview-{side}-{number}"
            file = file_data(stored, "film.webp")
            status = (await join(http, function, [file], session)).status_code
            joined.append(status)
            if status == 200:
                await messages(http, session)

    async def attack() -> None:
        function = await function_of(server, "chest_xray-file", "change")
        attackers = [preview(function, number) for number in range(40)]
        await while_attacked(server, attackers, seen=lambda: len(joined) == 40)

    asynchronous.run(attack())
    # Those for whom there is no room are told so.
    assert set(joined) <= {200, 429}
    assert joined.count(200) >= 10


def test_after_overlapping_cycles(server: Server) -> None:
    async def attack() -> Outcome:
        task, page = "stethoscope", server.page
        async with connect(server.url, 2) as http:
            stored = await upload(http, "cycles.txt", overlapping_cycles(180_000))
            assert stored.is_success
            defaults = list(page.defaults[task])
            info = (await http.get(f"{API}/info")).json()["named_endpoints"][f"/{task}"]
            names = [each["parameter_name"] for each in info["parameters"][1:]]
            defaults[names.index("cycles")] = file_data(stored.json()[0], "cycles.txt")
            given = Page(page.url, page.functions, {task: defaults})
            attacker = asyncio.ensure_future(ask(http, given, task, visitor=2))
            await asyncio.sleep(1)
            await server.check()
            return await attacker

    outcome = asynchronous.run(attack())
    assert outcome.kind == "failed"
    assert "cycles.txt" in outcome.text


def test_during_forty_silent_live_streams(server: Server) -> None:
    joined: list[int] = []
    chunk = wav_bytes(bytes(8000), rate=8000)

    async def listen(function: int, number: int) -> None:
        # Five addresses, so that the lane is filled and not only one address's share of it.
        async with connect(server.url, 200 + number % 5) as http:
            stored = await upload(http, "audio.wav", chunk)
            session = f"live-{number}"
            data = [file_data(stored.json()[0], "audio.wav"), None, None]
            joined.append((await join(http, function, data, session)).status_code)
            await messages(http, session)

    async def attack() -> None:
        function = await function_of(server, "stethoscope-microphone", "stream")
        attackers = [listen(function, number) for number in range(40)]
        await while_attacked(server, attackers, seen=lambda: len(joined) == 40)

    asynchronous.run(attack())
    assert set(joined) <= {200, 429}
    assert joined.count(200) >= 1


def test_during_shap_requests_from_one_address(server: Server) -> None:
    joined: list[str] = []

    async def explain(stored: str, number: int) -> None:
        task = "chest_xray"
        async with connect(server.url, 3) as http:
            data = [file_data(stored, "film.png"), *server.page.defaults[task]]
            # Behind the file: model, explainer.
            data[2] = "SHAP"
            answer = await join(http, server.page.functions[task], data, f"shap-{number}")
            joined.append(f"{answer.status_code} {answer.text}")
            await messages(http, f"shap-{number}")

    async def attack() -> None:
        async with connect(server.url, 3) as http:
            content = example_path("clear-film").read_bytes()
            stored = (await upload(http, "film.png", content)).json()[0]
        attackers = [explain(stored, number) for number in range(45)]
        await while_attacked(server, attackers, seen=lambda: len(joined) == 45)

    asynchronous.run(attack())
    statuses = [int(each[:3]) for each in joined]
    assert set(statuses) == {200, 429}
    # The sentence has a number of requests or a place.
    busy = [each for each in joined if each.startswith("429")]
    assert all("queue" in each for each in busy)


def test_after_aborted_uploads(server: Server) -> None:
    before = server.files()
    place = urlsplit(server.url)
    head = (
        "POST {api}/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: 10.9.{high}.{low}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000000\r\n\r\n"
        '--b\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
    )
    for number in range(300):
        with socket.create_connection((place.hostname, place.port), 30) as connection:
            text = head.format(api=API, high=number // 250, low=number % 250)
            connection.sendall(text.encode() + bytes(60_000))
            # Closed by a reset, as when a visitor's phone loses its network.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    asynchronous.run(server.check())
    assert wait_for(lambda: server.files() <= before + 4)


def test_a_full_disk_that_is_freed_again(server: Server) -> None:
    async def fill() -> list[int]:
        statuses = []
        async with connect(server.url, 4) as http:
            for _ in range(2 + QUOTA_MB // LARGEST_MB):
                content = bytes(LARGEST_MB * 1_000_000 - 1000)
                statuses.append((await upload(http, "a.wav", content)).status_code)
        return statuses

    statuses = asynchronous.run(fill())
    assert statuses[0] == 200
    assert statuses[-1] == 507
    large = [path for path in server.uploads.rglob("*") if path.is_file()]
    for path in large:
        if path.stat().st_size > 1_000_000:
            path.unlink()
    asynchronous.run(server.check())


def test_after_decoders_are_killed(server: Server) -> None:
    joined: list[int] = []

    async def preview(function: int) -> list[dict[str, Any]]:
        async with connect(server.url, 300) as http:
            stored = (await upload(http, "film.webp", webp_bomb(7_700))).json()[0]
            joined.append(
                (await join(http, function, [file_data(stored, "film.webp")], "killed")).status_code
            )
            return await messages(http, "killed")

    async def attack() -> list[dict[str, Any]]:
        await until_idle(server)
        function = await function_of(server, "chest_xray-file", "change")
        victim = asyncio.ensure_future(preview(function))
        end = time.monotonic() + 30
        while not joined and time.monotonic() < end:
            await asyncio.sleep(0.02)
        # The server's children are nurseries, and theirs are the workers.
        children = [pid for pid in process_tree(server.pid) if parent_of(pid) == server.pid]
        workers = set(process_tree(server.pid)) - {server.pid, *children}
        assert workers
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSEGV)
        await server.check()
        return await victim

    # One sentence, where the preview would be.
    told = str(end_of(asynchronous.run(attack()))["output"])
    assert "made the program that reads it stop" in told


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def wait_for(is_so: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if is_so():
            return True
        time.sleep(0.2)
    return False
