"""The microphone while it records: once a second, what the network makes of the last seconds.

A microphone that is still recording: what it brings, in any pieces, as one seamless sound.
"""

from __future__ import annotations

import functools
import struct
from collections import deque
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

from xai_demo import render
from xai_demo.errors import UnsuitableError, XaiDemoError
from xai_demo.records import Decision, LogMel, Model, Prediction
from xai_demo.tabs import phrases
from xai_demo.tabs.figure import frequency_axis, image_uri

if TYPE_CHECKING:
    import soxr
    from numpy.typing import NDArray

    from xai_demo.records import Floats
    from xai_demo.tabs.requests import Analyser

KEEP_S = 10.0  # drawn
STEP_S = 1.0  # between two answers
ANSWER_S = 5.0  # what an answer is about, or a window of the network if that is longer
CHUNK_S = 0.5
_LIMIT_S = 600
_MAX_LISTENERS = 8  # who listen at the same moment; the next one waits
_KEPT_CHUNKS = 20  # chunks left on the server behind the newest, as two equal ones share a file
_MIN_WHITE_DB = -50.0  # so that a silent room is drawn dark

_INVITATION = (
    '<p class="xai-quiet">Press Record and hold the microphone still: about once a second the '
    "answer for the last seconds appears here. Nothing is kept; it stops after ten minutes.</p>"
)


class LiveSession:
    """What one visitor's microphone has brought; a fresh one can be copied."""

    def __init__(self) -> None:
        self.live: AudioBuffer | None = None
        self.model = ""
        self._files: deque[str] = deque()

    def hear(self, path: str, model: Model) -> bool:
        """Take a chunk, a WAV file, which is wiped soon after; whether an answer is due."""
        if self.live is None or self.model != model.name:
            self.live, self.model = (
                AudioBuffer(sample_rate_hz=_model_rate_hz(model), keep_s=KEEP_S),
                model.name,
            )
        rate_hz, samples = wav_samples(Path(path).read_bytes())
        self._files.append(path)
        if len(self._files) > _KEPT_CHUNKS:
            oldest = self._files.popleft()
            if oldest not in self._files:
                Path(oldest).unlink(missing_ok=True)
        return self.live.add(rate_hz, samples)

    def rest(self) -> None:
        """The microphone was started anew."""
        self.live = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveWidgets:
    """What listening live needs on the page."""

    microphone: gr.Audio
    shown: gr.HTML
    ear: gr.State


def lay_out(task: str) -> LiveWidgets:
    """Put the streaming microphone and the place for its answers on the page."""
    with gr.Accordion("Listen live", open=False, elem_classes="xai-closer"):
        with gr.Row(equal_height=False, elem_classes="xai-live-row"):
            with gr.Column(scale=1, min_width=240):
                microphone = gr.Audio(
                    sources=["microphone"],
                    streaming=True,
                    type="filepath",
                    label="Microphone",
                    elem_id=f"{task}-microphone",
                    buttons=[],
                )
            with gr.Column(scale=3, min_width=280):
                shown = gr.HTML(_INVITATION, elem_id=f"{task}-live", apply_default_css=False)
        ear = gr.State(LiveSession())
    return LiveWidgets(microphone=microphone, shown=shown, ear=ear)


def connect(widgets: LiveWidgets, model: gr.Dropdown, analyser: Analyser) -> None:
    """Answer what the microphone brings.

    The page sends one chunk at a time: what is recorded while an answer is worked on comes, as one
    piece, with the next. So a slow answer is followed by a longer chunk, and no sound is lost.
    """
    widgets.microphone.start_recording(
        lambda ear: ear.rest(), widgets.ear, None, api_visibility="private", queue=False
    )
    widgets.microphone.stream(
        functools.partial(answer_chunk, analyser),
        [widgets.microphone, model, widgets.ear],
        widgets.shown,
        stream_every=CHUNK_S,
        time_limit=_LIMIT_S,
        show_progress="hidden",
        trigger_mode="multiple",
        concurrency_id="live",
        concurrency_limit=_MAX_LISTENERS,
        api_visibility="private",
    )


