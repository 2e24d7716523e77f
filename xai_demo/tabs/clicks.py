"""What follows from a click: the events of one tab, none of them part of what is published."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from xai_demo.errors import WeightsError
from xai_demo.records import Analysis
from xai_demo.synthesis import example_path
from xai_demo.tabs.answer import answered, refused
from xai_demo.tabs.ask import Analyser, Picks, Refusal, ask
from xai_demo.tabs.details import details
from xai_demo.tabs.panel import SOUNDS, Panel, playable, state_of, targets_of

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
INSTANT: dict[str, Any] = {**PRIVATE, "queue": False, "show_progress": "hidden"}
_PROGRESS = gr.Progress()  # the default by which Gradio knows what to hand in
_PREVIEW_JS = """(file) => {
  const one = Array.isArray(file) ? file[0] : file;
  if (!one || !one.url || !/\\.(png|jpe?g|webp|bmp|gif)$/i.test(one.path || "")) return "";
  return `<img alt="Your picture" src="${one.url.replaceAll('"', "%22")}">`;
}"""


def connect(panel: Panel, analyser: Analyser) -> None:
    """Say what follows from what on one tab."""
    # Each event waits for its own end: a second click while working is not sent.
    working = {**PRIVATE, "show_progress_on": panel.state, "trigger_mode": "once"}
    answer = _answer(panel, analyser)
    asked = [panel.file, *panel.picks]

    def wake(path: str | None) -> tuple[Any, str]:
        return gr.update(interactive=bool(path)), state_of(panel.tab, path)

    panel.file.change(wake, panel.file, [panel.analyse, panel.state], **INSTANT)
    if panel.preview is not None:
        panel.file.change(None, panel.file, panel.preview, js=_PREVIEW_JS, **PRIVATE)
    panel.analyse.click(answer, asked, panel.outputs, **working)
    # Not `input`: a dropdown sends that twice for one choice.
    for picker in (panel.explainer, panel.target, panel.backend):
        picker.select(answer, asked, panel.outputs, **working)
    chosen = panel.model.select(_follow_model(analyser), panel.model, panel.target, **INSTANT)
    chosen.then(answer, asked, panel.outputs, **working)
    note = f"(model) => {{ xaiAddress({{ tab: '{panel.tab.task}', model }}); }}"
    panel.model.select(None, panel.model, None, js=note, **PRIVATE)
    for name, card in panel.examples.items():
        show = _example(name, answer)
        card.click(show, panel.picks, [panel.file, *panel.outputs], **working)


def _follow_model(analyser: Analyser) -> Callable[[str], Any]:
    def follow(name: str) -> Any:
        """The labels that can be explained depend on the model; one not here has none to show."""
        try:
            model = analyser.hub.model(name)
        except WeightsError:
            return gr.update(choices=targets_of(None), value="")
        return gr.update(choices=targets_of(model), value="")

    return follow


def _answer(panel: Panel, analyser: Analyser) -> Callable[..., list[Any]]:
    def answer(
        path: str | None,
        model: str | None,
        explainer: str | None,
        target: str | None,
        backend: str | None,
        progress: gr.Progress = _PROGRESS,
    ) -> list[Any]:
        if not path:
            return [gr.skip() for _ in panel.outputs]
        picks = Picks(model=model, explainer=explainer, target=target, backend=backend)
        outcome = ask(
            analyser, panel.tab.task, path, picks, lambda done, what: progress(done, desc=what)
        )
        return _filled(panel, analyser, outcome)

    return answer


def _example(name: str, answer: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    def show(
        model: str | None,
        explainer: str | None,
        target: str | None,
        backend: str | None,
        progress: gr.Progress = _PROGRESS,
    ) -> list[Any]:
        path = str(example_path(name))
        return [path, *answer(path, model, explainer, target, backend, progress)]

    return show


def _filled(panel: Panel, analyser: Analyser, outcome: Analysis | Refusal) -> list[Any]:
    if isinstance(outcome, Refusal):
        html = refused(outcome.message, advice=outcome.advice, title=outcome.title)
        return [html, "", gr.update(visible=False), *(None for _ in panel.players)]
    model = analyser.hub.model(outcome.report.model.name)
    players = [
        playable(outcome.sounds[name], outcome.sample_rate_hz) if name in outcome.sounds else None
        for name in list(SOUNDS)[: len(panel.players)]
    ]
    hear = gr.update(visible=any(p is not None for p in players))
    return [answered(outcome, model), details(outcome, model), hear, *players]
