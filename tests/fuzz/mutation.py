"""Mutates files by what they mean: sizes, depths and counts, in headers and in pixel data at once.

Random bytes are refused at the first check. So the numbers that a decoder trusts are located first,
in whatever a file contains (a DICOM file contains a JPEG 2000 codestream, for one), each with its
role. All those of one role can be changed to the same value: a bomb is consistent with itself.
"""

from __future__ import annotations

import random
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

MAX_BYTES = 1 << 18
_MOST_FIELDS = 400

_INTERESTING = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 38, 64, 127, 128, 255, 256, 1000)
_INTERESTING += (
    4096,
    10_000,
    20_000,
    32767,
    32768,
    44100,
    65535,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
)


@dataclass(frozen=True, slots=True)
class Field:
    """A number in a file; `role` is what it says: width, height, components, depth, length."""

    start: int
    size: int
    order: str  # of bytes: "<" or ">"
    role: str = "length"


def mutate(data: bytes, chance: random.Random, other: bytes = b"") -> bytes:
    """A file like `data`; pieces of `other` may appear in it. The same `chance`, the same file."""
    content = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 2, 3, 5))):
        change = chance.choice(_CHANGES)
        change(content, chance, other)
        del content[MAX_BYTES:]
    # A wrong checksum is refused before anything else is looked at.
    if chance.random() < 0.9:
        _fix_png(content)
        _fix_ogg(content)
    return bytes(content)


def fields(data: bytes | bytearray) -> list[Field]:
    """The numbers that decoders trust, wherever the signature of a structure is met."""
    found: list[Field] = []
    for signature, locate in _STRUCTURES:
        for match in signature.finditer(data):
            found += locate(data, match.start())
            if len(found) > _MOST_FIELDS:
                break
    return [each for each in found if each.start >= 0 and each.start + each.size <= len(data)]


def _set(content: bytearray, field: Field, value: int) -> None:
    value %= 1 << 8 * field.size
    order = "little" if field.order == "<" else "big"
    content[field.start : field.start + field.size] = value.to_bytes(field.size, order)


def _value(content: bytearray, field: Field) -> int:
    order = "little" if field.order == "<" else "big"
    return int.from_bytes(content[field.start : field.start + field.size], order)


def _new_value(old: int, size: int, chance: random.Random) -> int:
    kind = chance.random()
    if kind < 0.5:
        return chance.choice(_INTERESTING)
    if kind < 0.7:
        return old + chance.choice((-2, -1, 1, 2))
    if kind < 0.85:
        return old * chance.choice((2, 3, 10, 256))
    return chance.getrandbits(8 * size)


def _change_field(content: bytearray, chance: random.Random, other: bytes) -> None:
    if located := fields(content):
        field = chance.choice(located)
        _set(content, field, _new_value(_value(content, field), field.size, chance))


def _change_role(content: bytearray, chance: random.Random, other: bytes) -> None:
    """The same new value in every number of one role, as an attacker would write it."""
    located = fields(content)
    roles = sorted({field.role for field in located} - {"length"})
    if not roles:
        return
    for role in chance.sample(roles, chance.randint(1, len(roles))):
        same = [field for field in located if field.role == role]
        value = _new_value(_value(content, same[0]), same[0].size, chance)
        for field in same:
            _set(content, field, value)


def _change_bytes(content: bytearray, chance: random.Random, other: bytes) -> None:
    for _ in range(chance.choice((1, 1, 4, 16)) if content else 0):
        content[chance.randrange(len(content))] = chance.getrandbits(8)


def _change_text(content: bytearray, chance: random.Random, other: bytes) -> None:
    """Another number where digits stand, as in decimal strings, annotations and JSON."""
    numbers = [*re.finditer(rb"-?[0-9][0-9.,eE+-]*", bytes(content[: 1 << 16]))]
    if numbers:
        texts = (b"0", b"-1", b"1e308", b"1e999", b"nan", b"inf", b"2,5", b"9" * 40, b"", b"0x10")
        start, end = chance.choice(numbers).span()
        content[start:end] = chance.choice(texts)


