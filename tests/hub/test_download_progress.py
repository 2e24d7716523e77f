"""A download as people see it: told step by step, drawn in a terminal, stopped, gone on with.

The Hub's protocol is spoken by a real server on this machine to the real client.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from gradio_client import Client, handle_file

from tests.support.fake_analyser import write_film
from tests.support.fake_hub import COMMIT, HubServer
from xai_demo.analysis import Analyser
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.errors import CancelledError
from xai_demo.tabs import build
from xai_demo.tabs.server import serve

ROOT = Path(__file__).resolve().parents[2]
LARGE = "Downloading model.safetensors: "


def asked_for(hub_server: HubServer) -> list[str]:
    return [r for r in hub_server.requests if r.startswith("GET") and r.endswith("safetensors")]


@pytest.mark.parametrize("named", [{"model": "large"}, {"weights": "hf://owner/name"}])
def test_who_waits_is_told_of_the_download_and_of_what_comes_after_it(
    fetching: Analyser, tmp_path: Path, named: dict[str, str]
) -> None:
    told: list[tuple[float, str]] = []
    analysis = fetching.analyse(
        AnalysisRequest(task="chest_xray", faithfulness=False, uncertainty=False, **named),
        write_film(tmp_path / "film.png"),
        progress=lambda done, doing: told.append((done, doing)),
    )
    assert analysis.report.model.source in {"hub", "cache"}
    fractions = [done for done, _ in told]
    assert fractions == sorted(fractions)
    words = [doing for _, doing in told]
    assert any(w.startswith(LARGE) for w in words)
    assert words.index("Predicting") > max(i for i, w in enumerate(words) if w.startswith(LARGE))


@pytest.mark.parametrize("named", [{"model": "large"}, {"weights": "hf://owner/name"}])
def test_a_stop_ends_the_download_and_the_next_one_goes_on_with_it(
    fetching: Analyser, hub_server: HubServer, tmp_path: Path, named: dict[str, str]
) -> None:
    hub_server.pause_s = 0.01
    film, stop = write_film(tmp_path / "film.png"), threading.Event()

    def told(_done: float, doing: str) -> None:
        if (match := re.search(rf"{LARGE}(\d+) of", doing)) and int(match[1]) > 2:
            stop.set()

    with pytest.raises(CancelledError):
        fetching.analyse(
            AnalysisRequest(task="chest_xray", **named), film, progress=told, cancelled=stop.is_set
        )  # type: ignore[arg-type]
    (part,) = fetching.settings.cache_dir.rglob("*.part")
    assert (
        0 < part.stat().st_size < (len(hub_server.files["owner/name", COMMIT, "model.safetensors"]))
    )
    assert len(asked_for(hub_server)) == 1
    hub_server.pause_s = 0
    first: list[str] = []
    fetching.analyse(
        AnalysisRequest(task="chest_xray", faithfulness=False, uncertainty=False, **named),
        film,
        progress=lambda _done, doing: first.append(doing) if doing.startswith(LARGE) else None,
    )
    assert int(re.findall(r"(\d+) of 45 MB", first[0])[0]) >= 2
    assert len(asked_for(hub_server)) == 2
    assert list(fetching.settings.cache_dir.rglob("*.part")) == []


def test_a_terminal_shows_a_bar(hub_server: HubServer, tmp_path: Path) -> None:
    hub_server.pause_s = 0.003
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environ = {"HF_ENDPOINT": hub_server.url, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-m", "xai_demo", "analyse", "pneumonia-resnet18"]
    command += [str(write_film(tmp_path / "film.png")), "--weights", "hf://owner/name"]
    with subprocess.Popen(
        ["env", "-u", "HF_HUB_OFFLINE", *(f"{k}={v}" for k, v in environ.items()), *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        drawn = b""
        while True:
            try:
                piece = os.read(mine, 65536)
            except OSError:  # the other end has been closed
                break
            if not piece:
                break
            drawn += piece
        assert process.stdout is not None
        answer = process.stdout.read().decode()
    os.close(mine)
    text = drawn.decode(errors="replace")
    assert process.returncode == 0, text
    megabytes = [int(have) for have in re.findall(rf"{LARGE}(\d+) of 45 MB", text)]
    assert len(set(megabytes)) >= 3
    assert megabytes == sorted(megabytes)
    assert re.search(r"\d+% \|█", text)
    assert LARGE not in answer


def test_a_client_is_told_of_a_download_while_it_waits(
    fetching: Analyser, hub_server: HubServer, tmp_path: Path
) -> None:
    hub_server.pause_s = 0.01
    page = serve(build(fetching), fetching.settings)
    client = Client(page.local_url, verbose=False)
    try:
        film = handle_file(str(write_film(tmp_path / "film.png")))
        job = client.submit(film, model="large", faithfulness=False, api_name="/chest_xray")
        told: list[str] = []
        while not job.done():
            told += [unit.desc or "" for unit in job.status().progress_data or ()]
            time.sleep(0.05)
        report = job.result()[0]
        assert (report["model"]["name"], report["model"]["source"]) == ("large", "hub")
    finally:
        client.close()
        page.close(verbose=False)
    megabytes = [int(m[1]) for word in told if (m := re.fullmatch(rf"{LARGE}(\d+) of 45 MB", word))]
    assert len(set(megabytes)) >= 3
    assert megabytes == sorted(megabytes)
