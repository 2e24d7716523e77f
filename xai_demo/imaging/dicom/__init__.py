"""A DICOM radiograph, displayed as PS3.3 prescribes.

`header` reads what the file says, `frames` finds and decodes the pixels, and this module maps them
to grey levels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from xai_demo.imaging.dicom.frames import decode_frame, read_frame
from xai_demo.imaging.dicom.header import (
    LATERAL_VIEWS,
    OBLIQUE_VIEWS,
    UNSPECIFIED_MODALITIES,
    Header,
    stored_range,
)
from xai_demo.imaging.dicom.values import LookupTable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats

# Pixels converted at once, to bound the memory used beside the stored values and the result.
_STRIP_PIXELS = 1 << 20
# 12-bit values in a file that declares 16 bits reach only 1/16 of the range.
_DARK_SHARE = 1 / 8
# An image whose greys, without the darkest and brightest hundredth, are closer together than this
# share of the range can hardly be seen; neither can one of which less than 15 % is grey.
_LOW_CONTRAST, _TAIL, _SATURATED = 0.3, 1.0, 15.0
# A window is judged on about this many pixels along the shorter side.
_SAMPLED_SIDE = 512


def read_pixels(file: BinaryIO, header: Header, name: str) -> tuple[Floats, tuple[str, ...], str]:
    """The image as it is meant to be displayed, (rows, columns), 0 to 1, warnings and a doubt.

    Rescale slope and intercept, then the VOI lookup table, or the first window, or the full range
    of the bits; inverted for MONOCHROME1; padding black (PS3.3, C.11.1 and C.11.2). The doubt says
    why an answer to the image would not be reliable, or is "". Raises UnreadableFileError if the
    pixels cannot be decoded.
    """
    frame = read_frame(file, header, name)
    stored, bits, note = decode_frame(frame, header, name)
    is_native = frame.codestream is None
    del frame
    pixels = np.empty(stored.shape, np.float32)
    step = max(1, _STRIP_PIXELS // header.columns)
    for top in range(0, header.rows, step):
        rows = _align_bits(stored[top : top + step], header, bits, is_native=is_native)
        pixels[top : top + step] = _display_values(rows, header, bits)
    doubt = _window_doubt(pixels, header)
    notes = (*header.notes, *((note,) if note else ()), *((doubt,) if doubt else ()))
    warnings = (*notes, *_warnings(header, float(pixels.max()), bits))
    return pixels, warnings, doubt or ("" if is_native else note)


def _align_bits(rows: NDArray[Any], header: Header, bits: int, *, is_native: bool) -> NDArray[Any]:
    """The stored bits with their sign, without the overlay bits above or below them."""
    width = 8 * rows.dtype.itemsize
    # Only native pixels may have unused bits below those that are used.
    low = header.high_bit + 1 - header.bits if is_native else 0
    # Shifting the sign bit to the top and back removes higher bits and extends the sign.
    shift = width - bits
    shifted = (rows.view(f"u{width // 8}") >> low) << shift
    return np.asarray(shifted.view(f"{'i' if header.signed else 'u'}{width // 8}") >> shift)


def _display_values(stored: NDArray[Any], header: Header, bits: int) -> Floats:
    """Stored values as grey levels, (rows, columns), 0 to 1: PS3.3, C.11.1 and C.11.2."""
    # The modality transformation: to the units in which a window is given.
    values = stored.astype(np.float32)
    if header.modality_table:
        low, high = 0.0, 2.0**header.modality_table.bits - 1
        values = _apply_lookup_table(values, header.modality_table)
    else:
        ends = stored_range(bits, header.signed)
        low, high = sorted(header.slope * value + header.intercept for value in ends)
        values = values * np.float32(header.slope) + np.float32(header.intercept)
    # The VOI transformation: to grey. Where a file has a table and windows, the table is used.
    if header.table:
        grey = _apply_lookup_table(values, header.table) / (2.0**header.table.bits - 1)
    elif header.window:
        grey = _apply_window(values, *header.window, header.function)
    else:
        grey = (values - low) / max(high - low, 1e-9)
    grey = np.clip(grey, 0, 1)
    if header.is_inverted:
        grey = 1 - grey
    # Last, because padding is given in stored values and is black in either photometric.
    if header.padding:
        grey[(stored >= header.padding[0]) & (stored <= header.padding[1])] = 0
    return np.asarray(grey, np.float32)


def _apply_lookup_table(values: Floats, table: LookupTable) -> Floats:
    indices = np.clip(np.rint(values) - table.first, 0, len(table.values) - 1).astype(np.int64)
    return np.asarray(table.values[indices], np.float32)


def _apply_window(values: Floats, center: float, width: float, function: str) -> Floats:
    """Values mapped by a window of the given VOI LUT function: PS3.3, C.11.2.1.2 and C.11.2.1.3."""
    # `exp` overflows in float32 above 88.
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -80, 80))))
    if function == "LINEAR_EXACT":
        return np.asarray((values - center) / width + 0.5)
    # LINEAR, also where none is named; a width of 1 is allowed, and makes it a threshold.
    return np.asarray((values - (center - 0.5)) / max(width - 1, 1e-6) + 0.5)


def _window_doubt(pixels: Floats, header: Header) -> str:
    """Why the image, (rows, columns), cannot be judged as its window or its table shows it."""
    if not (header.window or header.table):
        return ""
    step = max(1, min(pixels.shape) // _SAMPLED_SIDE)
    low, mostly_low, mostly_high, high = np.percentile(
        pixels[::step, ::step], (_TAIL, _SATURATED, 100 - _SATURATED, 100 - _TAIL)
    )
    # An image of a single value has a warning of its own.
    if np.ptp(pixels) == 0:
        return ""
    if high < _DARK_SHARE or mostly_high == 0:
        look = "is nearly black"
    elif low > 1 - _DARK_SHARE or mostly_low == 1:
        look = "is nearly white"
    elif high - low < _LOW_CONTRAST:
        look = f"uses only {100 * (high - low):.2g} % of the grey levels"
    else:
        return ""
    source = "lookup table"
    if header.window and not header.table:
        source = f"window (centre {header.window[0]:g}, width {header.window[1]:g})"
    return f"The file's {source} does not fit its {header.bits}-bit pixels: the image {look}."


def _warnings(header: Header, brightest: float, bits: int) -> Iterator[str]:
    if header.view in LATERAL_VIEWS:
        yield (
            f"This is a {LATERAL_VIEWS[header.view]} radiograph (view {header.view}): the models"
            " know frontal radiographs only (PA or AP)."
        )
    elif header.view in OBLIQUE_VIEWS:
        yield (
            f"This is an oblique radiograph (view {header.view}): the models know frontal"
            " radiographs only (PA or AP)."
        )
    if header.modality in UNSPECIFIED_MODALITIES:
        yield (
            f"The file's modality is {UNSPECIFIED_MODALITIES[header.modality]}, so it may not be a"
            " radiograph; expected DX or CR."
        )
    if not (header.window or header.table) and 0 < brightest < _DARK_SHARE:
        yield (
            f"The file specifies no window, and its brightest pixel is at {100 * brightest:.2g} %"
            f" of the {bits}-bit range: the image is probably darker than intended."
        )
