"""Heatmaps: normalised, stitched over a recording, and reduced to a peak or a grid. Pure.

Resizing and normalising follow pytorch-grad-cam to the bit, so that heatmaps can be compared with
it exactly. Over a recording, rows are mel bands from low to high and columns are frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from xai_demo import files
from xai_demo.audio.spectrogram import mel_frequencies_hz

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats, LogMel

# Of a heatmap over a recording. Longer recordings share a column between frames, so that the
# heatmap of an hour stays small.
MAX_COLUMNS = 6000
# Values this close to the maximum, relative to it, belong to the same plateau.
_PLATEAU_TOLERANCE = 1e-3


def resize(heatmap: Floats, rows: int, columns: int) -> Floats:
    """The map at another size, bilinear between cell centres as in pytorch-grad-cam."""
    import cv2

    # cv2 takes width before height; its default interpolation is bilinear.
    return np.asarray(cv2.resize(heatmap, (columns, rows)), dtype=np.float32)


def normalise(heatmap: Floats) -> Floats:
    """The map from 0 to 1 as in pytorch-grad-cam: less its minimum, divided by its maximum.

    >>> normalise(np.array([2.0, 4.0, 6.0])).round(3).tolist()
    [0.0, 0.5, 1.0]
    """
    above = heatmap - heatmap.min()
    # The small constant keeps a flat map at 0.
    result: Floats = (above / (1e-7 + above.max())).astype(np.float32)
    return result


def frames_per_column(n_frames: int) -> int:
    """How many frames share a column of a recording's heatmap.

    >>> [frames_per_column(n) for n in (6000, 6001, 360_000)]
    [1, 2, 60]
    """
    # Rounded up, so that the columns never exceed the limit.
    return -(-n_frames // MAX_COLUMNS)


def crop_padding(windows: Floats, columns: int, valid: int) -> Floats:
    """Heatmaps of the first `valid` of the `columns` input columns: (windows, rows, columns).

    The rest of a window is padding, which holds nothing to explain.
    """
    if valid == columns:
        return windows
    return np.stack([resize(each, len(each), columns)[:, :valid] for each in windows])


def average_repeats(heatmap: Floats, window: int, width: int) -> Floats:
    """Average over the repeats of a sound that fills a window again after every `width` frames.

    (rows, columns) of `window` frames -> (rows, width).
    """
    if width >= window:
        return heatmap
    # The last repeat may be cut off by the end of the window.
    rows, repeats = len(heatmap), -(-window // width)
    missing = repeats * width - window
    # NaN where the last repeat is missing, so that the mean leaves it out.
    frames = np.pad(resize(heatmap, rows, window), ((0, 0), (0, missing)), constant_values=np.nan)
    mean: Floats = np.nanmean(frames.reshape(rows, repeats, width), axis=1)
    return mean


def max_per_column(decibels: Floats, step: int) -> Floats:
    """The highest level of every `step` frames: (mel, frames) -> (mel, columns)."""
    if step == 1:
        return decibels
    frames = decibels.T
    columns = [
        # Chunks start at multiples of `step`, so no column is split between two.
        np.maximum.reduceat(frames[part], range(0, part.stop - part.start, step), axis=0)
        for part in files.chunks(frames, step)
    ]
    return np.concatenate(columns).T


def stitch_windows(
    windows: Floats,
    starts: Sequence[int],
    weights: Sequence[float],
    window: int,
    spec: LogMel,
    n_frames: int,
    widths: Sequence[int] | None = None,
) -> Floats:
    """The heatmap of a recording from those of its windows.

    (windows, rows, columns) -> (mel, columns). Each window counts by its weight, the label's
    probability in it. Overlaps are averaged with a Hann window, because a network sees the middle
    of its input better than the ends. `widths` are the frames of each window before it repeats
    itself; None means that every window is full.
    """
    step = frames_per_column(n_frames)
    columns = -(-n_frames // step)
    # Nothing to average. The window may be longer than the sound, which was repeated to fill it.
    if len(windows) == 1 and widths is None:
        return resize(normalise(windows[0]), spec.n_mels, window)[:, :columns]
    widths = [window] * len(windows) if widths is None else widths
    total, count = np.zeros((spec.n_mels, columns), np.float32), np.zeros(columns, np.float32)
    for heatmap, start, weight, width in zip(windows, starts, weights, widths, strict=True):
        n_columns = max(1, round(width / step))
        # A sound that was repeated can have windows that start beyond its end.
        first = min(start // step, columns - 1)
        last = min(first + n_columns, columns)
        weighted = average_repeats(heatmap * np.float32(weight), window, width)
        large = resize(weighted, spec.n_mels, n_columns)
        # Two columns more, less its ends: a Hann window is zero there.
        taper = np.hanning(n_columns + 2)[1 : last - first + 1].astype(np.float32)
        # Sums of weighted maps and of weights: their quotient is the weighted mean.
        total[:, first:last] += large[:, : last - first] * taper
        count[first:last] += taper
    # Frames between cycles belong to no window and stay 0.
    divisor: Floats = np.where(count > 0, count, np.float32(1))
    return total / divisor


def average_to_grid(heatmap: Floats, rows: int, columns: int) -> Floats:
    """The map averaged into the cells of a coarser grid, normalised to 0..1."""
    import cv2

    # INTER_AREA is the mean over each cell; bilinear would look at four pixels only.
    cells = cv2.resize(heatmap, (columns, rows), interpolation=cv2.INTER_AREA)
    return normalise(np.asarray(cells, dtype=np.float32))


def peak_in_sound(heatmap: Floats, spec: LogMel, step: int) -> Mapping[str, float]:
    """Seconds and hertz of the highest point of (mel, columns) with `step` frames a column."""
    row, column = _peak_cell(heatmap)
    return {
        "time_s": float((column + 0.5) * step * spec.hop_length / spec.sample_rate_hz),
        "frequency_hz": mel_frequencies_hz(spec)[row],
    }


def peak_in_image(heatmap: Floats) -> Mapping[str, float]:
    """The highest point of (height, width) as fractions from the left and from the top.

    >>> peak_in_image(np.array([[0.0, 1.0], [0.0, 0.0]]))
    {'x': 0.75, 'y': 0.25}
    """
    row, column = _peak_cell(heatmap)
    return {
        "x": float((column + 0.5) / heatmap.shape[1]),
        "y": float((row + 0.5) / heatmap.shape[0]),
    }


def _peak_cell(heatmap: Floats) -> tuple[int, int]:
    """Row and column of the maximum, or of the middle of a plateau.

    Resizing repeats the outermost cells up to the edge, so a peak there is a plateau.
    """
    row, column = map(int, np.unravel_index(int(heatmap.argmax()), heatmap.shape))
    lowest = float(heatmap[row, column]) * (1 - _PLATEAU_TOLERANCE)
    is_high = heatmap >= lowest
    # Along the row and the column of the maximum only: another peak of equal height stays apart.
    return _middle_of_run(is_high[:, column], row), _middle_of_run(is_high[row], column)


def _middle_of_run(values: NDArray[np.bool_], index: int) -> int:
    """The middle of the run of true values around an index."""
    below, above = np.flatnonzero(~values[:index]), np.flatnonzero(~values[index:])
    # A run that reaches the end of the line has no false value beyond it.
    first = int(below[-1]) + 1 if len(below) else 0
    last = index + int(above[0]) - 1 if len(above) else len(values) - 1
    return (first + last) // 2
