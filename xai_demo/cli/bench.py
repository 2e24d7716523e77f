"""The command `bench`: one kind of measurement behind each option."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from xai_demo.cli import add_json, json_text, progress_bar
from xai_demo.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xai_demo.records import Progress
    from xai_demo.settings import Settings


def add_bench(command: argparse.ArgumentParser) -> None:
    """The options of `bench`."""
    command.add_argument(
        "load",
        nargs="?",
        choices=("visitors", "requests"),
        help="what many visitors at once, or many requests in a row, do to the served page",
    )
    # Without any of these, `bench` measures the analyses themselves.
    kind = command.add_mutually_exclusive_group()
    kind.add_argument(
        "--requests", type=int, metavar="N", help="instead: whether memory grows over N requests"
    )
    kind.add_argument(
        "--http", action="store_true", help="instead: what a request costs besides the network"
    )
    kind.add_argument(
        "--frontend", action="store_true", help="instead: our front ends and the original ones"
    )
    kind.add_argument(
        "--start", action="store_true", help="instead: how soon the page starts and answers"
    )
    kind.add_argument(
        "--slow",
        action="store_true",
        help="instead: how long slow explainers take, and how soon they stop",
    )
    kind.add_argument(
        "--workers", action="store_true", help="instead: what reading files in workers costs"
    )
    kind.add_argument(
        "--training", action="store_true", help="instead: how many samples a second training takes"
    )
    kind.add_argument(
        "--minutes",
        type=int,
        metavar="N",
        help="instead: a recording of N minutes, and live sound; with visitors: how long they stay",
    )
    command.add_argument("--visitors", type=int, metavar="N", help="how many visitors there are")
    command.add_argument("--count", type=int, metavar="N", help="how many requests in a row")
    command.add_argument("--rounds", type=int, metavar="N", help="to take the medians of")
    add_json(command)


def bench(arguments: argparse.Namespace, settings: Settings) -> Iterator[str]:
    """measure speed and memory, as in the benchmark tables"""
    with progress_bar() as progress:
        result, table = _measure(arguments, settings, progress)
    yield json_text(result) if arguments.json else table


def _measure(
    arguments: argparse.Namespace, settings: Settings, progress: Progress | None
) -> tuple[dict[str, Any], str]:
    """The figures of the chosen kind, and their table."""
    # Here, because they import torch, which `--help` can do without.
    from xai_demo.bench import (
        explanations,
        front_ends,
        http,
        load,
        long_recordings,
        memory,
        slow_explainers,
        startup,
        training_speed,
        workers,
    )

    # First, so that a wrong number is reported before anything is measured.
    rounds = _rounds(arguments)
    if arguments.load == "visitors":
        given = _numbers(arguments, "visitors", "minutes")
        result = load.run_visitors(settings, progress=progress, **given)
        return result, load.visitor_text(result)
    if arguments.load == "requests":
        result = load.run_requests(settings, progress=progress, **_numbers(arguments, "count"))
        return result, load.request_text(result)
    if arguments.requests is not None:
        result = memory.run(settings, requests=arguments.requests, progress=progress)
        return result, memory.text(result)
    if arguments.minutes is not None:
        result = long_recordings.run(settings, minutes=arguments.minutes, progress=progress)
        return result, long_recordings.text(result)
    if arguments.slow:
        result = slow_explainers.run(settings, progress=progress)
        return result, slow_explainers.table(result)
    if arguments.start:
        result = startup.run(settings, progress=progress, **rounds)
        return result, startup.table(result)
    if arguments.http:
        result = http.run(settings, progress=progress, **rounds)
        return result, http.table(result)
    if arguments.training:
        result = training_speed.run(progress=progress, **rounds)
        return result, training_speed.table(result)
    if arguments.workers:
        result = workers.run(settings, progress=progress, **rounds)
        return result, workers.table(result)
    if arguments.frontend:
        result = front_ends.run(progress=progress, **rounds)
        return result, front_ends.table(result)
    result = explanations.run(settings, progress=progress, **rounds)
    return result, explanations.table(result)


def _numbers(arguments: argparse.Namespace, *options: str) -> dict[str, int]:
    """The options that were given; each measurement has defaults of its own."""
    return {name: value for name in options if (value := getattr(arguments, name)) is not None}


def _rounds(arguments: argparse.Namespace) -> dict[str, int]:
    """`rounds` as a keyword argument, where it was given; raises RequestError for bad numbers."""
    for option in ("rounds", "requests", "minutes", "visitors", "count"):
        number = getattr(arguments, option)
        if number is not None and number < 1:
            raise RequestError(f"--{option} is {number}; it must be at least 1")
    for option, load in (("visitors", "visitors"), ("count", "requests")):
        if getattr(arguments, option) is not None and arguments.load != load:
            raise RequestError(f"--{option} belongs to `bench {load}`; use both, or neither")
    # Nothing is passed on then, because each measurement has a default of its own.
    if arguments.rounds is None:
        return {}
    for option in ("slow", "requests", "minutes"):
        if getattr(arguments, option):
            raise RequestError(
                f"--rounds is {arguments.rounds}, but --{option} takes no medians; use it alone, or"
                " with --http, --frontend, --start, --training or --workers"
            )
    return {"rounds": arguments.rounds}