def answer_chunk(analyser: Analyser, chunk: str | None, model: str | None, ear: LiveSession) -> Any:
    """What to show once a chunk has come; nothing new between two answers."""
    if not chunk:
        return gr.skip()
    try:
        facts = analyser.hub.model(model or analyser.hub.default_model("stethoscope"))
        if not ear.hear(chunk, facts) or ear.live is None:
            return gr.skip()
        samples, rate = ear.live.take(), ear.live.sample_rate_hz
        recent = samples[-round(_answer_span_s(facts) * rate) :]
        predictions, decision = analyser.live("stethoscope", recent, rate, model=facts.name)
        return live_view(facts, predictions, decision, samples, rate, ear.live.heard_s)
    except XaiDemoError as error:
        return f'<p class="xai-notice xai-warning" role="note">{escape(str(error))}</p>'


def live_view(
    model: Model,
    predictions: tuple[Prediction, ...],
    decision: Decision,
    samples: Floats,
    sample_rate_hz: int,
    heard_s: float,
) -> str:
    """The answer in a word, every label as a bar that keeps its place, and the last seconds."""
    label = "Uncertain" if decision.label is None else phrases.display_label(decision.label)
    chances = {p.label: p.probability for p in predictions}
    bars = "".join(_bar(each, chances[each]) for each in model.labels if each in chances)
    return (
        f'<div class="xai-live" data-heard="{heard_s:.2f}"><div class="xai-live-now">'
        f'<p class="xai-kicker">The last {_answer_span_s(model):g} s</p>'
        f'<p class="xai-live-label">{escape(label)}</p>'
        f'<p class="xai-quiet">{escape(decision.reason)}</p></div>'
        f'<div class="xai-bars"><ul>{bars}</ul></div>{_recent_spectrogram(samples, sample_rate_hz)}</div>'
    )


def wav_samples(content: bytes) -> tuple[int, NDArray[np.int16]]:
    """The rate and the samples, (time, channels), of 16-bit WAV; all that follows the header.

    A chunk carries the header of the first one, whose length is not its own.
    """
    start = content.find(b"data", 12)
    if content[:4] != b"RIFF" or content[12:16] != b"fmt " or start < 36:
        raise UnsuitableError(
            f"The microphone sent {content[:4]!r}, {len(content)} bytes; wanted: WAV."
        )
    kind, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", content, 20)
    if bits != 16 or kind not in (1, 0xFFFE) or channels < 1:
        raise UnsuitableError(
            f"The microphone sent {channels} channels of {bits} bits, kind {kind}; wanted: PCM of"
            " 16 bits."
        )
    samples = content[start + 8 :]
    whole = len(samples) // (2 * channels)
    return rate_hz, np.frombuffer(samples, "<i2", whole * channels).reshape(whole, channels)


def _recent_spectrogram(samples: Floats, sample_rate_hz: int) -> str:
    missing = round(KEEP_S * sample_rate_hz) - len(samples)
    whole = np.pad(samples, (max(missing, 0), 0))
    view = render.spectrogram(whole, sample_rate_hz, columns=400, least_loud_db=_MIN_WHITE_DB)
    times = "".join(
        f'<text x="{x:.0%}" y="19" text-anchor="{anchor}">{text}</text>'
        for x, anchor, text in (
            (0, "start", f"−{KEEP_S:g} s"),
            (0.5, "middle", f"−{KEEP_S / 2:g} s"),
            (1, "end", "now"),
        )
    )
    return (
        f'<div class="xai-sound xai-axes">{frequency_axis(view)}'
        f'<div class="xai-plot" role="img" aria-label="Spectrogram of the last {KEEP_S:g} s">'
        f'<img alt="" src="{image_uri(view.pixels)}"></div>'
        f'<svg class="xai-axis xai-axis-x" aria-hidden="true">{times}</svg></div>'
    )


def _bar(label: str, probability: float) -> str:
    return (
        '<li><div class="xai-bar"><span class="xai-bar-label">'
        f"{escape(phrases.display_label(label))}</span>"
        f'<span class="xai-track"><i class="xai-fill" style="width:{probability:.1%}"></i></span>'
        f'<span class="xai-bar-number">{escape(phrases.percent(probability))}</span></div></li>'
    )


def _answer_span_s(model: Model) -> float:
    spec = model.preprocessing
    longest = spec.window_s if isinstance(spec, LogMel) else 0.0
    return min(max(ANSWER_S, longest), KEEP_S)


def _model_rate_hz(model: Model) -> int:
    if not isinstance(model.preprocessing, LogMel):
        raise UnsuitableError(f"{model.name} takes pictures; wanted: a model for sounds.")
    return model.preprocessing.sample_rate_hz


