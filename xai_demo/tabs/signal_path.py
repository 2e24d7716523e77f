"""The way of a sound to the network: which steps it goes through, and what each makes of it."""

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
from xai_demo.tabs.controls import as_path, playable
from xai_demo.tabs.figure import frequency_axis, image_uri, time_axis
from xai_demo.tabs.timeline import waveform_svg

if TYPE_CHECKING:
    from xai_demo.records import Floats

STAGES = {
    "raw": "As it was recorded",
    "filtered": "After the band-pass",
    "denoised": "After denoising",
}
_LONGEST_PLAYED_S = 300.0
_TOLD = (
    '<p class="xai-quiet">What the sound goes through before the network hears it. After a change '
    "press Analyse again, or Enter in a box.</p>"
)
_NOT_YET = '<p class="xai-quiet">What each step makes of the sound is shown with the answer.</p>'


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalWidgets:
    """What can be set about the signal path, and where it is shown."""

    band: gr.Checkbox
    low: gr.Number
    high: gr.Number
    denoise: gr.Checkbox
    cycles: gr.File
    said: gr.HTML
    columns: tuple[gr.Column, ...]
    pictures: tuple[gr.HTML, ...]
    players: tuple[gr.Audio, ...]

    @property
    def steps(self) -> list[Any]:
        """What depends on the model, in the order of `usual`."""
        return [self.band, self.low, self.high, self.denoise]

    @property
    def inputs(self) -> list[Any]:
        """In the order that `chosen` takes their values, with the annotation file last."""
        return [*self.steps, self.cycles]

    @property
    def outputs(self) -> list[Any]:
        """In the order of `shown`."""
        return [self.said, *self.columns, *self.pictures, *self.players]


def lay_out(task: str, model: Model | None) -> SignalWidgets:
    """Put the switches and the places for the stages on the page."""
    on, low_hz, high_hz, clean = usual(model)
    with gr.Accordion("Signal path", open=False, elem_classes="xai-closer xai-path"):
        gr.HTML(_TOLD)
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=280):
                band = gr.Checkbox(on, label="Band-pass", elem_id=f"{task}-band")
                with gr.Row(equal_height=False):
                    low = _end("from (Hz)", low_hz, f"{task}-low")
                    high = _end("to (Hz)", high_hz, f"{task}-high")
                denoise = gr.Checkbox(clean, label="Wavelet denoising", elem_id=f"{task}-denoise")
            with gr.Column(scale=2, min_width=280):
                cycles = as_path(
                    gr.File(
                        label="Breathing cycles: ICBHI .txt (optional)",
                        file_types=[".txt"],
                        elem_id=f"{task}-cycles",
                        height=150,
                    )
                )
        said = gr.HTML(_NOT_YET, elem_id=f"{task}-stages")
        with gr.Row(equal_height=False):
            places = [_place(task, name) for name in STAGES]
    columns, pictures, players = zip(*places, strict=True)
    return SignalWidgets(
        band=band,
        low=low,
        high=high,
        denoise=denoise,
        cycles=cycles,
        said=said,
        columns=columns,
        pictures=pictures,
        players=players,
    )


def usual(model: Model | None) -> tuple[bool, float, float, bool]:
    """Band-pass on, its ends, denoising on: as the model's own signal path has it."""
    spec = model.preprocessing if model else None
    if not isinstance(spec, LogMel):
        return False, *BAND_HZ, False
    return spec.band_hz is not None, *(spec.band_hz or BAND_HZ), spec.denoise


def chosen(values: Sequence[Any], model: Model | None) -> SignalPath | None:
    """The path that the switches say; None where it is the model's own. An empty end is open."""
    on, low, high, clean = values
    path = SignalPath(
        band_hz=(float(low or 0), math.inf if high is None else float(high)) if on else None,
        denoise=bool(clean),
    )
    own_on, own_low, own_high, own_clean = usual(model)
    own = SignalPath(band_hz=(own_low, own_high) if own_on else None, denoise=own_clean)
    return None if path == own else path


def asked(band: Any, denoise: bool | None, model: Model) -> SignalPath | None:
    """The path that another program asks for; None: the model's own, of either step too.

    `band` is [low, high] in hertz, or False or "off" for no band-pass.
    """
    if band is None and denoise is None:
        return None
    on, low, high, clean = usual(model)
    if band is False or band == "off":
        on = False
    elif band is not None:
        ends = band if isinstance(band, list | tuple) else []
        if [type(end) in (int, float) for end in ends] != [True, True]:
            raise RequestError(f"The band is {band!r}; wanted: [low, high] in hertz, or 'off'.")
        on, low, high = True, float(ends[0]), float(ends[1])
    return chosen([on, low, high, clean if denoise is None else denoise], model)


def shown(analysis: Analysis | None) -> list[Any]:
    """What the outputs are filled with; None: there is no answer."""
    stages = analysis.stages if analysis else {}
    if analysis is None or not stages:
        nothing = [gr.update(visible=False)] * len(STAGES)
        return [_NOT_YET, *nothing, *([""] * len(STAGES)), *([None] * len(STAGES))]
    rate = analysis.sample_rate_hz or 16000
    raw = next(iter(stages.values()))
    top = (render.spectrogram_view(raw, rate).decibels or (0.0, 0.0))[1]
    playing = len(raw) <= _LONGEST_PLAYED_S * rate
    columns = [gr.update(visible=name in stages) for name in STAGES]
    pictures = [
        _picture(name, stages[name], rate, top) if name in stages else "" for name in STAGES
    ]
    players = [
        playable(stages[name], rate) if playing and name in stages else None for name in STAGES
    ]
    return [_sentence(analysis, playing=playing), *columns, *pictures, *players]


def _sentence(analysis: Analysis, *, playing: bool) -> str:
    used = [phrases.display_label(name).lower() for name in analysis.stages if name != "raw"]
    said = (
        f"The network heard the sound {phrases.join_words(used)}."
        if used
        else "The network heard the sound as it was recorded: both steps are off."
    )
    if not playing:
        said += f" Sounds over {_LONGEST_PLAYED_S / 60:.0f} minutes are drawn here, not played."
    return f'<p class="xai-quiet">{escape(said)}</p>'


def _picture(name: str, samples: Floats, sample_rate_hz: int, loudest_db: float) -> str:
    view = render.spectrogram_view(samples, sample_rate_hz, loudest_db=loudest_db)
    duration = phrases.seconds(len(samples) / sample_rate_hz)
    said = escape(f"{STAGES[name]}: waveform and spectrogram of {duration}")
    return (
        f'<figure class="xai-stage xai-sound" data-stage="{name}">'
        f'<h4>{STAGES[name]}</h4><div class="xai-axes"><span></span>'
        f'<div class="xai-wave">{waveform_svg(samples)}</div>{frequency_axis(view)}'
        f'<div class="xai-plot" role="img" aria-label="{said}">'
        f'<img alt="" src="{image_uri(view.pixels)}"></div>'
        f"{time_axis(len(samples) / sample_rate_hz)}</div></figure>"
    )


def _end(label: str, value: float, name: str) -> gr.Number:
    return gr.Number(value, label=label, minimum=0, elem_id=name, min_width=100)


def _place(task: str, name: str) -> tuple[gr.Column, gr.HTML, gr.Audio]:
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
