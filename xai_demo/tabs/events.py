"""What follows from a click: the events of one tab, none of them part of what is published."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import gradio as gr

from xai_demo.analysis.request import noise_choice
from xai_demo.errors import XaiDemoError
from xai_demo.examples import example_path
from xai_demo.records import GATE_MODES, Analysis
from xai_demo.scheduler import Jobs
from xai_demo.tabs import live, noise, signal_path
from xai_demo.tabs.api import told_by
from xai_demo.tabs.controls import playable
from xai_demo.tabs.details import details_html
from xai_demo.tabs.layout import (
    SOUNDS,
    Panel,
    followed,
    state_of,
)
from xai_demo.tabs.requests import (
    Analyser,
    Compared,
    PageRequest,
    Refusal,
    compared,
)
from xai_demo.tabs.result import (
    answer_html,
    gate_notice,
    preview_html,
    refusal_html,
)

PRIVATE: dict[str, Any] = {"api_visibility": "private"}
INSTANT: dict[str, Any] = {**PRIVATE, "queue": False, "show_progress": "hidden"}
_PROGRESS = gr.Progress()  # the default by which Gradio knows what to hand in


def connect(panel: Panel, analyser: Analyser, running: Jobs) -> None:
    """Say what follows from what on one tab."""
    # Each event waits for its own end: a second click while working is not sent. Another event of
    # the tab is, and stops what was being worked on.
    working = {**PRIVATE, "show_progress_on": panel.state, "trigger_mode": "once"}
    picks = panel.pickers
    answer = _answer(panel, analyser, running)
    asked = [panel.file, *panel.inputs]

    def wake(path: str | None) -> tuple[Any, str]:
        return gr.update(interactive=bool(path)), state_of(panel.tab, path)

    panel.file.change(wake, panel.file, [panel.analyse, panel.state], **INSTANT)
    if panel.preview is not None:
        show = functools.partial(preview_html, analyser)
        panel.file.change(show, panel.file, panel.preview, **INSTANT)
    if picks.film is not None:  # another film is doubted anew
        panel.file.change(lambda: GATE_MODES[0], None, picks.film, **INSTANT)
    events = [panel.analyse.click(answer, asked, panel.outputs, **working)]
    # Not `input`: a dropdown sends that twice for one choice.
    for widget in (each for each in picks.all if each is not picks.model):
        listen = {gr.Dropdown: "select", gr.Textbox: "submit", gr.Checkbox: "input"}[type(widget)]
        events.append(getattr(widget, listen)(answer, asked, panel.outputs, **working))
    chosen = picks.model.select(
        functools.partial(followed, panel.tab, analyser),
        [picks.model, picks.explainer, picks.compare_with],
        panel.following,
        **INSTANT,
    )
    events.append(chosen.then(answer, asked, panel.outputs, **working))
    note = f"(model) => {{ xaiAddress({{ tab: '{panel.tab.task}', model }}); }}"
    picks.model.select(None, picks.model, None, js=note, **PRIVATE)
    if panel.signal is not None:
        for end in (panel.signal.low, panel.signal.high):
            events.append(end.submit(answer, asked, panel.outputs, **working))
    if panel.live is not None:
        live.connect(panel.live, picks.model, analyser)
    if panel.doubt is not None:
        for button, film in ((panel.doubt.correct, "corrected"), (panel.doubt.as_is, "as-is")):
            taken = button.click(functools.partial(str, film), None, picks.film, **INSTANT)
            events.append(taken.then(answer, asked, panel.outputs, **working))
    for name, card in panel.examples.items():
        shown = _answer(panel, analyser, running, example=name)
        events.append(card.click(shown, panel.inputs, [panel.file, *panel.outputs], **working))
    if panel.noise is not None:
        events += _noise_events(panel, analyser, running, events)
    ended = panel.stop.click(_stop(panel, running), panel.file, panel.state, **INSTANT)
    # Only then, for what still waits in the queue. An event that Gradio cancels in its midst is
    # taken for pending again if a word of its progress comes after that.
    ended.then(None, cancels=cast(Any, events), **PRIVATE)


def _noise_events(panel: Panel, analyser: Analyser, running: Jobs, answers: list[Any]) -> list[Any]:
    """A noise is asked about when it is picked, and again after every new answer."""
    section = panel.noise
    assert section is not None  # noqa: S101

    async def asked(request: gr.Request, path: str | None, *given: Any) -> list[Any]:
        *values, kind, snr_db = given
        chosen = page_request(panel, analyser, values, None).request
        chosen = replace(chosen, noise=noise_choice(kind, snr_db if kind else None))
        if chosen.noise is None:
            return noise.nothing()

        def work(stopped: Callable[[], bool]) -> list[Any]:
            return noise.asked(analyser, chosen, path, stopped)

        return await running.run(request.session_hash, panel.tab.task, work)

    inputs = [panel.file, *panel.inputs, *section.inputs]
    working = {**PRIVATE, "show_progress_on": section.shown, "trigger_mode": "always_last"}
    picked_ = [
        section.kind.select(asked, inputs, section.outputs, **working),
        section.snr_db.change(asked, inputs, section.outputs, **working),
    ]
    hidden = {**PRIVATE, "show_progress": "hidden"}
    return [*picked_, *(e.then(asked, inputs, section.outputs, **hidden) for e in answers)]


def _stop(panel: Panel, running: Jobs) -> Callable[..., Any]:
    async def stop(path: str | None, request: gr.Request) -> str:
        """End what this visitor waits for on this tab; Gradio itself empties the queue of it."""
        await running.stop_and_wait(request.session_hash or "", panel.tab.task)
        return f"Stopped, as you asked. {state_of(panel.tab, path)}"

    return stop


def _answer(
    panel: Panel, analyser: Analyser, running: Jobs, example: str | None = None
) -> Callable[..., Any]:
    """What answers for the file in the box, or for an example, which it puts into the box."""
    first = [] if example is None else [str(example_path(example))]

    async def answer(
        request: gr.Request, progress: gr.Progress = _PROGRESS, *given: Any
    ) -> list[Any]:
        values: list[Any] = [*first, *given]
        path = values.pop(0)
        nothing = [gr.skip() for _ in (*first, *panel.outputs)]
        if not path:
            return nothing

        def work(stopped: Callable[[], bool]) -> list[Any]:
            chosen = page_request(panel, analyser, values, example)
            outcome = compared(analyser, chosen, path, told_by(progress), stopped)
            # A newer question of this visitor's: that one's answer is to be shown.
            return nothing if stopped() else [*first, *_filled(panel, analyser, outcome)]

        return await running.run(request.session_hash, panel.tab.task, work)

    return answer


def page_request(
    panel: Panel, analyser: Analyser, values: list[Any], example: str | None
) -> PageRequest:
    """What the widgets say. An annotation and a film setting are of a file, not of an example."""
    count = len(panel.pickers.all)
    chosen = panel.pickers.page_request(panel.tab.task, values[:count])
    if example is not None:
        chosen = replace(chosen, request=replace(chosen.request, film="checked"))
    if panel.signal is None:
        return chosen
    *steps, cycles = values[count:]
    request = chosen.request
    try:
        model = analyser.hub.model(request.model or analyser.hub.default_model(panel.tab.task))
    except XaiDemoError:  # the analyser refuses it in words
        return chosen
    request = replace(
        request,
        signal_path=signal_path.chosen(steps, model),
        cycles=cycles or None if example is None else None,
    )
    return replace(chosen, request=request)


def _filled(panel: Panel, analyser: Analyser, both: Compared) -> list[Any]:
    outcome = both.first
    if isinstance(outcome, Refusal):
        html = refusal_html(outcome.message, advice=outcome.advice, title=outcome.title)
        silent: list[Any] = [None for _ in panel.players]
        rest = [*_path(panel, None), *_doubt(panel, None)]
        return [html, "", gr.update(visible=False), *silent, *rest]
    model = outcome.model or analyser.hub.model(outcome.report.model.name)
    players = [
        playable(outcome.sounds[name], outcome.sample_rate_hz) if name in outcome.sounds else None
        for name in list(SOUNDS)[: len(panel.players)]
    ]
    hear = gr.update(visible=any(p is not None for p in players))
    html = answer_html(outcome, model, both.second)
    rest = [*_path(panel, outcome), *_doubt(panel, outcome)]
    return [html, details_html(outcome, model), hear, *players, *rest]


def _doubt(panel: Panel, analysis: Analysis | None) -> list[Any]:
    """The two buttons, where the gate stopped the film; to correct it only where that helps."""
    if panel.doubt is None:
        return []
    gate = analysis.report.input.get("gate", {}) if analysis else {}
    stopped = analysis is not None and analysis.report.decision.kind == "no answer"
    correctable = gate.get("kind") in ("rotated", "inverted")
    said = gate_notice(analysis) if analysis and stopped else ""
    return [gr.update(visible=stopped), said, gr.update(visible=correctable)]


def _path(panel: Panel, analysis: Analysis | None) -> list[Any]:
    return signal_path.shown(analysis) if panel.signal else []