def _cut(content: bytearray, chance: random.Random, other: bytes) -> None:
    del content[chance.randrange(len(content) + 1) :]


def _delete(content: bytearray, chance: random.Random, other: bytes) -> None:
    start = chance.randrange(len(content) + 1)
    del content[start : start + chance.choice((1, 2, 4, 16, 256))]


def _repeat(content: bytearray, chance: random.Random, other: bytes) -> None:
    start = chance.randrange(len(content) + 1)
    piece = bytes(content[start : start + chance.choice((1, 4, 12, 64, 1024))])
    content[start:start] = piece * chance.choice((1, 2, 50))


def _splice(content: bytearray, chance: random.Random, other: bytes) -> None:
    start, at = chance.randrange(len(other) + 1), chance.randrange(len(content) + 1)
    piece = other[start : start + chance.choice((4, 16, 256, 4096))]
    content[at : at + chance.choice((0, len(piece)))] = piece


_CHANGES: tuple[Callable[[bytearray, random.Random, bytes], None], ...] = (
    _change_field,
    _change_field,
    _change_field,
    _change_role,
    _change_role,
    _change_bytes,
    _change_bytes,
    _change_text,
    _cut,
    _delete,
    _repeat,
    _splice,
)


# Where the numbers are, by structure


def _riff(data: bytes | bytearray, at: int) -> Iterator[Field]:
    order = ">" if data[at : at + 4] in (b"RIFX", b"FORM") else "<"
    yield Field(at + 4, 4, order)
    position = at + 12
    for _ in range(30):
        yield Field(position + 4, 4, order)
        (size,) = struct.unpack_from(f"{order}I", bytes(data[position + 4 : position + 8]).ljust(4))
        if data[position : position + 4] == b"fmt ":
            for offset, width, role in (
                (8, 2, "codec"),
                (10, 2, "components"),
                (12, 4, "rate"),
                (16, 4, "length"),
                (20, 2, "length"),
                (22, 2, "depth"),
            ):
                yield Field(position + offset, width, order, role)
        if data[position : position + 4] == b"COMM":
            for offset, width, role in ((8, 2, "components"), (10, 4, "length"), (14, 2, "depth")):
                yield Field(position + offset, width, order, role)
            yield Field(position + 16, 2, order, "rate")
        position += 8 + size + size % 2
        if position >= len(data):
            return


def _webp(data: bytes | bytearray, at: int) -> Iterator[Field]:
    yield from _riff(data, at)
    # VP8X: flags, reserved, canvas width and height less one; VP8: at 14 bytes into its chunk.
    yield Field(at + 20, 1, "<", "codec")
    yield Field(at + 24, 3, "<", "width")
    yield Field(at + 27, 3, "<", "height")
    yield Field(at + 26, 2, "<", "width")
    yield Field(at + 28, 2, "<", "height")
    yield Field(at + 21, 4, "<", "width")


def _flac(data: bytes | bytearray, at: int) -> Iterator[Field]:
    yield Field(at + 5, 3, ">")
    yield Field(at + 8, 2, ">")
    yield Field(at + 10, 2, ">")
    yield Field(at + 18, 3, ">", "rate")
    yield Field(at + 20, 2, ">", "components")
    yield Field(at + 22, 4, ">")


def _ogg(data: bytes | bytearray, at: int) -> Iterator[Field]:
    yield Field(at + 5, 1, "<", "codec")
    yield Field(at + 6, 8, "<")
    yield Field(at + 14, 4, "<")
    yield Field(at + 18, 4, "<")
    yield Field(at + 26, 1, "<")
    start = at + 27 + (data[at + 26] if at + 26 < len(data) else 0)
    if data[start : start + 7] == b"\x01vorbis":
        yield Field(start + 11, 1, "<", "components")
        yield Field(start + 12, 4, "<", "rate")
        yield Field(start + 28, 1, "<")
    if data[start : start + 8] == b"OpusHead":
        yield Field(start + 9, 1, "<", "components")
        yield Field(start + 10, 2, "<")
        yield Field(start + 12, 4, "<", "rate")
        yield Field(start + 16, 2, "<")
        yield Field(start + 18, 1, "<", "codec")


