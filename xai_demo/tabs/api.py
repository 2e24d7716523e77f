"""The public endpoints, which scripts and other programs call through Gradio.

Their names, arguments and results are a contract: they may be added to, never renamed or removed.
"""

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
from xai_demo.service.logs import hide_paths
from xai_demo.tabs import noise as noises
from xai_demo.tabs import signal_path
from xai_demo.tabs.controls import (
    pass_upload_path,
    playable_sound,
    progress_callback,
    with_shown_names,
)
from xai_demo.tabs.details import overlay
from xai_demo.tabs.requests import Analyser, Refusal, in_request, run_request

_P = ParamSpec("_P")
_T = TypeVar("_T")

# Gradio hands in the progress bar of a request where it finds this default.
_PROGRESS = gr.Progress()


def publish(analyser: Analyser, jobs: Jobs) -> None:
    """Add the five endpoints to the page that is being built; nothing of them is visible."""
    with gr.Row(visible=False):
        _publish_task(analyser, jobs, "stethoscope", sound=True, events=True)
        _publish_task(analyser, jobs, "chest_xray", sound=False, events=False)
        _publish_task(analyser, jobs, "audioset", sound=True, events=False)
        hub = analyser.hub
        _publish_list("models", lambda: [dict(hub.describe(name)) for name in hub.names()])
        _publish_list("explainers", lambda: explainers.describe(hub.kinds()))


def _publish_task(analyser: Analyser, jobs: Jobs, task: Task, *, sound: bool, events: bool) -> None:
    # These pass on the path of the upload, so that only our own readers decode the file.
    file = (
        pass_upload_path(gr.Audio(type="filepath", label="audio"))
        if sound
        else pass_upload_path(gr.File(label="image"))
    )
    # Free text, so that our own message, with the known names, answers an unknown name.
    names = [gr.Textbox(None, label=label) for label in ("model", "explainer", "target", "layer")]
    # The inputs stand in the order of the arguments of the endpoint's function.
    settings: list[Any] = []
    if events:
        settings = [gr.JSON(None, label="band"), _boolean_input("denoise")]
        settings.append(pass_upload_path(gr.File(label="cycles")))
    if sound and not events:
        settings = [gr.Textbox(None, label="noise"), gr.Number(None, label="snr")]
    if not sound:
        settings.append(gr.Textbox(None, label="film"))
    settings.append(_boolean_input("faithfulness"))
    if not sound:
        settings.append(_boolean_input("uncertainty"))
        # Last, so that the positions of the others stay.
        settings.append(gr.Textbox(None, label="age"))
    # JPEG takes a tenth of the time that PNG takes, see `render.overlay_figure`.
    outputs: list[Any] = [gr.JSON(label="report"), gr.Image(format="jpeg", label="overlay")]
    outputs += [gr.Audio(label="explanation")] if sound else []
    outputs += [gr.JSON(label="events")] if events else []
    gr.Button().click(
        _lung_sound_endpoint(analyser, jobs)
        if events
        else _endpoint(analyser, jobs, task, sound=sound),
        [file, *names, *settings],
        outputs,
        api_name=task,
        concurrency_id="answers",
        api_description=f"Analyse one file and explain the answer (task {task}).",
    )


def _publish_list(name: str, rows: Callable[[], list[dict[str, Any]]]) -> None:
    gr.Button().click(
        rows,
        None,
        gr.JSON(label=name),
        api_name=name,
        api_description=f"List all {name}, one row each.",
    )


def _make_answer(
    analyser: Analyser, jobs: Jobs, *, sound: bool, events: bool
) -> Callable[[str | None, AnalysisRequest, gr.Request, gr.Progress], Awaitable[list[Any]]]:
    async def answer(
        path: str | None, chosen: AnalysisRequest, request: gr.Request, progress: gr.Progress
    ) -> list[Any]:
        named = with_shown_names(chosen, path)

        def work(stopped: Callable[[], bool]) -> list[Any]:
            analysis, additions = _analyse(
                analyser, named, path, progress_callback(progress), stopped
            )
            report = analysis.report.to_json() | additions
            return [
                report,
                overlay(analysis),
                *([_explanation_sound(analysis)] if sound else []),
                *([report["events"]] if events else []),
            ]

        # Without a place, because a program may analyse several files at once.
        request_id = request.headers.get("x-request-id")
        return await jobs.run(request.session_hash, None, in_request(request_id, work))

    return answer


