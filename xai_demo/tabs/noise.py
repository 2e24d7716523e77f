"""The noise test: the same sound analysed without and with added noise, side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from xai_demo.analysis.explain import NoiseComparison, ProbabilityChange, compare_with_noise
from xai_demo.analysis.request import DEFAULT_SNR_DB, AnalysisRequest
from xai_demo.audio.noise import KINDS
from xai_demo.records import Analysis, Progress, Task
from xai_demo.tabs import phrases
from xai_demo.tabs.comparison import agreement_phrase, heatmap_pane
from xai_demo.tabs.controls import playable_sound
from xai_demo.tabs.figure import image_uri
from xai_demo.tabs.requests import Analyser, Refusal, run_request

# The range of the slider: from noise that drowns the sound to noise that is hardly audible.
_LOW_DB, _HIGH_DB = -10, 40
# The empty value stands for no noise, see `noise_choice`.
_CHOICES = [("None", ""), *((kind.capitalize(), kind) for kind in KINDS)]
_INTRODUCTION = (
    "Add noise to the sound to see how robust the answer is: white noise is an even hiss, pink "
    "noise a deeper rush, babble the murmur of eight synthetic voices."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseWidgets:
    """The widgets of the noise test."""

    kind: gr.Radio
    snr_db: gr.Slider
    output: gr.HTML
    player: gr.Audio

    @property
    def inputs(self) -> list[Any]:
        """The inputs of the noise test, in addition to the file and the controls."""
        return [self.kind, self.snr_db]

    @property
    def outputs(self) -> list[Any]:
        """The widgets that `section_values` fills."""
        return [self.output, self.player]


def lay_out(task: Task) -> NoiseWidgets:
    """Add the noise test to the page."""
    gr.HTML(
        f'<h2 class="xai-title" id="{task}-noise-title">Noise test</h2>'
        f'<p class="xai-quiet">{_INTRODUCTION}</p>'
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
            label="Signal-to-noise ratio (dB); lower is noisier",
            buttons=[],
            min_width=260,
            elem_id=f"{task}-noise-snr",
        )
    output = gr.HTML("", apply_default_css=False, elem_id=f"{task}-noise")
    player = gr.Audio(
        label="With noise",
        visible=False,
        interactive=False,
        buttons=["download"],
        elem_id=f"{task}-noisy",
    )
    return NoiseWidgets(kind=kind, snr_db=snr_db, output=output, player=player)


def section_values(
    analyser: Analyser,
    request: AnalysisRequest,
    path: str | None,
    stopped: Callable[[], bool],
) -> list[Any]:
    """Return the values of the section's outputs; empty without a file or a noise."""
    if not path or request.noise is None:
        return empty_values()
    both = compare_with_noise_or_refuse(analyser, request, path, stopped=stopped)
    if isinstance(both, Refusal):
        if both.stopped:
            # The section stays as it is until a newer request fills it.
            return [gr.skip(), gr.skip()]
        return [
            '<p class="xai-notice xai-warning" role="note">No comparison is available: '
            f"{escape(both.message)}</p>",
            empty_values()[1],
        ]
    sound = both.noisy.sounds.get("original")
    if sound is None:
        return [noise_comparison_html(both), empty_values()[1]]
    noisy_sound = playable_sound(sound, both.noisy.sample_rate_hz)
    return [noise_comparison_html(both), gr.update(value=noisy_sound, visible=True)]


def compare_with_noise_or_refuse(
    analyser: Analyser,
    request: AnalysisRequest,
    path: str | None,
    *,
    progress: Progress | None = None,
    stopped: Callable[[], bool] | None = None,
) -> NoiseComparison | Refusal:
    """Analyse a file without and with the request's noise."""

    def analyse(
        each: AnalysisRequest, path: str | Path, *, progress: Progress | None = None
    ) -> Analysis:
        # `compare_with_noise` knows results and exceptions only, so a refusal travels as one.
        outcome = run_request(analyser, each, str(path), progress, stopped)
        if isinstance(outcome, Refusal):
            raise _RefusedError(outcome)
        return outcome

    try:
        # `run_request` refuses an empty path in words.
        return compare_with_noise(analyse, request, path or "", progress=progress)
    except _RefusedError as error:
        return error.refusal


class _RefusedError(Exception):
    """Carries a refusal out of either analysis."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def empty_values() -> list[Any]:
    """Return the values of the section's outputs without a comparison."""
    return ["", gr.update(value=None, visible=False)]


def noise_comparison_html(both: NoiseComparison) -> str:
    """Return the comparison as a sentence, a table of bars and two heatmaps."""
    rows = "".join(_label_row(change) for change in both.changes)
    before, after = both.clean.report.explanations[0], both.noisy.report.explanations[0]
    title = f"With {both.noise.kind} noise, {both.noise.snr_db:g} dB".replace("-", "\u2212")
    target = phrases.mid_sentence(phrases.display_label(before.target))
    panes = "".join(
        heatmap_pane(each.view, explanation, name, base=image_uri(each.view.pixels))
        for each, explanation, name in (
            (both.clean, before, "Original"),
            (both.noisy, after, title),
        )
    )
    # role="status" makes screen readers announce the section when it is filled.
    return (
        '<section class="xai-comparison xai-noise" role="status">'
        f'<p class="xai-agreement">{escape(_sentence(both))}</p>'
        '<div class="xai-rows" tabindex="0" role="group" '
        'aria-label="Probabilities without and with noise">'
        "<table><thead><tr><th scope='col'>Label</th><th scope='col'>Original</th>"
        f"<th scope='col'>With noise</th></tr></thead><tbody>{rows}</tbody></table></div>"
        f'<p class="xai-quiet">Both heatmaps are for {escape(target)}.</p>'
        f'<div class="xai-pair">{panes}</div></section>'
    )


def _sentence(both: NoiseComparison) -> str:
    before, after = (
        phrases.display_label(each.report.decision.label)
        if each.report.decision.label
        else "Uncertain"
        for each in (both.clean, both.noisy)
    )
    change = (
        f"The answer stays {before}"
        if before == after
        else f"The answer changes from {before} to {after}"
    )
    rho = both.agreement
    heatmaps = (
        "the heatmaps cannot be compared because one of them is empty"
        if rho is None
        else f"as for the heatmaps, {agreement_phrase(rho)}"
    )
    return f"{change} with {both.noise.description}; {heatmaps}."


def _label_row(change: ProbabilityChange) -> str:
    cells = "".join(
        f'<td><span class="xai-change"><span class="xai-track"><i class="xai-fill" '
        f'style="width:{p:.1%}"></i></span>{escape(phrases.percent(p))}</span></td>'
        for p in (change.before, change.after)
    )
    return f"<tr><th scope='row'>{escape(phrases.display_label(change.label))}</th>{cells}</tr>"
