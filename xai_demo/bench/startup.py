"""How soon the page starts, compared with an empty Gradio page, and how soon it first answers.

Each runs in a process of its own, one after the other in every round. The first request analyses an
example of the tab that is shown first, with its default model.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.examples import EXAMPLES, example_path
from xai_demo.hub.space import serve_page

if TYPE_CHECKING:
    from xai_demo.records import Progress
    from xai_demo.settings import Settings

ROUNDS = 5
TASK = "stethoscope"
# Shown beside the figures; nothing fails above them.
LIMITS = {"ratio": 1.3, "first_answer_s": 6.0}
# The smallest page that Gradio can show.
BARE = "import gradio\nwith gradio.Blocks() as page:\n    gradio.Markdown('Hello')\npage.launch()\n"
_ROOT = Path(__file__).resolve().parents[2]


def run(
    settings: Settings, *, rounds: int = ROUNDS, progress: Progress | None = None
) -> dict[str, Any]:
    """Seconds until each page answers: medians over the rounds, and every value."""
    # Neither page may report its start to Gradio or to the Hub, which takes time of its own.
    quiet = ("GRADIO_ANALYTICS_ENABLED=False", "HF_HUB_DISABLE_TELEMETRY=1")
    ours = (
        *quiet,
        f"XAI_DEMO_WEIGHTS={settings.weights_dir.resolve()}",
        f"XAI_DEMO_CACHE={settings.cache_dir.resolve()}",
    )
    bare, page, first = [], [], []
    for number in range(rounds):
        if progress:
            progress(number / rounds, f"Starting both pages, round {number + 1} of {rounds}")
        # In turns, so that a load on the machine affects both pages alike.
        with serve_page([sys.executable, "-c", BARE], _ROOT, quiet) as started:
            bare.append(started.seconds)
        with serve_page([sys.executable, "app.py"], _ROOT, ours) as started:
            page.append(started.seconds)
            first.append(first_answer_s(started.url))
    medians = {
        "bare_s": statistics.median(bare),
        "page_s": statistics.median(page),
        "first_answer_s": statistics.median(first),
    }
    return {
        "rounds": rounds,
        **medians,
        "ratio": medians["page_s"] / medians["bare_s"],
        "wanted": LIMITS,
        "each": {"bare_s": bare, "page_s": page, "first_answer_s": first},
    }


def first_answer_s(url: str) -> float:
    """Seconds until a page that has just started has analysed an example."""
    from gradio_client import Client, handle_file

    name = next(name for name, example in EXAMPLES.items() if example.task == TASK)
    # Connecting counts: a visitor's browser does so too.
    start = time.perf_counter()
    client = Client(url, verbose=False, analytics_enabled=False)
    client.predict(handle_file(example_path(name)), api_name=f"/{TASK}")
    return time.perf_counter() - start


def table(result: Mapping[str, Any]) -> str:
    """The figures as a Markdown table."""
    limits = result["wanted"]
    return "\n".join(
        [
            "| | median | limit |",
            "| --- | --- | --- |",
            f"| empty Gradio page answers after (s) | {result['bare_s']:.2f} | |",
            f"| this page answers after (s) | {result['page_s']:.2f} | |",
            f"| ratio | {result['ratio']:.2f}x | at most {limits['ratio']:g}x |",
            f"| first analysis after that (s) | {result['first_answer_s']:.2f}"
            f" | at most {limits['first_answer_s']:g} |",
            "",
            f"Median of {result['rounds']} rounds, with the two pages taking turns.",
        ]
    )
