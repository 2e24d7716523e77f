"""Whole recordings on the page: the timeline, the events, the signal path and listening live."""

from __future__ import annotations

import base64
import io
import re
import tracemalloc
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest

from tests.support.fake_analyser import MODELS, FakeAnalyser, answer
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.audio.filters import SignalPath
from xai_demo.errors import RequestError, UnsuitableError
from xai_demo.records import Analysis, Event, Timeline
from xai_demo.tabs import live, phrases, signal_path
from xai_demo.tabs.controls import Upload, pass_upload_path, shown_name, with_shown_names
from xai_demo.tabs.figure import time_axis
from xai_demo.tabs.live import LiveSession, answer_chunk, wav_samples
from xai_demo.tabs.requests import Refusal, run_request
from xai_demo.tabs.result import answer_html
from xai_demo.tabs.timeline import events_table, probability_steps, timeline_html
from xai_demo.tabs.timeline import waveform_svg as drawn_wave

LUNG = MODELS[0]
RATE = 16000  # of LUNG


@pytest.fixture
def breath() -> Analysis:
    return answer(LUNG, "clip.wav", "Grad-CAM++", None)


def of_windows(starts: list[float], length_s: float, chances: list[float]) -> Timeline:
    return Timeline(
        starts_s=tuple(starts),
        ends_s=tuple(s + length_s for s in starts),
        labels=("normal", "wheeze"),
        probabilities=np.array([[1 - p, p] for p in chances], np.float32),
    )


# The timeline


def test_overlapping_windows_meet_halfway() -> None:
    steps = probability_steps(of_windows([0, 1, 2], 2.0, [0.25, 0.5, 1.0]), "wheeze")
    assert steps == [(0, 1.5, 0.25), (1.5, 2.5, 0.5), (2.5, 4, 1)]


def test_breaths_with_a_gap_between_them_keep_it() -> None:
    assert probability_steps(of_windows([0, 5], 2.0, [0.5, 1.0]), "wheeze") == [
        (0, 2, 0.5),
        (5, 7, 1),
    ]


def test_an_hour_is_drawn_in_a_thousand_steps_and_no_peak_is_lost() -> None:
    chances = [0.0] * 3599
    chances[1234] = 1.0
    steps = probability_steps(of_windows([float(s) for s in range(3599)], 2.0, chances), "wheeze")
    assert len(steps) == 1000
    assert (steps[0][0], steps[-1][1]) == (0, 3600)
    (hit,) = [step for step in steps if step[2] == 1]
    assert hit[0] <= 1235 <= hit[1]


def test_the_waveform_is_as_tall_as_its_loudest_sample() -> None:
    assert "M0,-49.0 1,24.5 1,25.5 0,-48.0Z" in drawn_wave(np.array([0.2, -0.1], np.float32))
    assert drawn_wave(None) == drawn_wave(np.zeros(0, np.float32)) == ""


def test_every_label_has_a_band_with_its_name_and_events_stand_at_their_times(
    breath: Analysis,
) -> None:
    html = timeline_html(breath)
    for label in LUNG.labels:
        assert f'xai-lane-name">{phrases.display_label(label)}<' in html
    assert html.count("xai-band") == len(LUNG.labels)
    assert 'data-start="0.800" data-end="1.400"' in html
    assert "left:10.00%;width:7.50%" in html  # 0.8 s and 0.6 s of 8 s
    assert "<span>Wheeze</span>" in html
    assert 'data-seek="8.000"' in html
    assert timeline_html(breath) in answer_html(breath, LUNG)


def test_one_window_needs_no_timeline(breath: Analysis) -> None:
    single = replace(breath, timeline=of_windows([0.0], 8.0, [0.5]))
    assert timeline_html(single) == timeline_html(replace(breath, timeline=None)) == ""


