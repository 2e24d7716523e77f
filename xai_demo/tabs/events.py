"""What happens when a visitor clicks: the events of one tab. None of them is a public endpoint."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import gradio as gr

from xai_demo.analysis.request import noise_choice
from xai_demo.errors import XaiDemoError
from xai_demo.examples import example_path
from xai_demo.records import AGES, GATE_MODES, Analysis
from xai_demo.scheduler import Jobs
from xai_demo.tabs import live, noise, signal_path
from xai_demo.tabs.controls import (
    meant_for_html,
    playable_sound,
    progress_callback,
    with_shown_names,
)
from xai_demo.tabs.details import details_html
from xai_demo.tabs.layout import (
    DETAILS_INVITATION,
    PLAYERS,
    Panel,
    model_dependent_updates,
    status_text,
)
from xai_demo.tabs.requests import (
    Analyser,
    Comparison,
    PageRequest,
    Refusal,
    in_request,
    run_comparison,
)
from xai_demo.tabs.result import (
    answer_html,
    empty_html,
    gate_notice,
    preview_html,
    refusal_html,
)

# Events of the page only: programs use the endpoints in api.py.
PRIVATE: dict[str, Any] = {"api_visibility": "private"}
# The lanes of the queue, see tabs/queue.py.
ANSWERS: dict[str, Any] = {**PRIVATE, "concurrency_id": "answers"}
PREVIEWS: dict[str, Any] = {**PRIVATE, "concurrency_id": "previews", "show_progress": "hidden"}
# Not behind the analyses in the queue, for what is quick.
INSTANT: dict[str, Any] = {**PRIVATE, "queue": False, "show_progress": "hidden"}
# Gradio hands in the progress bar of a request where it finds this default.
_PROGRESS = gr.Progress()


def connect(panel: Panel, analyser: Analyser, jobs: Jobs) -> None:
    """Connect the widgets of one tab with what they do."""
    # "multiple": Gradio's "once" drops a click until the page has seen the end of the last event,
    # which is later than its answer, and later than a change of the file. `Jobs` makes sure that a
    # newer request stops the older one, and that a repeated one does nothing.
    working = {**ANSWERS, "show_progress_on": panel.status, "trigger_mode": "multiple"}
    controls = panel.controls
    answer = _make_answer(panel, analyser, jobs)
    inputs = [panel.file, *panel.inputs]

    def update_button(path: str | None) -> tuple[Any, str]:
        return gr.update(interactive=bool(path)), status_text(panel.tab, path)

    panel.file.change(update_button, panel.file, [panel.analyse, panel.status], **INSTANT)
    emptied = [*panel.outputs, *(panel.noise.outputs if panel.noise else [])]
    gr.on(_replacements(panel.file), _make_discard(panel, jobs), panel.file, emptied, **INSTANT)
    if panel.preview is not None:
        show_preview = functools.partial(preview_html, analyser)
        panel.file.change(show_preview, panel.file, panel.preview, **PREVIEWS)
    _connect_image_choices(panel, analyser)
    # The button, and every choice but the model's, run the analysis.
    events = [panel.analyse.click(answer, inputs, panel.outputs, **working)]
    # "select", because a dropdown sends "input" twice for one choice.
    triggers = {
        gr.Dropdown: "select", gr.Textbox: "submit", gr.Checkbox: "input", gr.Radio: "input"
    }  # fmt: skip
    for widget in (each for each in controls.all if each is not controls.model):
        trigger = getattr(widget, triggers[type(widget)])
        events.append(trigger(answer, inputs, panel.outputs, **working))
    # A new model first gets its own choices, so that the request fits it.
    updated = controls.model.select(
        functools.partial(model_dependent_updates, panel.tab, analyser),
        [controls.model, controls.explainer, controls.compare_with],
        panel.model_dependent,
        **INSTANT,
    )
    events.append(updated.then(answer, inputs, panel.outputs, **working))
    set_address = f"(model) => {{ xaiAddress({{ tab: '{panel.tab.task}', model }}); }}"
    controls.model.select(None, controls.model, None, js=set_address, **PRIVATE)
    if panel.signal is not None:
        for edge in (panel.signal.low, panel.signal.high):
            events.append(edge.submit(answer, inputs, panel.outputs, **working))
    if panel.live is not None:
        live.connect(panel.live, controls.model, analyser)
    if panel.gate is not None:
        for button, film in ((panel.gate.correct, "corrected"), (panel.gate.as_is, "as-is")):
            # Not a lambda: both would see the last value of `film`.
            updated = button.click(functools.partial(str, film), None, controls.film, **INSTANT)
            events.append(updated.then(answer, inputs, panel.outputs, **working))
    for name, card in panel.examples.items():
        answer_example = _make_answer(panel, analyser, jobs, example=name)
        outputs = [panel.file, *panel.outputs]
        events.append(card.click(answer_example, panel.inputs, outputs, **working))
    if panel.noise is not None:
        events += _connect_noise(panel, analyser, jobs, events)
    stopped = panel.stop.click(_make_stop(panel, jobs), panel.file, panel.status, **INSTANT)
    # This cancels what still waits in the queue. It must come after the running analysis has ended:
    # Gradio treats an event that it cancels halfway as pending again once that reports progress.
    stopped.then(None, cancels=cast(Any, events), **PRIVATE)


def _connect_image_choices(panel: Panel, analyser: Analyser) -> None:
    """Forget what was said of the last image, and say for whom the selected network is meant."""
    controls = panel.controls
    if controls.film is not None:
        # A choice made for one image does not hold for the next.
        panel.file.change(lambda: GATE_MODES[0], None, controls.film, **INSTANT)
    if controls.age is not None:
        panel.file.change(lambda: AGES[0], None, controls.age, **INSTANT)
    if panel.meant_for is not None:
        say = functools.partial(meant_for_html, analyser)
        controls.model.change(say, controls.model, panel.meant_for, **INSTANT)


def _connect_noise(panel: Panel, analyser: Analyser, jobs: Jobs, answers: list[Any]) -> list[Any]:
    """Run the noise test when a noise is chosen, and again after every new answer."""
    section = panel.noise
    # For the type checker: `connect` has made sure.
    assert section is not None  # noqa: S101

    async def test_noise(request: gr.Request, path: str | None, *given: Any) -> list[Any]:
        # In the order of `inputs` below.
        *values, kind, snr_db = given
        chosen = with_shown_names(page_request(panel, analyser, values, None).request, path)
        chosen = replace(chosen, noise=noise_choice(kind, snr_db if kind else None))
        if chosen.noise is None:
            return noise.empty_values()

        def work(stopped: Callable[[], bool]) -> list[Any]:
            return noise.section_values(analyser, chosen, path, stopped)

        # In the tab's place, so that a newer request stops this one.
        done = in_request(request.headers.get("x-request-id"), work)
        return await jobs.run(request.session_hash, panel.tab.task, done)

    async def repeat_noise(request: gr.Request, path: str | None, *given: Any) -> list[Any]:
        # A newer analysis is running, and its own repeat follows; this one would stop it.
        if jobs.is_running(request.session_hash or "", panel.tab.task):
            return [gr.skip() for _ in section.outputs]
        return await test_noise(request, path, *given)

    inputs = [panel.file, *panel.inputs, *section.inputs]
    # While the slider moves, only where it stops is worth an analysis.
    working = {**ANSWERS, "show_progress_on": section.output, "trigger_mode": "always_last"}
    choices = [
        section.kind.select(test_noise, inputs, section.outputs, **working),
        section.snr_db.change(test_noise, inputs, section.outputs, **working),
    ]
    # A repeat was not asked for, so it shows no progress.
    hidden = {**ANSWERS, "show_progress": "hidden"}
    repeats = [each.then(repeat_noise, inputs, section.outputs, **hidden) for each in answers]
    return [*choices, *repeats]


def _replacements(file: gr.Audio | gr.File) -> list[Any]:
    """Return the triggers by which the visitor, and not an example, changes or removes the file."""
    if isinstance(file, gr.Audio):
        return [file.input]
    return [file.upload, file.clear, file.delete]


def _make_discard(panel: Panel, jobs: Jobs) -> Callable[..., Any]:
    empty: list[Any] = [empty_html(panel.tab.invitation), DETAILS_INVITATION]
    empty += [gr.update(visible=False)]
    empty += [None for _ in panel.players]
    empty += [*_signal_path_values(panel, None), *_gate_values(panel, None)]
    empty += noise.empty_values() if panel.noise else []

    def discard(path: str | None, request: gr.Request) -> list[Any]:
        """Stop the analysis of the tab's last file and remove its answer: another file is shown."""
        # Unless the visitor was so quick that the new file is being analysed already.
        if jobs.stop_others(request.session_hash or "", panel.tab.task, path):
            return empty
        return [gr.skip() for _ in empty]

    return discard


