"""How soon the page is up beside a bare Gradio one, and how soon after that it first answers.

Each in a process of its own, in turn, every round; the first question is for an example of the tab
that is shown first, by the model that answers where nobody picks one.
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
WANTED = {"ratio": 1.3, "first_answer_s": 6.0}  # at most
# The least that Gradio can show.
BARE = "import gradio\nwith gradio.Blocks() as page:\n    gradio.Markdown('Hello')\npage.launch()\n"
_ROOT = Path(__file__).resolve().parents[2]


def run(
    settings: Settings, *, rounds: int = ROUNDS, progress: Progress | None = None
) -> dict[str, Any]:
    """Seconds: medians over the rounds, and each of them."""
    quiet = ("GRADIO_ANALYTICS_ENABLED=False", "HF_HUB_DISABLE_TELEMETRY=1")
    ours = (
        *quiet,
        f"XAI_DEMO_WEIGHTS={settings.weights_dir.resolve()}",
        f"XAI_DEMO_CACHE={settings.cache_dir.resolve()}",
    )
    bare, page, first = [], [], []
    for number in range(rounds):
        if progress:
            progress(number / rounds, f"starting both pages, {number + 1} of {rounds}")
        with serve_page([sys.executable, "-c", BARE], _ROOT, quiet) as shown:
            bare.append(shown.seconds)
        with serve_page([sys.executable, "app.py"], _ROOT, ours) as shown:
            page.append(shown.seconds)
            first.append(first_answer_s(shown.url))
    medians = {
        "bare_s": statistics.median(bare),
        "page_s": statistics.median(page),
        "first_answer_s": statistics.median(first),
    }
    return {
        "rounds": rounds,
        **medians,
        "ratio": medians["page_s"] / medians["bare_s"],
        "wanted": WANTED,
        "each": {"bare_s": bare, "page_s": page, "first_answer_s": first},
    }


def first_answer_s(url: str) -> float:
    """Seconds until a page that has just come up has answered for an example."""
    from gradio_client import Client, handle_file

    name = next(name for name, example in EXAMPLES.items() if example.task == TASK)
    begun = time.perf_counter()
    client = Client(url, verbose=False, analytics_enabled=False)
    client.predict(handle_file(example_path(name)), api_name=f"/{TASK}")
    return time.perf_counter() - begun


def table(result: Mapping[str, Any]) -> str:
    """The same as Markdown."""
    wanted = result["wanted"]
    return "\n".join(
        [
            "| what | median | wanted |",
            "| --- | --- | --- |",
            f"| bare Gradio page up (s) | {result['bare_s']:.2f} | |",
            f"| this page up (s) | {result['page_s']:.2f} | |",
            f"| ratio | {result['ratio']:.2f}x | at most {wanted['ratio']:g}x |",
            f"| first answer after that (s) | {result['first_answer_s']:.2f}"
            f" | at most {wanted['first_answer_s']:g} |",
            "",
            f"Median of {result['rounds']} rounds, the two in turn.",
        ]
    )
