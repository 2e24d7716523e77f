"""Memory over many requests: the figures by hand, a leak detected, and one real short run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from xai_demo.bench import memory
from xai_demo.bench.memory import Phase
from xai_demo.settings import Settings


def phase(samples: list[float], threads: int = 5) -> Phase:
    return Phase(resident_mb=samples, threads=threads)


def test_the_level_is_the_median_of_the_last_tenth() -> None:
    samples = [100.0] * 27 + [500.0, 200.0, 210.0]
    assert phase(samples).level_mb == 210.0
    assert phase([7.0]).level_mb == 7.0


def test_the_slope_is_that_of_the_last_half_in_megabytes_per_100_requests() -> None:
    steps = [float(i) * 10 for i in range(50)]  # what fills pools at first is no leak
    assert phase(steps + [500.0] * 50).slope_mb == pytest.approx(0, abs=1e-9)
    assert phase(steps + [500 + 0.25 * i for i in range(50)]).slope_mb == pytest.approx(25)
    assert phase([100.0]).slope_mb == 0


def test_growth_is_a_share_of_the_level_after_warming_up() -> None:
    phases = {
        "start": phase([900.0] * 30 + [1000.0] * 10, 9),
        "in_a_row": phase([1000.0] * 50 + [1020.0] * 50, 9),
        "at_once": phase([1400.0] + [1040.0] * 99, 15),
    }
    results = memory._Results(first=[], rest_ms=[4.0, 6.0, 5.0])
    result = memory.figures(phases, results)
    assert result["resident_mb"] == {"start": 1000, "in_a_row": 1020, "at_once": 1040}
    assert result["growth"] == pytest.approx({"in_a_row": 0.02, "at_once": 0.04})
    assert result["peak_growth"] == pytest.approx({"in_a_row": 0.02, "at_once": 0.4})
    assert result["slope_mb_per_100"] == pytest.approx({"in_a_row": 0, "at_once": 0}, abs=1e-9)
    assert result["threads"] == {"start": 9, "in_a_row": 9, "at_once": 15}
    assert result["same_answers"]
    assert result["rest_ms"] == 5
    results.different.append(3)
    assert not memory.figures(phases, results)["same_answers"]


@pytest.mark.parametrize("concurrent", [1, 8])
def test_a_leak_is_detected(concurrent: int) -> None:
    kept: list[int] = []
    leaking = memory.watch_memory(
        kept.append, 100, concurrent=concurrent, memory_mb=lambda: 1000.0 + len(kept)
    )
    assert sorted(kept) == list(range(100))
    assert leaking.slope_mb == pytest.approx(100, rel=0.1)
    sound = memory.watch_memory(
        lambda i: None, 100, concurrent=concurrent, memory_mb=lambda: 1000.0
    )
    assert sound.slope_mb == pytest.approx(0, abs=1e-9)


def test_a_short_run_measures_memory_and_compares_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "WARM_UP", 2)
    settings = dataclasses.replace(Settings.from_env({"HF_HUB_OFFLINE": "1"}), cache_dir=tmp_path)
    progress: list[float] = []
    result = memory.run(settings, requests=4, progress=lambda done, what: progress.append(done))
    assert result["same_answers"]
    assert result["resident_mb"]["start"] > 100
    assert result["threads"]["start"] >= 1
    assert progress[-1] == 1
    text = memory.text(result)
    assert "4 requests in a row, then 8 at a time, after 2 to warm up" in text
    assert "the results are the same" in text
