"""The only frame of a DICOM file: found among the fragments, checked against the header, decoded.

What the bytes are decides how they are decoded; the declared transfer syntax only says how the
dataset is encoded. The frame is handed to a decoder by itself, so that no offset table is trusted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from xai_demo.imaging.codestreams import (
    Codestream,
    CodestreamError,
    Process,
    count_images,
    extract_codestream,
    read_codestream,
)
from xai_demo.imaging.dicom import gdcm_decoder
from xai_demo.imaging.dicom.header import BIG_ENDIAN, EXPECTED_FILE, Header
from xai_demo.imaging.dicom.tags import DamagedError, Element
from xai_demo.imaging.dicom.values import refusal, swap_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydicom.uid import UID

    Stored = NDArray[Any]

RLE = "1.2.840.10008.1.2.5"
# The transfer syntaxes of each process, the first for files that declare another: PS3.5, A.4.
_JPEG_SYNTAX = "1.2.840.10008.1.2.4."
SYNTAXES: dict[Process, tuple[str, ...]] = {
    "baseline": (f"{_JPEG_SYNTAX}50", f"{_JPEG_SYNTAX}51"),
    "extended": (f"{_JPEG_SYNTAX}51",),
    "progressive": (f"{_JPEG_SYNTAX}51", f"{_JPEG_SYNTAX}50"),
    "lossless": (f"{_JPEG_SYNTAX}57", f"{_JPEG_SYNTAX}70"),
    "JPEG-LS": (f"{_JPEG_SYNTAX}81", f"{_JPEG_SYNTAX}80"),
    "JPEG 2000": tuple(f"{_JPEG_SYNTAX}{ending}" for ending in (91, 90, 201, 202, 203)),
}
_READABLE = "uncompressed pixels, RLE, JPEG, JPEG-LS or JPEG 2000"
# Tags FFFE,E000 and FFFE,E0DD in little-endian byte order: PS3.5, A.4.
_ITEM = b"\xfe\xff\x00\xe0"
_MAX_FRAGMENTS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The bytes of the only frame: a codestream, or little-endian pixels."""

    data: bytes
    codestream: Codestream | None = None  # None: pixels
    note: str = ""  # what a person should know; "" if nothing


def read_frame(file: BinaryIO, header: Header, name: str) -> Frame:
    """The only frame of a file, with RLE unpacked and its size compared with the header's.

    Raises UnreadableFileError if its compression is not supported or it is not as declared.
    """
    try:
        return _read_frame(file, header, name)
    except (DamagedError, CodestreamError) as error:
        subject = "its pixels " if isinstance(error, CodestreamError) else ""
        reason = f"{subject}{error}"
    raise refusal(name, f"cannot be decoded as DICOM: {reason}", "a complete file")


def decode_frame(frame: Frame, header: Header, name: str) -> tuple[Stored, int, str]:
    """The stored values, (rows, columns), how many of their bits are used, and a note.

    The values of native pixels still have the overlay bits above or below those that are used.
    Raises UnreadableFileError if they cannot be decoded.
    """
    shape = header.rows, header.columns
    codestream = frame.codestream
    if codestream is None:
        kind = np.dtype("u1" if header.allocated == 8 else "<u2")
        return np.frombuffer(frame.data, kind).reshape(shape), header.bits, frame.note
    process, missing, values = codestream.name, "", None
    try:
        values = _DECODERS[codestream.process](frame.data, codestream).reshape(shape)
    except ImportError as error:
        missing = (error.name or "for it").partition(".")[0]
    # Codecs raise almost anything. Their messages may quote the file, so they are not passed on.
    except Exception:
        values = None
    if missing:
        problem = f"is compressed as {process}, whose decoder {missing} is not installed"
        raise refusal(name, problem, _READABLE)
    if values is None:
        problem = f"its pixels, {process}, are damaged or of an unusual kind"
        raise refusal(name, f"cannot be decoded as DICOM: {problem}", "a complete file")
    note = frame.note
    if not process.startswith("JPEG"):
        note = note or missing_rows_note(values, 1 << codestream.bits - 1)
    return values, codestream.bits, note


def missing_rows_note(values: Stored, fill: float) -> str:
    """A warning if the lowest rows, (rows, columns), all have the value that fills a lost end.

    A JPEG decoder continues with the middle grey where data are missing, and tells nobody.
    """
    rows = len(values)
    lost = 0
    while lost < rows and np.allclose(values[rows - 1 - lost], fill, rtol=0, atol=1e-4):
        lost += 1
    # JPEG has blocks of eight rows. An image of a single grey has a warning of its own.
    if lost < 8 or lost == rows:
        return ""
    return (
        f"The lowest {100 * lost / rows:.0f} % of the image are one even grey: the file has"
        " probably lost its end."
    )


