"""Pages, orientations and bounds of pictures: what is shown, and what is refused undecoded."""

from __future__ import annotations

import re
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import PngImagePlugin

from tests.support.hostile_files import picture_bytes, png_bytes, radiograph
from xai_demo.errors import UnreadableFileError
from xai_demo.files import detect_format
from xai_demo.imaging import read_image
from xai_demo.imaging.containers import exif_orientation, png_is_complete, read_orientation
from xai_demo.records import Radiograph

GREY = radiograph(64, 48)
SMALL = radiograph(40, 36)


def read(content: bytes, folder: Path, max_pixels: int = 1_000_000) -> Radiograph:
    (folder / "film").write_bytes(content)
    return read_image(folder / "film", max_pixels=max_pixels)


def refusal(content: bytes, folder: Path, max_pixels: int = 1_000_000) -> str:
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableFileError) as caught:
            read(content, folder, max_pixels)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Nothing was decoded.
    assert peak < 8e6
    return str(caught.value)


# TIFF.


class Tiff:
    """A TIFF or BigTIFF by hand, page by page."""

    def __init__(self, order: str = "<", *, big: bool = False) -> None:
        self.order, self.big = order, big
        magic = b"II" if order == "<" else b"MM"
        head = struct.pack(f"{order}2sHHHQ", magic, 43, 8, 0, 0) if big else struct.pack(
            f"{order}2sHI", magic, 42, 0
        )  # fmt: skip
        self.content = bytearray(head)
        self._link = 8 if big else 4

    def directory(self, pixels: np.ndarray, **more: int) -> int:
        """Append pixels and their directory; returns where the directory is."""
        data_at = len(self.content)
        self.content += pixels.tobytes()
        height, width = pixels.shape
        bits = 8 * pixels.dtype.itemsize
        tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: data_at, 277: 1}
        tags |= {278: height, 279: pixels.nbytes} | {int(k[1:]): v for k, v in more.items()}
        at = len(self.content)
        count, entry, pointer = ("Q", "HHQQ", "Q") if self.big else ("H", "HHII", "I")
        self.content += struct.pack(f"{self.order}{count}", len(tags))
        for tag, value in sorted(tags.items()):
            # LONG, padded on the right to the size of a value.
            packed = struct.pack(f"{self.order}I", value).ljust(8 if self.big else 4, b"\0")
            head = struct.pack(f"{self.order}{entry[:3]}", tag, 4, 1)
            self.content += head + packed
        self.content += struct.pack(f"{self.order}{pointer}", 0)
        return at

    def page(self, pixels: np.ndarray, **more: int) -> Tiff:
        """Append a page; `t254=1` is a further tag."""
        at = self.directory(pixels, **more)
        pointer = "Q" if self.big else "I"
        struct.pack_into(f"{self.order}{pointer}", self.content, self._link, at)
        self._link = len(self.content) - struct.calcsize(pointer)
        return self

    def __bytes__(self) -> bytes:
        return bytes(self.content)


@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_of_either_size_and_order_is_read(
    tmp_path: Path, order: str, big: bool, dtype: type[np.generic]
) -> None:
    stored = GREY.astype(dtype) * (257 if dtype == np.uint16 else 1)
    content = bytes(Tiff(order, big=big).page(stored.astype(stored.dtype.newbyteorder(order))))
    assert detect_format(BytesIO(content)) == "TIFF"
    picture = read(content, tmp_path)
    np.testing.assert_allclose(picture.pixels, GREY / 255, atol=1e-6)
    assert picture.warnings == ()


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("thumbnail", "full"),
    [
        ({"t254": 1}, {}),  # NewSubfileType: a reduced version
        ({"t255": 2}, {"t255": 1}),  # SubfileType: the same in old words
        ({"t254": 4}, {"t254": 0}),  # a mask
        ({"t254": 1}, {"t254": 1}),  # every page is marked
        ({"t254": 1}, {"t254": 2}),  # a page of several
    ],
    ids=str,
)
def test_the_full_page_is_shown_and_not_its_thumbnail(
    tmp_path: Path, thumbnail: dict[str, int], full: dict[str, int], big: bool
) -> None:
    tiff = Tiff(big=big).page(SMALL, **thumbnail).page(GREY, **full).page(SMALL, **thumbnail)
    picture = read(bytes(tiff), tmp_path)
    np.testing.assert_allclose(picture.pixels, GREY / 255, atol=1e-6)
    assert picture.warnings == ()


def test_of_several_pages_the_first_is_shown_and_a_thumbnail_is_known_by_its_size(
    tmp_path: Path,
) -> None:
    picture = read(bytes(Tiff().page(GREY).page(radiograph(80, 60))), tmp_path)
    assert picture.pixels.shape == (64, 48)
    assert picture.warnings == ("The file contains 2 images: the first is used.",)
    picture = read(bytes(Tiff().page(SMALL).page(radiograph(160, 120))), tmp_path)
    assert picture.pixels.shape == (160, 120)
    assert picture.warnings == ("The file contains 2 images: the largest is used.",)


