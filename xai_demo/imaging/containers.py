"""The structure of PNG, TIFF, WebP and EXIF, checked and read before Pillow is handed the file.

Pillow allocates whatever a directory claims to hold and inflates what a chunk is packed into, so
both are bounded here first. Of TIFF's pages the one to show is chosen, of EXIF only the orientation
is read.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from typing import Any, BinaryIO

_MAX_DIRECTORIES = 1000
# Bytes per value, by the TIFF field type; 16 to 18 are BigTIFF's.
_TIFF_BYTES = {
    1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
    16: 8, 17: 8, 18: 8,
}  # fmt: skip
# struct's letter for the types of whole numbers.
_TIFF_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
# Tags that point to further directories: EXIF, GPS and interoperability.
_TIFF_POINTERS = (0x8769, 0x8825, 0xA005)
_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _WIDTH, _HEIGHT = 254, 255, 256, 257
_ORIENTATION, _TILE_WIDTH, _TILE_HEIGHT, _SUB_IMAGES = 274, 322, 323, 330
# A page that another exceeds this many times in area is a thumbnail.
_THUMBNAIL_FACTOR = 8
_BIG_TIFF = 43
# A tile may reach beyond the image, but a reader allocates all of it.
_MAX_TILE_PIXELS = 1 << 24

_PNG_CHUNK_KINDS = (b"zTXt", b"iTXt", b"iCCP")
# Pillow's own limit for one chunk.
_MAX_INFLATED_CHUNK = 1 << 20
_MAX_CHUNKS = 10_000
# Columns and rows of the seven passes: first, step; PNG, 8.2.
_ADAM7 = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2),
          (0, 1, 1, 2))  # fmt: skip
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

_XMP_ORIENTATION = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])\b""")
_MAX_PROFILE_CHARACTERS = 1 << 18


