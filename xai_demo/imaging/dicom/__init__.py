"""The pixels of a DICOM radiograph, decoded and displayed as PS3.3 prescribes.

A compressed codestream carries its own size, which a decoder trusts and allocates; it is compared
with the header's first. The single frame is repacked, so that no offset table is trusted either.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import SEEK_END
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from xai_demo.errors import UnreadableFileError
from xai_demo.imaging.dicom.header import (
    LATERAL_VIEWS,
    OBLIQUE_VIEWS,
    UNSPECIFIED_MODALITIES,
    Header,
    LookupTable,
    refusal,
)
from xai_demo.imaging.dicom.tags import DamagedError, Element

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.pixels.decoders.base import Decoder
    from pydicom.uid import UID

    from xai_demo.records import Floats

# Pixels converted at once, to bound the memory used beside the stored values and the result.
_STRIP_PIXELS = 1 << 20
# 12-bit values in a file that declares 16 bits reach only 1/16 of the range.
_DARK_SHARE = 1 / 8


def read_pixels(file: BinaryIO, header: Header, name: str) -> tuple[Floats, tuple[str, ...]]:
    """The image as it is meant to be displayed, (rows, columns), 0 to 1, and warnings.

    Rescale slope and intercept, then the VOI lookup table, or the first window, or the full range
    of the bits; MONOCHROME1 inverted; padding black (PS3.3, C.11.1 and C.11.2). Raises
    UnreadableFileError if the pixels cannot be decoded.
    """
    stored = _decode_stored_values(file, header, name)
    pixels = np.empty(stored.shape, np.float32)
    step = max(1, _STRIP_PIXELS // header.columns)
    for top in range(0, header.rows, step):
        pixels[top : top + step] = _display_values(stored[top : top + step], header)
    return pixels, tuple(_warnings(header, float(pixels.max())))


def _find_decoder(name: str, syntax: UID, bits: int) -> Decoder:
    """The decoder for a transfer syntax; raises UnreadableFileError if there is none."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import JPEGExtended12Bit

    is_known = syntax.is_valid and syntax.is_transfer_syntax
    problem = f"is compressed as {syntax.name}" if is_known else "has an unknown transfer syntax"
    expected = "uncompressed pixels, RLE, baseline JPEG (8 bits) or JPEG 2000"
    decoder = None
    if is_known:
        try:
            decoder = get_decoder(syntax)
        except NotImplementedError:
            problem += ", which is not supported"
    if decoder is None:
        raise refusal(name, problem, expected)
    # Pillow decodes extended JPEG as well, but only with the 8 bits of baseline JPEG.
    if not decoder.is_available or (syntax == JPEGExtended12Bit and bits > 8):
        raise refusal(name, f"{problem}, for which no decoder is installed", expected)
    return decoder


def _decode_stored_values(file: BinaryIO, header: Header, name: str) -> NDArray[Any]:
    """The stored values of the pixels: (rows, columns)."""
    from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless

    syntax = UID(header.syntax)
    # `read_frame` unpacks RLE itself, into plain little-endian pixels.
    read_as = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    decoder = _find_decoder(name, read_as, header.bits)
    is_native = not decoder.is_encapsulated
    options: dict[str, Any] = {
        "rows": header.rows,
        "columns": header.columns,
        "bits_allocated": header.allocated,
        # Native pixels may lie in the upper bits; `_align_bits` shifts them.
        "bits_stored": header.allocated if is_native else header.bits,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": header.photometric,
        "pixel_representation": int(header.signed),
        "pixel_keyword": "PixelData",
        "pixel_vr": "OW",
    }
    try:
        data = read_frame(
            file, header.pixels, syntax, header.rows, header.columns, header.allocated
        )
        array, _ = decoder.as_array(data, index=0, validate=False, raw=True, **options)
        return _align_bits(array, header, is_native=is_native)
    except DamagedError as error:
        reason = str(error)
    # Codecs raise almost anything. Their messages may quote the file, so they are not passed on.
    except Exception:
        reason = f"its pixels, {syntax.name}, are damaged or of an unusual kind"
    raise UnreadableFileError(
        f"{name} cannot be decoded as DICOM: {reason}; expected a complete file."
    )