_RATES_HZ = (1000, 768_000)
_MAX_CHANNELS = 32
_PIECE_S = 1.0  # resampled at once


class AudioBuffer:
    """The last seconds of a microphone's sound, mono at one rate; memory never grows.

    One for each visitor, fed from one thread at a time. A fresh one can be copied.
    """

    def __init__(self, *, sample_rate_hz: int, keep_s: float = 10.0, step_s: float = 1.0) -> None:
        if not 0 < step_s <= keep_s:
            raise UnsuitableError(
                f"The step is {step_s:g} s and {keep_s:g} s are kept;"
                " wanted: a step above 0, and at least as much to keep."
            )
        self.sample_rate_hz = sample_rate_hz
        self.heard = 0  # samples so far, at `sample_rate_hz`
        self._step = round(step_s * sample_rate_hz)
        self._ring: Floats = np.zeros(round(keep_s * sample_rate_hz), np.float32)
        self._taken = 0
        self._input_rate_hz = 0
        self._stream: soxr.ResampleStream | None = None

    @property
    def due(self) -> bool:
        """Whether a step's worth of new sound has come since the last `take`."""
        return self.heard - self._taken >= self._step

    @property
    def heard_s(self) -> float:
        """Seconds so far, those no longer kept among them."""
        return self.heard / self.sample_rate_hz

    def add(self, sample_rate_hz: int, chunk: NDArray[Any]) -> bool:
        """Take what came, (time,) or (time, channels), integers or -1..1; returns `due`.

        The rate may change from one chunk to the next. What is no finite number counts as 0.
        """
        least, most = _RATES_HZ
        if not least <= sample_rate_hz <= most:
            raise UnsuitableError(
                f"The microphone gives {sample_rate_hz} samples a second;"
                f" wanted: {least} to {most}."
            )
        if sample_rate_hz != self._input_rate_hz:
            self.finish()
            self._input_rate_hz = sample_rate_hz
            self._stream = self._resampler(sample_rate_hz)
        piece = round(_PIECE_S * sample_rate_hz)
        for start in range(0, len(chunk), piece):
            mono = _to_mono(chunk[start : start + piece])
            self._keep(mono if self._stream is None else self._stream.resample_chunk(mono))
        return self.due

    def finish(self) -> None:
        """The microphone has stopped: take what the resampler still holds back."""
        if self._stream is not None:
            self._keep(self._stream.resample_chunk(np.zeros(0, np.float32), last=True))
        self._stream, self._input_rate_hz = None, 0

    def take(self) -> Floats:
        """The seconds kept, oldest first, (time,), shorter at the start; not `due` after that."""
        self._taken = self.heard
        count = min(self.heard, len(self._ring))
        at = np.arange(self.heard - count, self.heard) % len(self._ring)
        return self._ring[at]

    def _resampler(self, sample_rate_hz: int) -> soxr.ResampleStream | None:
        import soxr

        if sample_rate_hz == self.sample_rate_hz:
            return None
        return soxr.ResampleStream(
            sample_rate_hz, self.sample_rate_hz, 1, dtype="float32", quality="HQ"
        )

    def _keep(self, new: Floats) -> None:
        kept = new[-len(self._ring) :]
        first = self.heard + len(new) - len(kept)
        self._ring[np.arange(first, first + len(kept)) % len(self._ring)] = kept
        self.heard += len(new)


def _to_mono(chunk: NDArray[Any]) -> Floats:
    kind = chunk.dtype
    if kind.kind not in "iuf" or chunk.ndim not in (1, 2) or not _channel_count(chunk) >= 1:
        raise UnsuitableError(
            f"The microphone gives {kind} of shape {chunk.shape}; wanted: integers or floats of"
            f" shape (time,) or (time, channels), at most {_MAX_CHANNELS} channels."
        )
    wide = chunk.astype(np.float64)
    if kind.kind in "iu":
        half = 2.0 ** (8 * kind.itemsize - 1)
        wide = (wide - half if kind.kind == "u" else wide) / half
    mono = np.nan_to_num(wide if wide.ndim == 1 else wide.mean(axis=1), posinf=0, neginf=0)
    return mono.astype(np.float32)


def _channel_count(chunk: NDArray[Any]) -> int:
    """How many; 0: none or absurdly many."""
    count = 1 if chunk.ndim == 1 else chunk.shape[1]
    return count if count <= _MAX_CHANNELS else 0
