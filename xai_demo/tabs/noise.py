"""What noise does: a kind and a ratio to pick, and the answer before and after side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from xai_demo.analysis.explain import Move, NoiseComparison, compare_with_noise
from xai_demo.analysis.request import DEFAULT_SNR_DB, AnalysisRequest
from xai_demo.audio.noise import KINDS
from xai_demo.records import Analysis, Progress, Task
from xai_demo.tabs import phrases
from xai_demo.tabs.comparison import agreement_phrase, heatmap_pane
from xai_demo.tabs.controls import playable
from xai_demo.tabs.figure import image_uri
from xai_demo.tabs.requests import (
    Analyser,
    Refusal,
    ask,
)

_LOW_DB, _HIGH_DB = -10, 40
_CHOICES = [("None", ""), *((kind.capitalize(), kind) for kind in KINDS)]
_INVITATION = (
    "Pick a noise to lay over your sound: white is even hiss, pink a deeper rush, babble eight "
    "voices at once that say nothing."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseWidgets:
    """The widgets of this section."""

    kind: gr.Radio
    snr_db: gr.Slider
    shown: gr.HTML
    player: gr.Audio

    @property
    def inputs(self) -> list[Any]:
        """What is asked beside the file and the picks."""
        return [self.kind, self.snr_db]

    @property
    def outputs(self) -> list[Any]:
        """What an answer fills."""
        return [self.shown, self.player]


def lay_out(task: Task) -> NoiseWidgets:
    """Put the section on the page."""
    gr.HTML(
        f'<h3 class="xai-title" id="{task}-noise-title">What noise does</h3>'
        f'<p class="xai-quiet">{_INVITATION}</p>'
    )
    with gr.Row(elem_classes="xai-noise-picks", equal_height=False):
        kind = gr.Radio(
            _CHOICES, value="", label="Noise", min_width=260, elem_id=f"{task}-noise-kind"
        )
        snr_db = gr.Slider(
            _LOW_DB,
            _HIGH_DB,
            DEFAULT_SNR_DB,
            step=1,
            label="Signal-to-noise ratio in decibels: lower is noisier",
            buttons=[],
            min_width=260,
            elem_id=f"{task}-noise-snr",
        )
    shown = gr.HTML("", apply_default_css=False, elem_id=f"{task}-noise")
    player = gr.Audio(
        label="With the noise",
        visible=False,
        interactive=False,
        buttons=["download"],
        elem_id=f"{task}-noisy",
    )
    return NoiseWidgets(kind=kind, snr_db=snr_db, shown=shown, player=player)


def asked(
    analyser: Analyser,
    request: AnalysisRequest,
    path: str | None,
    stopped: Callable[[], bool],
) -> list[Any]:
    """What fills the section, for a noise or none."""
    if not path or request.noise is None:
        return nothing()
    both = asked_twice(analyser, request, path, stopped=stopped)
    if isinstance(both, Refusal):
        if both.stopped:
            return [gr.skip(), gr.skip()]
        return [
            '<p class="xai-notice xai-warning" role="note">There is nothing to compare: '
            f"{escape(both.message)}</p>",
            nothing()[1],
        ]
    sound = both.noisy.sounds.get("original")
    if sound is None:
        return [side_by_side(both), nothing()[1]]
    heard = playable(sound, both.noisy.sample_rate_hz)
    return [side_by_side(both), gr.update(value=heard, visible=True)]


def asked_twice(
    analyser: Analyser,
    request: AnalysisRequest,
    path: str | None,
    *,
    progress: Progress | None = None,
    stopped: Callable[[], bool] | None = None,
) -> NoiseComparison | Refusal:
    """What the request's noise does to the answer, or why there is none."""

    def analyse(
        each: AnalysisRequest, path: str | Path, *, progress: Progress | None = None
    ) -> Analysis:
        outcome = ask(analyser, each, str(path), progress, stopped)
        if isinstance(outcome, Refusal):
            raise _RefusedError(outcome)
        return outcome

    try:
        return compare_with_noise(analyse, request, path or "", progress=progress)
    except _RefusedError as error:
        return error.refusal


class _RefusedError(Exception):
    """Carries a refusal out of the two questions."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def nothing() -> list[Any]:
    """The section without a noise."""
    return ["", gr.update(value=None, visible=False)]


def side_by_side(both: NoiseComparison) -> str:
    """In words, as bars, and as two pictures."""
    rows = "".join(_row(move) for move in both.moves)
    before, after = both.clean.report.explanations[0], both.noisy.report.explanations[0]
    title = f"With {both.noise.kind} noise, {both.noise.snr_db:g} dB".replace("-", "\u2212")
    panes = "".join(
        heatmap_pane(each.view, explanation, name, base=image_uri(each.view.pixels))
        for each, explanation, name in (
            (both.clean, before, "As it is"),
            (both.noisy, after, title),
        )
    )
    return (
        '<section class="xai-comparison xai-noise" role="status">'
        f'<p class="xai-agreement">{escape(_sentence(both))}</p>'
        f'<div class="xai-rows" tabindex="0" role="group" aria-label="Labels before and after">'
        "<table><thead><tr><th scope='col'>Label</th><th scope='col'>As it is</th>"
        f"<th scope='col'>With noise</th></tr></thead><tbody>{rows}</tbody></table></div>"
        f'<p class="xai-quiet">Heat for {escape(phrases.display_label(before.target))}, in both.</p>'
        f'<div class="xai-pair">{panes}</div></section>'
    )


def _sentence(both: NoiseComparison) -> str:
    before, after = (
        phrases.display_label(each.report.decision.label)
        if each.report.decision.label
        else "Uncertain"
        for each in (both.clean, both.noisy)
    )
    kept = (
        f"The answer stays {before}"
        if before == after
        else f"The answer changes from {before} to {after}"
    )
    rho = both.agreement
    heat = (
        "one of the two has no heat to compare"
        if rho is None
        else f"the heat before and after: {agreement_phrase(rho)}"
    )
    return f"{kept} with {both.noise.description}; {heat}."


def _row(move: Move) -> str:
    cells = "".join(
        f'<td><span class="xai-moved"><span class="xai-track"><i class="xai-fill" '
        f'style="width:{p:.1%}"></i></span>{escape(phrases.percent(p))}</span></td>'
        for p in (move.before, move.after)
    )
    return f"<tr><th scope='row'>{escape(phrases.display_label(move.label))}</th>{cells}</tr>"
