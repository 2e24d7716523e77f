"""Heat of single windows, put together over a recording, and read: peak, place, grid. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.spectrum import mel_frequencies_hz

if TYPE_CHECKING:
    from xai_demo.records import Floats, LogMel

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


def stitched(
    windows: Floats,
    starts: Sequence[int],
    weights: Sequence[float],
    window: int,
    spec: LogMel,
    n: int,
) -> Floats:
    """Heat over a recording of `n` frames from that of its windows.

    (windows, rows, columns) -> (mel, columns). Each window's heat counts by its weight (the label's
    probability in it); overlaps are averaged.
    """
    if len(windows) == 1:
        return resized(scaled(windows[0]), spec.n_mels, window)[:, : -(-n // frames_per_column(n))]
    step = frames_per_column(n)
    columns, wide = -(-n // step), max(1, round(window / step))
    total, count = np.zeros((spec.n_mels, columns), np.float32), np.zeros(columns, np.float32)
    for heat, start, weight in zip(windows, starts, weights, strict=True):
        first = min(start // step, columns - 1)
        last = min(first + wide, columns)
        large = resized(heat * np.float32(weight), spec.n_mels, wide)
        total[:, first:last] += large[:, : last - first]
        count[first:last] += 1
    share: Floats = np.maximum(count, np.float32(1))
    return total / share


def gridded(heatmap: Floats, rows: int, columns: int) -> Floats:
    """A heat map averaged into the cells of a coarser grid, 0..1."""
    import cv2

    cells = cv2.resize(heatmap, (columns, rows), interpolation=cv2.INTER_AREA)
    return scaled(np.asarray(cells, dtype=np.float32))


def peak_in_sound(heatmap: Floats, spec: LogMel, step: int) -> Mapping[str, float]:
    """Seconds and hertz of the hottest point of (mel, columns)."""
    row, column = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    return {
        "time_s": float((column + 0.5) * step * spec.hop_length / spec.sample_rate_hz),
        "frequency_hz": mel_frequencies_hz(spec)[int(row)],
    }


def peak_in_picture(heatmap: Floats) -> Mapping[str, float]:
    """The hottest point of (height, width) as fractions from the left and from the top."""
    row, column = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    return {
        "x": float((column + 0.5) / heatmap.shape[1]),
        "y": float((row + 0.5) / heatmap.shape[0]),
    }
