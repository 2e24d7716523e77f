"""Nobody waits for one: bounds for each visitor, lanes, and turns of those who have left."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest

from tests.support.fake_analyser import FakeAnalyser, write_film
from xai_demo.settings import Settings
from xai_demo.tabs import build
from xai_demo.tabs import queue as turns
from xai_demo.tabs.queue import VisitorQueue
from xai_demo.tabs.server import serve

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("model", "explainer", "target", "layer")


class Visitor:
    """A visitor of the page, with plain HTTP; `session` as the page sends it, None as curl does."""

    def __init__(self, page: gr.Blocks, session: str | None = None) -> None:
        self.page, self.session = page, session
        self.client = httpx.Client(base_url=str(page.local_url).rstrip("/"), timeout=60)

    def upload(self, path: Path, name: str | None = None) -> dict[str, Any]:
        files = {"files": (name or path.name, path.read_bytes())}
        (stored,) = self.client.post("/gradio_api/upload", files=files).json()
        meta = {"_type": "gradio.FileData"}
        return {"path": stored, "orig_name": name or path.name, "meta": meta}

    def ask(self, file: dict[str, Any], explainer: str | None = None) -> httpx.Response:
        data = [file, None, explainer, *[None] * 6]
        fn = next(fn for fn in self.page.fns.values() if fn.api_name == "stethoscope")
        if self.session is None:
            return self.client.post("/gradio_api/call/stethoscope", json={"data": data})
        return self.join(fn._id, data)

    def join(self, fn_index: int, data: list[Any]) -> httpx.Response:
        body = {"data": data, "fn_index": fn_index, "session_hash": self.session}
        return self.client.post("/gradio_api/queue/join", json=body)

    def stream(self, event: str | None = None) -> Any:
        if self.session is None:
            return self.client.stream("GET", f"/gradio_api/call/stethoscope/{event}")
        query = {"session_hash": self.session}
        return self.client.stream("GET", "/gradio_api/queue/data", params=query)

    def answer(self, file: dict[str, Any]) -> dict[str, Any]:
        """The report for a file, as a program gets it."""
        event = self.ask(file).json()["event_id"]
        with self.stream(event) as stream:
            for line in stream.iter_lines():
                if self.session is None and line.startswith("data: ["):
                    return dict(json.loads(line[6:])[0])
                if "process_completed" in line:
                    return dict(json.loads(line[6:])["output"]["data"][0])
        raise AssertionError("no answer")


@pytest.fixture(scope="module")
def fake() -> FakeAnalyser:
    return FakeAnalyser()


@pytest.fixture(scope="module")
def page(fake: FakeAnalyser) -> Iterator[gr.Blocks]:
    # Five seconds are promised, with the moment between two looks; the tests wait for less.
    assert max(turns._LEFT_S, turns._SILENT_S) + turns._LOOK_EVERY_S <= 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(turns, "_LEFT_S", 1.0)
        patch.setattr(turns, "_SILENT_S", 1.5)
        page = serve(build(fake), Settings.from_env({"XAI_DEMO_MAX_UPLOAD_MB": "5"}))
        yield page
        page.close(verbose=False)


@pytest.fixture
def queue(page: gr.Blocks) -> Iterator[VisitorQueue]:
    assert isinstance(page._queue, VisitorQueue)
    yield page._queue
    assert wait_for(lambda: not page._queue._jobs), "jobs are left"


def wait_for(check: Callable[[], Any], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def event_of(page: gr.Blocks, concurrency_id: str) -> Any:
    return next(fn for fn in page.fns.values() if fn.concurrency_id == concurrency_id)


def test_a_fourth_job_is_turned_away_with_the_place_in_the_queue(
    page: gr.Blocks, queue: VisitorQueue, tone: Path
) -> None:
    visitor, stranger = Visitor(page, "greedy"), Visitor(page, "stranger")
    file = visitor.upload(tone, "long-greedy.wav")
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: visitor.ask(file), range(9)))
    assert sorted(each.status_code for each in answers) == [200] * 3 + [429] * 6
    refused = next(each for each in answers if each.status_code == 429)
    assert "You have 3 requests in the queue, the first at place 1" in refused.json()["detail"]
    assert refused.headers["retry-after"] == "30"
    assert stranger.answer(stranger.upload(tone))["file"] == "tone.wav"


@pytest.mark.parametrize("session", [None, "leaver"])
def test_who_asks_and_never_listens_loses_the_turn(
    page: gr.Blocks, queue: VisitorQueue, fake: FakeAnalyser, tone: Path, session: str | None
) -> None:
    visitor, name = Visitor(page, session), f"long-silent-{session}.wav"
    asked = time.monotonic()
    assert visitor.ask(visitor.upload(tone, name)).status_code == 200
    assert wait_for(lambda: name in fake.stopped, 8)
    assert time.monotonic() - asked < 8
    assert wait_for(lambda: queue.n_jobs() == 0)


@pytest.mark.parametrize("session", [None, "hanger"])
def test_who_hangs_up_loses_the_turn(
    page: gr.Blocks, queue: VisitorQueue, fake: FakeAnalyser, tone: Path, session: str | None
) -> None:
    visitor, name = Visitor(page, session), f"long-hung-{session}.wav"
    event = visitor.ask(visitor.upload(tone, name)).json()["event_id"]
    with visitor.stream(event) as stream:
        # Longer than who does not listen may stay.
        assert not wait_for(lambda: name in fake.stopped, 2)
        assert stream.status_code == 200
    visitor.client.close()
    left = time.monotonic()
    assert wait_for(lambda: name in fake.stopped, 8)
    assert time.monotonic() - left < 8


def test_forty_silent_streams_leave_room_and_end(
    page: gr.Blocks, queue: VisitorQueue, tone: Path
) -> None:
    live = event_of(page, "live")
    visitors = [Visitor(page, f"live-{i}") for i in range(40)]
    file = visitors[0].upload(tone)
    statuses = [v.join(live._id, [file, None, None]).status_code for v in visitors]
    assert statuses.count(200) == queue.lanes["live"].per_address
    assert statuses.count(429) == 40 - statuses.count(200)
    # Whoever starts again replaces the stream before.
    assert visitors[0].join(live._id, [file, None, None]).status_code == 200
    stranger = Visitor(page, "listener")
    began = time.monotonic()
    assert stranger.answer(stranger.upload(tone))["file"] == "tone.wav"
    assert time.monotonic() - began < 10
    assert wait_for(lambda: queue.n_jobs("live") == 0, 12)


def test_a_stream_that_is_listened_to_but_silent_ends(
    page: gr.Blocks, queue: VisitorQueue, tone: Path
) -> None:
    visitor, live = Visitor(page, "quiet"), event_of(page, "live")
    event = visitor.join(live._id, [visitor.upload(tone), None, None]).json()["event_id"]
    with visitor.stream() as stream:
        lines = stream.iter_lines()
        assert wait_for(lambda: "process_streaming" in next(lines))
        chunk = {"data": [visitor.upload(tone), None, None], "session_hash": "quiet"}
        # Chunks keep it alive for longer than silence would.
        for _ in range(4):
            time.sleep(0.8)
            answer = httpx.post(f"{page.local_url}gradio_api/stream/{event}", json=chunk)
            assert answer.status_code == 200
        assert queue.n_jobs("live") == 1
        quiet = time.monotonic()
        assert any("process_completed" in line for line in lines)
        assert 1 < time.monotonic() - quiet < 10


def test_slow_requests_have_a_lane_of_their_own(
    page: gr.Blocks, queue: VisitorQueue, tone: Path
) -> None:
    visitors = [Visitor(page, f"shap-{i}") for i in range(20)]
    file = visitors[0].upload(tone, "long-shap.wav")
    answers = [visitor.ask(file, "SHAP") for visitor in visitors]
    statuses = [each.status_code for each in answers]
    assert statuses.count(200) == queue.lanes["slow"].per_address
    assert "requests from your address are in the queue" in answers[-1].json()["detail"]
    assert sum(job.is_running for job in queue._jobs.values()) <= 1
    stranger = Visitor(page, None)
    assert stranger.answer(stranger.upload(tone))["file"] == "tone.wav"


def test_previews_wait_for_each_other_and_newer_ones_replace_older(
    page: gr.Blocks, queue: VisitorQueue, tmp_path: Path
) -> None:
    film, preview = write_film(tmp_path / "film.png"), event_of(page, "previews")
    visitor = Visitor(page, "films")
    file = visitor.upload(film)
    statuses = {visitor.join(preview._id, [file]).status_code for _ in range(20)}
    assert statuses == {200}
    assert queue.n_jobs("previews") <= 2
    with visitor.stream() as stream:
        assert any("close_stream" in line for line in stream.iter_lines())
    direct = visitor.client.post(
        "/gradio_api/run/predict", json={"data": [file], "fn_index": preview._id}
    )
    assert direct.status_code == 404


def test_first_come_first_served_and_everybodys_first_before_a_second(
    page: gr.Blocks, queue: VisitorQueue, tone: Path
) -> None:
    visitors = [Visitor(page, f"line-{name}") for name in "ab"]
    file = visitors[0].upload(tone, "long-line.wav")
    order = [visitors[0]] * 3 + [visitors[1]]
    for visitor in order:
        assert visitor.ask(file, "SHAP").status_code == 200
    assert wait_for(lambda: sum(job.is_running for job in queue._jobs.values()) == 1)
    waiting = queue._in_order(queue.event_queue_per_concurrency_id["slow"].queue)
    assert [event.session_hash for event in waiting] == ["line-b", "line-a", "line-a"]


def test_a_visitors_name_for_a_file_is_shown_and_never_on_disk(
    page: gr.Blocks, queue: VisitorQueue, tone: Path
) -> None:
    visitor = Visitor(page, "max")
    file = visitor.upload(tone, "Max Muster 1950.wav")
    assert visitor.answer(file)["file"] == "Max Muster 1950.wav"
    folder = Path(file["path"]).parent
    assert not [p for p in folder.rglob("*") if "Muster" in str(p)]
    del file["orig_name"]
    assert visitor.answer(file)["file"] == "upload.wav"


def test_what_a_visitor_sends_is_quoted_in_short(
    page: gr.Blocks, queue: VisitorQueue, tone: Path
) -> None:
    visitor = Visitor(page, None)
    file = visitor.upload(tone)
    for place in range(1, 5):
        data = [file, *[None] * 8]
        data[place] = "x y" * 500
        answer = visitor.client.post("/gradio_api/call/stethoscope", json={"data": data})
        with visitor.stream(answer.json()["event_id"]) as stream:
            said = stream.read().decode()
        if "event: error" in said:
            assert "x y" * 30 not in said
            assert str(ROOT) not in said
    missing = visitor.client.post("/gradio_api/call/nothing", json={"data": []})
    assert missing.status_code == 404
    assert missing.json() == {"detail": "There is no such endpoint."}


PROGRAM = """
import sys
from tests.support.fake_analyser import FakeAnalyser
from xai_demo.analysis.reading import Reader
from xai_demo.settings import Settings
from xai_demo.tabs import server

