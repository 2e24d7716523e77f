"""The real app on a free port, asked as other people's programs ask it, with the bundled models."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.client import Job
from gradio_client.exceptions import AppError
from PIL import Image, ImageOps

from tests.support.fake_analyser import FakeAnalyser, copy_as
from tests.support.hostile_files import AUDIO, IMAGES, Case
from xai_demo import explainers
from xai_demo.analysis import Analyser
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.audio import read_audio
from xai_demo.errors import UnsuitableError
from xai_demo.examples import EXAMPLES, example_path
from xai_demo.records import TASKS
from xai_demo.settings import Settings

if TYPE_CHECKING:
    import gradio as gr

ROOT = Path(__file__).resolve().parents[2]
REPORT = {
    "task",
    "file",
    "model",
    "input",
    "predictions",
    "explanations",
    "events",
    "timing_ms",
    "warnings",
}
MODEL = {"name", "architecture", "source", "repo_id", "revision", "sha256"}
MODEL |= {"backend", "device", "precision"}
RETURNED = {"stethoscope": 4, "chest_xray": 2, "audioset": 3}


@pytest.fixture(scope="module")
def client(real_app: gr.Blocks, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    client = Client(
        real_app.local_url, verbose=False, download_files=tmp_path_factory.mktemp("downloads")
    )
    yield client
    client.close()


def example_of(task: str) -> Path:
    return example_path(next(name for name, e in EXAMPLES.items() if e.task == task))


def ask(client: Client, task: str, path: Path, **more: Any) -> tuple[Any, ...]:
    answer = client.predict(handle_file(str(path)), api_name=f"/{task}", **more)
    assert isinstance(answer, tuple)
    return answer


@pytest.mark.parametrize("task", TASKS)
def test_a_file_alone_is_answered_with_the_contracts_report(task: str, client: Client) -> None:
    path = example_of(task)
    report, overlay, *rest = ask(client, task, path)
    assert 2 + len(rest) == RETURNED[task]
    assert set(report) >= REPORT
    assert (report["task"], report["file"]) == (task, path.name)
    assert set(report["model"]) == MODEL
    chances = [p["probability"] for p in report["predictions"]]
    assert chances == sorted(chances, reverse=True)
    assert all(0 <= p <= 1 for p in chances)
    first = report["explanations"][0]
    assert first["grid"] == list(np.shape(first["values"]))
    peak = {"x", "y"} if task == "chest_xray" else {"time_s", "frequency_hz"}
    assert set(first["peak"]) == peak
    with Image.open(overlay) as picture:
        assert picture.format == "JPEG"
        assert min(picture.size) > 200
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("task", ["stethoscope", "audioset"])
def test_what_the_network_listened_to_is_a_sound_as_long_as_the_file(
    task: str, client: Client
) -> None:
    report, _, sound, *_ = ask(client, task, example_of(task))
    with wave.open(sound) as file:
        duration = file.getnframes() / file.getframerate()
    assert duration == pytest.approx(report["input"]["duration_s"], abs=0.05)


def test_events_are_those_of_the_report(client: Client) -> None:
    report, _, _, events = ask(client, "stethoscope", example_path("wheeze"))
    assert events == report["events"]


def test_signal_path_and_cycles_can_be_named(client: Client, tmp_path: Path) -> None:
    path, cycles = example_path("wheeze"), tmp_path / "wheeze.txt"
    cycles.write_text("0.5 3.0 0 1\n3.0 6.0 0 1\n")
    plain = ask(client, "stethoscope", path)[0]
    other = ask(client, "stethoscope", path, band=[1000, 1800], denoise=True)[0]
    assert other["predictions"] != plain["predictions"]
    report, *_, events = ask(client, "stethoscope", path, cycles=handle_file(str(cycles)))
    assert {(e["start_s"], e["end_s"]) for e in events} <= {(0.5, 3.0), (3.0, 6.0), (0.5, 6.0)}
    assert report["predictions"] != plain["predictions"]


def test_a_bad_band_or_annotation_is_refused_in_one_sentence(
    client: Client, tmp_path: Path
) -> None:
    path, cycles = example_path("wheeze"), tmp_path / "letter.txt"
    cycles.write_text("Dear colleague")
    with pytest.raises(AppError, match=r"must be \[low, high\] in hertz or 'off', not 'wide'"):
        ask(client, "stethoscope", path, band="wide")
    with pytest.raises(AppError, match="The band is 900 to 100 Hz; expected"):
        ask(client, "stethoscope", path, band=[900, 100])
    with pytest.raises(AppError, match=r"letter\.txt"):
        ask(client, "stethoscope", path, cycles=handle_file(str(cycles)))


def test_a_stretch_that_is_still_recorded_is_answered_as_a_file_is() -> None:
    analyser = Analyser(Settings.from_env({"HF_HUB_OFFLINE": "1", "XAI_DEMO_EXPORT": "off"}))
    sound = read_audio(example_path("wheeze"), sample_rate_hz=8000, max_duration_s=60)
    predictions, decision = analyser.live("stethoscope", sound.samples, 8000)
    report = analyser.analyse(
        AnalysisRequest(task="stethoscope", faithfulness=False), example_path("wheeze")
    ).report
    for mine, theirs in zip(predictions, report.predictions, strict=True):
        assert mine.label == theirs.label
        assert mine.probability == pytest.approx(theirs.probability, abs=1e-3)
    assert decision.label == report.decision.label
    with pytest.raises(
        UnsuitableError, match="sample rate of 44100 Hz; lung-resnet18 needs 8000 Hz"
    ):
        analyser.live("stethoscope", sound.samples, 44100)


def test_model_explainer_and_target_can_be_named(client: Client) -> None:
    labels = [
        p["label"] for p in ask(client, "stethoscope", example_of("stethoscope"))[0]["predictions"]
    ]
    report = ask(
        client,
        "stethoscope",
        example_of("stethoscope"),
        model="lung-resnet18",
        explainer="LayerCAM",
        target=labels[-1],
    )[0]
    first = report["explanations"][0]
    assert (first["explainer"], first["target"]) == ("LayerCAM", labels[-1])
    assert report["model"]["name"] == "lung-resnet18"


def test_an_inverted_film_is_stopped_and_answered_once_corrected(
    client: Client, tmp_path: Path
) -> None:
    upright = example_of("chest_xray")
    path = tmp_path / "inverted.png"
    ImageOps.invert(Image.open(upright).convert("L")).save(path)
    stopped = ask(client, "chest_xray", path)[0]
    assert stopped["decision"]["label"] is None
    assert stopped["input"]["gate"]["kind"] == "inverted"
    corrected = ask(client, "chest_xray", path, film="corrected")[0]
    expected = ask(client, "chest_xray", upright)[0]
    assert corrected["decision"]["label"] == expected["decision"]["label"] is not None
    assert corrected["input"]["gate"]["corrected"] is True
    with pytest.raises(AppError, match=r"upside.*choose from: checked, corrected, as-is"):
        ask(client, "chest_xray", path, film="upside")


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        ({"model": "no such thing"}, "lung-resnet18"),
        ({"explainer": "no such thing"}, explainers.DEFAULT),
        ({"target": "no such thing"}, "wheeze"),
        ({"model": "pneumonia-resnet18"}, "chest_xray"),
    ],
    ids=["model", "explainer", "target", "model of another task"],
)
def test_an_unknown_name_is_met_with_the_known_ones(
    asked: dict[str, str], named: str, client: Client
) -> None:
    with pytest.raises(AppError) as raised:
        ask(client, "stethoscope", example_of("stethoscope"), **asked)
    said = str(raised.value)
    assert next(iter(asked.values())) in said
    assert named in said
    assert "Traceback" not in said


def test_a_bad_file_is_refused_in_one_sentence_and_the_next_is_answered(
    client: Client, tmp_path: Path
) -> None:
    bad = tmp_path / "letter.wav"
    bad.write_text("Dear colleague")
    for task in TASKS:
        with pytest.raises(AppError, match=r"letter\.wav"):
            ask(client, task, bad)
    assert ask(client, "stethoscope", example_of("stethoscope"))[0]["predictions"]


@pytest.mark.parametrize(
    ("task", "case"),
    [
        (task, case)
        for task, cases in (("stethoscope", AUDIO), ("chest_xray", IMAGES))
        for case in cases
        if case.outcome == "refused"
    ],
    ids=lambda value: value.name if isinstance(value, Case) else "",
)
def test_hostile_files_meet_a_sentence_of_ours(
    task: str, case: Case, client: Client, tmp_path: Path
) -> None:
    case.build(tmp_path / case.name)
    with pytest.raises(AppError, match=case.says) as raised:
        ask(client, task, tmp_path / case.name)
    assert "Traceback" not in str(raised.value)
    assert "Something went wrong" not in str(raised.value)


def test_no_file_is_refused_in_words(client: Client) -> None:
    with pytest.raises(AppError, match="no file"):
        client.predict(None, api_name="/stethoscope")


def test_a_file_of_the_servers_own_cannot_be_asked_for(
    real_app: gr.Blocks, tmp_path: Path, film: Path
) -> None:
    secret = copy_as(film, "secret.png")  # a fine picture, but nobody uploaded it
    data = [{"path": str(secret), "meta": {"_type": "gradio.FileData"}}, None, None, None, None]
    body = json.dumps({"data": data}).encode()
    url = f"{real_app.local_url}gradio_api/call/chest_xray"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(request, timeout=60)
    assert error.value.code == 400
    assert "Please add it again" in error.value.read().decode()


def test_lists_are_those_of_the_command_line(client: Client) -> None:
    models = client.predict(api_name="/models")
    assert {row["task"] for row in models} == set(TASKS)
    assert all(row["available"] for row in models if row["source"] == "bundled")
    rows = client.predict(api_name="/explainers")
    assert [row | {"models": []} for row in rows] == explainers.describe()
    (cam,) = (row for row in rows if row["name"] == "CAM")
    assert "pneumonia-resnet18" in cam["models"]
    assert "ast" not in cam["models"]


def test_only_the_contracts_endpoints_are_offered(client: Client) -> None:
    offered = client.view_api(return_format="dict", print_info=False)
    assert isinstance(offered, dict)
    assert set(offered["named_endpoints"]) == {
        *(f"/{task}" for task in TASKS),
        "/models",
        "/explainers",
    }
    assert not offered["unnamed_endpoints"]


@pytest.fixture
def slow_client(served: gr.Blocks) -> Iterator[Client]:
    """A client of the page on the fake, whose files named "long" take until they are stopped."""
    client = Client(served.local_url, verbose=False)
    yield client
    client.close()


def eventually(true: Callable[[], bool]) -> bool:
    for _ in range(1200):
        if true():
            return True
        time.sleep(0.05)
    return False


def told(job: Job) -> float:
    units = job.status().progress_data or []
    return float(units[0].progress or 0) if units else 0.0


def test_a_cancelled_job_stops_its_work_and_nobody_elses(
    slow_client: Client, served: gr.Blocks, analyser: FakeAnalyser, tone: Path
) -> None:
    other = Client(served.local_url, verbose=False)
    mine, theirs = (copy_as(tone, f"long-{who}.wav") for who in ("mine", "theirs"))
    job = slow_client.submit(handle_file(str(mine)), api_name="/stethoscope")
    untouched = other.submit(handle_file(str(theirs)), api_name="/stethoscope")
    assert eventually(lambda: told(job) > 0 and told(untouched) > 0)
    job.cancel()
    assert eventually(lambda: mine.name in analyser.stopped)
    assert theirs.name not in analyser.stopped
    before = told(untouched)
    assert eventually(lambda: told(untouched) > before)
    assert slow_client.predict(handle_file(str(tone)), api_name="/stethoscope")[0]["predictions"]
    other.close()  # whoever leaves is no longer worked for
    assert eventually(lambda: theirs.name in analyser.stopped)


def test_progress_is_told_to_a_client_and_only_rises(slow_client: Client, tone: Path) -> None:
    path = copy_as(tone, "long-told.wav")
    job = slow_client.submit(handle_file(str(path)), api_name="/stethoscope")
    heard = [0.0]

    def hear() -> bool:
        if told(job) != heard[-1]:
            heard.append(told(job))
        return len(heard) > 5

    assert eventually(hear)
    job.cancel()
    assert heard == sorted(set(heard))


def test_a_slow_explainer_tells_how_far_it_is_and_what_it_spent(client: Client) -> None:
    job = client.submit(
        handle_file(str(example_of("chest_xray"))), explainer="Occlusion", api_name="/chest_xray"
    )
    heard = [0.0]
    while not job.done():
        if told(job) not in (0.0, heard[-1]):
            heard.append(told(job))
        time.sleep(0.02)
    report = job.result()[0]
    assert len(heard) >= 4  # with the nought it starts from
    assert heard == sorted(set(heard))
    assert report["explanations"][0]["passes"] >= 30


def test_a_layer_can_be_named(client: Client) -> None:
    first = client.predict(api_name="/models")[0]
    layer, model = first["layers"][0], first["name"]
    report = ask(client, "chest_xray", example_of("chest_xray"), model=model, layer=layer)[0]
    assert report["explanations"][0]["layer"] == layer
    with pytest.raises(AppError, match=f"'cellar'; choose from: {layer}"):
        ask(client, "chest_xray", example_of("chest_xray"), model=model, layer="cellar")


def test_several_callers_at_once_get_their_own_answers(client: Client) -> None:
    # As many as one visitor may have in the queue.
    names = [name for name, example in EXAMPLES.items() if example.task == "stethoscope"][:3]
    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(
            pool.map(lambda name: ask(client, "stethoscope", example_path(name))[0], names)
        )
    assert [a["file"] for a in answers] == [example_path(name).name for name in names]


def test_the_entry_point_serves_the_page(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "GRADIO_SERVER_PORT": str(port),
        "HF_HUB_OFFLINE": "1",
        "GRADIO_TEMP_DIR": str(tmp_path),
    }
    app = subprocess.Popen(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        page = fetched(f"http://127.0.0.1:{port}/", app)
    finally:
        app.terminate()
        said = app.communicate(timeout=120)[0].decode()
    assert "What did the network look at?" in page
    assert "Traceback" not in said


def fetched(url: str, app: subprocess.Popen[bytes]) -> str:
    """The page, once the server is up."""
    for _ in range(240):
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            assert app.poll() is None, "the server ended"
            time.sleep(0.25)
    raise AssertionError(f"{url} did not answer within a minute")
