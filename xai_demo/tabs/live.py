"""Live listening: predictions about once a second while the microphone is still recording.

The microphone sends its sound in pieces of any length; an `AudioBuffer` joins them seamlessly and
keeps the last seconds.
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
from gradio.utils import get_upload_folder

from xai_demo import render
from xai_demo.errors import UnsuitableError, XaiDemoError
from xai_demo.records import Decision, LogMel, Model, Prediction
from xai_demo.service.logs import hide_paths
from xai_demo.service.uploads import discard_upload
from xai_demo.tabs import phrases
from xai_demo.tabs.figure import frequency_axis, image_uri

if TYPE_CHECKING:
    import soxr
    from numpy.typing import NDArray

    from xai_demo.records import Floats
    from xai_demo.tabs.requests import Analyser

KEEP_S = 10.0  # kept and drawn
# What an answer covers, or one window of the network if that is longer.
ANSWER_S = 5.0
CHUNK_S = 0.5
# The invitation promises these ten minutes.
_LIMIT_S = 600
# Visitors who listen at the same time; the next one waits.
_MAX_LISTENERS = 8
# Chunks left on the server behind the newest, which the page may still play.
_KEPT_CHUNKS = 20
# A minute and a half of stereo at 48 kHz, which may have waited for a slow answer.
_MAX_CHUNK_BYTES = 20_000_000
# The loudest level is drawn at least this white, so that a silent room stays dark.
_MIN_WHITE_DB = -50.0

_MAX_BARS = 10

_INVITATION = (
    '<p class="xai-quiet">Press Record and hold the stethoscope or microphone still. The answer '
    "for the last few seconds appears here and is updated about once a second. Nothing is stored; "
    "recording stops after ten minutes.</p>"
)


class LiveSession:
    """The sound of one visitor's microphone so far; a new one can be copied."""

    def __init__(self) -> None:
        self.buffer: AudioBuffer | None = None
        self.model = ""
        self._files: deque[str] = deque()

    def add_chunk(self, path: str, model: Model) -> bool:
        """Add a chunk, a WAV file that is deleted soon afterwards; return whether to answer now.

        Another model than that of the last chunk starts from silence.
        """
        # A buffer resamples to one rate, that of its model.
        if self.buffer is None or self.model != model.name:
            self.buffer = AudioBuffer(sample_rate_hz=_model_rate_hz(model), keep_s=KEEP_S)
            self.model = model.name
        size = Path(path).stat().st_size
        if size > _MAX_CHUNK_BYTES:
            raise UnsuitableError(
                f"The microphone sent {size:,} bytes at once; at most {_MAX_CHUNK_BYTES:,} are "
                "taken."
            )
        rate_hz, samples = wav_samples(Path(path).read_bytes())
        self._files.append(path)
        if len(self._files) > _KEPT_CHUNKS:
            # Only what was uploaded, whatever path the visitor has named.
            discard_upload(self._files.popleft(), Path(get_upload_folder()))
        return self.buffer.add(rate_hz, samples)

    def restart(self) -> None:
        """Forget the sound so far: the recording was started anew."""
        self.buffer = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveWidgets:
    """The widgets of live listening."""

    microphone: gr.Audio
    output: gr.HTML
    session: gr.State


def lay_out(task: str) -> LiveWidgets:
    """Add the streaming microphone and the area for its answers to the page."""
    with gr.Accordion("Live listening", open=False, elem_classes="xai-accordion"):
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
                output = gr.HTML(_INVITATION, elem_id=f"{task}-live", apply_default_css=False)
        # Gradio gives every visitor a deep copy of this one.
        session = gr.State(LiveSession())
    return LiveWidgets(microphone=microphone, output=output, session=session)


def connect(widgets: LiveWidgets, model: gr.Dropdown, analyser: Analyser) -> None:
    """Answer what the microphone sends.

    The page sends one chunk at a time; what is recorded meanwhile comes, in one piece, with the
    next. So a slow answer is followed by a longer chunk, and no sound is lost.
    """
    widgets.microphone.start_recording(
        lambda session: session.restart(),
        widgets.session,
        None,
        api_visibility="private",
        queue=False,
    )
    widgets.microphone.stream(
        functools.partial(answer_chunk, analyser),
        [widgets.microphone, model, widgets.session],
        widgets.output,
        stream_every=CHUNK_S,
        time_limit=_LIMIT_S,
        show_progress="hidden",
        trigger_mode="multiple",
        concurrency_id="live",
        concurrency_limit=_MAX_LISTENERS,
        api_visibility="private",
    )


