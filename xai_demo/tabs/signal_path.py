"""The signal path of a lung sound: filter settings, and the sound after each stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from xai_demo import render
from xai_demo.audio.filters import BAND_HZ, SignalPath
from xai_demo.errors import RequestError
from xai_demo.records import Analysis, LogMel, Model
from xai_demo.tabs import phrases
from xai_demo.tabs.controls import pass_upload_path, playable_sound
from xai_demo.tabs.figure import frequency_axis, image_uri, time_axis
from xai_demo.tabs.timeline import waveform_svg

if TYPE_CHECKING:
    from xai_demo.records import Floats

# The keys are those of `Analysis.stages`.
STAGES = {
    "raw": "Original recording",
    "filtered": "After the band-pass filter",
    "denoised": "After denoising",
}
# Every player gets its own copy of the sound: longer ones would take too long to send.
_LONGEST_PLAYED_S = 300.0
_INTRODUCTION = (
    '<p class="xai-quiet">Filters that are applied before the network receives the sound. After a '
    "change, press Analyse again, or Enter in a number box.</p>"
)
_PLACEHOLDER = '<p class="xai-quiet">The sound after each stage appears here with the result.</p>'


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalWidgets:
    """The settings of the signal path, and the widgets that show its stages."""

    band: gr.Checkbox
    low: gr.Number
    high: gr.Number
    denoise: gr.Checkbox
    cycles: gr.File
    summary: gr.HTML
    columns: tuple[gr.Column, ...]
    pictures: tuple[gr.HTML, ...]
    players: tuple[gr.Audio, ...]

    @property
    def steps(self) -> list[Any]:
        """The filter settings, in the order of `model_settings`."""
        return [self.band, self.low, self.high, self.denoise]

    @property
    def inputs(self) -> list[Any]:
        """The settings in the order of `path_from_switches`, and last the annotation file."""
        return [*self.steps, self.cycles]

    @property
    def outputs(self) -> list[Any]:
        """The widgets that `output_values` fills, in its order."""
        return [self.summary, *self.columns, *self.pictures, *self.players]


def lay_out(task: str, model: Model | None) -> SignalWidgets:
    """Add the settings and the stages to the page."""
    on, low_hz, high_hz, clean = model_settings(model)
    with gr.Accordion("Signal path", open=False, elem_classes="xai-accordion xai-path"):
        gr.HTML(_INTRODUCTION)
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=280):
                band = gr.Checkbox(on, label="Band-pass filter", elem_id=f"{task}-band")
                with gr.Row(equal_height=False):
                    low = _edge_input("from (Hz)", low_hz, f"{task}-low")
                    high = _edge_input("to (Hz)", high_hz, f"{task}-high")
                denoise = gr.Checkbox(clean, label="Wavelet denoising", elem_id=f"{task}-denoise")
            with gr.Column(scale=2, min_width=280):
                cycles = pass_upload_path(
                    gr.File(
                        label="Respiratory cycles: ICBHI .txt or .csv (optional)",
                        file_types=[".txt", ".csv", ".tsv"],
                        elem_id=f"{task}-cycles",
                        height=150,
                    )
                )
        summary = gr.HTML(_PLACEHOLDER, elem_id=f"{task}-stages")
        with gr.Row(equal_height=False):
            places = [_stage_widgets(task, name) for name in STAGES]
    columns, pictures, players = zip(*places, strict=True)
    return SignalWidgets(
        band=band,
        low=low,
        high=high,
        denoise=denoise,
        cycles=cycles,
        summary=summary,
        columns=columns,
        pictures=pictures,
        players=players,
    )


def model_settings(model: Model | None) -> tuple[bool, float, float, bool]:
    """Return a model's own settings: band-pass on, its edges in hertz, denoising on."""
    spec = model.preprocessing if model else None
    if not isinstance(spec, LogMel):
        # The edges are shown even while the filter is off, ready to be switched on.
        return False, *BAND_HZ, False
    return spec.band_hz is not None, *(spec.band_hz or BAND_HZ), spec.denoise


