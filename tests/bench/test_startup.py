"""The start-up bench: both pages start, medians are taken, and the limits stand beside them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from xai_demo.bench import startup
from xai_demo.errors import XaiDemoError
from xai_demo.hub.space import RunningPage, serve_page
from xai_demo.settings import Settings

SERVER = (
    "import http.server, os, time\n"
    "time.sleep(float(os.environ.get('SLEEP_S', '0')))\n"
    "where = ('127.0.0.1', int(os.environ['GRADIO_SERVER_PORT']))\n"
    "http.server.HTTPServer(where, http.server.SimpleHTTPRequestHandler).serve_forever()\n"
)
PYTHON = ["python3", "-c"]


def test_a_page_is_served_until_the_end_of_the_block(tmp_path: Path) -> None:
    with serve_page([*PYTHON, SERVER], tmp_path, ("SLEEP_S=0.4",)) as shown:
        assert 0.4 < shown.seconds < 60
        url = shown.url
    import urllib.error
    import urllib.request

    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=2)


def test_a_page_that_does_not_start_is_reported_with_its_last_line(tmp_path: Path) -> None:
    command = [*PYTHON, "raise SystemExit('no such luck')"]
    with (
        pytest.raises(XaiDemoError, match="last line of its log: no such luck"),
        serve_page(command, tmp_path),
    ):
        pass


def test_medians_are_taken_of_rounds_that_alternate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    started: list[str] = []
    seconds = {"-c": iter([2.0, 9.0, 4.0]), "app.py": iter([5.0, 1.0, 6.0])}

    @contextlib.contextmanager
    def pretend(
        command: list[str], _folder: Path, environ: tuple[str, ...]
    ) -> Iterator[RunningPage]:
        started.append(command[1])
        assert "GRADIO_ANALYTICS_ENABLED=False" in environ
        yield RunningPage(url="http://here/", seconds=next(seconds[command[1]]))

    answers = iter([0.5, 3.0, 1.5])
    monkeypatch.setattr(startup, "serve_page", pretend)
    monkeypatch.setattr(startup, "first_answer_s", lambda _url: next(answers))
    result = startup.run(Settings(weights_dir=tmp_path, cache_dir=tmp_path), rounds=3)
    assert started == ["-c", "app.py"] * 3
    assert (result["bare_s"], result["page_s"], result["first_answer_s"]) == (4.0, 5.0, 1.5)
    assert result["ratio"] == 1.25
    shown = startup.table(result)
    assert "| ratio | 1.25x | at most 1.3x |" in shown
    assert "| first analysis after that (s) | 1.50 | at most 6 |" in shown


def test_the_page_imports_no_experiment_tracker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys

    from xai_demo.tabs import server

    def stop(_settings: Settings) -> None:
        raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(server, "configure_logging", lambda _format: None)
    # The first of what a start does after that.
    monkeypatch.setattr(server, "start_workers", stop)
    with pytest.raises(KeyboardInterrupt):
        server.launch(Settings(weights_dir=tmp_path, cache_dir=tmp_path))
    with pytest.raises(ImportError):
        __import__("wandb")
    del sys.modules["wandb"]  # for the tests after this one
