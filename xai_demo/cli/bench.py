"""What `bench` can be asked on the command line: each kind of measurement behind its option."""

from __future__ import annotations

import argparse
from typing import Any

from xai_demo.errors import RequestError
from xai_demo.records import Progress
from xai_demo.settings import Settings


def add_bench(command: argparse.ArgumentParser) -> None:
    """The arguments of `bench`: one kind of measurement at a time."""
    kind = command.add_mutually_exclusive_group()
    kind.add_argument("--requests", type=int, metavar="N", help="instead: does memory grow over N?")
    kind.add_argument(
        "--http", action="store_true", help="instead: what the rest of a request costs over HTTP"
    )
    kind.add_argument(
        "--frontend", action="store_true", help="instead: the front ends beside their originals"
    )
    kind.add_argument(
        "--start", action="store_true", help="instead: how soon the page is up and answers"
    )
    kind.add_argument(
        "--slow", action="store_true", help="instead: what slow explainers take, and to stop them"
    )
    kind.add_argument(
        "--minutes", type=int, metavar="N", help="instead: a recording of N minutes, and listening"
    )
    command.add_argument("--rounds", type=int, metavar="N", help="of which the medians are taken")
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def measured(
    arguments: argparse.Namespace, settings: Settings, progress: Progress | None
) -> tuple[dict[str, Any], str]:
    """The figures that were asked for, and the same as a table."""
    from xai_demo.bench import (
        explanations,
        front_ends,
        http,
        long_recordings,
        memory,
        slow_explainers,
        startup,
    )

    rounds = _rounds(arguments)
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
    if arguments.frontend:
        result = front_ends.run(progress=progress, **rounds)
        return result, front_ends.table(result)
    result = explanations.run(settings, progress=progress, **rounds)
    return result, explanations.table(result)


def _rounds(arguments: argparse.Namespace) -> dict[str, int]:
    """The rounds where they were asked for; raises RequestError for a number that means nothing."""
    for option in ("rounds", "requests", "minutes"):
        number = getattr(arguments, option)
        if number is not None and number < 1:
            raise RequestError(f"--{option} is {number}, wanted: at least 1")
    if arguments.rounds is None:
        return {}
    without = [k for k in ("slow", "requests", "minutes") if getattr(arguments, k)]
    if without:
        other = f"--{without[0]}"
        raise RequestError(
            f"--rounds is {arguments.rounds} beside {other}, which takes no medians; "
            "wanted: --rounds alone or with --http or --frontend"
        )
    return {"rounds": arguments.rounds}
