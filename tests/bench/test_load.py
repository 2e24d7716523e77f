"""Load: the figures by hand, a visitor at the page, and what a process holds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import asynchronous
from xai_demo.bench import load
from xai_demo.bench.visitor import TASKS, Outcome, ask, connect, open_page, process_tree, usage
from xai_demo.cli import main

if TYPE_CHECKING:
    import gradio as gr


def outcome(visitor: int, seconds: float, kind: str = "answered", text: str = "") -> Outcome:
    return Outcome(
        visitor=visitor, task="audioset", seconds=seconds, kind=kind, text=text, rank=visitor
    )


OUTCOMES = [
    outcome(1, 1.0),
    outcome(1, 3.0),
    outcome(2, 2.0),
    outcome(3, 6.0),
    outcome(3, 0.1, "busy", "429 64 requests are in the queue, yours would be number 65."),
    outcome(4, 0.1, "busy", "busy"),
    outcome(4, 0.1, "failed", "500"),
]


def test_waits_are_compared_by_request_and_by_visitor() -> None:
    result = load.visitor_figures(OUTCOMES, [100.0] * 60 + [90.0] * 30 + [104.0] * 60)
    assert (result["requests"], result["answered"], result["busy"], result["failed"]) == (
        7,
        4,
        2,
        1,
    )
    assert result["busy_with_place"] == 1
    assert result["failures"] == {"500": 1}
    assert (result["wait_median_s"], result["wait_longest_s"]) == (2.5, 6.0)
    # Means of 2, 2 and 6.
    assert (result["visitor_median_s"], result["visitor_longest_s"]) == (2.0, 6.0)
    assert result["rank_highest"] == 4
    assert result["memory_first_minute_mb"] == 100
    assert result["memory_last_minute_mb"] == 104


def test_the_text_has_the_ratios() -> None:
    result = load.visitor_figures(OUTCOMES, [100.0] * 60 + [104.0] * 60)
    text = load.visitor_text({"visitors": 4, "minutes": 2.0} | result)
    assert "2 told that the page is busy (1 with a place), 1 failed {'500': 1}" in text
    assert "longest 6.0 s (2.4 times)" in text
    assert "longest 6.0 s (3.00 times); highest place in the queue: 4" in text
    assert "104 MB in the last (+4.0%)" in text


def test_nobody_answered_is_no_error() -> None:
    assert load.visitor_figures([], [])["wait_longest_s"] == 0


def test_a_visitor_is_answered_in_every_tab(served: gr.Blocks) -> None:
    async def visit() -> list[Outcome]:
        page = await open_page(served.local_url)
        async with connect(page.url, 0) as http:
            return [await ask(http, page, task, visitor=0) for task in TASKS]

    outcomes = asynchronous.run(visit())
    assert [each.kind for each in outcomes] == ["answered"] * 3, outcomes
    assert all(each.seconds > 0 for each in outcomes)


def test_a_visitor_whose_file_is_refused_reads_why(served: gr.Blocks, tmp_path: Path) -> None:
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(6_000_000))

    async def visit() -> Outcome:
        page = await open_page(served.local_url)
        async with connect(page.url, 0) as http:
            return await ask(http, page, "stethoscope", visitor=0, path=large)

    refused = asynchronous.run(visit())
    assert refused.kind == "failed"
    assert "5 MB" in refused.text


def test_what_a_process_and_its_children_hold(tmp_path: Path) -> None:
    program = "import os, time; os.fork(); kept = bytearray(os.urandom(2**25)); time.sleep(60)"
    (tmp_path / "run-1").mkdir()
    (tmp_path / "run-1" / "upload.wav").write_bytes(b"1")
    (tmp_path / "run-1.lock").write_bytes(b"")
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            for _ in range(600):
                used = usage(process.pid, tmp_path)
                if used.memory_mb > 64:
                    break
                time.sleep(0.1)
            assert len(process_tree(process.pid)) == 2
            assert 64 < used.memory_mb < 200
            assert used.threads >= 2
            assert used.descriptors >= 6
            assert used.files == 1
        finally:
            for each in process_tree(process.pid):
                os.kill(each, 9)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["visitors", "--visitors", "0"], "--visitors is 0"),
        (["requests", "--visitors", "5"], "--visitors belongs to `bench visitors`"),
        (["--count", "5"], "--count belongs to `bench requests`"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments]) == 2
    assert says in capsys.readouterr().err