def _analyse(
    analyser: Analyser,
    request: AnalysisRequest,
    path: str | None,
    progress: Progress,
    stopped: Callable[[], bool],
) -> tuple[Analysis, dict[str, Any]]:
    """Return the analysis, with noise if the request has some, and additions to its report."""
    if request.noise is None:
        outcome = run_request(analyser, request, path, progress, stopped)
        if isinstance(outcome, Refusal):
            # A file that cannot be analysed is worth no traceback in the log.
            raise gr.Error(_refusal_text(outcome), print_exception=False)
        return outcome, {}
    both = noises.compare_with_noise_or_refuse(
        analyser, request, path, progress=progress, stopped=stopped
    )
    if isinstance(both, Refusal):
        raise gr.Error(_refusal_text(both), print_exception=False)
    # The client asked for the noisy sound; the clean one is only its baseline.
    return both.noisy, {"noise": both.to_json()}


def _endpoint(analyser: Analyser, jobs: Jobs, task: Task, *, sound: bool) -> Callable[..., Any]:
    answer = _make_answer(analyser, jobs, sound=sound, events=False)

    async def analyse_sound(
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
        chosen = _request(
            task,
            model=model,
            explainer=explainer,
            target=target,
            layer=layer,
            noise=_with_client_errors(noise_choice, noise, snr),
            faithfulness=_boolean("faithfulness", faithfulness),
        )
        return await answer(audio, chosen, request, progress)

    async def analyse_image(
        request: gr.Request,
        image: str | None,
        model: str | None = None,
        explainer: str | None = None,
        target: str | None = None,
        layer: str | None = None,
        film: str | None = None,
        faithfulness: Any = None,
        uncertainty: Any = None,
        age: str | None = None,
        progress: gr.Progress = _PROGRESS,
    ) -> list[Any]:
        chosen = _request(
            task,
            model=model,
            explainer=explainer,
            target=target,
            layer=layer,
            film=film,
            faithfulness=_boolean("faithfulness", faithfulness),
            uncertainty=_boolean("uncertainty", uncertainty),
            age=age,
        )
        return await answer(image, chosen, request, progress)

    # Clients learn the names and defaults of the arguments from these signatures.
    return analyse_sound if sound else analyse_image


def _lung_sound_endpoint(analyser: Analyser, jobs: Jobs) -> Callable[..., Any]:
    answer = _make_answer(analyser, jobs, sound=True, events=True)

    async def analyse_lung_sound(
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
        chosen = _request(
            "stethoscope",
            model=model,
            explainer=explainer,
            target=target,
            layer=layer,
            signal_path=_signal_path(analyser, model, band, _boolean("denoise", denoise)),
            cycles=cycles,
            faithfulness=_boolean("faithfulness", faithfulness),
        )
        return await answer(audio, chosen, request, progress)

    return analyse_lung_sound


def _boolean_input(label: str) -> gr.JSON:
    """Return an input for true, false or null, which stands for the default."""
    # Not a checkbox: that turns null into false.
    return gr.JSON(None, label=label)


def _boolean(label: str, value: Any) -> bool | None:
    """Return the value of an argument; raises gr.Error unless it is true, false or null."""
    if value is None or isinstance(value, bool):
        return value
    message = hide_paths(f"{label} must be true or false, not {value!r}.")
    raise gr.Error(message, print_exception=False)


def _request(task: Task, **choices: Any) -> AnalysisRequest:
    """Return the request for an endpoint's arguments; raises gr.Error for invalid ones."""
    return _with_client_errors(AnalysisRequest.from_choices, task, **choices)


def _with_client_errors(build: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Return the result of `build`; its errors reach the client as messages."""
    try:
        return build(*args, **kwargs)
    except XaiDemoError as error:
        raise gr.Error(hide_paths(str(error)), print_exception=False) from error


def _signal_path(
    analyser: Analyser, model: str | None, band: Any, denoise: bool | None
) -> SignalPath | None:
    if band is None and denoise is None:
        return None

    # The hub and the arguments can both raise; each becomes a message to the client.
    def build() -> SignalPath | None:
        facts = analyser.hub.model(model or analyser.hub.default_model("stethoscope"))
        return signal_path.path_from_arguments(band, denoise, facts)

    return _with_client_errors(build)


def _refusal_text(refusal: Refusal) -> str:
    # A server error needs its title; other messages say by themselves what is wrong.
    is_server_error = refusal.title.startswith("Something went wrong")
    return f"{refusal.title}. {refusal.message}" if is_server_error else refusal.message


def _explanation_sound(analysis: Analysis) -> tuple[int, Any] | None:
    if "explanation" not in analysis.sounds:
        return None
    return playable_sound(analysis.sounds["explanation"], analysis.sample_rate_hz)
