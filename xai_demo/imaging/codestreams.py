"""The headers of JPEG, JPEG-LS and JPEG 2000 codestreams, read before a decoder trusts them.

A decoder allocates whatever a codestream claims, so its size, its channels and its inner structure
are bounded here first.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Literal

Process = Literal["baseline", "extended", "progressive", "lossless", "JPEG-LS", "JPEG 2000"]

# Start-of-frame markers by the last byte: ISO 10918-1, table B.1; F7 is JPEG-LS (ISO 14495-1).
_PROCESSES: dict[int, Process] = {
    0xC0: "baseline",
    0xC1: "extended",
    0xC2: "progressive",
    0xC3: "lossless",
    0xF7: "JPEG-LS",
}
# C0 to CF are start-of-frame markers except for DHT (C4), JPG (C8) and DAC (CC).
_OTHER_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC, *_PROCESSES}
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_FRAME = "a frame header"
# In entropy-coded data FF is followed by 00 or is a restart marker; JPEG-LS stuffs a bit after it.
_NEXT_MARKER = re.compile(rb"\xff[\xc0-\xcf\xd9-\xef\xf7-\xfe]")
_JPEG_2000_MAGIC, _JP2 = b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "
# Markers of a main header: ISO 15444-1, table A.2.
_COD, _COC, _START_OF_TILE = 0xFF52, 0xFF53, 0xFF90
# A progressive JPEG decodes the whole image once more for each scan; writers use about ten.
_MAX_SCANS = 100
# Twenty scans of 100 megapixels.
_MAX_SCANNED_PIXELS = 2_000_000_000
# Code blocks and precincts that a decoder has to administer. At 64 x 64, 100 megapixels have 33,000
# blocks; at the smallest size, 4 x 4, they would have 8 million.
_MAX_BLOCKS = 1_000_000
_MAX_TILES = 65_535


class CodestreamError(ValueError):
    """The codestream is damaged or out of bounds; the message continues "its pixels ..."."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Codestream:
    """What a codestream's header says."""

    process: Process
    rows: int
    columns: int
    components: int
    bits: int  # per component; the most of them
    # Whether the stored values are signed; in JPEG 2000 only.
    signed: bool = False
    # JPEG: whether the data after the header end with the marker that ends an image.
    complete: bool = True

    @property
    def name(self) -> str:
        """The process for a message: "lossless JPEG", "JPEG 2000"."""
        return self.process if self.process.startswith("JPEG") else f"{self.process} JPEG"


def read_codestream(data: bytes) -> Codestream | None:
    """The header of a codestream; None if these bytes are not one that is known.

    Raises CodestreamError if the header is damaged or out of bounds.
    """
    try:
        if data.startswith(_JPEG_2000_MAGIC):
            return _jpeg_2000(data)
        return _jpeg(data) if data.startswith(b"\xff\xd8") else None
    except CodestreamError:
        raise
    except (struct.error, IndexError, ValueError):
        raise CodestreamError("end in the middle of a header") from None


def extract_codestream(data: bytes) -> bytes:
    """The codestream inside a JP2 file; anything else is returned unchanged.

    Raises CodestreamError if there is none.
    """
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
    raise CodestreamError("are a JP2 without a codestream")


def count_images(fragments: list[bytes]) -> int:
    """How many of the fragments begin a new image.

    >>> count_images([b"\\xff\\xd8\\xff\\xc0", b"more of it", b"\\xff\\xd8\\xff\\xc0"])
    2
    """
    starts = (b"\xff\xd8\xff", _JPEG_2000_MAGIC, _JP2)
    return sum(fragment.startswith(starts) for fragment in fragments)