@pytest.mark.parametrize(
    ("duration", "last"), [(9.0, "9 s"), (300.0, "5 min"), (3600.0, "60 min"), (0.3, "0.30 s")]
)
def test_the_time_axis_names_its_unit_once(duration: float, last: str) -> None:
    assert f">{last}<" in time_axis(duration)


@pytest.mark.parametrize(
    ("value", "text"), [(4.1, "4.10 s"), (60, "1:00.0"), (724.06, "12:04.1"), (3725, "1:02:05.0")]
)
def test_moments_read_as_a_clock(value: float, text: str) -> None:
    assert phrases.clock(value) == text


# Events


def test_events_are_rows_that_play_and_can_be_taken_along(breath: Analysis) -> None:
    html = events_table(breath)
    assert html.count("<tr data-start=") == 2
    assert "<td>0.80 s</td><td>1.40 s</td><td>83 %</td>" in html
    links = dict(re.findall(r'download="([^"]+)" href="data:[^,]+,([^"]+)"', html))
    csv, labels = (base64.b64decode(links[name]).decode() for name in ("events.csv", "events.txt"))
    assert csv.splitlines()[1] == "wheeze,0.800,1.400,0.8300"
    assert labels.splitlines()[1] == "4.100000\t4.600000\tcrackle"


def test_no_events_are_one_sentence(breath: Analysis) -> None:
    html = events_table(replace(breath, report=replace(breath.report, events=())))
    assert "No events detected" in html
    assert "<table" not in html


def test_of_a_thousand_events_the_table_shows_some_and_the_download_all(breath: Analysis) -> None:
    many = tuple(
        Event(label="<b>x</b>", start_s=i, end_s=i + 1, probability=0.5) for i in range(1000)
    )
    html = events_table(replace(breath, report=replace(breath.report, events=many)))
    assert html.count("<tr data-start=") == 300
    assert "The first 300 of 1000 events" in html
    assert "<b>x" not in html
    data = re.search(r'download="events.csv" href="data:text/csv;base64,([^"]+)"', html)
    assert data is not None
    assert len(base64.b64decode(data.group(1)).splitlines()) == 1001


# The signal path

FILTERED = replace(
    LUNG, preprocessing=replace(LUNG.preprocessing, band_hz=(80.0, 2000.0), denoise=True)
)


def test_the_switches_start_as_the_model_has_them() -> None:
    assert signal_path.model_settings(LUNG) == (False, 100.0, 1800.0, False)
    assert signal_path.model_settings(FILTERED) == (True, 80.0, 2000.0, True)
    assert signal_path.model_settings(None) == (False, 100.0, 1800.0, False)


def test_untouched_switches_ask_for_nothing() -> None:
    for model in (LUNG, FILTERED):
        assert signal_path.path_from_switches(signal_path.model_settings(model), model) is None


def test_switches_say_the_path_and_an_empty_end_is_open() -> None:
    wanted = SignalPath(band_hz=(200.0, 900.0), denoise=True)
    assert signal_path.path_from_switches([True, 200, 900, True], LUNG) == wanted
    off = SignalPath(band_hz=None, denoise=False)
    assert signal_path.path_from_switches([False, 80, 2000, False], FILTERED) == off
    opened = signal_path.path_from_switches([True, None, None, False], LUNG)
    assert opened == SignalPath(band_hz=(0.0, float("inf")), denoise=False)


@pytest.mark.parametrize(
    ("band", "denoise", "path"),
    [
        (None, None, None),
        ([200, 900], None, SignalPath(band_hz=(200.0, 900.0), denoise=True)),
        (None, False, SignalPath(band_hz=(80.0, 2000.0), denoise=False)),
        ("off", None, SignalPath(band_hz=None, denoise=True)),
        (False, False, SignalPath(band_hz=None, denoise=False)),
    ],
)
def test_programs_ask_for_a_path(band: Any, denoise: bool | None, path: SignalPath | None) -> None:
    assert signal_path.path_from_arguments(band, denoise, FILTERED) == path