def answer_chunk(
    analyser: Analyser, chunk: str | None, model: str | None, session: LiveSession
) -> Any:
    """Return the view after one more chunk; `gr.skip()` between two answers."""
    if not chunk:
        return gr.skip()
    try:
        facts = analyser.hub.model(model or analyser.hub.default_model("stethoscope"))
        if not session.add_chunk(chunk, facts) or session.buffer is None:
            return gr.skip()
        # The spectrogram shows all that is kept, the answer covers the last part of it.
        samples, rate_hz = session.buffer.take(), session.buffer.sample_rate_hz
        recent = samples[-round(_answer_span_s(facts) * rate_hz) :]
        predictions, decision = analyser.live("stethoscope", recent, rate_hz, model=facts.name)
        return live_view(facts, predictions, decision, samples, rate_hz, session.buffer.received_s)
    except FileNotFoundError:
        # It was deleted, or never there: the next chunk is a new chance.
        return gr.skip()
    except XaiDemoError as error:
        message = escape(hide_paths(str(error)))
        return f'<p class="xai-notice xai-warning" role="note">{message}</p>'


def live_view(
    model: Model,
    predictions: tuple[Prediction, ...],
    decision: Decision,
    samples: Floats,
    sample_rate_hz: int,
    received_s: float,
) -> str:
    """Return the answer, a bar for each label in the model's own order, and the last seconds."""
    label = "Uncertain" if decision.label is None else phrases.display_label(decision.label)
    # In the model's order, so that no bar changes its place from one answer to the next. Of
    # hundreds of labels only the most probable have one.
    by_label = {p.label: p.probability for p in predictions[:_MAX_BARS]}
    bars = "".join(_bar(each, by_label[each]) for each in model.labels if each in by_label)
    return (
        f'<div class="xai-live" data-received="{received_s:.2f}"><div class="xai-live-now">'
        f'<p class="xai-kicker">Last {_answer_span_s(model):g} s</p>'
        f'<p class="xai-live-label">{escape(label)}</p>'
        f'<p class="xai-quiet">{escape(decision.reason)}</p></div>'
        f'<div class="xai-bars"><ul>{bars}</ul></div>'
        f"{_recent_spectrogram(samples, sample_rate_hz)}</div>"
    )


def wav_samples(content: bytes) -> tuple[int, NDArray[np.int16]]:
    """Return the sample rate and the (time, channels) samples of 16-bit WAV.

    The length in the header is ignored: every chunk carries the header of the first one.
    """
    # RIFF: a header of 12 bytes, then chunks with an identifier and a size, 8 bytes together.
    start = content.find(b"data", 12)
    if content[:4] != b"RIFF" or content[12:16] != b"fmt " or start < 36:
        raise UnsuitableError(
            f"The microphone sent {len(content)} bytes that begin with {content[:4]!r}; WAV is "
            "needed."
        )
    kind, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", content, 20)
    # 1 is WAVE_FORMAT_PCM, 0xFFFE is WAVE_FORMAT_EXTENSIBLE.
    if bits != 16 or kind not in (1, 0xFFFE) or channels < 1:
        raise UnsuitableError(
            f"The microphone sent WAV of format {kind} with {bits} bits and {channels} channels; "
            "16-bit PCM is needed."
        )
    # A chunk may end within a frame: only whole frames are read.
    samples = content[start + 8 :]
    n_frames = len(samples) // (2 * channels)
    return rate_hz, np.frombuffer(samples, "<i2", n_frames * channels).reshape(n_frames, channels)


def _recent_spectrogram(samples: Floats, sample_rate_hz: int) -> str:
    # Silence before the recording began keeps “now” at the right edge.
    missing = round(KEEP_S * sample_rate_hz) - len(samples)
    padded = np.pad(samples, (max(missing, 0), 0))
    view = render.spectrogram_view(padded, sample_rate_hz, columns=400, least_loud_db=_MIN_WHITE_DB)
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
        raise UnsuitableError(f"{model.name} analyses images; a model for sounds is needed.")
    return model.preprocessing.sample_rate_hz


_RATES_HZ = (1000, 768_000)
_MAX_CHANNELS = 32
_PIECE_S = 1.0  # resampled at once


