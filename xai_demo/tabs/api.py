"""The published interface: what scripts and other people's programs call through Gradio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import gradio as gr

from xai_demo import explainers
from xai_demo.audio.filters import SignalPath
from xai_demo.audio.noise import Noise
from xai_demo.errors import XaiDemoError
from xai_demo.records import Analysis, Progress, Task
from xai_demo.scheduler import Running
from xai_demo.tabs import noise as noises
from xai_demo.tabs import signal_path
from xai_demo.tabs.controls import as_path, playable
from xai_demo.tabs.details import overlay
from xai_demo.tabs.requests import (
    Analyser,
    Picks,
    Refusal,
    ask,
)

_PROGRESS = gr.Progress()  # the default by which Gradio knows what to hand in


def publish(analyser: Analyser, running: Running) -> None:
    """Put the five endpoints on the page that is being built; they show nothing there."""
    with gr.Row(visible=False):
        _publish_task(analyser, running, "stethoscope", sound=True, events=True)
        _publish_task(analyser, running, "chest_xray", sound=False, events=False)
        _publish_task(analyser, running, "audioset", sound=True, events=False)
        hub = analyser.hub
        _publish_list("models", lambda: [dict(hub.describe(name)) for name in hub.names()])
        _publish_list("explainers", lambda: explainers.describe(hub.kinds()))


def _publish_task(
    analyser: Analyser, running: Running, task: Task, *, sound: bool, events: bool
) -> None:
    # Components that pass the file's path on as it is: nothing is decoded before our own reader.
    file = gr.Audio(type="filepath", label="audio") if sound else as_path(gr.File(label="image"))
    # Free text, so that an unknown name meets our own sentence, which lists the known ones.
    words = [gr.Textbox(None, label=label) for label in ("model", "explainer", "target", "layer")]
    path: list[Any] = []
    if events:
        path = [gr.JSON(None, label="band"), _switch("denoise")]
        path.append(as_path(gr.File(label="cycles")))
    if sound and not events:
        path = [gr.Textbox(None, label="noise"), gr.Number(None, label="snr")]
    if not sound:
        path.append(gr.Textbox(None, label="film"))
    path.append(_switch("faithfulness"))
    outputs: list[Any] = [gr.JSON(label="report"), gr.Image(format="jpeg", label="overlay")]
    outputs += [gr.Audio(label="explanation")] if sound else []
    outputs += [gr.JSON(label="events")] if events else []
    gr.Button().click(
        _breath_endpoint(analyser, running)
        if events
        else _endpoint(analyser, running, task, sound=sound),
        [file, *words, *path],
        outputs,
        api_name=task,
        api_description=f"Read, predict and explain one file: the task {task!r}.",
    )


def _publish_list(name: str, rows: Callable[[], list[dict[str, Any]]]) -> None:
    gr.Button().click(
        rows, None, gr.JSON(label=name), api_name=name, api_description=f"All {name}, one row each."
    )


def _answerer(
    analyser: Analyser, running: Running, task: Task, *, sound: bool, events: bool
) -> Callable[[str | None, Picks, gr.Request, gr.Progress], Awaitable[list[Any]]]:
    async def answer(
        path: str | None, picks: Picks, request: gr.Request, progress: gr.Progress
    ) -> list[Any]:
        def work(stopped: Callable[[], bool]) -> list[Any]:
            outcome, more = _asked(analyser, task, path, picks, told_by(progress), stopped)
            report = outcome.report.to_json() | more
            return [
                report,
                overlay(outcome),
                *([_explanation_sound(outcome)] if sound else []),
                *([report["events"]] if events else []),
            ]

        # No place: one program may well ask for several files at once.
        return await running.worked(request.session_hash, None, work)

    return answer


def _asked(
    analyser: Analyser,
    task: Task,
    path: str | None,
    picks: Picks,
    progress: Progress,
    stopped: Callable[[], bool],
) -> tuple[Analysis, dict[str, Any]]:
    """The answer, that with noise where that is asked for; and what joins its report."""
    if picks.noise is None:
        outcome = ask(analyser, task, path, picks, progress, stopped)
        if isinstance(outcome, Refusal):
            raise gr.Error(_sentence(outcome), print_exception=False)
        return outcome, {}
    both = noises.asked_twice(analyser, task, path, picks, progress=progress, stopped=stopped)
    if isinstance(both, Refusal):
        raise gr.Error(_sentence(both), print_exception=False)
    return both.noisy, {"noise": both.to_json()}


def _endpoint(
    analyser: Analyser, running: Running, task: Task, *, sound: bool
) -> Callable[..., Any]:
    answer = _answerer(analyser, running, task, sound=sound, events=False)

    async def sounds(
        request: gr.Request,
        audio: str | None,
        model: str | None = None,
        explainer: str | None = None,
        target: str | None = None,
        layer: str | None = None,
        noise: str | None = None,
        snr: float | None = None,
        faithfulness: Any = None,
        progress: gr.Progress = _PROGRESS,
    ) -> list[Any]:
        picks = Picks(model=model, explainer=explainer, target=target, layer=layer)
        picks = replace(picks, noise=_asked_noise(noise, snr), trial=_trial(faithfulness))
        return await answer(audio, picks, request, progress)

    async def pictures(
        request: gr.Request,
        image: str | None,
        model: str | None = None,
        explainer: str | None = None,
        target: str | None = None,
        layer: str | None = None,
        film: str | None = None,
        faithfulness: Any = None,
        progress: gr.Progress = _PROGRESS,
    ) -> list[Any]:
        taken: Any = film or None  # a word nobody knows is refused by name
        picks = Picks(model=model, explainer=explainer, target=target, layer=layer, film=taken)
        picks = replace(picks, trial=_trial(faithfulness))
        return await answer(image, picks, request, progress)

    # The clients take the names and the defaults of the arguments from the signature.
    return sounds if sound else pictures


def _breath_endpoint(analyser: Analyser, running: Running) -> Callable[..., Any]:
    answer = _answerer(analyser, running, "stethoscope", sound=True, events=True)

    async def breaths(
        request: gr.Request,
        audio: str | None,
        model: str | None = None,
        explainer: str | None = None,
        target: str | None = None,
        layer: str | None = None,
        band: Any = None,
        denoise: Any = None,
        cycles: str | None = None,
        faithfulness: Any = None,
        progress: gr.Progress = _PROGRESS,
    ) -> list[Any]:
        picks = Picks(
            model=model,
            explainer=explainer,
            target=target,
            layer=layer,
            signal_path=_asked_path(analyser, model, band, _set("denoise", denoise)),
            cycles=cycles,
            trial=_trial(faithfulness),
        )
        return await answer(audio, picks, request, progress)

    return breaths


def _switch(label: str) -> gr.JSON:
    """Takes true, false, or neither: as is usual. A checkbox takes neither for false."""
    return gr.JSON(None, label=label)


def _set(label: str, value: Any) -> bool | None:
    """What was said with a switch."""
    if value is None or isinstance(value, bool):
        return value
    raise gr.Error(f"{label} is {value!r}; wanted: true or false.", print_exception=False)


def _trial(faithfulness: Any) -> bool:
    return _set("faithfulness", faithfulness) is not False


def _asked_path(
    analyser: Analyser, model: str | None, band: Any, denoise: bool | None
) -> SignalPath | None:
    if band is None and denoise is None:
        return None
    try:
        facts = analyser.hub.model(model or analyser.hub.default_model("stethoscope"))
        return signal_path.asked(band, denoise, facts)
    except XaiDemoError as error:
        raise gr.Error(str(error), print_exception=False) from error


def _asked_noise(kind: str | None, snr_db: float | None) -> Noise | None:
    if not kind and snr_db is None:
        return None
    try:
        known: Any = kind or ""  # a word nobody knows is refused by name
        return Noise(kind=known, snr_db=noises.START_DB if snr_db is None else snr_db)
    except XaiDemoError as error:
        raise gr.Error(str(error), print_exception=False) from error


def told_by(progress: gr.Progress) -> Progress:
    """Gradio's bar, as the pipeline tells how far it is."""
    return lambda done, what: progress(done, desc=what) and None


def _sentence(refusal: Refusal) -> str:
    fault_of_ours = refusal.title.startswith("Something went wrong")
    return f"{refusal.title}. {refusal.message}" if fault_of_ours else refusal.message


def _explanation_sound(analysis: Analysis) -> tuple[int, Any] | None:
    if "explanation" not in analysis.sounds:
        return None
    return playable(analysis.sounds["explanation"], analysis.sample_rate_hz)