def _align_bits(array: NDArray[Any], header: Header, *, is_native: bool) -> NDArray[Any]:
    """The stored bits with their sign, without the overlay bits above or below them."""
    wide = np.asarray(array).reshape(header.rows, header.columns)
    width = 8 * wide.dtype.itemsize
    low = header.high_bit + 1 - header.bits if is_native else 0
    dtype = np.dtype(f"{'i' if header.signed else 'u'}{width // 8}")
    # Shifting the sign bit to the top and back removes higher bits and extends the sign.
    shift = width - header.bits
    shifted = (wide.astype(f"u{width // 8}") >> low) << shift
    return np.asarray(shifted.astype(wide.dtype.str.replace("i", "u")[1:]).view(dtype) >> shift)


def _display_values(stored: NDArray[Any], header: Header) -> Floats:
    """Stored values as grey levels, (rows, columns), 0 to 1: PS3.3, C.11.1 and C.11.2."""
    # The modality transformation: to the units in which a window is given.
    values = stored.astype(np.float32)
    if header.modality_table:
        low, high = 0.0, 2.0**header.modality_table.bits - 1
        values = _apply_lookup_table(values, header.modality_table)
    else:
        lowest = -(2.0 ** (header.bits - 1)) if header.signed else 0.0
        extremes = [lowest, lowest + 2.0**header.bits - 1]
        low, high = sorted(header.slope * value + header.intercept for value in extremes)
        values = values * np.float32(header.slope) + np.float32(header.intercept)
    # The VOI transformation: to grey. Where a file has a table and windows, the table is used.
    if header.table:
        grey = _apply_lookup_table(values, header.table) / (2.0**header.table.bits - 1)
    elif header.window:
        grey = _apply_window(values, *header.window, header.function)
    else:
        grey = (values - low) / max(high - low, 1e-9)
    grey = np.clip(grey, 0, 1)
    if header.photometric == "MONOCHROME1":
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


def _warnings(header: Header, brightest: float) -> Iterator[str]:
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
            f" of the {header.bits}-bit range: the image is probably darker than intended."
        )


# Tags FFFE,E000 and FFFE,E0DD in little-endian byte order: PS3.5, A.4.
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
_MAX_FRAGMENTS = 100_000
# C0 to CF are start-of-frame markers except for DHT (C4), JPG (C8) and DAC (CC); F7 is JPEG-LS.
_START_OF_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_JP2 = b"\0\0\0\x0cjP  "