def _make_stop(panel: Panel, jobs: Jobs) -> Callable[..., Any]:
    async def stop(path: str | None, request: gr.Request) -> str:
        """Stop this visitor's analysis on this tab."""
        await jobs.stop_and_wait(request.session_hash or "", panel.tab.task)
        return f"Stopped. {status_text(panel.tab, path)}"

    return stop


def _make_answer(
    panel: Panel, analyser: Analyser, jobs: Jobs, example: str | None = None
) -> Callable[..., Any]:
    """Return the handler that answers for the uploaded file, or for an example, which it loads."""
    first = [] if example is None else [str(example_path(example))]

    # Gradio hands in the request and the progress bar by position, before the widgets' values.
    async def answer(
        request: gr.Request, progress: gr.Progress = _PROGRESS, *given: Any
    ) -> list[Any]:
        # The file comes first: the visitor's, or else the example's.
        values: list[Any] = [*first, *given]
        path = values.pop(0)
        unchanged = [gr.skip() for _ in (*first, *panel.outputs)]
        if not path:
            return unchanged

        def work(stopped: Callable[[], bool]) -> list[Any]:
            chosen = page_request(panel, analyser, values, example)
            chosen = replace(chosen, request=with_shown_names(chosen.request, path))
            result = run_comparison(analyser, chosen, path, progress_callback(progress), stopped)
            # A stopped analysis must not overwrite the answer to the visitor's newer request.
            return unchanged if stopped() else [*first, *_output_values(panel, analyser, result)]

        # The same choices for the same file: a second press while the first is worked on.
        key = (path, example, repr(values))
        done = in_request(request.headers.get("x-request-id"), work)
        result = await jobs.run_once(request.session_hash, panel.tab.task, path, key, done)
        return unchanged if result is None else result

    return answer