def _jpeg(data: bytes) -> Codestream | None:
    """ISO 10918-1, B.2: the first frame header, then all scans up to the end."""
    position, frame, scans = 2, None, 0
    # Of a progressive image: component and coefficient of what has come with all its bits.
    final: set[tuple[int, int]] = set()
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            # Decoders skip to the next marker.
            following = data.find(b"\xff", position)
            position = len(data) if following < 0 else following
            continue
        marker = data[position + 1]
        # Any number of FF bytes may come before a marker.
        if marker == 0xFF:
            position += 1
            continue
        if marker in _OTHER_FRAMES:
            raise CodestreamError(f"are a JPEG of an unusual process (SOF{marker - 0xC0})")
        if marker in _PROCESSES and frame is None:
            bits, rows, columns, components = struct.unpack_from(">BHHB", data, position + 4)
            frame = (_PROCESSES[marker], rows, columns, components, bits)
        elif marker in _PROCESSES:
            raise CodestreamError("have two frame headers")
        if marker == _END_OF_IMAGE:
            break
        (length,) = struct.unpack_from(">H", data, position + 2)
        segment, position = data[position + 4 : position + 2 + length], position + 2 + length
        if marker == _START_OF_SCAN:
            scans += 1
            final |= _final_coefficients(segment)
            pixels = frame[1] * frame[2] if frame else 0
            if scans > _MAX_SCANS or (scans > 1 and scans * pixels > _MAX_SCANNED_PIXELS):
                raise CodestreamError(
                    f"have more than {_MAX_SCANS} scans, or scans of more than"
                    f" {_MAX_SCANNED_PIXELS / 1e6:,.0f} megapixels in all"
                )
            marker_after = _NEXT_MARKER.search(data, position)
            position = marker_after.start() if marker_after else len(data)
    if frame is None:
        return None
    process, rows, columns, components, bits = frame
    is_complete = data[position : position + 2] == b"\xff\xd9"
    if process == "progressive":
        is_complete = is_complete and len(final) >= 64 * components
    return Codestream(
        process=process,
        rows=rows,
        columns=columns,
        components=components,
        bits=bits,
        complete=is_complete,
    )


def _final_coefficients(scan: bytes) -> set[tuple[int, int]]:
    """Component and coefficient of what a scan header announces to the last bit: B.2.3."""
    count = scan[0]
    ids, (first, last, bits) = scan[1 : 1 + 2 * count : 2], scan[1 + 2 * count : 4 + 2 * count]
    # The low half is the bit that is still missing below those in the scan.
    return {(each, k) for each in ids for k in range(first, min(last, 63) + 1) if not bits & 15}


def _jpeg_2000(data: bytes) -> Codestream:
    """ISO 15444-1, A.5 and A.6: image and tile size, then the coding style of the main header."""
    right, bottom, left, top, tile_width, tile_height, tiles_left, tiles_top, components = (
        struct.unpack_from(">8IH", data, 8)
    )
    if not components:
        raise CodestreamError("have no channel")
    depths = data[42 : 42 + 3 * components : 3]
    steps = {*data[43 : 42 + 3 * components : 3], *data[44 : 42 + 3 * components : 3]}
    if steps != {1}:
        raise CodestreamError("have a channel of another size than the image")
    columns, rows = right - left, bottom - top
    if min(columns, rows, tile_width, tile_height) <= 0 or tiles_left > left or tiles_top > top:
        raise CodestreamError(f"are {columns} x {rows} in tiles of {tile_width} x {tile_height}")
    tiles = -(-(right - tiles_left) // tile_width) * -(-(bottom - tiles_top) // tile_height)
    if tiles > _MAX_TILES:
        raise CodestreamError(f"have {tiles} tiles, where {_MAX_TILES} are allowed")
    _check_coding_style(data, columns * rows, tiles)
    return Codestream(
        process="JPEG 2000",
        rows=rows,
        columns=columns,
        components=components,
        bits=max(depth & 0x7F for depth in depths) + 1,
        signed=bool(depths[0] & 0x80),
    )


def _check_coding_style(data: bytes, pixels: int, tiles: int) -> None:
    """Raise CodestreamError for more blocks or precincts in a channel than `_MAX_BLOCKS`."""
    (length,) = struct.unpack_from(">H", data, 4)
    position = 4 + length
    while position + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, position)
        if marker == _START_OF_TILE or length < 2:
            return
        if marker in (_COD, _COC):
            # COC begins with the number of the component, in one byte for up to 256 of them.
            style = data[position + 4 :] if marker == _COD else data[position + 5 :]
            at = 5 if marker == _COD else 1
            levels, block_width, block_height = style[at], style[at + 1], style[at + 2]
            width, height = 2 << (block_width & 15) + 1, 2 << (block_height & 15) + 1
            blocks = pixels // (width * height) + tiles * (3 * levels + 1)
            if style[0] & 1:
                # Each resolution has its own size of precincts, as powers of two.
                sizes = style[at + 5 : at + 6 + levels]
                smallest = min((1 << (size & 15)) * (1 << (size >> 4)) for size in sizes)
                blocks = max(blocks, pixels // smallest)
            if levels > 32 or blocks > _MAX_BLOCKS:
                raise CodestreamError(
                    f"are in about {blocks} blocks and {levels} levels, where {_MAX_BLOCKS} and 32"
                    " are allowed"
                )
        position += 2 + length
