"""Radiographs as DICOM: the picture of a file as it is meant to look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from xai_demo.dicom.codestreams import frame_of
from xai_demo.dicom.header import LATERAL, OBLIQUE, UNSAID, Header, Table, read_header, refused
from xai_demo.dicom.tags import DamagedError
from xai_demo.errors import UnreadableFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.pixels.decoders.base import Decoder
    from pydicom.uid import UID

    from xai_demo.records import Floats

__all__ = ["Header", "read_header", "read_pixels"]

_STRIP_PIXELS = 1 << 20
_DARK = 1 / 8  # 12 bits in 16 that nobody told of have 1/16


def read_pixels(file: BinaryIO, header: Header, name: str) -> tuple[Floats, tuple[str, ...]]:
    """The picture as it is meant to look, 0..1, with what is odd about it: (rows, columns).

    Slope and intercept, then the lookup table or the first window or else all that the bits can
    hold; MONOCHROME1 inverted; padding black (PS3.3, C.11.1 and C.11.2).
    """
    stored = _stored(file, header, name)
    pixels = np.empty(stored.shape, np.float32)
    step = max(1, _STRIP_PIXELS // header.columns)
    for top in range(0, header.rows, step):
        pixels[top : top + step] = _shown(stored[top : top + step], header)
    return pixels, tuple(_warnings(header, float(pixels.max())))


def _decoder(name: str, syntax: UID, bits: int) -> Decoder:
    """What decodes pixels of that kind; raises UnreadableFileError where nothing here does."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import JPEGExtended12Bit

    known = syntax.is_valid and syntax.is_transfer_syntax
    what = f"is compressed as {syntax.name}" if known else "is in a transfer syntax unknown here"
    wanted = "uncompressed pixels, RLE, baseline JPEG (8 bits) or JPEG 2000"
    decoder = None
    if known:
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:
            what += ", which is not read here"
    if decoder is None:
        raise refused(name, what, wanted)
    # Pillow takes the extended kind too, but no more bits than the baseline has.
    if not decoder.is_available or (syntax == JPEGExtended12Bit and bits > 8):
        raise refused(name, f"{what}, for which no decoder is installed", wanted)
    return decoder


def _stored(file: BinaryIO, header: Header, name: str) -> NDArray[Any]:
    """The numbers that the file holds: (rows, columns)."""
    from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

    syntax = UID(header.syntax)
    read_as = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    decoder = _decoder(name, read_as, header.bits)
    native = not decoder.is_encapsulated
    options: dict[str, Any] = {
        "rows": header.rows,
        "columns": header.columns,
        "bits_allocated": header.allocated,
        # What is not compressed is aligned below: as stored, it may lie in the upper bits.
        "bits_stored": header.allocated if native else header.bits,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": header.photometric,
        "pixel_representation": int(header.signed),
        "pixel_keyword": "PixelData",
        "pixel_vr": "OW",
    }
    try:
        data = frame_of(file, header.pixels, syntax, header.rows, header.columns, header.allocated)
        array, _ = decoder.as_array(data, index=0, validate=False, raw=True, **options)
        return _aligned(array, header, native=native)
    except DamagedError as error:
        why = str(error)
    except Exception:  # whatever a codec stumbles over; what it says may quote the file
        why = f"its pixels, {syntax.name}, are damaged or of a rare kind"
    raise UnreadableFileError(f"{name} cannot be decoded as DICOM: {why}; wanted: a whole file.")


def _aligned(array: NDArray[Any], header: Header, *, native: bool) -> NDArray[Any]:
    """The stored bits alone, without overlays above them, with their sign."""
    wide = np.asarray(array).reshape(header.rows, header.columns)
    width = 8 * wide.dtype.itemsize
    low = header.high_bit + 1 - header.bits if native else 0
    kind = np.dtype(f"{'i' if header.signed else 'u'}{width // 8}")
    shift = width - header.bits
    moved = (wide.astype(f"u{width // 8}") >> low) << shift
    return np.asarray(moved.astype(wide.dtype.str.replace("i", "u")[1:]).view(kind) >> shift)


def _shown(stored: NDArray[Any], header: Header) -> Floats:
    values = stored.astype(np.float32)
    if header.modality_table:
        low, high = 0.0, 2.0**header.modality_table.bits - 1
        values = _looked_up(values, header.modality_table)
    else:
        least = -(2.0 ** (header.bits - 1)) if header.signed else 0.0
        ends = [least, least + 2.0**header.bits - 1]
        low, high = sorted(header.slope * end + header.intercept for end in ends)
        values = values * np.float32(header.slope) + np.float32(header.intercept)
    if header.table:
        shown = _looked_up(values, header.table) / (2.0**header.table.bits - 1)
    elif header.window:
        shown = _windowed(values, *header.window, header.function)
    else:
        shown = (values - low) / max(high - low, 1e-9)
    shown = np.clip(shown, 0, 1)
    if header.photometric == "MONOCHROME1":
        shown = 1 - shown
    if header.padding:
        shown[(stored >= header.padding[0]) & (stored <= header.padding[1])] = 0
    return np.asarray(shown, np.float32)


def _looked_up(values: Floats, table: Table) -> Floats:
    at = np.clip(np.rint(values) - table.first, 0, len(table.values) - 1).astype(np.int64)
    return np.asarray(table.values[at], np.float32)


def _windowed(values: Floats, center: float, width: float, function: str) -> Floats:
    """PS3.3, C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -80, 80))))
    if function == "LINEAR_EXACT":
        return np.asarray((values - center) / width + 0.5)
    return np.asarray((values - (center - 0.5)) / max(width - 1, 1e-6) + 0.5)


def _warnings(header: Header, brightest: float) -> Iterator[str]:
    if header.view in LATERAL:
        yield (
            f"This is a {LATERAL[header.view]} film (view {header.view}): the models here know"
            " frontal films only (PA or AP)."
        )
    elif header.view in OBLIQUE:
        yield (
            f"This is an oblique film (view {header.view}): the models here know frontal films"
            " only (PA or AP)."
        )
    if header.modality in UNSAID:
        yield (
            f"The file's modality is {UNSAID[header.modality]}, so nothing says that this is a"
            " radiograph; wanted: DX or CR."
        )
    if not (header.window or header.table) and 0 < brightest < _DARK:
        yield (
            f"The file says no window, and its brightest pixel is at {100 * brightest:.2g} % of"
            f" what {header.bits} bits can hold: the picture is probably darker than it was meant."
        )
