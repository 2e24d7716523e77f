"""The bench of workers: ordinary files in both ways, and the memory of the largest ones."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from xai_demo.bench import workers
from xai_demo.settings import Settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are for Linux")


def test_each_file_is_read_in_both_ways_and_the_largest_once() -> None:
    settings = dataclasses.replace(
        Settings.from_env({}), max_pixels=1_000_000, max_duration_s=150.0
    )
    steps: list[str] = []
    result = workers.run(settings, rounds=1, progress=lambda _done, doing: steps.append(doing))
    assert len(result["ordinary"]) == 4
    for row in result["ordinary"].values():
        assert row["detour_ms"] == row["worker_ms"] - row["here_ms"]
        assert row["here_ms"] > 0
    assert list(result["largest"]) == [
        "PNG (L) of 1 megapixels",
        "PNG (RGBA) of 1 megapixels",
        "WEBP (RGB) of 1 megapixels",
        "TIF (L) of 1 megapixels",
        "WAV of 1 minutes",
        "MP3 of 1 minutes",
    ]
    for peak in result["largest"].values():
        assert 20 < peak["resident_mb"] < peak["address_space_mb"] < result["limit_mb"] == 2000
    assert len(steps) == 10
    text = workers.table(result)
    assert text.count("| 10 |") == 4
    assert f"confined by {result['isolation']}." in text
