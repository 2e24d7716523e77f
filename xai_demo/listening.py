"""A microphone that is still recording: what it brings, in any pieces, as one seamless sound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.errors import UnsuitableError

if TYPE_CHECKING:
    import soxr
    from numpy.typing import NDArray

    from xai_demo.records import Floats

_RATES_HZ = (1000, 768_000)
_MOST_CHANNELS = 32
_PIECE_S = 1.0  # resampled at once


class Live:
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
            mono = _mono(chunk[start : start + piece])
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


def _mono(chunk: NDArray[Any]) -> Floats:
    kind = chunk.dtype
    if kind.kind not in "iuf" or chunk.ndim not in (1, 2) or not _channels(chunk) >= 1:
        raise UnsuitableError(
            f"The microphone gives {kind} of shape {chunk.shape}; wanted: integers or floats of"
            f" shape (time,) or (time, channels), at most {_MOST_CHANNELS} channels."
        )
    wide = chunk.astype(np.float64)
    if kind.kind in "iu":
        half = 2.0 ** (8 * kind.itemsize - 1)
        wide = (wide - half if kind.kind == "u" else wide) / half
    mono = np.nan_to_num(wide if wide.ndim == 1 else wide.mean(axis=1), posinf=0, neginf=0)
    return mono.astype(np.float32)


def _channels(chunk: NDArray[Any]) -> int:
    """How many; 0: none or absurdly many."""
    count = 1 if chunk.ndim == 1 else chunk.shape[1]
    return count if count <= _MOST_CHANNELS else 0
