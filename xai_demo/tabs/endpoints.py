"""The published interface: what scripts and other people's programs call through Gradio."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from xai_demo import explainers
from xai_demo.records import Analysis, Task
from xai_demo.tabs.ask import Analyser, Picks, Refusal, ask
from xai_demo.tabs.details import overlay
from xai_demo.tabs.panel import playable


def publish(analyser: Analyser) -> None:
    """Put the five endpoints on the page that is being built; they show nothing there."""
    with gr.Row(visible=False):
        _publish_task(analyser, "stethoscope", sound=True, events=True)
        _publish_task(analyser, "chest_xray", sound=False, events=False)
        _publish_task(analyser, "audioset", sound=True, events=False)
        hub = analyser.hub
        _publish_list("models", lambda: [dict(hub.describe(name)) for name in hub.names()])
        _publish_list("explainers", explainers.describe)


def _publish_task(analyser: Analyser, task: Task, *, sound: bool, events: bool) -> None:
    # Components that pass the file's path on as it is: nothing is decoded before our own reader.
    file = gr.Audio(type="filepath", label="audio") if sound else gr.File(label="image")
    # Free text, so that an unknown name meets our own sentence, which lists the known ones.
    words = [gr.Textbox(None, label=label) for label in ("model", "explainer", "target")]
    outputs: list[Any] = [gr.JSON(label="report"), gr.Image(format="png", label="overlay")]
    outputs += [gr.Audio(label="explanation")] if sound else []
    outputs += [gr.JSON(label="events")] if events else []
    gr.Button().click(
        _endpoint(analyser, task, sound=sound, events=events),
        [file, *words],
        outputs,
        api_name=task,
        api_description=f"Read, predict and explain one file: the task {task!r}.",
    )


def _publish_list(name: str, rows: Callable[[], list[dict[str, Any]]]) -> None:
    gr.Button().click(
        rows, None, gr.JSON(label=name), api_name=name, api_description=f"All {name}, one row each."
    )


def _endpoint(
    analyser: Analyser, task: Task, *, sound: bool, events: bool
) -> Callable[..., list[Any]]:
    def answer(
        path: str | None, model: str | None, explainer: str | None, target: str | None
    ) -> list[Any]:
        picks = Picks(model=model, explainer=explainer, target=target)
        outcome = ask(analyser, task, path, picks)
        if isinstance(outcome, Refusal):
            raise gr.Error(_sentence(outcome), print_exception=False)
        report = outcome.report.to_json()
        return [
            report,
            overlay(outcome),
            *([_explanation_sound(outcome)] if sound else []),
            *([report["events"]] if events else []),
        ]

    def sounds(
        audio: str | None,
        model: str | None = None,
        explainer: str | None = None,
        target: str | None = None,
    ) -> list[Any]:
        return answer(audio, model, explainer, target)

    def pictures(
        image: str | None,
        model: str | None = None,
        explainer: str | None = None,
        target: str | None = None,
    ) -> list[Any]:
        return answer(image, model, explainer, target)

    # The clients take the names and the defaults of the arguments from the signature.
    return sounds if sound else pictures


def _sentence(refusal: Refusal) -> str:
    fault_of_ours = refusal.title.startswith("Something went wrong")
    return f"{refusal.title}. {refusal.message}" if fault_of_ours else refusal.message


def _explanation_sound(analysis: Analysis) -> tuple[int, Any] | None:
    if "explanation" not in analysis.sounds:
        return None
    return playable(analysis.sounds["explanation"], analysis.sample_rate_hz)
