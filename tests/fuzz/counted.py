"""A number of mutated files, through the workers of a server and within its limits."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz import readers
from tests.fuzz.mutation import mutate
from xai_demo.analysis.reading import Reader, start_workers
from xai_demo.errors import XaiDemoError
from xai_demo.hub.checkpoint import read_model
from xai_demo.service.workers import WorkerCounts
from xai_demo.settings import Settings

HANG_S = 5.0
_WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
# How often each kind of file comes.
_KINDS = ("sound",) * 4 + ("wav",) * 2 + ("image",) * 5 + ("dicom",) * 6 + ("clean",) * 2
_KINDS += ("cycles",)


@dataclass(kw_only=True)
class Tally:
    """What became of the files; those of the findings are in `folder`."""

    folder: Path
    outcomes: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0
    findings: list[str] = field(default_factory=list)


def count_files(
    count: int, *, seed: int, threads: int = 2, progress: Callable[[int], None] = lambda n: None
) -> tuple[Tally, WorkerCounts]:
    """Read `count` mutated files; also returns the counts of the workers."""
    settings = Settings.from_env({"XAI_DEMO_READ_SECONDS": f"{HANG_S:g}"})
    tally = Tally(folder=Path(tempfile.mkdtemp(prefix="fuzz-")))
    pool = start_workers(settings)
    numbers, lock = iter(range(count)), threading.Lock()

    def work() -> None:
        reads = _reads(Reader(settings, pool))
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            outcome, seconds, finding = _read(reads, seed, number, tally.folder)
            with lock:
                tally.outcomes[outcome] += 1
                tally.longest_s = max(tally.longest_s, seconds)
                tally.findings += [finding] if finding else []
                progress(sum(tally.outcomes.values()))

    workers = [threading.Thread(target=work) for _ in range(threads)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        pool.close()
    return tally, pool.counts


def _read(
    reads: dict[str, Callable[[Path], Any]], seed: int, number: int, folder: Path
) -> tuple[str, float, str]:
    """What became of one file, how long it took, and what is wrong with that, if anything."""
    chance = random.Random(f"{seed} {number}")
    kind = chance.choice(_KINDS)
    seeds = _SEEDS[kind]()
    path = folder / f"{kind}-{number}"
    path.write_bytes(mutate(chance.choice(seeds), chance, chance.choice(seeds)))
    began, finding = time.monotonic(), ""
    try:
        _check(reads[kind](path))
        outcome = "read"
    except XaiDemoError as error:
        outcome = "refused"
        try:
            readers.check_message(error, path)
        except AssertionError as problem:
            finding = str(problem)
    # A fault in a worker comes as a RuntimeError with its traceback; whatever it is, it is one.
    except Exception as error:
        outcome, finding = "fault", f"{error!r}"
    seconds = time.monotonic() - began
    if seconds > HANG_S and not finding:
        finding = f"{seconds:.1f} s"
    if finding:
        return outcome, seconds, f"{path}: {finding}"
    path.unlink()
    return outcome, seconds, ""


def _reads(reader: Reader) -> dict[str, Callable[[Path], Any]]:
    lung = read_model(_WEIGHTS / "lung-resnet18")
    chest = read_model(_WEIGHTS / "pneumonia-resnet18")
    return {
        "sound": lambda path: reader.read(lung, path),
        "wav": lambda path: reader.read(lung, path),
        "image": lambda path: reader.preview(path),
        "dicom": lambda path: reader.read(chest, path),
        "clean": lambda path: reader.deidentify(path, name=path.name),
        "cycles": lambda path: reader.cycles(path, duration_s=10.0),
    }


_SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "sound": readers.compressed_seeds,
    "wav": readers.wav_seeds,
    "image": readers.image_seeds,
    "dicom": readers.dicom_seeds,
    "clean": readers.dicom_seeds,
    "cycles": readers.cycle_seeds,
}


def _check(answer: Any) -> None:
    values = getattr(answer, "samples", getattr(answer, "pixels", np.zeros(0)))
    assert np.isfinite(values).all(), "NaN or infinite values"
