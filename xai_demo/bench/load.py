"""What many visitors at once, and many requests in a row, do to a page that is served.

The page runs in a process of its own, with the settings of the environment.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.bench.visitor import (
    TASKS,
    Outcome,
    Page,
    Usage,
    ask,
    connect,
    open_page,
    serve,
    usage,
)
from xai_demo.errors import XaiDemoError

if TYPE_CHECKING:
    from xai_demo.hub.space import RunningPage
    from xai_demo.records import Progress
    from xai_demo.settings import Settings

VISITORS, MINUTES, COUNT = 50, 5, 500
# Libraries fill their pools, and networks are exported, during the first requests.
WARM_UP = 40
# How long a visitor looks at an answer before asking again, in seconds: from, to.
_LOOK_S = (4.0, 12.0)
_RETRY_S = 5.0
_EXPORT_S = 120.0
# Until uploads have been swept and connections are closed.
_SETTLE_S = 150.0


def run_visitors(
    settings: Settings,
    *,
    visitors: int = VISITORS,
    minutes: float = MINUTES,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Let visitors ask in all tabs for some minutes; see `visitor_figures`."""
    report = progress or (lambda done, doing: None)
    with serve(settings) as (running, folder):
        return asyncio.run(_visit(running, folder, visitors, 60 * minutes, report))


def run_requests(
    settings: Settings, *, count: int = COUNT, progress: Progress | None = None
) -> dict[str, Any]:
    """Ask `count` times in a row; returns the usage before, at the end, and once it is quiet."""
    report = progress or (lambda done, doing: None)
    # Uploads and results are deleted after half a minute instead of an hour, to see them go.
    with serve(settings, "XAI_DEMO_KEEP_MINUTES=0.5") as (running, folder):
        return asyncio.run(_ask_in_a_row(running, folder, count, report))


async def _visit(
    running: RunningPage, folder: Path, visitors: int, seconds: float, report: Progress
) -> dict[str, Any]:
    page = await open_page(running.url)
    await _warm_up(page, report)
    # All at once, because as many answers in progress take more memory than one.
    await asyncio.gather(*(_ask_once(page, number) for number in range(visitors)))
    outcomes: list[Outcome] = []
    memory: list[float] = []
    began = time.monotonic()

    async def watch() -> None:
        while True:
            used = await asyncio.to_thread(usage, running.pid, folder)
            memory.append(used.memory_mb)
            elapsed = time.monotonic() - began
            report(min(1.0, elapsed / seconds), f"{len(outcomes)} requests of {visitors} visitors")
            await asyncio.sleep(1)

    watching = asyncio.create_task(watch())
    visits = [_stay(page, number, began + seconds, outcomes) for number in range(visitors)]
    await asyncio.gather(*visits)
    watching.cancel()
    return {"visitors": visitors, "minutes": seconds / 60} | visitor_figures(outcomes, memory)


async def _stay(page: Page, number: int, end: float, outcomes: list[Outcome]) -> None:
    chance = random.Random(number)  # noqa: S311 # nosec B311
    async with connect(page.url, number) as http:
        # Nobody comes in the same second as all others.
        await asyncio.sleep(chance.uniform(0, _LOOK_S[1]))
        (await http.get("/")).raise_for_status()
        turn = number
        while time.monotonic() < end:
            task = TASKS[turn % len(TASKS)]
            outcome = await ask(http, page, task, visitor=number, session=f"visitor-{number}")
            outcomes.append(outcome)
            turn += 1
            rest = _RETRY_S if outcome.kind == "busy" else chance.uniform(*_LOOK_S)
            await asyncio.sleep(rest)


async def _ask_once(page: Page, number: int) -> Outcome:
    async with connect(page.url, number) as http:
        task = TASKS[number % len(TASKS)]
        return await ask(http, page, task, visitor=number, session=f"visitor-{number}")


async def _ask_in_a_row(
    running: RunningPage, folder: Path, count: int, report: Progress
) -> dict[str, Any]:
    page = await open_page(running.url)
    await _warm_up(page, report)
    before = await _settle(running.pid, folder)
    outcomes = []
    for number in range(count):
        async with connect(page.url, number) as http:
            outcomes.append(await ask(http, page, TASKS[number % len(TASKS)], visitor=number))
        report(number / count, f"Request {number + 1} of {count}")
    end = usage(running.pid, folder)
    after = await _settle(running.pid, folder, like=before)
    kinds = Counter(outcome.kind for outcome in outcomes)
    return {
        "count": count,
        "kinds": dict(kinds),
        "failures": _failures(outcomes),
        "seconds": statistics.median(outcome.seconds for outcome in outcomes),
        "before": _as_dict(before),
        "end": _as_dict(end),
        "after": _as_dict(after),
    }


