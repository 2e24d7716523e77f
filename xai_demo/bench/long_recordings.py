"""A long recording, and a microphone left on: how long answers take, and what memory does."""

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
from xai_demo.bench.memory import Phase, watched
from xai_demo.engine.backends import resident_mb
from xai_demo.examples import EXAMPLES, example_path
from xai_demo.records import LogMel, Task
from xai_demo.tabs.live import AudioBuffer

if TYPE_CHECKING:
    from xai_demo.records import Floats, Progress
    from xai_demo.settings import Settings

SHORT_MINUTES = 5  # what a long recording is held against
LIVE_MINUTES = 10  # how long the page listens at most
MICROPHONE_HZ = 48_000
CHUNK_S = 0.5
ANSWERED_S = 5.0  # what each answer is about, as on the page
_LOOK_S = 0.02  # between two looks at memory
_TASK: Task = "stethoscope"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one recording took."""

    seconds: float
    peak_mb: float  # of the process, at most meanwhile
    windows: int


def run(settings: Settings, *, minutes: int, progress: Progress | None = None) -> dict[str, Any]:
    """Analyse recordings of `SHORT_MINUTES` and of so many, then listen live for `LIVE_MINUTES`.

    The microphone's sound comes as fast as it is answered, not in its own time. Memory is the
    resident set of the process (Linux), in megabytes. The background export is off, so that one
    backend answers throughout.
    """
    import torch

    tell = progress or (lambda done, doing: None)
    analyser = Analyser(dataclasses.replace(settings, background_export=False))
    model = analyser.hub.default_model(_TASK)
    lengths = dict.fromkeys((SHORT_MINUTES, minutes))
    recordings: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        _analysed(analyser, model, breathing(Path(folder) / "warm.wav", 10.0))
        for i, length in enumerate(lengths):
            tell(0.4 * i / len(lengths), f"a recording of {length} min")
            path = breathing(Path(folder) / f"{length}.wav", 60.0 * length)
            taken = _analysed(analyser, model, path)
            path.unlink()
            recordings[str(length)] = dataclasses.asdict(taken) | {
                "share_of_its_length": taken.seconds / (60 * length)
            }
    answers_ms: list[float] = []
    phase = listened(
        _mouth(analyser, model, answers_ms),
        round(60 * LIVE_MINUTES),
        lambda n: tell(0.4 + 0.6 * n / (60 * LIVE_MINUTES), f"second {n} of listening live"),
    )
    return {
        "model": model,
        "threads": torch.get_num_threads(),
        "recordings": recordings,
        "live": live_figures(phase, answers_ms),
    }


def breathing(path: Path, seconds: float) -> Path:
    """A recording of that length, of the examples in turn, 16 bit."""
    sounds = [soundfile.read(example_path(n)) for n, e in EXAMPLES.items() if e.task == _TASK]
    rate = sounds[0][1]
    whole = np.concatenate([samples for samples, _ in sounds])
    missing = round(seconds * rate)
    with soundfile.SoundFile(path, "w", rate, 1, "PCM_16") as file:
        while missing > 0:
            file.write(whole[:missing])
            missing -= len(whole)
    return path


def watched_peak(do: Callable[[], int], look: Callable[[], float] = resident_mb) -> Taken:
    """Time what is done, which tells a number of windows, and look at memory meanwhile."""
    looks, done = [look()], threading.Event()

    def keep_looking() -> None:
        while not done.wait(_LOOK_S):
            looks.append(look())

    thread = threading.Thread(target=keep_looking)
    thread.start()
    start = time.perf_counter()
    try:
        windows = do()
    finally:
        seconds = time.perf_counter() - start
        done.set()
        thread.join()
    return Taken(seconds=seconds, peak_mb=max(*looks, look()), windows=windows)


def listened(
    hear: Callable[[Floats], None],
    seconds: int,
    told: Callable[[int], None] = lambda n: None,
    look: Callable[[], float] = resident_mb,
) -> Phase:
    """Let a microphone's chunks be heard for so many seconds, and look at memory after each."""
    samples, rate = soundfile.read(example_path("crackles-and-wheeze"), dtype="float32")
    import soxr

    sound = soxr.resample(samples, rate, MICROPHONE_HZ)
    size = round(CHUNK_S * MICROPHONE_HZ)
    chunks = [sound[at : at + size] for at in range(0, len(sound) - size + 1, size)]
    per_second = round(1 / CHUNK_S)

    def second(i: int) -> None:
        for k in range(i * per_second, (i + 1) * per_second):
            hear(chunks[k % len(chunks)])

    return watched(second, seconds, at_once=1, told=told, look=look)


def live_figures(phase: Phase, answers_ms: list[float]) -> dict[str, Any]:
    """`growth` is a share of the level over the first minute, half of which warms up."""
    samples = list(phase.resident_mb)
    start = statistics.median(samples[len(samples) // 20 : len(samples) // 10 + 1])
    return {
        "minutes": len(samples) / 60,
        "answers": len(answers_ms),
        "answer_ms": statistics.median(answers_ms),
        "slowest_answer_ms": max(answers_ms),
        "resident_mb": {"start": start, "end": phase.level_mb},
        "growth": phase.level_mb / start - 1,
        "slope_mb_per_minute": 0.6 * phase.slope_mb,
        "threads": phase.threads,
    }


def text(result: dict[str, Any]) -> str:
    """The figures in plain words."""
    lines = [
        "| recording | seconds | share of its length | windows | memory at most |",
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
        f"{live['answers']} answers of {live['answer_ms']:.0f} ms (median; the slowest "
        f"{live['slowest_answer_ms']:.0f} ms), memory {live['resident_mb']['start']:.0f} to "
        f"{live['resident_mb']['end']:.0f} MB ({live['growth']:+.1%}), in the last half "
        f"{live['slope_mb_per_minute']:+.2f} MB a minute."
    )
    return "\n".join(lines)


def _analysed(analyser: Analyser, model: str, path: Path) -> Taken:
    def ask() -> int:
        line = analyser.analyse(AnalysisRequest(task=_TASK, model=model), path).timeline
        return 0 if line is None else len(line.starts_s)

    return watched_peak(ask)


def _mouth(analyser: Analyser, model: str, answers_ms: list[float]) -> Callable[[Floats], None]:
    """Hears a chunk and, once a second, answers; notes what each answer took."""
    spec = analyser.hub.model(model).preprocessing
    assert isinstance(spec, LogMel)  # noqa: S101
    live = AudioBuffer(sample_rate_hz=spec.sample_rate_hz)
    recent = round(ANSWERED_S * spec.sample_rate_hz)

    def hear(chunk: Floats) -> None:
        if live.add(MICROPHONE_HZ, chunk):
            start = time.perf_counter()
            analyser.live(_TASK, live.take()[-recent:], live.sample_rate_hz, model=model)
            answers_ms.append(1000 * (time.perf_counter() - start))

    return hear
