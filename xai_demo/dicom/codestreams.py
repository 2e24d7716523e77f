"""The pixels of a DICOM file before a decoder sees them: are they as many as the header says?

A codestream carries its own size, which a decoder believes and allocates; it is compared with the
header's first. What comes out is one frame, repacked so that no offset table is trusted.
"""

from __future__ import annotations

import struct
from io import SEEK_END
from typing import TYPE_CHECKING, BinaryIO

from xai_demo.dicom.tags import DamagedError, Element

if TYPE_CHECKING:
    from pydicom.uid import UID

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