def page_request(
    panel: Panel, analyser: Analyser, values: list[Any], example: str | None
) -> PageRequest:
    """Return the request that the widgets describe.

    An annotation, and what is said of an image or its patient, belong to an upload; examples ignore
    them.
    """
    # The values are in the order of `Panel.inputs`.
    count = len(panel.controls.all)
    chosen = panel.controls.page_request(panel.tab.task, values[:count])
    if example is not None:
        chosen = replace(chosen, request=replace(chosen.request, film="checked", age="auto"))
    if panel.signal is None:
        return chosen
    *steps, cycles = values[count:]
    request = chosen.request
    try:
        model = analyser.hub.model(request.model or analyser.hub.default_model(panel.tab.task))
    except XaiDemoError:
        # Running the request raises the same error, which is then shown.
        return chosen
    request = replace(
        request,
        signal_path=signal_path.path_from_switches(steps, model),
        cycles=cycles or None if example is None else None,
    )
    return replace(chosen, request=request)


def _output_values(panel: Panel, analyser: Analyser, comparison: Comparison) -> list[Any]:
    """Return the values of the panel's outputs, in their order."""
    outcome = comparison.first
    if isinstance(outcome, Refusal):
        html = refusal_html(outcome.message, advice=outcome.advice, title=outcome.title)
        no_sounds: list[Any] = [None for _ in panel.players]
        rest = [*_signal_path_values(panel, None), *_gate_values(panel, None)]
        return [html, "", gr.update(visible=False), *no_sounds, *rest]
    # A visitor's own model is not in the hub, so the analysis brings its record.
    model = outcome.model or analyser.hub.model(outcome.report.model.name)
    sounds = [
        playable_sound(outcome.sounds[name], outcome.sample_rate_hz)
        if name in outcome.sounds
        else None
        # None on a tab for images, which has no players.
        for name in list(PLAYERS)[: len(panel.players)]
    ]
    players_column = gr.update(visible=any(sound is not None for sound in sounds))
    html = answer_html(outcome, model, comparison.second)
    rest = [*_signal_path_values(panel, outcome), *_gate_values(panel, outcome)]
    return [html, details_html(outcome, model), players_column, *sounds, *rest]


def _gate_values(panel: Panel, analysis: Analysis | None) -> list[Any]:
    """Return the gate's notice and buttons, shown where the gate stopped the image."""
    if panel.gate is None:
        return []
    gate = analysis.report.input.get("gate", {}) if analysis else {}
    is_stopped = analysis is not None and analysis.report.decision.kind == "no answer"
    # Nothing can turn another kind of image into a frontal chest X-ray.
    is_correctable = gate.get("kind") in ("rotated", "inverted")
    notice = gate_notice(analysis) if analysis and is_stopped else ""
    return [gr.update(visible=is_stopped), notice, gr.update(visible=is_correctable)]


def _signal_path_values(panel: Panel, analysis: Analysis | None) -> list[Any]:
    return signal_path.output_values(analysis) if panel.signal else []