@pytest.mark.parametrize("big", [False, True])
def test_a_full_image_in_a_sub_directory_is_found(tmp_path: Path, big: bool) -> None:
    tiff = Tiff(big=big)
    at = tiff.directory(GREY)
    tiff.page(SMALL, t254=1, t330=at)
    np.testing.assert_allclose(read(bytes(tiff), tmp_path).pixels, GREY / 255, atol=1e-6)


def test_the_orientation_is_that_of_the_page_shown(tmp_path: Path) -> None:
    content = bytes(Tiff().page(SMALL, t254=1, t274=3).page(GREY, t274=6))
    np.testing.assert_allclose(read(content, tmp_path).pixels, np.rot90(GREY, -1) / 255, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_where_white_is_zero_black_is_white(tmp_path: Path, dtype: type[np.generic]) -> None:
    stored = GREY.astype(dtype) * (257 if dtype == np.uint16 else 1)
    sample_format = {"t339": 3} if dtype == np.float32 else {}
    picture = read(bytes(Tiff().page(stored, t262=0, **sample_format)), tmp_path)
    low, high = (GREY.min(), GREY.max()) if dtype == np.float32 else (0, 255)
    expected = 1 - (GREY.astype(float) - low) / (high - low)
    np.testing.assert_allclose(picture.pixels, expected, atol=1e-5)


def test_floats_up_to_one_are_fractions_of_white(tmp_path: Path) -> None:
    fractions = (0.1 + GREY / 400).astype(np.float32)
    picture = read(picture_bytes(fractions, "TIFF"), tmp_path)
    np.testing.assert_allclose(picture.pixels, fractions, atol=1e-6)
    assert picture.warnings == ()


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Tiff(">", big=True).page(GREY), "is a BigTIFF in big-endian"),
        (lambda: Tiff().page(GREY, t322=60000, t323=60000), "has tiles of 3.6e.03 megapixels"),
        (lambda: Tiff().page(GREY, t256=20000, t257=20000), "400 megapixels"),
        (lambda: Tiff(big=True).page(GREY, t256=20000, t257=20000), "400 megapixels"),
    ],
)
def test_a_tiff_out_of_bounds_is_refused(
    tmp_path: Path, build: Callable[[], Tiff], says: str
) -> None:
    assert re.search(says, refusal(bytes(build()), tmp_path))


def test_a_tiff_of_very_many_pages_is_refused(tmp_path: Path) -> None:
    tiff = Tiff()
    for _ in range(1002):
        tiff.page(np.zeros((1, 1), np.uint8))
    assert "has more than 1000 pages and directories" in refusal(bytes(tiff), tmp_path)


@pytest.mark.parametrize("content", [b"II*\0", b"II+\0\x08\0\0\0", b"MM\0*\xff\xff\xff\xff"])
def test_half_a_head_is_truncated(tmp_path: Path, content: bytes) -> None:
    assert "cannot be decoded as TIFF: it is truncated" in refusal(content, tmp_path)


# Orientation.


def exif_bytes(orientation: int, order: str = "<", kind: int = 3) -> bytes:
    """An EXIF block with nothing but the orientation."""
    layout = "HxxI" if kind == 3 else "II"
    entry = struct.pack(f"{order}HHI", 0x0112, kind, 1)
    head = struct.pack(f"{order}2sHIH", b"II" if order == "<" else b"MM", 42, 8, 1)
    return head + entry + struct.pack(f"{order}{layout}", orientation, 0)[:8]


def raw_profile(kind: str, block: bytes) -> dict[str, str]:
    """A profile as ImageMagick and ExifTool write it into a PNG."""
    lines = re.findall("..{0,70}", block.hex())
    return {f"Raw profile type {kind}": "\n".join(["", kind, f"{len(block):8}", *lines, ""])}


XMP = '<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
XMP_ELEMENT = "<x:xmpmeta><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>"
TEXTS = {
    "exif": raw_profile("exif", b"Exif\0\0" + exif_bytes(6)),
    "exif, big-endian": raw_profile("exif", exif_bytes(6, ">")),
    "APP1": raw_profile("APP1", b"Exif\0\0" + exif_bytes(6)),
    "a long value": raw_profile("exif", exif_bytes(6, ">", kind=4)),
    "XMP": {"XML:com.adobe.xmp": XMP},
    "XMP as an element": {"XML:com.adobe.xmp": XMP_ELEMENT},
    "XMP in a profile": raw_profile("xmp", XMP.encode()),
}


