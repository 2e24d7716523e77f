"""A long recording, and a microphone left on: how long analyses take, and what memory does."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile

from xai_demo.analysis import Analyser
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.bench.memory import Phase, watch_memory
from xai_demo.engine.backends import resident_mb
from xai_demo.examples import EXAMPLES, example_path
from xai_demo.records import LogMel, Task
from xai_demo.tabs.live import AudioBuffer

if TYPE_CHECKING:
    from xai_demo.records import Floats, Progress
    from xai_demo.settings import Settings

SHORT_MINUTES = 5  # the recording to compare a long one with
LIVE_MINUTES = 10  # the longest that the page listens
# The usual rate of browsers.
MICROPHONE_HZ = 48_000
CHUNK_S = 0.5
RECENT_S = 5.0  # of sound in each live analysis, as on the page
_SAMPLE_INTERVAL_S = 0.02  # of memory
_TASK: Task = "stethoscope"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What analysing one recording cost."""

    seconds: float
    peak_mb: float  # of the whole process
    windows: int


def run(settings: Settings, *, minutes: int, progress: Progress | None = None) -> dict[str, Any]:
    """Analyse recordings of `SHORT_MINUTES` and `minutes`, then listen live for `LIVE_MINUTES`.

    The microphone's sound arrives as fast as it is analysed, not in real time. Memory is the
    resident set of the process (Linux), in megabytes. The background export is off, so that the
    same backend answers throughout.
    """
    import torch

    report = progress or (lambda done, doing: None)
    analyser = Analyser(dataclasses.replace(settings, background_export=False))
    model = analyser.hub.default_model(_TASK)
    # Once each: both may be the same.
    lengths = dict.fromkeys((SHORT_MINUTES, minutes))
    recordings: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        # The first analysis also loads the network.
        _measure_analysis(analyser, model, write_breathing(Path(folder) / "warm.wav", 10.0))
        for i, length in enumerate(lengths):
            report(0.4 * i / len(lengths), f"A recording of {length} min")
            path = write_breathing(Path(folder) / f"{length}.wav", 60.0 * length)
            cost = _measure_analysis(analyser, model, path)
            # An hour is 58 MB at 8 kHz: the folder holds one recording at a time.
            path.unlink()
            recordings[str(length)] = dataclasses.asdict(cost) | {
                "share_of_its_length": cost.seconds / (60 * length)
            }
    answers_ms: list[float] = []
    phase = listen(
        _live_analyser(analyser, model, answers_ms),
        round(60 * LIVE_MINUTES),
        lambda n: report(0.4 + 0.6 * n / (60 * LIVE_MINUTES), f"Second {n} of live listening"),
    )
    return {
        "model": model,
        "threads": torch.get_num_threads(),
        "recordings": recordings,
        "live": live_figures(phase, answers_ms),
    }


def write_breathing(path: Path, seconds: float) -> Path:
    """Write a 16-bit recording of that length, the examples one after another; returns `path`."""
    sounds = [soundfile.read(example_path(n)) for n, e in EXAMPLES.items() if e.task == _TASK]
    rate = sounds[0][1]
    whole = np.concatenate([samples for samples, _ in sounds])
    missing = round(seconds * rate)
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        # Piece by piece: an hour is never in memory, where it would count.
        while missing > 0:
            file.write(whole[:missing])
            missing -= len(whole)
    return path


def measure_peak(analyse: Callable[[], int], memory_mb: Callable[[], float] = resident_mb) -> Cost:
    """Time an analysis, which returns its number of windows, and sample memory meanwhile."""
    # In a thread of its own, because the peak lies within the analysis.
    samples, done = [memory_mb()], threading.Event()

    def keep_sampling() -> None:
        while not done.wait(_SAMPLE_INTERVAL_S):
            samples.append(memory_mb())

    thread = threading.Thread(target=keep_sampling)
    thread.start()
    start = time.perf_counter()
    try:
        windows = analyse()
    finally:
        seconds = time.perf_counter() - start
        done.set()
        thread.join()
    return Cost(seconds=seconds, peak_mb=max(*samples, memory_mb()), windows=windows)