async def _settle(pid: int, folder: Path, *, like: Usage | None = None) -> Usage:
    """The usage once it is no more than `like`, or once it no longer changes."""
    end, used = time.monotonic() + _SETTLE_S, usage(pid, folder)
    while time.monotonic() < end:
        await asyncio.sleep(5)
        now = usage(pid, folder)
        if like is None and now.files == 0 and now.descriptors == used.descriptors:
            return now
        if like is not None and _is_within(now, like):
            return now
        used = now
    return used


def _is_within(now: Usage, like: Usage) -> bool:
    return (
        now.descriptors <= like.descriptors
        and now.threads <= like.threads
        and now.files <= like.files
    )


def visitor_figures(outcomes: Sequence[Outcome], memory_mb: Sequence[float]) -> dict[str, Any]:
    """The waits, what was turned away, and memory in the first and the last minute.

    `memory_mb` has one value a second. The wait of a visitor is the mean of all of that visitor's.
    """
    answered = [each for each in outcomes if each.kind == "answered"]
    waits = [each.seconds for each in answered]
    by_visitor: dict[int, list[float]] = {}
    for each in answered:
        by_visitor.setdefault(each.visitor, []).append(each.seconds)
    means = [statistics.mean(each) for each in by_visitor.values()]
    busy = [each for each in outcomes if each.kind == "busy"]
    first, last = memory_mb[:60], memory_mb[-60:]
    return {
        "requests": len(outcomes),
        "answered": len(answered),
        "busy": len(busy),
        # That they name a place or a number of requests.
        "busy_with_place": sum(any(c.isdecimal() for c in each.text) for each in busy),
        "failed": len(outcomes) - len(answered) - len(busy),
        "failures": _failures(outcomes),
        "wait_median_s": statistics.median(waits) if waits else 0.0,
        "wait_longest_s": max(waits, default=0.0),
        "visitor_median_s": statistics.median(means) if means else 0.0,
        "visitor_longest_s": max(means, default=0.0),
        "rank_highest": max((each.rank for each in outcomes), default=0),
        "memory_first_minute_mb": statistics.median(first) if first else 0.0,
        "memory_last_minute_mb": statistics.median(last) if last else 0.0,
        "memory_by_minute_mb": [
            round(statistics.median(memory_mb[start : start + 60]))
            for start in range(0, len(memory_mb), 60)
        ],
        "memory_peak_mb": max(memory_mb, default=0.0),
    }


def visitor_text(result: Mapping[str, Any]) -> str:
    """The figures of `run_visitors` in a few sentences."""
    growth = result["memory_last_minute_mb"] / max(1.0, result["memory_first_minute_mb"]) - 1
    ratio = result["visitor_longest_s"] / max(1e-9, result["visitor_median_s"])
    longest = result["wait_longest_s"] / max(1e-9, result["wait_median_s"])
    return (
        f"{result['visitors']} visitors, {result['minutes']:g} minutes, all tabs:"
        f" {result['requests']} requests, {result['answered']} answered, {result['busy']} told that"
        f" the page is busy ({result['busy_with_place']} with a place), {result['failed']} failed"
        f" {result['failures'] or ''}.\n"
        f"Waits: median {result['wait_median_s']:.1f} s, longest {result['wait_longest_s']:.1f} s"
        f" ({longest:.1f} times); by visitor: median {result['visitor_median_s']:.1f} s, longest"
        f" {result['visitor_longest_s']:.1f} s ({ratio:.2f} times); highest place in the queue:"
        f" {result['rank_highest']}.\n"
        f"Memory: {result['memory_first_minute_mb']:.0f} MB in the first minute,"
        f" {result['memory_last_minute_mb']:.0f} MB in the last ({growth:+.1%}), at most"
        f" {result['memory_peak_mb']:.0f} MB."
    )


def request_text(result: Mapping[str, Any]) -> str:
    """The figures of `run_requests`, a line for each moment."""
    lines = [
        f"{result['count']} requests in a row: {result['kinds']}, median"
        f" {result['seconds']:.2f} s {result['failures'] or ''}"
    ]
    for name, title in (("before", "Before"), ("end", "At the end"), ("after", "Once quiet")):
        used = result[name]
        lines.append(
            f"{title}: {used['descriptors']} descriptors, {used['threads']} threads,"
            f" {used['files']} temporary files, {used['memory_mb']:.0f} MB."
        )
    return "\n".join(lines)


async def _warm_up(page: Page, report: Progress) -> None:
    """Load every default network, and wait for the background export, which replaces it."""
    end = time.monotonic() + _EXPORT_S
    async with connect(page.url, 0) as http:
        for number in range(WARM_UP):
            report(0.0, f"Warming up, request {number + 1} of {WARM_UP}")
            outcome = await ask(http, page, TASKS[number % len(TASKS)], visitor=0)
            if outcome.kind == "failed" or time.monotonic() > end:
                raise XaiDemoError(f"The page cannot be warmed up: {outcome.text or 'too slow'}")


def _failures(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How often each failure was met."""
    return dict(Counter(each.text for each in outcomes if each.kind == "failed"))


def _as_dict(used: Usage) -> dict[str, float]:
    return {name: getattr(used, name) for name in Usage.__slots__}