class Fake(FakeAnalyser):
    def __init__(self, settings, *, pool, **options):
        super().__init__(delay_s=float(sys.argv[1]))
        self.reader = Reader(settings, pool)

    def warm_up(self):
        # The server is ready once a worker has read something.
        self.reader.deidentify("app.py", name="app.py")

if __name__ == "__main__":
    server.Analyser = Fake
    server.launch(Settings.from_env())
"""


def started(port: int, tmp_path: Path, delay_s: float) -> subprocess.Popen[str]:
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = {
        **os.environ,
        "GRADIO_SERVER_PORT": str(port),
        "XAI_DEMO_UPLOADS": str(tmp_path / "uploads"),
        "XAI_DEMO_LOG": "json",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, str(tmp_path / "program.py"), str(delay_s)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_a_server_that_is_told_to_end_finishes_its_answers(tmp_path: Path, tone: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/gradio_api"
    with started(port, tmp_path, 3.0) as process:
        assert wait_for(lambda: is_ready(port), 120)
        (path,) = httpx.post(
            f"{url}/upload", files={"files": ("Muster.wav", tone.read_bytes())}
        ).json()
        file = {"path": path, "orig_name": "Muster.wav", "meta": {"_type": "gradio.FileData"}}
        body = {"data": [file, *[None] * 8]}
        event = httpx.post(f"{url}/call/stethoscope", json=body).json()["event_id"]
        with httpx.stream("GET", f"{url}/call/stethoscope/{event}", timeout=60) as stream:
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            assert wait_for(lambda: not is_ready(port))
            late = httpx.post(f"{url}/call/stethoscope", json=body)
            assert (late.status_code, late.headers["retry-after"]) == (503, "60")
            assert "event: complete" in stream.read().decode()
        log = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert [path.name for path in (tmp_path / "uploads").iterdir()] == ["lock"]
    lines = [json.loads(line) for line in log.splitlines()]
    (answer,) = (line for line in lines if line["message"] == "answer")
    assert answer["task"] == "stethoscope"
    assert answer["decision"] == "answer"
    assert any(
        line.get("route") == "ask" and line["request_id"] == answer["request_id"] for line in lines
    )
    assert "Muster" not in log
    assert path not in log


def test_a_port_that_is_taken_ends_the_program_with_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        environment = {**os.environ, "GRADIO_SERVER_PORT": port, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "app.py"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 1
    assert f"Port {port} is taken by another program" in done.stderr
    assert "Traceback" not in done.stderr