def _mp4(data: bytes | bytearray, at: int) -> Iterator[Field]:
    # `at` is where the type of a box stands, behind its size.
    yield Field(at - 4, 4, ">")
    kind = bytes(data[at : at + 4])
    if kind in (b"stsz", b"stts", b"stsc", b"stco", b"elst"):
        for offset in (8, 12, 16, 20):
            yield Field(at + offset, 4, ">")
    if kind in (b"mdhd", b"mvhd"):
        yield Field(at + 16, 4, ">", "rate")
        yield Field(at + 20, 4, ">")
    if kind in (b"mp4a", b"samr"):
        yield Field(at + 20, 2, ">", "components")
        yield Field(at + 22, 2, ">", "depth")
        yield Field(at + 28, 4, ">", "rate")


def _ebml(data: bytes | bytearray, at: int) -> Iterator[Field]:
    for match in re.finditer(
        rb"\x18\x53\x80\x67|\x16\x54\xae\x6b|\x1f\x43\xb6\x75|\xa3|\xe1",
        bytes(data[at : at + 4000]),
    ):
        yield Field(at + match.end(), 1, ">")
        yield Field(at + match.end() + 1, 2, ">", "rate")
    for match in re.finditer(rb"\xb5\x88|\x9f\x81|\x62\x64\x81", bytes(data[at : at + 4000])):
        yield Field(at + match.end(), 1, ">", "components")


def _mpeg(data: bytes | bytearray, at: int) -> Iterator[Field]:
    yield Field(at + 1, 1, ">", "codec")
    yield Field(at + 2, 1, ">", "rate")
    yield Field(at + 3, 1, ">", "components")


def _id3(data: bytes | bytearray, at: int) -> Iterator[Field]:
    yield Field(at + 3, 2, ">")
    yield Field(at + 5, 1, ">")
    yield Field(at + 6, 4, ">")


def _png(data: bytes | bytearray, at: int) -> Iterator[Field]:
    yield Field(at + 16, 4, ">", "width")
    yield Field(at + 20, 4, ">", "height")
    yield Field(at + 24, 1, ">", "depth")
    yield Field(at + 25, 1, ">", "components")
    yield Field(at + 28, 1, ">", "codec")
    position = at + 8
    for _ in range(20):
        yield Field(position, 4, ">")
        position += 12 + int.from_bytes(data[position : position + 4], "big")
        if position >= len(data):
            return


def _jpeg_frame(data: bytes | bytearray, at: int) -> Iterator[Field]:
    yield Field(at + 1, 1, ">", "codec")
    yield Field(at + 2, 2, ">")
    yield Field(at + 4, 1, ">", "depth")
    yield Field(at + 5, 2, ">", "height")
    yield Field(at + 7, 2, ">", "width")
    yield Field(at + 9, 1, ">", "components")
    yield Field(at + 11, 1, ">", "sampling")


def _jpeg_segment(data: bytes | bytearray, at: int) -> Iterator[Field]:
    yield Field(at + 2, 2, ">")
    yield Field(at + 4, 1, ">")
    yield Field(at + 5, 1, ">")


def _jpeg_2000(data: bytes | bytearray, at: int) -> Iterator[Field]:
    # SIZ: Xsiz, Ysiz, XOsiz, YOsiz, XTsiz, YTsiz, XTOsiz, YTOsiz, Csiz, then Ssiz, XRsiz, YRsiz.
    yield Field(at + 2, 2, ">")
    for i, role in enumerate(
        ("width", "height", "offset", "offset", "width", "height", "offset", "offset")
    ):
        yield Field(at + 6 + 4 * i, 4, ">", role)
    yield Field(at + 38, 2, ">", "components")
    for offset, role in ((40, "depth"), (41, "sampling"), (42, "sampling")):
        yield Field(at + offset, 1, ">", role)