@pytest.mark.parametrize("how", ["tEXt", "zTXt", "iTXt", "compressed iTXt"])
@pytest.mark.parametrize("texts", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_png_is_upright_wherever_its_orientation_stands(
    tmp_path: Path, texts: dict[str, str], how: str, at_the_end: bool
) -> None:
    ((key, text),) = texts.items()
    info = PngImagePlugin.PngInfo()
    if "iTXt" in how:
        info.add_itxt(key, text, zip=how != "iTXt")
    else:
        info.add_text(key, text, zip=how == "zTXt")
    content = picture_bytes(GREY, "PNG", pnginfo=info)
    if at_the_end:
        # Text may stand behind the pixels.
        plain = picture_bytes(GREY, "PNG")
        chunk = content[33 : 33 + len(content) - len(plain)]
        content = plain[:-12] + chunk + plain[-12:]
    picture = read(content, tmp_path)
    np.testing.assert_allclose(picture.pixels, np.rot90(GREY, -1) / 255, atol=1e-6)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_xmp_turns_what_exif_does_not(tmp_path: Path, kind: str) -> None:
    options = {"quality": 100} if kind == "JPEG" else {"lossless": True}
    content = picture_bytes(GREY, kind, xmp=XMP.encode(), **options)
    np.testing.assert_allclose(
        read(content, tmp_path).pixels, np.rot90(GREY, -1) / 255, atol=3 / 255
    )
    content = picture_bytes(
        GREY, kind, xmp=XMP.encode(), exif=b"Exif\0\0" + exif_bytes(3), **options
    )
    np.testing.assert_allclose(
        read(content, tmp_path).pixels, np.rot90(GREY, 2) / 255, atol=3 / 255
    )


@pytest.mark.parametrize(
    ("block", "orientation"),
    [
        (exif_bytes(8), 8),
        (b"Exif\0\0" + exif_bytes(5, ">"), 5),
        (exif_bytes(9), None),
        (exif_bytes(0), None),
        (exif_bytes(6)[:12], None),
        (b"", None),
    ],
)
def test_the_orientation_in_a_block(block: bytes, orientation: int | None) -> None:
    assert exif_orientation(block) == orientation


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"exif": exif_bytes(17)},
        {"Raw profile type exif": "no hexadecimal text at all"},
        {"Raw profile type exif": "exif 4 zz"},
        {"xmp": "tiff:Orientation"},
        {"xmp": b'tiff:Orientation="60"'},
    ],
    ids=str,
)
def test_an_orientation_that_cannot_be_read_is_upright(info: dict[str, Any]) -> None:
    assert read_orientation(info) == 1


# PNG.


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


BOMB = zlib.compress(bytes(50_000_000), 9)


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (chunk(b"zTXt", b"Comment\0\0" + BOMB), "zTXt chunk that inflates to more than 1 MB"),
        (chunk(b"iCCP", b"profile\0\0" + BOMB), "iCCP chunk that inflates to more than 1 MB"),
        (chunk(b"iTXt", b"XML\0\1\0en\0x\0" + BOMB), "iTXt chunk that inflates to more than 1 MB"),
        (chunk(b"tEXt", b"a\0b") * 10_002, "has more than 10000 chunks"),
    ],
    ids=["zTXt", "iCCP", "iTXt", "many"],
)
@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_chunk_that_is_a_bomb_is_not_inflated(
    tmp_path: Path, extra: bytes, says: str, at_the_end: bool
) -> None:
    plain = picture_bytes(GREY, "PNG")
    at = len(plain) - 12 if at_the_end else 33
    assert says in refusal(plain[:at] + extra + plain[at:], tmp_path)


@pytest.mark.parametrize("rows", [0, 1, 40, 63])
def test_a_png_without_its_last_rows_is_refused(tmp_path: Path, rows: int) -> None:
    content = png_bytes(48, 64, bits=8, colour=0, rows=[row.tobytes() for row in GREY[:rows]])
    assert "cannot be decoded as PNG: it is truncated" in refusal(content, tmp_path)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_a_png_with_black_edges_is_complete(tmp_path: Path, mode: str) -> None:
    framed = np.pad(GREY[4:-4, 4:-4], 4)
    content = picture_bytes(framed, "PNG", mode)
    assert png_is_complete(BytesIO(content))
    assert read(content, tmp_path).pixels.shape == (64, 48)


def test_an_interlaced_png_has_seven_passes() -> None:
    content = _interlaced()
    assert png_is_complete(BytesIO(content))
    assert not png_is_complete(BytesIO(content[: len(content) // 2]))


def _interlaced() -> bytes:
    """Black, 37 x 33, in the seven passes of Adam7."""
    passes = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2),
              (0, 1, 1, 2))  # fmt: skip
    data = b"".join(
        b"\0" + bytes(len(range(left, 37, across)))
        for left, across, top, down in passes
        for _ in range(top, 33, down)
    )
    header = struct.pack(">IIBBBBB", 37, 33, 8, 0, 0, 0, 1)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data, 0)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


