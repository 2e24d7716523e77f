"""A request ends at its deadline wherever it is by then, and waiting for others does not count."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.hostile_files import picture_bytes, radiograph
from tests.support.small_models import model_of, write_model
from xai_demo.analysis import Analyser
from xai_demo.analysis import request as requests
from xai_demo.analysis.request import AnalysisRequest, TimeLimit
from xai_demo.catalog import Entry
from xai_demo.engine import Engine
from xai_demo.errors import CancelledError, DeadlineError
from xai_demo.examples import example_path
from xai_demo.hub import Hub
from xai_demo.settings import Settings

LIMIT_S = 100.0


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(requests, "time", made)
    return made


@pytest.fixture(scope="module")
def analyser(tmp_path_factory: pytest.TempPathFactory) -> Analyser:
    folder = tmp_path_factory.mktemp("models")
    models = [
        model_of("resnet18-fine", name="lung"),
        model_of("resnet18", name="film", labels=("Normal", "Pneumonia"), normal_label="Normal"),
    ]
    for model in models:
        write_model(folder / model.name, model)
    settings = dataclasses.replace(
        Settings.from_env({}), weights_dir=folder, background_export=False, offline=True
    )
    made = Analyser(settings, request_seconds=LIMIT_S)
    made.hub = Hub(settings, catalog={m.name: Entry(task=m.task) for m in models})
    made.engine = Engine(made.hub)
    return made


@pytest.fixture
def film(tmp_path: Path) -> Path:
    (tmp_path / "film.png").write_bytes(picture_bytes(radiograph(), "PNG"))
    return tmp_path / "film.png"


def test_a_time_limit_is_a_check_for_cancelling_that_ends_in_one_sentence(clock: Clock) -> None:
    answers = [False, True]
    limit = TimeLimit(10, lambda: answers.pop(0))
    assert limit() is False
    assert limit() is True
    clock.now = 10.5
    with pytest.raises(DeadlineError, match=r"longer than the 10 s that are allowed here; try"):
        limit()
    with pytest.raises(CancelledError):
        TimeLimit(None, lambda: True).check()
    clock.now = 1e9
    assert TimeLimit()() is False


def test_what_a_request_waits_for_does_not_count(clock: Clock) -> None:
    limit = TimeLimit(10)
    clock.now = 8
    limit.pause()
    clock.now = 50
    limit.check()
    limit.resume()
    clock.now = 51
    limit.check()
    clock.now = 53
    with pytest.raises(DeadlineError):
        limit.check()


@pytest.mark.parametrize(
    ("task", "step", "choices"),
    [
        ("stethoscope", "Reading the file", {}),
        ("stethoscope", "Predicting", {}),
        ("stethoscope", "Explaining the prediction", {}),
        ("stethoscope", "Faithfulness test: masking the most important region", {}),
        ("stethoscope", "Drawing", {}),
        ("chest_xray", "Reading the file", {}),
        ("chest_xray", "Predicting shifted and rotated copies", {}),
        ("chest_xray", "Explaining the prediction", {"explainer": "Integrated gradients"}),
        ("chest_xray", "Explaining the prediction", {"explainer": "LIME"}),
    ],
)
def test_a_request_ends_at_the_step_at_which_its_time_is_up(
    analyser: Analyser, film: Path, clock: Clock, task: Any, step: str, choices: dict[str, str]
) -> None:
    steps: list[str] = []

    def progress(_done: float, doing: str) -> None:
        steps.append(doing)
        if doing == step:
            clock.now += LIMIT_S + 1

    path = film if task == "chest_xray" else example_path("wheeze")
    request = AnalysisRequest(task=task, backend="torch", **choices)  # type: ignore[arg-type]
    with pytest.raises(DeadlineError):
        analyser.analyse(request, path, progress=progress)
    assert steps[-1] == step


def test_a_slow_download_is_not_the_visitors_fault(
    analyser: Analyser, film: Path, clock: Clock
) -> None:
    def progress(_done: float, doing: str) -> None:
        clock.now += (doing == "Loading the network") * 2 * LIMIT_S

    request = AnalysisRequest(task="chest_xray", backend="torch")
    assert analyser.analyse(request, film, progress=progress).report.task == "chest_xray"
    # Without a limit, as on the command line, it takes as long as it takes.
    assert Analyser(analyser.settings)._request_seconds is None


def test_cycles_are_made_within_the_deadline(
    analyser: Analyser, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    cycles = tmp_path / "cycles.txt"
    cycles.write_text("0 1 0 0\n1 2 0 1\n")
    read = analyser.reader.cycles

    def read_slowly(*args: Any, **options: Any) -> Any:
        clock.now += LIMIT_S + 1
        return read(*args, **options)

    request = AnalysisRequest(task="stethoscope", backend="torch", cycles=cycles)
    timeline = analyser.analyse(request, example_path("wheeze")).timeline
    assert timeline is not None
    assert timeline.ends_s == (1, 2)
    monkeypatch.setattr(analyser.reader, "cycles", read_slowly)
    with pytest.raises(DeadlineError):
        analyser.analyse(request, example_path("wheeze"))


def test_reading_takes_no_slot_from_the_networks(
    analyser: Analyser, film: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    was_read, may_answer = threading.Event(), threading.Event()
    read = analyser.reader.read

    def note(*args: Any, **options: Any) -> Any:
        was_read.set()
        return read(*args, **options)

    monkeypatch.setattr(analyser.reader, "read", note)
    queue = analyser.engine.queue
    with ThreadPoolExecutor(queue.capacity + 1) as visitors:
        for _ in range(queue.capacity):
            visitors.submit(queue.run, lambda: may_answer.wait(30))
        request = AnalysisRequest(task="chest_xray", backend="torch")
        steps: list[str] = []
        answer = visitors.submit(
            analyser.analyse, request, film, progress=lambda _done, doing: steps.append(doing)
        )
        assert was_read.wait(30)
        assert not answer.done()
        may_answer.set()
        assert answer.result().report.file == "film.png"
    assert "Reading the file" in steps
