"""Heat of single windows, put together over a recording, and read: peak, place, grid. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xai_demo import files
from xai_demo.audio.spectrogram import mel_frequencies_hz

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats, LogMel

_EVEN = 1e-3  # heat this near the maximum, relative to it, is as hot
MOST_COLUMNS = 6000  # of a heat map over a recording; longer ones share columns between frames


def resized(heat: Floats, rows: int, columns: int) -> Floats:
    """(…) at another size, bilinear between cell centres, as pytorch-grad-cam scales its maps."""
    import cv2

    return np.asarray(cv2.resize(heat, (columns, rows)), dtype=np.float32)


def scaled(heat: Floats) -> Floats:
    """The same from 0 to 1, as pytorch-grad-cam has it: minimum off, divided by the maximum."""
    above = heat - heat.min()
    result: Floats = (above / (1e-7 + above.max())).astype(np.float32)
    return result


def frames_per_column(n_frames: int) -> int:
    """How many frames share a column of the recording's heat map."""
    return -(-n_frames // MOST_COLUMNS)


def unpadded(windows: Floats, given: int, seen: int) -> Floats:
    """Heat over the first `seen` of the `given` columns of each window: (windows, rows, columns).

    The rest of a window is padding, which no network can have heard anything in.
    """
    if seen == given:
        return windows
    return np.stack([resized(heat, len(heat), given)[:, :seen] for heat in windows])


def folded(heat: Floats, window: int, width: int) -> Floats:
    """Heat of a window of sound that was repeated after `width` frames, averaged over the repeats:
    (rows, columns) -> (rows, width)."""
    if width >= window:
        return heat
    rows, times = len(heat), -(-window // width)
    missing = times * width - window
    frames = np.pad(resized(heat, rows, window), ((0, 0), (0, missing)), constant_values=np.nan)
    mean: Floats = np.nanmean(frames.reshape(rows, times, width), axis=1)
    return mean


def loudest(decibels: Floats, step: int) -> Floats:
    """The highest level of each `step` frames: (mel, frames) -> (mel, columns)."""
    if step == 1:
        return decibels
    frames = decibels.T
    columns = [
        np.maximum.reduceat(frames[part], range(0, part.stop - part.start, step), axis=0)
        for part in files.chunks(frames, step)
    ]
    return np.concatenate(columns).T


def stitched(
    windows: Floats,
    starts: Sequence[int],
    weights: Sequence[float],
    window: int,
    spec: LogMel,
    n: int,
    widths: Sequence[int] | None = None,
) -> Floats:
    """Heat over a recording of `n` frames from that of its windows.

    (windows, rows, columns) -> (mel, columns). Each window's heat counts by its weight (the label's
    probability in it); overlaps are averaged by a Hann window, as a network knows the middle of
    what it is given better than the ends. `widths` are the frames that each window holds before it
    repeats itself; None: they are full.
    """
    if len(windows) == 1 and widths is None:
        return resized(scaled(windows[0]), spec.n_mels, window)[:, : -(-n // frames_per_column(n))]
    step = frames_per_column(n)
    columns = -(-n // step)
    widths = [window] * len(windows) if widths is None else widths
    total, count = np.zeros((spec.n_mels, columns), np.float32), np.zeros(columns, np.float32)
    for heat, start, weight, width in zip(windows, starts, weights, widths, strict=True):
        wide = max(1, round(width / step))
        first = min(start // step, columns - 1)
        last = min(first + wide, columns)
        large = resized(folded(heat * np.float32(weight), window, width), spec.n_mels, wide)
        told = np.hanning(wide + 2)[1 : last - first + 1].astype(np.float32)
        total[:, first:last] += large[:, : last - first] * told
        count[first:last] += told
    share: Floats = np.where(count > 0, count, np.float32(1))
    return total / share


def gridded(heatmap: Floats, rows: int, columns: int) -> Floats:
    """A heat map averaged into the cells of a coarser grid, 0..1."""
    import cv2

    cells = cv2.resize(heatmap, (columns, rows), interpolation=cv2.INTER_AREA)
    return scaled(np.asarray(cells, dtype=np.float32))


def peak_in_sound(heatmap: Floats, spec: LogMel, step: int) -> Mapping[str, float]:
    """Seconds and hertz of the hottest point of (mel, columns)."""
    row, column = _hottest(heatmap)
    return {
        "time_s": float((column + 0.5) * step * spec.hop_length / spec.sample_rate_hz),
        "frequency_hz": mel_frequencies_hz(spec)[int(row)],
    }


def _hottest(heatmap: Floats) -> tuple[int, int]:
    """Row and column of the maximum; amid it where it is a plateau, as at the edges of a map."""
    row, column = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    top = float(heatmap[row, column]) * (1 - _EVEN)
    return _amid(heatmap[:, column] >= top, int(row)), _amid(heatmap[row] >= top, int(column))


def _amid(level: NDArray[np.bool_], place: int) -> int:
    """The middle of the run of true values around a place."""
    below, above = np.flatnonzero(~level[:place]), np.flatnonzero(~level[place:])
    first = int(below[-1]) + 1 if len(below) else 0
    last = place + int(above[0]) - 1 if len(above) else len(level) - 1
    return (first + last) // 2


def peak_in_picture(heatmap: Floats) -> Mapping[str, float]:
    """The hottest point of (height, width) as fractions from the left and from the top."""
    row, column = _hottest(heatmap)
    return {
        "x": float((column + 0.5) / heatmap.shape[1]),
        "y": float((row + 0.5) / heatmap.shape[0]),
    }