# JPEG and WebP.


@pytest.mark.parametrize(("mode", "share"), [("L", 0.6), ("RGB", 0.5)])
def test_a_jpeg_whose_end_is_lost_although_it_is_closed_is_doubtful(
    tmp_path: Path, mode: str, share: float
) -> None:
    content = picture_bytes(radiograph(128, 96), "JPEG", mode, quality=95)
    picture = read(content[: int(share * len(content))] + b"\xff\xd9", tmp_path)
    assert re.search(r"lowest \d\d % of the image are one even grey", picture.doubt)
    assert picture.doubt in picture.warnings
    assert read(content, tmp_path).doubt == ""


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_progressive_jpeg_without_its_last_scans_is_doubtful(tmp_path: Path, mode: str) -> None:
    content = picture_bytes(radiograph(128, 96), "JPEG", mode, progressive=True, quality=95)
    assert read(content, tmp_path).doubt == ""
    for _ in range(3):
        content = content[: content.rindex(b"\xff\xda")] + b"\xff\xd9"
        picture = read(content, tmp_path)
        assert "last scans are missing" in picture.doubt
        assert picture.doubt in picture.warnings


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (b"\xff\xc0\0\x11\x0c\0\x40\0\x30\3", "3 channels of 12 bits; expected 1, 3 or 4"),
        (b"\xff\xc0\0\x26\x08\0\x40\0\x30\x0a", "10 channels of 8 bits"),
        (b"\xff\xc3\0\x0b\x08\0\x40\0\x30\1", "is a lossless JPEG; expected a PNG"),
        (b"\xff\xf7\0\x0b\x08\0\x40\0\x30\1", "is a JPEG-LS; expected a PNG"),
        (b"\xff\xc9\0\x0b\x08\0\x40\0\x30\1", r"unusual process \(SOF9\)"),
        (b"\xff\xe0\0\2", "it has no frame header"),
    ],
)
def test_a_jpeg_is_judged_by_its_frame_header(tmp_path: Path, frame: bytes, says: str) -> None:
    content = b"\xff\xd8" + frame + b"\1\x11\0" * 12 + bytes(100) + b"\xff\xd9"
    assert re.search(says, refusal(content, tmp_path))


def test_a_jpeg_of_very_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    content = picture_bytes(GREY, "JPEG").replace(b"\x08\0\x40\0\x30", b"\x08" + b"\xff" * 4)
    assert "65535 x 65535 pixels" in refusal(content, tmp_path)


def test_bytes_between_the_segments_of_a_jpeg_are_skipped(tmp_path: Path) -> None:
    content = picture_bytes(GREY, "JPEG")
    at = content.index(b"\xff\xdb")
    expected = read(content, tmp_path).pixels
    np.testing.assert_array_equal(
        read(content[:at] + bytes(7) + content[at:], tmp_path).pixels, expected
    )


def test_a_progressive_jpeg_is_read_and_its_scans_are_counted(tmp_path: Path) -> None:
    content = picture_bytes(GREY, "JPEG", progressive=True, quality=95)
    np.testing.assert_allclose(read(content, tmp_path).pixels, GREY / 255, atol=6 / 255)
    scan = content[content.rindex(b"\xff\xda") : -2]
    assert "more than 100 scans" in refusal(content[:-2] + scan * 120 + b"\xff\xd9", tmp_path)


@pytest.mark.parametrize("options", [{}, {"lossless": True}], ids=["lossy", "lossless"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_webp_is_measured_before_it_is_opened(
    tmp_path: Path, mode: str, options: dict[str, bool]
) -> None:
    content = picture_bytes(radiograph(100, 100), "WEBP", mode, **options)
    assert read(content, tmp_path, max_pixels=20_000).pixels.shape == (100, 100)
    # Twenty bytes a pixel, where others take at most twelve.
    message = refusal(content, tmp_path, max_pixels=16_000)
    assert "100 x 100 pixels" in message
    assert "at most 0.0096 megapixels" in message


def test_a_webp_may_claim_what_it_likes(tmp_path: Path) -> None:
    canvas = struct.pack("<I", 0) + b"\xff\xff\xff" * 2
    body = b"WEBPVP8X" + struct.pack("<I", len(canvas)) + canvas
    content = b"RIFF" + struct.pack("<I", len(body)) + body
    assert "16777216 x 16777216 pixels" in refusal(content, tmp_path)


def test_a_jpeg_2000_is_called_an_image(tmp_path: Path) -> None:
    assert "is a JPEG 2000 image: export it as PNG" in refusal(b"\xff\x4f\xff\x51" * 9, tmp_path)
