from __future__ import annotations

import dataclasses
from pathlib import Path

from xai_demo import endurance
from xai_demo.settings import Settings


def test_a_few_requests_are_answered_alike_and_memory_is_told(tmp_path: Path) -> None:
    settings = dataclasses.replace(Settings.from_env({"HF_HUB_OFFLINE": "1"}), cache_dir=tmp_path)
    result = endurance.run(settings, requests=6)
    assert result["same_answers"]
    assert result["resident_mb"]["start"] > 100
    told = endurance.text(result)
    assert "6 requests in a row, then 8 at a time" in told
    assert "answers the same" in told