@pytest.mark.parametrize("band", [[100], [1, 2, 3], "wide", {"low": 1}, [None, 5], ["1", "2"]])
def test_what_is_no_band_is_refused_by_name(band: Any) -> None:
    with pytest.raises(RequestError, match=r"must be \[low, high\] in hertz or 'off'") as raised:
        signal_path.path_from_arguments(band, None, LUNG)
    assert repr(band) in str(raised.value)


def test_every_stage_is_drawn_and_can_be_played(breath: Analysis) -> None:
    said, *rest = signal_path.output_values(breath)
    columns, pictures, players = rest[:3], rest[3:6], rest[6:]
    assert "received the filtered and denoised sound" in said
    assert [c["visible"] for c in columns] == [True, True, True]
    for name, picture in zip(signal_path.STAGES, pictures, strict=True):
        assert f'data-stage="{name}"' in picture
        assert "data:image/png" in picture
    assert [rate for rate, _ in players] == [RATE] * 3
    assert np.abs(players[2][1]).max() == pytest.approx(0.12 * 32767, abs=1)


def test_steps_that_are_off_are_not_shown_and_long_sounds_not_played(breath: Analysis) -> None:
    raw = np.zeros(301 * RATE, np.float32)
    said, *rest = signal_path.output_values(replace(breath, stages={"raw": raw}))
    assert "both filters are off" in said
    assert "not played" in said
    assert [c["visible"] for c in rest[:3]] == [True, False, False]
    assert rest[6:] == [None, None, None]
    assert [c["visible"] for c in signal_path.output_values(None)[1:4]] == [False] * 3


def test_a_path_and_an_annotation_are_passed_on_and_a_bad_one_is_one_sentence() -> None:
    analyser, path = FakeAnalyser(), SignalPath(denoise=False)
    request = AnalysisRequest(task="stethoscope", signal_path=path, cycles="/tmp/a.txt")
    run_request(analyser, request, "a.wav")
    assert (analyser.calls[0]["signal_path"], analyser.calls[0]["cycles"]) == (path, "a.txt")
    refused = run_request(analyser, replace(request, cycles="bad.txt"), "a.wav")
    assert isinstance(refused, Refusal)
    assert refused.title == "The annotation could not be used"
    assert refused.message == "bad.txt holds no cycle; wanted: lines of four."


def test_a_file_box_hands_on_the_path_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    box = pass_upload_path(gr.File())
    payload = gr.FileData(path=str(tmp_path / "film.png"))
    upload = box.preprocess(payload)
    assert upload == str(tmp_path / "film.png")
    assert shown_name(upload) == "upload.png"
    assert box.preprocess(None) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("breath.wav", "breath.wav"),
        ("C:\\Users\\Max\\breath.wav", "breath.wav"),
        ("/home/max/breath.wav", "breath.wav"),
        ("a\nb\x1b[0m.wav", "a?b?[0m.wav"),
        ("x" * 200, "x" * 79 + "…"),
        (None, "upload.wav"),
        ("", "upload.wav"),
    ],
)
def test_an_upload_is_called_as_its_visitor_calls_it(sent: str | None, shown: str) -> None:
    request = AnalysisRequest(task="stethoscope", cycles=Upload("/u/12.txt", "cycles.txt"))
    named = with_shown_names(request, Upload("/u/34.wav", sent))
    assert (named.name, named.cycles_name) == (shown, "cycles.txt")
    assert with_shown_names(replace(request, cycles=None), "/examples/a.wav").name is None


# Live


def wav(samples: np.ndarray, rate: int = 48000, channels: int = 1) -> bytes:
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return stream.getvalue()