def _read_frame(file: BinaryIO, header: Header, name: str) -> Frame:
    from pydicom.uid import UID

    syntax, pixels = UID(header.syntax), header.pixels
    if not (syntax.is_valid and syntax.is_transfer_syntax):
        raise refusal(name, "has an unknown transfer syntax", _READABLE)
    size = file.seek(0, SEEK_END)
    file.seek(pixels.start)
    # Whether there are fragments is seen in the bytes, as some files declare the other.
    is_encapsulated = pixels.length is None or (syntax.is_encapsulated and file.read(4) == _ITEM)
    if not is_encapsulated:
        return _native_frame(file, header, size)
    fragments = _read_fragments(file, pixels, size)
    images = count_images(fragments)
    if images > 1:
        raise refusal(name, f"contains {images} frames, although it declares one", EXPECTED_FILE)
    data = b"".join(fragments)
    del fragments
    data = extract_codestream(data)
    codestream = read_codestream(data)
    if codestream is None:
        planes = header.allocated // 8
        if header.syntax == RLE or _is_rle(data, planes):
            return Frame(data=_decode_rle(data, header.rows * header.columns, planes))
        if _is_jpeg_family(syntax):
            raise CodestreamError(f"are not {syntax.name} as declared")
        problem = f"is compressed as {syntax.name}, which is not supported"
        if not syntax.is_encapsulated:
            problem = "has compressed pixels of an unknown kind"
        raise refusal(name, problem, _READABLE)
    _check_codestream(codestream, header, name)
    return Frame(data=data, codestream=codestream)


def _is_rle(data: bytes, planes: int) -> bool:
    """Whether these bytes begin like RLE: the segments, and where the first one is (PS3.5, G.5)."""
    return data.startswith(struct.pack("<II", planes, 64))


def _is_jpeg_family(syntax: UID) -> bool:
    return any(syntax in syntaxes for syntaxes in SYNTAXES.values())


def _check_codestream(codestream: Codestream, header: Header, name: str) -> None:
    """Refuse a codestream that is not the one grey image of the size that the header declares."""
    process = codestream.name
    if (codestream.rows, codestream.columns) != (header.rows, header.columns):
        raise DamagedError(
            f"its header declares {header.columns} x {header.rows} pixels, but its {process}"
            f" contains {codestream.columns} x {codestream.rows}"
        )
    if codestream.components != 1:
        problem = f"has {codestream.components} channels in its {process} pixels"
        raise refusal(name, problem, "one grey channel")
    if not 2 <= codestream.bits <= 16:
        raise refusal(name, f"has {codestream.bits} bits in its {process}", "2 to 16 bits")
    if not codestream.complete:
        raise CodestreamError(f"({process}) break off before the end of the image")


def _native_frame(file: BinaryIO, header: Header, size: int) -> Frame:
    pixels = header.pixels
    needed = header.rows * header.columns * header.allocated // 8
    available = size - pixels.start if pixels.length is None else pixels.length
    if available < needed:
        raise DamagedError(
            f"its header declares {header.columns} x {header.rows} pixels of"
            f" {header.allocated} bits ({needed} bytes), but there are only {available} bytes"
        )
    file.seek(pixels.start)
    is_swapped = header.syntax == BIG_ENDIAN and (header.allocated == 16 or pixels.vr == b"OW")
    # Of 8-bit pixels in words the last may lie in the byte after the last.
    data = file.read(min(available, needed + needed % 2) if is_swapped else needed)
    note = ""
    if available >= 2 * needed:
        note = (
            f"The file holds {available // needed} times the pixels that it declares: only the"
            " first are shown."
        )
    return Frame(data=swap_bytes(data)[:needed] if is_swapped else data, note=note)


def _read_fragments(file: BinaryIO, pixels: Element, size: int) -> list[bytes]:
    """The fragments of encapsulated pixels, without the offset table in the first item."""
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
    else:
        raise DamagedError(f"its pixels are in more than {_MAX_FRAGMENTS} fragments")
    if len(items) < 2:
        raise DamagedError("its compressed pixels have no fragment")
    return items[1:]


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


def _decode_jpeg(data: bytes, codestream: Codestream) -> Stored:
    if codestream.bits > 8:
        return _decode_jpeg_of_many_bits(data, codestream)
    from PIL.JpegImagePlugin import JpegImageFile

    with JpegImageFile(BytesIO(data)) as image:
        return np.asarray(image)


def _decode_jpeg_of_many_bits(data: bytes, codestream: Codestream) -> Stored:
    """JPEG of 12 bits, and lossless JPEG."""
    pixels = gdcm_decoder.decode(
        data,
        rows=codestream.rows,
        columns=codestream.columns,
        bits=codestream.bits,
        syntax=SYNTAXES[codestream.process][0],
    )
    return np.frombuffer(pixels, np.uint8 if codestream.bits <= 8 else "<u2")


def _decode_jpeg_ls(data: bytes, codestream: Codestream) -> Stored:
    import jpeg_ls

    decoded, _ = jpeg_ls.decode_pixel_data(data)
    return np.frombuffer(decoded, np.uint8 if codestream.bits <= 8 else "<u2")


def _decode_jpeg_2000(data: bytes, codestream: Codestream) -> Stored:
    from openjpeg.utils import decode

    kind = f"{'i' if codestream.signed else 'u'}{1 if codestream.bits <= 8 else 2}"
    values: Stored = decode(data, 0, reshape=False).view(f"<{kind}")
    return values


_DECODERS: dict[Process, Callable[[bytes, Codestream], Stored]] = {
    "baseline": _decode_jpeg,
    "extended": _decode_jpeg,
    "progressive": _decode_jpeg,
    "lossless": _decode_jpeg_of_many_bits,
    "JPEG-LS": _decode_jpeg_ls,
    "JPEG 2000": _decode_jpeg_2000,
}
