"""Radiographs as DICOM: the picture of a file as it is meant to look.

The pixels of a DICOM file before a decoder sees them: are they as many as the header says?

A codestream carries its own size, which a decoder believes and allocates; it is compared with the
header's first. What comes out is one frame, repacked so that no offset table is trusted.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import SEEK_END
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from xai_demo.errors import UnreadableFileError
from xai_demo.imaging.dicom.header import (
    LATERAL,
    OBLIQUE,
    UNSAID,
    Header,
    Table,
    read_header,
    refused,
)
from xai_demo.imaging.dicom.tags import DamagedError, Element

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.pixels.decoders.base import Decoder
    from pydicom.uid import UID

    from xai_demo.records import Floats

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


_ITEM, _END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_MOST_FRAGMENTS = 100_000
# Start of frame: all but DHT (C4), JPG (C8) and DAC (CC); F7 is JPEG-LS.
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_JP2 = b"\0\0\0\x0cjP  "


def frame_of(
    file: BinaryIO, pixels: Element, syntax: UID, rows: int, columns: int, allocated: int
) -> bytes:
    """The bytes of the one frame as a decoder takes them, RLE already unpacked.

    Raises DamagedError where they are not of that many rows and columns.
    """
    size = file.seek(0, SEEK_END)
    needed = rows * columns * allocated // 8
    if not syntax.is_encapsulated:
        held = size - pixels.start if pixels.length is None else pixels.length
        if held < needed:
            raise DamagedError(
                f"its header promises {columns} x {rows} pixels of {allocated} bits"
                f" ({needed} bytes), {held} bytes are there"
            )
        file.seek(pixels.start)
        return file.read(needed)
    data = _joined(file, pixels, size)
    if syntax.name.startswith("RLE"):
        return _unpacked_rle(data, rows * columns, allocated // 8)
    data = _bare(data)
    found = _jpeg_2000_size(data) or _jpeg_size(data)
    if found is None:
        raise DamagedError(f"its pixels are not the {syntax.name} that it says")
    if found != (rows, columns):
        raise DamagedError(
            f"its header promises {columns} x {rows} pixels, its {syntax.name} holds"
            f" {found[1]} x {found[0]}"
        )
    data += b"\0" * (len(data) % 2)
    return _ITEM + bytes(4) + _ITEM + struct.pack("<I", len(data)) + data + _END + bytes(4)


def _joined(file: BinaryIO, pixels: Element, size: int) -> bytes:
    """All fragments but the first item, which is an offset table."""
    at, parts = pixels.start, []
    for _ in range(_MOST_FRAGMENTS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8 or head[:4] != _ITEM:
            break
        (length,) = struct.unpack_from("<I", head, 4)
        if at + 8 + length > size:
            raise DamagedError(
                f"a fragment of its pixels promises {length} bytes, {size - at - 8} are there"
            )
        parts.append(file.read(length))
        at += 8 + length
    if len(parts) < 2:
        raise DamagedError("its compressed pixels have no fragment")
    return b"".join(parts[1:])


def _unpacked_rle(data: bytes, pixels: int, planes: int) -> bytes:
    """Little-endian pixels, never more than the picture has: PS3.5, G.3 and G.5."""
    if len(data) < 64:
        raise DamagedError(f"its RLE header has {len(data)} bytes, not 64")
    count, *offsets = struct.unpack_from("<16I", data)
    if count != planes:
        raise DamagedError(f"its RLE has {count} segments, not {planes}")
    ends = [*offsets[1:count], len(data)]
    result = bytearray(pixels * planes)
    for plane, (start, end) in enumerate(zip(offsets[:count], ends, strict=True)):
        if not 64 <= start <= end <= len(data):
            raise DamagedError(f"an RLE segment lies at bytes {start} to {end} of {len(data)}")
        result[planes - 1 - plane :: planes] = _segment(data, start, end, pixels)
    return bytes(result)


def _segment(data: bytes, start: int, end: int, pixels: int) -> bytes:
    """One byte of every pixel, the high one first. What follows the last pixel is padding."""
    held, at = bytearray(), start
    while at < end and len(held) < pixels:
        code = data[at]
        if code < 128:
            held += data[at + 1 : min(end, at + 2 + code)]
            at += code + 2
        else:
            held += data[at + 1 : min(end, at + 2)] * (257 - code if code > 128 else 0)
            at += 2 if code > 128 else 1
    if len(held) < pixels:
        raise DamagedError(f"an RLE segment unpacks to {len(held)} bytes, not {pixels}")
    return bytes(held[:pixels])


def _bare(data: bytes) -> bytes:
    """The codestream inside a JP2 file; anything else as it is."""
    if not data.startswith(_JP2):
        return data
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"jp2c":
            return data[at + 8 : at + length if length >= 8 else len(data)]
        if length < 8:
            break
        at += length
    raise DamagedError("its JP2 holds no codestream")


def _jpeg_2000_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns by the SIZ marker: ISO 15444-1, A.5.1."""
    if not data.startswith(b"\xff\x4f\xff\x51") or len(data) < 50:
        return None
    width, height, left, top = struct.unpack_from(">4I", data, 8)
    return height - top, width - left


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns by the first start of frame: ISO 10918-1, B.2.2."""
    at = 2
    while data.startswith(b"\xff\xd8") and at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return height, width
        if marker == 0xFF:
            at += 1
            continue
        (length,) = struct.unpack_from(">H", data, at + 2)
        at += 2 + length
    return None