class ContainerError(ValueError):
    """The file is damaged or out of bounds; the message continues "cannot be decoded: it ..."."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TiffPage:
    """One image of a TIFF."""

    position: int  # of its directory
    width: int
    height: int
    # Whether it is a smaller version, or a mask, of another page.
    is_auxiliary: bool

    @property
    def area(self) -> int:
        """Its number of pixels."""
        return self.width * self.height


def read_tiff_pages(file: BinaryIO) -> tuple[TiffPage, ...]:
    """The images of a TIFF or BigTIFF in their order, those in sub-directories after their page.

    Raises ContainerError for cyclic directories, and for more data than the file has: Pillow would
    read everything that the directories point at, however often.
    """
    file.seek(0)
    if file.read(4) == b"MM\0+":
        # Pillow takes it for an ordinary TIFF and looks for the directory in the wrong place.
        raise ContainerError("is a BigTIFF in big-endian; save it in little-endian")
    directories = _TiffDirectories(file)
    pages: list[TiffPage] = []
    positions = [directories.first]
    while positions:
        position = positions.pop()
        tags, images, following = directories.read(position)
        tile = tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_HEIGHT, 0)
        if tile > _MAX_TILE_PIXELS:
            raise ContainerError(
                f"has tiles of {tile / 1e6:.3g} megapixels, where at most"
                f" {_MAX_TILE_PIXELS / 1e6:.3g} are allowed"
            )
        # Bit 0: a reduced version, bit 2: a mask. The older tag has numbers, of which 2 is reduced.
        is_auxiliary = bool(tags.get(_NEW_SUBFILE_TYPE, 0) & 5) or tags.get(_SUBFILE_TYPE) == 2
        page = TiffPage(
            position=position,
            width=tags.get(_WIDTH, 0),
            height=tags.get(_HEIGHT, 0),
            is_auxiliary=is_auxiliary,
        )
        pages.append(page)
        positions += [each for each in (following, *reversed(images)) if each]
    return tuple(pages)


def choose_page(pages: tuple[TiffPage, ...]) -> tuple[TiffPage, int]:
    """The page to show, and how many there are that might have been meant.

    The first that is whole; a thumbnail before it is left out even if it is not marked as one.
    """
    largest = max(pages, key=lambda page: page.area)
    whole = [page for page in pages if not page.is_auxiliary]
    # Some writers mark every page as reduced.
    if not whole:
        return largest, 1
    first = whole[0]
    return (largest if first.area * _THUMBNAIL_FACTOR < largest.area else first), len(whole)


def tiff_from_page(file: BinaryIO, page: TiffPage) -> BinaryIO:
    """The file with this page as its first, as a copy in memory unless it is the first already."""
    file.seek(0)
    order, is_big, first = _directory_start(file.read(16))
    file.seek(0)
    if page.position == first:
        return file
    content = bytearray(file.read())
    struct.pack_into(f"{order}{'Q' if is_big else 'I'}", content, 8 if is_big else 4, page.position)
    return BytesIO(content)


class _TiffDirectories:
    """Reads directories one by one, each once, and adds up what they claim to hold."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file, file.seek(0, SEEK_END)
        file.seek(0)
        try:
            self._order, self._is_big, self.first = _directory_start(file.read(16))
        except struct.error:
            raise ContainerError("is truncated") from None
        self._visited: set[int] = set()
        self._claimed_bytes = 0

    def read(self, position: int) -> tuple[dict[int, int], list[int], int]:
        """The values of the tags with one whole number, its sub-images, and the next directory."""
        tags, pointers, images, following = self._read(position)
        # Those of EXIF are read by Pillow as well.
        for pointer in pointers:
            # Several pages may share one.
            if pointer not in self._visited:
                pointers += self._read(pointer)[1]
        return tags, images, following

    def _read(self, position: int) -> tuple[dict[int, int], list[int], list[int], int]:
        if position in self._visited:
            raise ContainerError("is damaged: its directories point at each other")
        if len(self._visited) >= _MAX_DIRECTORIES:
            raise ContainerError(f"has more than {_MAX_DIRECTORIES} pages and directories")
        self._visited.add(position)
        count_layout, layout, value_bytes = ("Q", "HHQ8s", 8) if self._is_big else ("H", "HHI4s", 4)
        (entries,) = self._unpack(count_layout, position)
        entry_bytes = struct.calcsize(f"{self._order}{layout}")
        if entries * entry_bytes > self._size:
            raise ContainerError(f"has a directory of {entries} entries, more than it can hold")
        directory = self._file.read(entry_bytes * entries)
        following = self._file.read(value_bytes)
        tags, pointers, images = dict[int, int](), list[int](), list[int]()
        whole = len(directory) // entry_bytes * entry_bytes
        for tag, kind, count, value in struct.iter_unpack(
            f"{self._order}{layout}", directory[:whole]
        ):
            self._claimed_bytes += count * _TIFF_BYTES.get(kind, 0)
            numbers = self._numbers(tag, kind, count, value)
            tags.update((tag, number) for number in numbers[:1])
            pointers += numbers if tag in _TIFF_POINTERS else []
            images += numbers if tag == _SUB_IMAGES else []
        # Values may legitimately be shared, but not to several times the size of the file.
        if self._claimed_bytes > 2 * self._size:
            raise ContainerError("is damaged: its directories claim more than the file holds")
        if len(following) < value_bytes:
            return tags, pointers, images, 0
        return tags, pointers, images, int.from_bytes(following, self._byte_order)

    def _numbers(self, tag: int, kind: int, count: int, value: bytes) -> list[int]:
        """The whole numbers in an entry; of tags with many, only the positions of sub-images."""
        letter = _TIFF_INTEGERS.get(kind)
        if not letter or not count:
            return []
        # Compared as numbers, since a layout of this many would overflow.
        if count * _TIFF_BYTES[kind] <= len(value):
            return [*struct.unpack_from(f"{self._order}{count}{letter}", value)]
        if tag != _SUB_IMAGES or count > _MAX_DIRECTORIES:
            return []
        return [*self._unpack(f"{count}{letter}", int.from_bytes(value, self._byte_order))]

    @property
    def _byte_order(self) -> Any:
        return "little" if self._order == "<" else "big"

    def _unpack(self, layout: str, position: int) -> tuple[Any, ...]:
        # A BigTIFF may name a position that no system can seek.
        self._file.seek(min(position, self._size))
        data = self._file.read(struct.calcsize(f"{self._order}{layout}"))
        try:
            return struct.unpack(f"{self._order}{layout}", data)
        except struct.error:
            raise ContainerError(f"is truncated: it has no byte {position}") from None


def _directory_start(head: bytes) -> tuple[str, bool, int]:
    """The byte order of a TIFF, whether it is a BigTIFF, and the position of its first directory.

    Raises struct.error if there are not enough bytes.
    """
    order = "<" if head.startswith(b"II") else ">"
    (version,) = struct.unpack_from(f"{order}H", head, 2)
    is_big = version == _BIG_TIFF
    position = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", head, 8 if is_big else 4)[0]
    return order, is_big, position


