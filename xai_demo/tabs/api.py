"""The published interface: what scripts and other people's programs call through Gradio."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from xai_demo import explainers
from xai_demo.analysis.request import AnalysisRequest, noise_choice
from xai_demo.audio.filters import SignalPath
from xai_demo.errors import XaiDemoError
from xai_demo.records import Analysis, Progress, Task
from xai_demo.scheduler import Jobs
from xai_demo.tabs import noise as noises
from xai_demo.tabs import signal_path
from xai_demo.tabs.controls import as_path, playable
from xai_demo.tabs.details import overlay
from xai_demo.tabs.requests import (
    Analyser,
    Refusal,
    ask,
)

_P = ParamSpec("_P")
_T = TypeVar("_T")

_PROGRESS = gr.Progress()  # the default by which Gradio knows what to hand in


def publish(analyser: Analyser, running: Jobs) -> None:
    """Put the five endpoints on the page that is being built; they show nothing there."""
    with gr.Row(visible=False):
        _publish_task(analyser, running, "stethoscope", sound=True, events=True)
        _publish_task(analyser, running, "chest_xray", sound=False, events=False)
        _publish_task(analyser, running, "audioset", sound=True, events=False)
        hub = analyser.hub
        _publish_list("models", lambda: [dict(hub.describe(name)) for name in hub.names()])
        _publish_list("explainers", lambda: explainers.describe(hub.kinds()))


def _publish_task(
    analyser: Analyser, running: Jobs, task: Task, *, sound: bool, events: bool
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
    if not sound:
        path.append(_switch("uncertainty"))
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
    analyser: Analyser, running: Jobs, *, sound: bool, events: bool
) -> Callable[[str | None, AnalysisRequest, gr.Request, gr.Progress], Awaitable[list[Any]]]:
    async def answer(
        path: str | None, asked: AnalysisRequest, request: gr.Request, progress: gr.Progress
    ) -> list[Any]:
        def work(stopped: Callable[[], bool]) -> list[Any]:
            outcome, more = _analyse(analyser, asked, path, told_by(progress), stopped)
            report = outcome.report.to_json() | more
            return [
                report,
                overlay(outcome),
                *([_explanation_sound(outcome)] if sound else []),
                *([report["events"]] if events else []),
            ]

        # No place: one program may well ask for several files at once.
        return await running.run(request.session_hash, None, work)

    return answer


def _analyse(
    analyser: Analyser,
    request: AnalysisRequest,
    path: str | None,
    progress: Progress,
    stopped: Callable[[], bool],
) -> tuple[Analysis, dict[str, Any]]:
    """The answer, with noise where the request has some; and what is added to its report."""
    if request.noise is None:
        outcome = ask(analyser, request, path, progress, stopped)
        if isinstance(outcome, Refusal):
            raise gr.Error(_sentence(outcome), print_exception=False)
        return outcome, {}
    both = noises.asked_twice(analyser, request, path, progress=progress, stopped=stopped)
    if isinstance(both, Refusal):
        raise gr.Error(_sentence(both), print_exception=False)
    return both.noisy, {"noise": both.to_json()}


def _endpoint(analyser: Analyser, running: Jobs, task: Task, *, sound: bool) -> Callable[..., Any]:
    answer = _answerer(analyser, running, sound=sound, events=False)

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
        asked = _request(
            task,
            model=model,
            explainer=explainer,
            target=target,
            layer=layer,
            noise=_in_words(noise_choice, noise, snr),
            faithfulness=_set("faithfulness", faithfulness),
        )
        return await answer(audio, asked, request, progress)

    async def pictures(
        request: gr.Request,
        image: str | None,
        model: str | None = None,
        explainer: str | None = None,
        target: str | None = None,
        layer: str | None = None,
        film: str | None = None,
        faithfulness: Any = None,
        uncertainty: Any = True,
        progress: gr.Progress = _PROGRESS,
    ) -> list[Any]:
        asked = _request(
            task,
            model=model,
            explainer=explainer,
            target=target,
            layer=layer,
            film=film,
            faithfulness=_set("faithfulness", faithfulness),
            uncertainty=_set("uncertainty", uncertainty),
        )
        return await answer(image, asked, request, progress)

    # The clients take the names and the defaults of the arguments from the signature.
    return sounds if sound else pictures


def _breath_endpoint(analyser: Analyser, running: Jobs) -> Callable[..., Any]:
    answer = _answerer(analyser, running, sound=True, events=True)

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
        asked = _request(
            "stethoscope",
            model=model,
            explainer=explainer,
            target=target,
            layer=layer,
            signal_path=_asked_path(analyser, model, band, _set("denoise", denoise)),
            cycles=cycles,
            faithfulness=_set("faithfulness", faithfulness),
        )
        return await answer(audio, asked, request, progress)

    return breaths


def _switch(label: str) -> gr.JSON:
    """Takes true, false, or neither: as is usual. A checkbox takes neither for false."""
    return gr.JSON(None, label=label)


def _set(label: str, value: Any) -> bool | None:
    """What was said with a switch."""
    if value is None or isinstance(value, bool):
        return value
    raise gr.Error(f"{label} is {value!r}; wanted: true or false.", print_exception=False)


def _request(task: Task, **choices: Any) -> AnalysisRequest:
    """The request of an endpoint's arguments; gr.Error for one that makes no sense."""
    return _in_words(AnalysisRequest.from_choices, task, **choices)


def _in_words(build: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """What `build` returns; its errors reach the client as sentences."""
    try:
        return build(*args, **kwargs)
    except XaiDemoError as error:
        raise gr.Error(str(error), print_exception=False) from error


def _asked_path(
    analyser: Analyser, model: str | None, band: Any, denoise: bool | None
) -> SignalPath | None:
    if band is None and denoise is None:
        return None

    def build() -> SignalPath | None:
        facts = analyser.hub.model(model or analyser.hub.default_model("stethoscope"))
        return signal_path.asked(band, denoise, facts)

    return _in_words(build)


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
