"""Whether the server lives, whether it is ready, and what it counts, for those who run it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from xai_demo.service.logs import AUDIT

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Readiness:
    """What has to be in order before visitors are sent here; each check returns what is not."""

    def __init__(self, checks: Mapping[str, Callable[[], str]]) -> None:
        self._checks = dict(checks)
        self._is_draining = threading.Event()

    @property
    def is_draining(self) -> bool:
        """Whether the server is about to end, and takes nothing new."""
        return self._is_draining.is_set()

    def drain(self) -> None:
        """Take nothing new from now on."""
        self._is_draining.set()

    def problems(self) -> dict[str, str]:
        """Return what is not in order, by the name of the check, each in a sentence."""
        problems = {name: check() for name, check in self._checks.items()}
        if self.is_draining:
            problems["draining"] = "The server is shutting down."
        return {name: problem for name, problem in problems.items() if problem}

    def to_json(self) -> tuple[int, bytes]:
        """Return the status and the body of the answer to `/readyz`."""
        problems = self.problems()
        body = {"ready": not problems, "checks": sorted(self._checks), "problems": problems}
        return 503 if problems else 200, json.dumps(body).encode()


@dataclass(frozen=True, slots=True)
class GaugeValue:
    """A number that is read when the metrics are: its name, what it says, of what, and itself."""

    name: str
    text: str
    of: str
    value: Callable[[], float]


class Metrics(logging.Handler):
    """Counts what is logged as answers, refusals and waits, in a registry of its own.

    `gauges` are read when the metrics are.
    """

    def __init__(self, gauges: Iterable[GaugeValue] = ()) -> None:
        super().__init__(logging.INFO)
        self.registry = CollectorRegistry()
        # Memory, processor time and open files of this process.
        ProcessCollector(registry=self.registry)
        self._answers = self._counter(
            "answers_total", "Answers by task and kind of decision", "task", "decision"
        )
        self._refusals = self._counter("refusals_total", "Requests turned away, by kind", "kind")
        self._waits = self._histogram(
            "wait_seconds", "Wait for a turn, by lane of the queue", "lane"
        )
        self._steps = self._histogram("step_seconds", "Time of each step", "task", "step")
        self._total = self._histogram("answer_seconds", "Time of an answer, without waits", "task")
        known: dict[str, Gauge] = {}
        for each in gauges:
            if each.name not in known:
                known[each.name] = Gauge(
                    f"xai_demo_{each.name}", each.text, ["of"], registry=self.registry
                )
            known[each.name].labels(each.of).set_function(each.value)

    def emit(self, record: logging.LogRecord) -> None:
        """Count a record of `service.logs`."""
        facts: dict[str, Any] = getattr(record, "facts", {})
        if record.msg == "answer":
            self._answers.labels(facts["task"], facts["decision"]).inc()
            self._total.labels(facts["task"]).observe(facts["ms"] / 1000)
            for step, elapsed_ms in facts["timing_ms"].items():
                self._steps.labels(facts["task"], step).observe(elapsed_ms / 1000)
        elif record.msg == "refusal":
            self._refusals.labels(facts["kind"]).inc()
        elif record.msg == "wait":
            self._waits.labels(facts["lane"]).observe(facts["seconds"])

    def start(self) -> None:
        """Count from now on, whatever the log is configured to show."""
        AUDIT.setLevel(logging.INFO)
        AUDIT.addHandler(self)

    def stop(self) -> None:
        """Count no longer."""
        AUDIT.removeHandler(self)

    def to_text(self) -> tuple[str, bytes]:
        """Return the content type and the body of the answer to `/metrics`."""
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"xai_demo_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"xai_demo_{name}", text, labels, registry=self.registry, buckets=_SECONDS)
