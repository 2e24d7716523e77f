"""The slow explainers: how long they take and how soon they stop, by hand and on small networks."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from xai_demo.bench import slow_explainers
from xai_demo.errors import CancelledError


def answer(explain_ms: float) -> Any:
    return SimpleNamespace(
        timing_ms={"read": 1.0, "prepare": 1.0, "predict": 2.0, "explain": explain_ms},
        explanations=[SimpleNamespace(passes=96)],
        model=SimpleNamespace(backend="torch"),
    )


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    instance = Clock()
    monkeypatch.setattr(slow_explainers, "time", instance)
    return instance


def test_a_row_has_seconds_passes_and_the_time_to_stop(clock: Clock) -> None:
    def ask(stopped: Callable[[], bool]) -> Any:
        """A tenth of a second in batches of 30 ms, after each of which it looks."""
        for _ in range(4):
            clock.now += 0.03
            if stopped():
                raise CancelledError("Cancelled on request.")
        return answer(116.0)

    found = slow_explainers.measure(ask)
    assert found.pop("stopped_after_s") == pytest.approx(0.09 - 0.062)  # asked at 4 + 116 / 2 ms
    assert found == {"explain_s": 0.116, "passes": 96, "backend": "torch"}


def test_an_analysis_that_ends_first_has_no_time_to_stop() -> None:
    assert slow_explainers.seconds_to_stop(lambda stopped: answer(1.0), 0.0) is None


def test_the_table_has_a_line_for_each() -> None:
    rows = [
        {"model": "m", "explainer": "LIME", "explain_s": 7.96, "passes": 250, "backend": "onnx",
         "stopped_after_s": 0.312},
        {"model": "m", "explainer": "SHAP", "explain_s": 5.0, "passes": 96, "backend": "torch",
         "stopped_after_s": None},
    ]  # fmt: skip
    lines = slow_explainers.table({"seconds": 8.0, "rows": rows}).splitlines()
    assert lines[2] == "| m | LIME | 8.0 | 250 | onnx | 0.31 s |"
    assert lines[3] == "| m | SHAP | 5.0 | 96 | torch | - |"
    assert lines[-1] == "One example each, with a budget of 8 s; stopped half-way."
    assert {line.count("|") for line in lines[:4]} == {7}


def test_every_installed_model_is_paired_with_its_slow_explainers() -> None:
    hub = SimpleNamespace(
        names=lambda: ("near", "far"),
        is_available=lambda name: name == "near",
        model=lambda name: SimpleNamespace(name=name, architecture="resnet18"),
    )
    pairs = list(slow_explainers._pairs(SimpleNamespace(hub=hub)))  # type: ignore[arg-type]
    assert {model.name for model, _ in pairs} == {"near"}
    assert [name for _, name in pairs] == [
        "Score-CAM", "Occlusion", "LIME", "SHAP", "SHAP gradients", "Integrated gradients",
    ]  # fmt: skip