def webp_size(head: bytes) -> tuple[int, int] | None:
    """Width and height from the first 30 bytes of a WebP; None if they do not show it.

    Pillow allocates two canvases of that size as soon as it opens the file.
    """
    if len(head) < 30:
        return None
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def check_png(file: BinaryIO) -> None:
    """Raise ContainerError for too many chunks, or one that inflates to more than 1 MB."""
    for count, (kind, start, length) in enumerate(_png_chunks(file)):
        if count > _MAX_CHUNKS:
            raise ContainerError(f"has more than {_MAX_CHUNKS} chunks beside those of its pixels")
        if kind not in _PNG_CHUNK_KINDS:
            continue
        file.seek(start)
        # A keyword, a zero, and one byte or more before the data.
        data = file.read(min(length, _MAX_INFLATED_CHUNK)).partition(b"\0")[2]
        if kind == b"iTXt":
            # Compression flag and method, then language and translated keyword: PNG, 11.3.4.5.
            data = data[1:2] + b"".join(data[2:].split(b"\0", 2)[2:]) if data[:1] == b"\1" else b""
        try:
            inflated = zlib.decompressobj().decompress(data[1:], _MAX_INFLATED_CHUNK + 1)
        except zlib.error:
            continue
        if len(inflated) > _MAX_INFLATED_CHUNK:
            name = kind.decode()
            raise ContainerError(f"has a {name} chunk that inflates to more than 1 MB")


def png_is_complete(file: BinaryIO) -> bool:
    """Whether the pixels of a PNG inflate to as many bytes as its header declares.

    Pillow leaves the rows that are missing black, and tells nobody.
    """
    expected, inflated, inflater = 0, 0, zlib.decompressobj()
    for kind, start, length in _png_chunks(file, with_pixels=True):
        if kind == b"IHDR":
            file.seek(start)
            expected = _png_bytes(file.read(13))
        if kind != b"IDAT":
            continue
        file.seek(start)
        data = file.read(length)
        while data and inflated < expected:
            inflated += len(inflater.decompress(data, 1 << 20))
            data = inflater.unconsumed_tail
        if inflated >= expected or inflater.eof:
            break
    return inflated >= expected


def _png_bytes(header: bytes) -> int:
    """How many bytes the rows have, with the filter byte of each."""
    width, height, bits, colour, _, _, interlace = struct.unpack(">IIBBBBB", header)
    passes = _ADAM7 if interlace else ((0, 1, 0, 1),)
    total = 0
    for left, step_x, top, step_y in passes:
        columns, rows = -(-(width - left) // step_x), -(-(height - top) // step_y)
        if columns > 0 and rows > 0:
            total += rows * (1 + -(-columns * bits * _PNG_CHANNELS.get(colour, 1) // 8))
    return total


def _png_chunks(file: BinaryIO, *, with_pixels: bool = False) -> Iterator[tuple[bytes, int, int]]:
    """The kind, the start of the data and the length of every chunk."""
    position = 8
    while True:
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        if with_pixels or kind != b"IDAT":
            yield kind, position + 8, length
        if kind == b"IEND":
            return
        position += 12 + length


def read_orientation(info: Mapping[Any, Any]) -> int:
    """The EXIF orientation in Pillow's `info` of an image, 1 to 8; 1 if there is none.

    Looked for where viewers find it: the EXIF block, the profiles that ImageMagick and ExifTool
    write into a PNG, and XMP.
    """
    blocks = (
        info.get("exif"),
        *map(
            _raw_profile,
            (info.get(f"Raw profile type {kind}") for kind in ("exif", "APP1", "app1")),
        ),
    )
    for block in blocks:
        orientation = exif_orientation(block) if isinstance(block, bytes) else None
        if orientation is not None:
            return orientation
    for key in ("xmp", "XML:com.adobe.xmp", "Raw profile type xmp"):
        value = info.get(key)
        if isinstance(value, str) and key.startswith("Raw"):
            value = _raw_profile(value)
        text = value.encode("utf-8", "replace") if isinstance(value, str) else value
        match = _XMP_ORIENTATION.search(text) if isinstance(text, bytes) else None
        if match:
            return int(match[1])
    return 1


def exif_orientation(exif: bytes) -> int | None:
    """The orientation in an EXIF block; None if there is none."""
    # A block is laid out like a TIFF; Pillow keeps the prefix for JPEG and PNG.
    block = exif.removeprefix(b"Exif\0\0")
    try:
        order, _, start = _directory_start(block)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for entry in range(count):
            at = start + 2 + 12 * entry
            tag, kind = struct.unpack_from(f"{order}HH", block, at)
            if tag == _ORIENTATION:
                letter = "I" if kind == 4 else "H"
                (value,) = struct.unpack_from(f"{order}{letter}", block, at + 8)
                return int(value) if 1 <= value <= 8 else None
    # A damaged block is treated like a missing one; one of 64 bits may point beyond all memory.
    except (struct.error, OverflowError):
        pass
    return None


def _raw_profile(text: object) -> bytes | None:
    """A profile that was written as hexadecimal text, after its name and its length."""
    if not isinstance(text, str):
        return None
    try:
        return bytes.fromhex("".join(text[:_MAX_PROFILE_CHARACTERS].split()[2:]))
    except ValueError:
        return None
