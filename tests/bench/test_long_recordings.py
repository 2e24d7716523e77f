"""Long recordings and live listening: the figures by hand, and one real short run."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from xai_demo.bench import long_recordings
from xai_demo.bench.memory import Phase
from xai_demo.settings import Settings


def test_a_recording_has_the_length_and_breathing_to_its_end(tmp_path: Path) -> None:
    samples, rate = soundfile.read(long_recordings.write_breathing(tmp_path / "a.wav", 100.5))
    assert len(samples) == round(100.5 * rate)
    last = samples[-10 * rate :]
    assert np.sqrt(np.mean(last**2)) > 0.01
    assert np.abs(last).max() < 1


def test_the_peak_is_the_maximum_of_memory() -> None:
    high = [100.0]

    def do() -> int:
        high[0] = 300.0
        time.sleep(0.2)  # ten looks
        high[0] = 120.0
        return 7

    cost = long_recordings.measure_peak(do, memory_mb=lambda: high[0])
    assert (cost.peak_mb, cost.windows) == (300.0, 7)
    assert 0.2 <= cost.seconds < 5


def test_a_failure_ends_the_measurement() -> None:
    def fail() -> int:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        long_recordings.measure_peak(fail, memory_mb=lambda: 1.0)


def test_every_chunk_is_processed_in_order_and_a_leak_is_detected() -> None:
    kept: list[np.ndarray] = []
    phase = long_recordings.listen(kept.append, 40, memory_mb=lambda: 1000.0 + len(kept))
    assert len(kept) == 80
    assert {len(chunk) for chunk in kept} == {24_000}
    assert not np.array_equal(kept[0], kept[1])
    assert phase.slope_mb == pytest.approx(200)  # two chunks a second, of a megabyte each
    found = long_recordings.live_figures(phase, [100.0, 300.0, 200.0])
    assert found["slope_mb_per_minute"] == pytest.approx(120)
    assert found["growth"] > 0.05
    assert (found["answers"], found["answer_ms"], found["slowest_answer_ms"]) == (3, 200, 300)


def test_the_warm_up_does_not_count_as_growth() -> None:
    samples = [500.0 + 20 * i for i in range(25)] + [1000.0] * 575
    found = long_recordings.live_figures(Phase(resident_mb=samples, threads=5), [1.0])
    assert found["resident_mb"] == {"start": 1000.0, "end": 1000.0}
    assert found["growth"] == 0
    assert found["minutes"] == 10


def test_a_minute_and_a_few_live_seconds_are_really_analysed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_recordings, "LIVE_MINUTES", 0.1)
    settings = dataclasses.replace(Settings.from_env({"HF_HUB_OFFLINE": "1"}), cache_dir=tmp_path)
    monkeypatch.setattr(long_recordings, "SHORT_MINUTES", 1)
    progress: list[str] = []
    result = long_recordings.run(
        settings, minutes=1, progress=lambda done, doing: progress.append(f"{done:.2f} {doing}")
    )
    (row,) = result["recordings"].values()
    assert row["windows"] == 59  # of two seconds, one after each second
    assert 0 < row["share_of_its_length"] < 1
    assert row["peak_mb"] > 100
    assert result["live"]["answers"] == 5  # the resampler holds a little of each second back
    assert progress[-1] == "1.00 Second 6 of live listening"
    text = long_recordings.text(result)
    assert "| 1 min | " in text
    assert "Live for 0.1 min: 5 analyses of " in text