def read_frame(
    file: BinaryIO, pixels: Element, syntax: UID, rows: int, columns: int, allocated: int
) -> bytes:
    """The bytes of the only frame, as a decoder expects them, with RLE already unpacked.

    Raises DamagedError if they do not have that many rows and columns.
    """
    size = file.seek(0, SEEK_END)
    needed = rows * columns * allocated // 8
    if not syntax.is_encapsulated:
        available = size - pixels.start if pixels.length is None else pixels.length
        if available < needed:
            raise DamagedError(
                f"its header declares {columns} x {rows} pixels of {allocated} bits"
                f" ({needed} bytes), but there are only {available} bytes"
            )
        file.seek(pixels.start)
        return file.read(needed)
    data = _join_fragments(file, pixels, size)
    if syntax.name.startswith("RLE"):
        return _decode_rle(data, rows * columns, allocated // 8)
    data = _extract_codestream(data)
    codestream_size = _jpeg_2000_size(data) or _jpeg_size(data)
    if codestream_size is None:
        raise DamagedError(f"its pixels are not {syntax.name} as declared")
    if codestream_size != (rows, columns):
        raise DamagedError(
            f"its header declares {columns} x {rows} pixels, but its {syntax.name} contains"
            f" {codestream_size[1]} x {codestream_size[0]}"
        )
    # An empty offset table, then the whole frame as one fragment of even length: PS3.5, A.4.
    data += b"\0" * (len(data) % 2)
    return _ITEM + bytes(4) + _ITEM + struct.pack("<I", len(data)) + data + _SEQUENCE_END + bytes(4)


def _join_fragments(file: BinaryIO, pixels: Element, size: int) -> bytes:
    """The fragments of encapsulated pixels, joined, without the offset table in the first item."""
    position, items = pixels.start, []
    for _ in range(_MAX_FRAGMENTS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8 or head[:4] != _ITEM:
            break
        (length,) = struct.unpack_from("<I", head, 4)
        available = size - position - 8
        if length > available:
            raise DamagedError(
                f"a fragment of its pixels declares {length} bytes, but there are only {available}"
            )
        items.append(file.read(length))
        position += 8 + length
    if len(items) < 2:
        raise DamagedError("its compressed pixels have no fragment")
    return b"".join(items[1:])


def _decode_rle(data: bytes, pixels: int, planes: int) -> bytes:
    """RLE as little-endian pixels, never more than the image has: PS3.5, G.3 and G.5."""
    if len(data) < 64:
        raise DamagedError(f"its RLE header has {len(data)} bytes instead of 64")
    count, *offsets = struct.unpack_from("<16I", data)
    if count != planes:
        raise DamagedError(f"its RLE has {count} segments instead of {planes}")
    ends = [*offsets[1:count], len(data)]
    result = bytearray(pixels * planes)
    for plane, (start, end) in enumerate(zip(offsets[:count], ends, strict=True)):
        if not 64 <= start <= end <= len(data):
            raise DamagedError(f"an RLE segment is at bytes {start} to {end} of {len(data)}")
        # Segments hold the most significant byte of every pixel first.
        result[planes - 1 - plane :: planes] = _decode_rle_segment(data, start, end, pixels)
    return bytes(result)


def _decode_rle_segment(data: bytes, start: int, end: int, pixels: int) -> bytes:
    """One byte of every pixel. What follows the last pixel is padding."""
    result, position = bytearray(), start
    while position < end and len(result) < pixels:
        code = data[position]
        # PackBits: up to 127, code + 1 literal bytes; from 129, one byte repeated 257 - code times;
        # 128 does nothing.
        if code < 128:
            result += data[position + 1 : min(end, position + 2 + code)]
            position += code + 2
        else:
            repeats = 257 - code if code > 128 else 0
            result += data[position + 1 : min(end, position + 2)] * repeats
            position += 2 if code > 128 else 1
    if len(result) < pixels:
        raise DamagedError(f"an RLE segment unpacks to {len(result)} bytes instead of {pixels}")
    return bytes(result[:pixels])


def _extract_codestream(data: bytes) -> bytes:
    """The codestream inside a JP2 file; anything else is returned unchanged."""
    if not data.startswith(_JP2):
        return data
    position = 0
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"jp2c":
            # A length of 0 means up to the end of the file: ISO 15444-1, I.4.
            return data[position + 8 : position + length if length >= 8 else len(data)]
        if length < 8:
            break
        position += length
    raise DamagedError("its JP2 contains no codestream")


def _jpeg_2000_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns from the SIZ marker (ISO 15444-1, A.5.1); None if it is not JPEG 2000."""
    if not data.startswith(b"\xff\x4f\xff\x51") or len(data) < 50:
        return None
    width, height, left, top = struct.unpack_from(">4I", data, 8)
    return height - top, width - left


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns from the first start of frame (ISO 10918-1, B.2.2); None without one."""
    position = 2
    while data.startswith(b"\xff\xd8") and position + 9 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _START_OF_FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return height, width
        # Any number of FF bytes may come before a marker.
        if marker == 0xFF:
            position += 1
            continue
        (length,) = struct.unpack_from(">H", data, position + 2)
        position += 2 + length
    return None