def _jpeg_2000_coding(data: bytes | bytearray, at: int) -> Iterator[Field]:
    yield Field(at + 6, 2, ">", "layers")
    yield Field(at + 9, 1, ">", "levels")
    yield Field(at + 10, 1, ">", "blocks")
    yield Field(at + 11, 1, ">", "blocks")


def _tiff(data: bytes | bytearray, at: int) -> Iterator[Field]:
    order = "<" if data[at : at + 2] == b"II" else ">"
    wide = data[at + 2 : at + 4] in (b"+\0", b"\0+")
    size, count_size = (20, 8) if wide else (12, 2)
    first = Field(at + 8, 8, order) if wide else Field(at + 4, 4, order)
    yield first
    start = at + _value(bytearray(data), first)
    roles = {256: "width", 257: "height", 258: "depth", 277: "components", 259: "codec"}
    yield Field(start, count_size, order)
    count = int.from_bytes(data[start : start + count_size], "little" if order == "<" else "big")
    for i in range(min(count, 40)):
        entry = start + count_size + size * i
        if entry + size > len(data):
            return
        (tag,) = struct.unpack_from(f"{order}H", data, entry)
        yield Field(entry, 2, order, "tag")
        yield Field(entry + 2, 2, order, "type")
        yield Field(entry + 4, 8 if wide else 4, order)
        yield Field(entry + (12 if wide else 8), 2, order, roles.get(tag, "value"))
        yield Field(entry + (12 if wide else 8), 8 if wide else 4, order)
    yield Field(start + count_size + size * count, 8 if wide else 4, order)


def _bmp(data: bytes | bytearray, at: int) -> Iterator[Field]:
    if at:
        return
    for offset, size, role in (
        (10, 4, "length"),
        (14, 4, "length"),
        (18, 4, "width"),
        (22, 4, "height"),
        (28, 2, "depth"),
        (30, 4, "codec"),
        (46, 4, "length"),
    ):
        yield Field(offset, size, "<", role)


_DICOM_ROLES = {
    b"\x28\0\x10\0": "height",
    b"\x28\0\x11\0": "width",
    b"\x28\0\x02\0": "components",
    b"\x28\0\x00\1": "depth",
    b"\x28\0\x01\1": "depth",
    b"\x28\0\x02\1": "depth",
    b"\x28\0\x03\1": "sign",
    b"\x28\0\x20\1": "padding",
    b"\x28\0\x02\x30": "descriptor",
}


def _dicom(data: bytes | bytearray, at: int) -> Iterator[Field]:
    """An element of the image's groups; the rest of the file is of no interest."""
    for order in "<>":
        tag = bytes(data[at : at + 4])
        tag = tag if order == "<" else tag[1::-1] + tag[3:1:-1]
        if tag not in _DICOM_ROLES and tag not in (b"\x28\0\x10\x30", b"\xe0\x7f\x10\0"):
            continue
        is_explicit = data[at + 4 : at + 6].isalpha()
        yield Field(at + 6, 2, order) if is_explicit else Field(at + 4, 4, order)
        if data[at + 4 : at + 6] in (b"OW", b"OB", b"SQ", b"UN"):
            yield Field(at + 8, 4, order)
        if role := _DICOM_ROLES.get(tag):
            yield Field(at + 8, 2, order, role)


def _dicom_item(data: bytes | bytearray, at: int) -> Iterator[Field]:
    yield Field(at, 4, "<", "tag")
    yield Field(at + 4, 4, "<")


def _rle(data: bytes | bytearray, at: int) -> Iterator[Field]:
    # An item whose first number is a count of segments, and behind it their positions.
    if 0 < data[at + 8 : at + 9][0:1].ljust(1)[0] < 16:
        for i in range(4):
            yield Field(at + 8 + 4 * i, 4, "<")