def path_from_switches(values: Sequence[Any], model: Model | None) -> SignalPath | None:
    """Return the signal path that the settings describe; None if it is the model's own.

    An empty edge leaves the band open on that side.
    """
    # An empty number box arrives as None.
    on, low, high, clean = values
    path = SignalPath(
        band_hz=(float(low or 0), math.inf if high is None else float(high)) if on else None,
        denoise=bool(clean),
    )
    own_on, own_low, own_high, own_clean = model_settings(model)
    own = SignalPath(band_hz=(own_low, own_high) if own_on else None, denoise=own_clean)
    return None if path == own else path


def path_from_arguments(band: Any, denoise: bool | None, model: Model) -> SignalPath | None:
    """Return the signal path for an endpoint's arguments; None keeps the model's own setting.

    `band` is [low, high] in hertz, or False or "off" for no band-pass. Raises RequestError for
    anything else.
    """
    if band is None and denoise is None:
        return None
    on, low, high, clean = model_settings(model)
    if band is False or band == "off":
        on = False
    elif band is not None:
        edges = band if isinstance(band, list | tuple) else []
        # Not isinstance: True and False are integers too.
        if [type(edge) in (int, float) for edge in edges] != [True, True]:
            raise RequestError(f"The band must be [low, high] in hertz or 'off', not {band!r}.")
        on, low, high = True, float(edges[0]), float(edges[1])
    return path_from_switches([on, low, high, clean if denoise is None else denoise], model)


def output_values(analysis: Analysis | None) -> list[Any]:
    """Return the values of the outputs; None stands for no answer."""
    stages = analysis.stages if analysis else {}
    if analysis is None or not stages:
        hidden = [gr.update(visible=False)] * len(STAGES)
        return [_PLACEHOLDER, *hidden, *([""] * len(STAGES)), *([None] * len(STAGES))]
    rate = analysis.sample_rate_hz or 16000
    # The raw sound comes first. Its loudest level is white in every stage, so that what a filter
    # takes away turns darker.
    raw = next(iter(stages.values()))
    top = (render.spectrogram_view(raw, rate).decibels or (0.0, 0.0))[1]
    playing = len(raw) <= _LONGEST_PLAYED_S * rate
    columns = [gr.update(visible=name in stages) for name in STAGES]
    pictures = [
        _stage_figure(name, stages[name], rate, top) if name in stages else "" for name in STAGES
    ]
    players = [
        playable_sound(stages[name], rate) if playing and name in stages else None
        for name in STAGES
    ]
    return [_sentence(analysis, playing=playing), *columns, *pictures, *players]


def _sentence(analysis: Analysis, *, playing: bool) -> str:
    used = [phrases.display_label(name).lower() for name in analysis.stages if name != "raw"]
    text = (
        f"The network received the {phrases.join_words(used)} sound."
        if used
        else "The network received the original recording: both filters are off."
    )
    if not playing:
        text += f" Sounds over {_LONGEST_PLAYED_S / 60:.0f} minutes are drawn here but not played."
    return f'<p class="xai-quiet">{escape(text)}</p>'


def _stage_figure(name: str, samples: Floats, sample_rate_hz: int, loudest_db: float) -> str:
    view = render.spectrogram_view(samples, sample_rate_hz, loudest_db=loudest_db)
    duration = phrases.seconds(len(samples) / sample_rate_hz)
    alt_text = escape(f"{STAGES[name]}: waveform and spectrogram of {duration}")
    # The empty span keeps the column of the frequency axis free beside the waveform.
    return (
        f'<figure class="xai-stage xai-sound" data-stage="{name}">'
        f'<h3>{STAGES[name]}</h3><div class="xai-axes"><span></span>'
        f'<div class="xai-wave">{waveform_svg(samples)}</div>{frequency_axis(view)}'
        f'<div class="xai-plot" role="img" aria-label="{alt_text}">'
        f'<img alt="" src="{image_uri(view.pixels)}"></div>'
        f"{time_axis(len(samples) / sample_rate_hz)}</div></figure>"
    )


def _edge_input(label: str, value: float, name: str) -> gr.Number:
    return gr.Number(value, label=label, minimum=0, elem_id=name, min_width=100)


def _stage_widgets(task: str, name: str) -> tuple[gr.Column, gr.HTML, gr.Audio]:
    with gr.Column(visible=False, min_width=300) as column:
        picture = gr.HTML("")
        player = gr.Audio(
            show_label=False,
            label=STAGES[name],
            interactive=False,
            elem_id=f"{task}-{name}",
            buttons=["download"],
        )
    return column, picture, player
