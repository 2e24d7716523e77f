"""A download as people see it: told step by step, drawn in a terminal, stopped, gone on with.

The Hub's protocol is spoken by a real server on this machine to the real client.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest

from tests.fake_hub import COMMIT, Shelf, serving
from tests.fakes import write_film
from tests.small import FILM, model_of, write_model
from xai_demo.catalog import MODELS, Entry
from xai_demo.engine import Engine
from xai_demo.errors import CancelledError
from xai_demo.hub import Hub
from xai_demo.pipeline import Analyser
from xai_demo.records import Checkpoint, Model
from xai_demo.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
LARGE = "downloading model.safetensors: "


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Path]:
    """A model directory whose weights, 45 MB, do not come in one piece."""
    directory = tmp_path_factory.mktemp("large") / "large"
    model = model_of("resnet18", name="large", normal_label="normal", preprocessing=FILM)
    return write_model(directory, model), directory


@pytest.fixture
def shelf(large: tuple[Model, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    with serving() as shelf:
        for name in ("config.json", "model.safetensors"):
            shelf.put(name, (large[1] / name).read_bytes())
        yield shelf
    huggingface_hub.close_session()


@pytest.fixture
def analyser(large: tuple[Model, Path], shelf: Shelf, tmp_path: Path) -> Analyser:
    settings = dataclasses.replace(
        Settings.from_env({}), cache_dir=tmp_path / "cache", background_export=False
    )
    place = Checkpoint(
        repo_id="owner/name",
        filename="model.safetensors",
        revision=COMMIT,
        sha256=large[0].sha256,
    )
    entry = Entry(task="chest_xray", model=large[0], checkpoint=place)
    made = Analyser(settings)
    made.hub = Hub(settings, catalog=MODELS | {"large": entry}, endpoint=shelf.url)
    made.engine = Engine(made.hub)
    return made


def asked_for(shelf: Shelf) -> list[str]:
    return [r for r in shelf.requests if r.startswith("GET") and r.endswith("safetensors")]


@pytest.mark.parametrize("named", [{"model": "large"}, {"weights": "hf://owner/name"}])
def test_who_waits_is_told_of_the_download_and_of_what_comes_after_it(
    analyser: Analyser, tmp_path: Path, named: dict[str, str]
) -> None:
    told: list[tuple[float, str]] = []
    analysis = analyser.analyse(
        "chest_xray",
        write_film(tmp_path / "film.png"),
        faithfulness=False,
        uncertainty=False,
        progress=lambda done, doing: told.append((done, doing)),
        **named,  # type: ignore[arg-type]
    )
    assert analysis.report.model.source in {"hub", "cache"}
    fractions = [done for done, _ in told]
    assert fractions == sorted(fractions)
    words = [doing for _, doing in told]
    assert any(w.startswith(LARGE) for w in words)
    assert words.index("Asking the network") > max(
        i for i, w in enumerate(words) if w.startswith(LARGE)
    )


@pytest.mark.parametrize("named", [{"model": "large"}, {"weights": "hf://owner/name"}])
def test_a_stop_ends_the_download_and_the_next_one_goes_on_with_it(
    analyser: Analyser, shelf: Shelf, tmp_path: Path, named: dict[str, str]
) -> None:
    shelf.pause_s = 0.01
    film, stop = write_film(tmp_path / "film.png"), threading.Event()

    def told(_done: float, doing: str) -> None:
        if (match := re.search(rf"{LARGE}(\d+)%", doing)) and int(match[1]) > 5:
            stop.set()

    with pytest.raises(CancelledError):
        analyser.analyse("chest_xray", film, progress=told, cancelled=stop.is_set, **named)  # type: ignore[arg-type]
    (part,) = analyser.settings.cache_dir.rglob("*.part")
    assert 0 < part.stat().st_size < (len(shelf.files["owner/name", COMMIT, "model.safetensors"]))
    assert len(asked_for(shelf)) == 1
    shelf.pause_s = 0
    first: list[str] = []
    analyser.analyse(
        "chest_xray",
        film,
        faithfulness=False,
        uncertainty=False,
        progress=lambda _done, doing: first.append(doing) if doing.startswith(LARGE) else None,
        **named,  # type: ignore[arg-type]
    )
    assert int(re.findall(r"(\d+)%", first[0])[0]) >= 5
    assert len(asked_for(shelf)) == 2
    assert list(analyser.settings.cache_dir.rglob("*.part")) == []


def test_a_terminal_shows_a_bar(shelf: Shelf, tmp_path: Path) -> None:
    shelf.pause_s = 0.003
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environ = {"HF_ENDPOINT": shelf.url, "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
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
    shares = [int(share) for share in re.findall(rf"{LARGE}(\d+)% of 45 MB", text)]
    assert len(set(shares)) >= 3
    assert shares == sorted(shares)
    assert re.search(r"\d+% \|█", text)
    assert LARGE not in answer