def _zip(data: bytes | bytearray, at: int) -> Iterator[Field]:
    for offset in (8, 10, 14, 18, 20, 22, 24, 26, 28, 42):
        yield Field(at + offset, 4 if offset in (14, 18, 20, 22, 24, 42) else 2, "<")


def _safetensors(data: bytes | bytearray, at: int) -> Iterator[Field]:
    if at == 8:
        yield Field(0, 8, "<")


Locate = Callable[[bytes | bytearray, int], Iterator[Field]]
_STRUCTURES: tuple[tuple[re.Pattern[bytes], Locate], ...] = tuple(
    (re.compile(pattern, re.DOTALL), locate)
    for pattern, locate in (
        (rb"RIFF....WAVE|RF64....WAVE|RIFX....WAVE|FORM....AIF[FC]", _riff),
        (rb"RIFF....WEBP", _webp),
        (rb"fLaC", _flac),
        (rb"OggS", _ogg),
        (rb"moov|mdat|ftyp|trak|mdhd|mvhd|stsd|stsz|stts|stsc|stco|esds|mp4a|samr|elst|moof", _mp4),
        (rb"\x1a\x45\xdf\xa3", _ebml),
        (rb"^\xff[\xe2-\xff]|\xff[\xfb\xf3\xfa\xf2]", _mpeg),
        (rb"ID3", _id3),
        (rb"\x89PNG\r\n\x1a\n", _png),
        (rb"\xff[\xc0-\xc3\xf7]\0[\x08-\x20]", _jpeg_frame),
        (rb"\xff[\xc4\xda\xdb\xdd\xe0-\xef\xf8]", _jpeg_segment),
        (rb"\xff\x51\0", _jpeg_2000),
        (rb"\xff\x52\0", _jpeg_2000_coding),
        (rb"II[*+]\0|MM\0[*+]", _tiff),
        (rb"^BM", _bmp),
        (rb"\x28\0[\x02\x10\x11\x00\x01\x03\x20].|\xe0\x7f\x10\0", _dicom),
        # Zeros come before little-endian tags as well.
        (rb"(?=\0\x28[\0\x01\x30].|\x7f\xe0\0\x10)", _dicom),
        (rb"\xfe\xff[\x00\x0d\xdd]\xe0", _dicom_item),
        (rb"\xfe\xff\0\xe0.{4}[\x01-\x03]\0\0\0", _rle),
        (rb"PK\x01\x02|PK\x03\x04|PK\x05\x06", _zip),
        (rb"\{", _safetensors),
    )
)


# Checksums


def _fix_png(content: bytearray) -> None:
    start = content.find(b"\x89PNG\r\n\x1a\n")
    position = start + 8
    while start >= 0 and position + 12 <= len(content):
        size = int.from_bytes(content[position : position + 4], "big")
        end = position + 8 + size
        if end + 4 > len(content):
            return
        content[end : end + 4] = struct.pack(">I", zlib.crc32(content[position + 4 : end]))
        position = end + 4


def _fix_ogg(content: bytearray) -> None:
    """Checksums of pages, RFC 3533: polynomial 0x04C11DB7, the field itself taken as zero."""
    position = content.find(b"OggS")
    while position >= 0 and position + 27 <= len(content):
        table = position + 27 + content[position + 26]
        end = table + sum(content[position + 27 : table])
        if end > len(content):
            return
        content[position + 22 : position + 26] = bytes(4)
        value = 0
        for byte in content[position:end]:
            value = (value << 8 & 0xFFFFFFFF) ^ _OGG_TABLE[value >> 24 ^ byte]
        content[position + 22 : position + 26] = struct.pack("<I", value)
        position = content.find(b"OggS", end)


def _ogg_entry(value: int) -> int:
    value <<= 24
    for _ in range(8):
        value = value << 1 ^ (0x04C11DB7 if value & 0x80000000 else 0)
    return value & 0xFFFFFFFF


_OGG_TABLE = tuple(_ogg_entry(byte) for byte in range(256))