class AudioBuffer:
    """The last `keep_s` seconds of a sound that arrives in pieces, mono at one rate.

    Its memory does not grow. It is meant for one visitor, and must be fed from one thread at a
    time. A new one can be copied.
    """

    def __init__(self, *, sample_rate_hz: int, keep_s: float = 10.0, step_s: float = 1.0) -> None:
        if not 0 < step_s <= keep_s:
            raise UnsuitableError(
                f"A step of {step_s:g} s does not fit a buffer of {keep_s:g} s; the step must be "
                "above 0 s and no longer than the buffer."
            )
        self.sample_rate_hz = sample_rate_hz
        self.received = 0  # samples so far, at `sample_rate_hz`
        self._step = round(step_s * sample_rate_hz)
        self._ring: Floats = np.zeros(round(keep_s * sample_rate_hz), np.float32)
        self._received_at_take = 0
        self._input_rate_hz = 0
        self._stream: soxr.ResampleStream | None = None

    @property
    def is_due(self) -> bool:
        """Whether at least `step_s` of new sound has arrived since the last `take`."""
        return self.received - self._received_at_take >= self._step

    @property
    def received_s(self) -> float:
        """Seconds received so far, including those no longer kept."""
        return self.received / self.sample_rate_hz

    def add(self, sample_rate_hz: int, chunk: NDArray[Any]) -> bool:
        """Add a chunk, (time,) or (time, channels), integers or floats -1..1; return `is_due`.

        The rate may change from one chunk to the next. Infinities and NaN count as 0.
        """
        least, most = _RATES_HZ
        if not least <= sample_rate_hz <= most:
            raise UnsuitableError(
                f"The microphone records {sample_rate_hz} samples per second; {least} to {most} "
                "are supported."
            )
        # The old rate's resampler still holds back some samples, which come before the new ones.
        if sample_rate_hz != self._input_rate_hz:
            self.finish()
            self._input_rate_hz = sample_rate_hz
            self._stream = self._resampler(sample_rate_hz)
        # In pieces, so that a long chunk does not need memory for all of it as float64.
        piece = round(_PIECE_S * sample_rate_hz)
        for start in range(0, len(chunk), piece):
            mono = _to_mono(chunk[start : start + piece])
            self._keep(mono if self._stream is None else self._stream.resample_chunk(mono))
        return self.is_due

    def finish(self) -> None:
        """Add what the resampler still holds back: the microphone has stopped."""
        if self._stream is not None:
            self._keep(self._stream.resample_chunk(np.zeros(0, np.float32), last=True))
        self._stream, self._input_rate_hz = None, 0

    def take(self) -> Floats:
        """Return the (time,) samples kept, oldest first, and wait for a new step from here on.

        Before `keep_s` seconds have arrived there are fewer.
        """
        self._received_at_take = self.received
        count = min(self.received, len(self._ring))
        # Sample i since the start is at i modulo the ring's length.
        positions = np.arange(self.received - count, self.received) % len(self._ring)
        # Indexing by an array copies, so that later chunks do not change what was returned.
        return self._ring[positions]

    def _resampler(self, sample_rate_hz: int) -> soxr.ResampleStream | None:
        import soxr

        if sample_rate_hz == self.sample_rate_hz:
            return None
        return soxr.ResampleStream(
            sample_rate_hz, self.sample_rate_hz, 1, dtype="float32", quality="HQ"
        )

    def _keep(self, samples: Floats) -> None:
        # Of a chunk longer than the ring only the end is kept, but all of it is counted.
        kept = samples[-len(self._ring) :]
        first = self.received + len(samples) - len(kept)
        self._ring[np.arange(first, first + len(kept)) % len(self._ring)] = kept
        self.received += len(samples)


def _to_mono(chunk: NDArray[Any]) -> Floats:
    dtype = chunk.dtype
    if dtype.kind not in "iuf" or chunk.ndim not in (1, 2) or not _channel_count(chunk) >= 1:
        raise UnsuitableError(
            f"The microphone sent {dtype} samples of shape {chunk.shape}; integers or floats of "
            f"shape (time,) or (time, channels) with at most {_MAX_CHANNELS} channels are needed."
        )
    samples = chunk.astype(np.float64)
    if dtype.kind in "iu":
        half_range = 2.0 ** (8 * dtype.itemsize - 1)
        # Unsigned samples, as of 8-bit WAV, have silence in the middle of their range.
        samples = (samples - half_range if dtype.kind == "u" else samples) / half_range
    mono = samples if samples.ndim == 1 else samples.mean(axis=1)
    # A filter, such as the resampler's, spreads NaN and infinities to their neighbours.
    return np.nan_to_num(mono, posinf=0, neginf=0).astype(np.float32)


def _channel_count(chunk: NDArray[Any]) -> int:
    """Return the number of channels; 0 where there are absurdly many."""
    count = 1 if chunk.ndim == 1 else chunk.shape[1]
    return count if count <= _MAX_CHANNELS else 0