class Microphone:
    """Chunks of a rising count, so that a lost or a doubled sample shows."""

    def __init__(self, folder: Path, rate: int = RATE) -> None:
        self.folder, self.rate, self.sent, self.chunks = folder, rate, 0, 0

    def chunk(self, seconds: float = 0.5) -> str:
        count = round(seconds * self.rate)
        samples = np.arange(self.sent, self.sent + count) % 20000
        # As an upload is called.
        path = self.folder / f"{self.chunks:032x}.wav"
        path.write_bytes(wav(samples, self.rate))
        self.sent, self.chunks = self.sent + count, self.chunks + 1
        return str(path)


def test_a_chunk_is_read_to_its_end_whatever_its_header_says() -> None:
    content = wav(np.arange(100))
    lying = content[:40] + (10).to_bytes(4, "little") + content[44:]
    for each in (content, lying):
        rate, samples = wav_samples(each)
        assert rate == 48000
        assert samples[:, 0].tolist() == list(range(100))
    assert wav_samples(wav(np.arange(8), channels=2))[1].tolist() == [
        [0, 1],
        [2, 3],
        [4, 5],
        [6, 7],
    ]


@pytest.mark.parametrize("content", [b"", b"OggS" + bytes(60), wav(np.arange(9))[:30]])
def test_what_is_no_chunk_is_refused(content: bytes) -> None:
    with pytest.raises(UnsuitableError, match="WAV is needed"):
        wav_samples(content)


def test_an_answer_comes_once_a_second_about_the_last_seconds(tmp_path: Path) -> None:
    analyser, session, microphone = FakeAnalyser(), LiveSession(), Microphone(tmp_path)
    shown = [answer_chunk(analyser, microphone.chunk(), None, session) for _ in range(24)]
    answers = [each for each in shown if isinstance(each, str)]
    assert len(answers) == 12
    assert 'data-received="12.00"' in answers[-1]
    assert analyser.lives[0] == (1 * RATE, RATE)
    assert analyser.lives[-1] == (8 * RATE, RATE)  # a window of the model: 8 s
    assert answers[-1].count('class="xai-bar"') == len(LUNG.labels)
    assert "data:image/png" in answers[-1]


def test_ten_minutes_lose_no_sample_and_memory_and_disk_stay_flat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "live_view", lambda *given: "")
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    analyser, session, microphone = FakeAnalyser(), LiveSession(), Microphone(tmp_path)

    def minutes(count: int) -> int:
        for i in range(120 * count):  # every fifth comes late, with what was said meanwhile
            answer_chunk(analyser, microphone.chunk(2.0 if i % 5 == 4 else 0.125), None, session)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        after_one = minutes(1)
        analyser.lives.clear()
        after_ten = minutes(9)
    finally:
        tracemalloc.stop()
    assert session.buffer is not None
    assert session.buffer.received == microphone.sent == 10 * 60 * RATE
    assert after_ten - after_one < 200_000
    assert len(list(tmp_path.iterdir())) == 20
    last = np.arange(microphone.sent - 10 * RATE, microphone.sent) % 20000
    assert np.array_equal(np.rint(session.buffer.take() * 32768), last)


def test_the_microphone_started_anew_or_another_model_begins_at_nought(tmp_path: Path) -> None:
    analyser, session, microphone = FakeAnalyser(), LiveSession(), Microphone(tmp_path)
    for _ in range(3):
        answer_chunk(analyser, microphone.chunk(), None, session)
    session.restart()
    answer_chunk(analyser, microphone.chunk(), None, session)
    assert session.buffer is not None
    assert session.buffer.received_s == 0.5
    answer_chunk(analyser, microphone.chunk(), "everyday-cnn6", session)
    assert session.buffer.received_s == 0.5


def test_a_fault_of_the_microphone_is_one_sentence_and_no_chunk_is_no_news(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"OggS" + bytes(60))
    said = answer_chunk(FakeAnalyser(), str(tmp_path / "a.wav"), None, LiveSession())
    assert "The microphone sent 64 bytes that begin with b&#x27;OggS&#x27;" in said
    assert answer_chunk(FakeAnalyser(), None, None, LiveSession()) == gr.skip()