def listen(
    process: Callable[[Floats], None],
    seconds: int,
    progress: Callable[[int], None] = lambda n: None,
    memory_mb: Callable[[], float] = resident_mb,
) -> Phase:
    """Process a microphone's chunks for so many seconds, and sample memory after each second."""
    samples, rate = soundfile.read(example_path("crackles-and-wheeze"), dtype="float32")
    import soxr

    sound = soxr.resample(samples, rate, MICROPHONE_HZ)
    size = round(CHUNK_S * MICROPHONE_HZ)
    # Whole chunks only; the example is repeated from them without a gap.
    chunks = [sound[at : at + size] for at in range(0, len(sound) - size + 1, size)]
    per_second = round(1 / CHUNK_S)

    def second(i: int) -> None:
        for k in range(i * per_second, (i + 1) * per_second):
            process(chunks[k % len(chunks)])

    return watch_memory(second, seconds, concurrent=1, progress=progress, memory_mb=memory_mb)


def live_figures(phase: Phase, answers_ms: list[float]) -> dict[str, Any]:
    """The figures of the live phase; `growth` is relative to the level near its beginning."""
    samples = list(phase.resident_mb)
    # The second twentieth: before that, libraries are still filling their memory pools.
    start = statistics.median(samples[len(samples) // 20 : len(samples) // 10 + 1])
    return {
        "minutes": len(samples) / 60,
        "answers": len(answers_ms),
        "answer_ms": statistics.median(answers_ms),
        "slowest_answer_ms": max(answers_ms),
        "resident_mb": {"start": start, "end": phase.level_mb},
        "growth": phase.level_mb / start - 1,
        # From 100 samples, one a second, to 60.
        "slope_mb_per_minute": 0.6 * phase.slope_mb,
        "threads": phase.threads,
    }


def text(result: dict[str, Any]) -> str:
    """The figures as a Markdown table, and a few sentences."""
    lines = [
        "| recording | seconds | share of its length | windows | peak memory |",
        "| --- " * 5 + "|",
    ]
    for length, row in result["recordings"].items():
        lines.append(
            f"| {length} min | {row['seconds']:.1f} | 1/{1 / row['share_of_its_length']:.0f} | "
            f"{row['windows']} | {row['peak_mb']:.0f} MB |"
        )
    live = result["live"]
    lines.append(
        f"\n{result['model']}, {result['threads']} threads. Live for {live['minutes']:g} min: "
        f"{live['answers']} analyses of {live['answer_ms']:.0f} ms (median; the slowest "
        f"{live['slowest_answer_ms']:.0f} ms), memory {live['resident_mb']['start']:.0f} to "
        f"{live['resident_mb']['end']:.0f} MB ({live['growth']:+.1%}), growing in the last half by "
        f"{live['slope_mb_per_minute']:+.2f} MB a minute."
    )
    return "\n".join(lines)


def _measure_analysis(analyser: Analyser, model: str, path: Path) -> Cost:
    def analyse() -> int:
        timeline = analyser.analyse(AnalysisRequest(task=_TASK, model=model), path).timeline
        return 0 if timeline is None else len(timeline.starts_s)

    return measure_peak(analyse)


def _live_analyser(
    analyser: Analyser, model: str, answers_ms: list[float]
) -> Callable[[Floats], None]:
    """Takes a chunk and, once a second, analyses the recent sound; records how long that took."""
    spec = analyser.hub.model(model).preprocessing
    # For the type checker: every model of this task takes sound.
    assert isinstance(spec, LogMel)  # noqa: S101
    buffer = AudioBuffer(sample_rate_hz=spec.sample_rate_hz)
    recent = round(RECENT_S * spec.sample_rate_hz)

    def process(chunk: Floats) -> None:
        if buffer.add(MICROPHONE_HZ, chunk):
            start = time.perf_counter()
            analyser.live(_TASK, buffer.take()[-recent:], buffer.sample_rate_hz, model=model)
            answers_ms.append(1000 * (time.perf_counter() - start))

    return process
