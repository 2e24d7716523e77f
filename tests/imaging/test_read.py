from __future__ import annotations

import json
import re
import struct
import tracemalloc
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.support.hostile_files import (
    IMAGES,
    Case,
    picture_bytes,
    png_bytes,
    radiograph,
)
from xai_demo.errors import UnreadableFileError
from xai_demo.imaging import read_image
from xai_demo.records import Radiograph


def read(path: Path, max_pixels: int = 100_000_000) -> Radiograph:
    return read_image(path, max_pixels=max_pixels)


def read_bytes(folder: Path, content: bytes) -> Radiograph:
    (folder / "picture").write_bytes(content)
    return read(folder / "picture")


def saved(picture: Image.Image, format: str, **options: Any) -> bytes:  # noqa: A002
    stream = BytesIO()
    picture.save(stream, format, **options)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("colour", "luma"), [("red", 0.299), ("lime", 0.587), ("blue", 0.114), ("white", 1.0)]
)
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_a_primary_colour_has_its_luma(tmp_path: Path, colour: str, luma: float, kind: str) -> None:
    pixels = read_bytes(tmp_path, saved(Image.new("RGB", (40, 40), colour), kind)).pixels
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, luma, atol=1e-6)


def test_eight_bits_are_fractions_of_255(tmp_path: Path) -> None:
    grey = radiograph()
    pixels = read_bytes(tmp_path, picture_bytes(grey, "PNG")).pixels
    np.testing.assert_allclose(pixels, grey / 255, atol=1e-6)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_fractions_of_65535(tmp_path: Path, kind: str) -> None:
    ramp = np.linspace(0, 65535, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    pixels = read_bytes(tmp_path, picture_bytes(ramp, kind)).pixels
    np.testing.assert_allclose(pixels, ramp / 65535, atol=1e-6)
    assert pixels.max() == 1.0


def tiff_bytes(
    data: bytes, *, bits: int, photometric: int, order: str = "<", more: tuple[bytes, ...] = ()
) -> bytes:
    """A TIFF of 32 x 32 grey pixels by hand."""
    tags = [(256, 32), (257, 32), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1)]
    tags += [(278, 32), (279, 32 * 4 * bits)]
    entries = b"".join(struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    head = struct.pack(f"{order}2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data))
    count = struct.pack(f"{order}H", len(tags) + len(more))
    return head + data + count + entries + b"".join(more) + bytes(4)


def test_twelve_bits_are_fractions_of_4095(tmp_path: Path) -> None:
    data = b"\xff\xff\xff" * 256 + b"\x80\x08\x00" * 256  # two pixels in three bytes
    pixels = read_bytes(tmp_path, tiff_bytes(data, bits=12, photometric=1)).pixels
    np.testing.assert_allclose(pixels[:16], 1.0)
    np.testing.assert_allclose(pixels[16:], 0x800 / 4095, atol=1e-6)


@pytest.mark.parametrize(
    ("order", "photometric", "expected"), [("<", 0, 0.75), ("<", 1, 0.25), (">", 1, 0.25)]
)
def test_sixteen_bits_where_white_is_zero_are_inverted(
    tmp_path: Path, order: str, photometric: int, expected: float
) -> None:
    data = struct.pack(f"{order}H", 16384) * 1024
    content = tiff_bytes(data, bits=16, photometric=photometric, order=order)
    np.testing.assert_allclose(read_bytes(tmp_path, content).pixels, expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_thirty_two_bits_go_from_the_lowest_to_the_highest(
    tmp_path: Path, dtype: type[np.generic]
) -> None:
    ramp = np.linspace(-500, 1500, 64 * 64).astype(dtype).reshape(64, 64)
    pixels = read_bytes(tmp_path, picture_bytes(ramp, "TIFF")).pixels
    np.testing.assert_allclose(pixels, (ramp.astype(float) + 500) / 2000, atol=1e-6)


def test_what_is_transparent_is_black(tmp_path: Path) -> None:
    half_red = Image.new("RGBA", (40, 40), (255, 0, 0, 51))
    pixels = read_bytes(tmp_path, saved(half_red, "PNG")).pixels
    np.testing.assert_allclose(pixels, 0.2 * 0.299, atol=1e-6)


def test_a_colour_declared_transparent_is_black(tmp_path: Path) -> None:
    white = saved(Image.new("RGB", (40, 40), "white"), "PNG", transparency=(255, 255, 255))
    assert read_bytes(tmp_path, white).pixels.max() == 0


def test_a_palette_and_cmyk_give_the_colours_they_mean(tmp_path: Path) -> None:
    red = Image.new("RGB", (40, 40), "red")
    np.testing.assert_allclose(
        read_bytes(tmp_path, saved(red.quantize(4), "PNG")).pixels, 0.299, atol=1e-6
    )
    np.testing.assert_allclose(
        read_bytes(tmp_path, saved(red.convert("CMYK"), "TIFF")).pixels, 0.299, atol=1e-6
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "TIFF with LZW"])
def test_the_orientation_of_the_camera_is_honoured(
    tmp_path: Path, orientation: int, kind: str
) -> None:
    grey = radiograph(48, 64)
    grey[:10, :20] = 255  # a corner that tells where it went
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"compression": "tiff_lzw"} if "LZW" in kind else {}
    written = Image.fromarray(grey).convert("RGB")
    content = saved(written, kind.split()[0], exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(BytesIO(content))))[..., 0] / 255
    picture = read_bytes(tmp_path, content)
    np.testing.assert_allclose(picture.pixels, expected, atol=2 / 255)
    assert (picture.facts["height"], picture.facts["width"]) == expected.shape
    assert expected.shape == ((48, 64) if orientation < 5 else (64, 48))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_exif_that_repeats_itself_costs_nothing(tmp_path: Path, kind: str) -> None:
    # Each of 2000 tags claims the same 60 KB as its value: Pillow would copy all of them.
    entries = b"".join(struct.pack("<HHII", 1000 + i, 1, 30_000, 8) for i in range(2000))
    exif = struct.pack("<2sHIH", b"II", 42, 8, 2000) + entries + bytes(36_000)
    content = saved(Image.fromarray(radiograph()), kind, exif=b"Exif\0\0" + exif)
    tracemalloc.start()
    try:
        read_bytes(tmp_path, content)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2e6


def test_facts_are_what_the_file_had(tmp_path: Path) -> None:
    content = saved(Image.fromarray(radiograph()), "JPEG", comment=b"Mrs Secret")
    assert read_bytes(tmp_path, content).facts == {
        "width": 80,
        "height": 96,
        "mode": "L",
        "format": "JPEG",
        "modality": "radiograph (picture)",
        "view": "not given",
        "window": None,
        "colour": False,
    }


def test_a_large_picture_is_read_in_strips_that_fit_together(tmp_path: Path) -> None:
    ramp = (np.arange(1500 * 1500) % 251).astype(np.uint8).reshape(1500, 1500)
    pixels = read_bytes(tmp_path, picture_bytes(ramp, "PNG", compress_level=1)).pixels
    np.testing.assert_allclose(pixels, ramp / 255, atol=1e-6)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    rows = [bytes(2000)] * 10000
    (tmp_path / "a.png").write_bytes(png_bytes(16000, 10000, bits=1, colour=0, rows=rows))
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableFileError, match="160 megapixels"):
            read(tmp_path / "a.png")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2e6


def test_the_limit_is_the_callers(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture_bytes(radiograph(50, 40), "PNG"))
    assert read(tmp_path / "a.png", max_pixels=2000).pixels.shape == (50, 40)
    with pytest.raises(UnreadableFileError, match="40 x 50 pixels"):
        read(tmp_path / "a.png", max_pixels=1999)


def test_a_directory_that_points_at_everything_is_refused(tmp_path: Path) -> None:
    # Each of these tags claims most of the file as its value: Pillow would copy all of them.
    data = bytes(1024 * 100)
    once, often = (
        tuple(struct.pack("<HHII", 40000 + i, 1, len(data), 8) for i in range(n)) for n in (1, 500)
    )
    harmless = read_bytes(tmp_path, tiff_bytes(data, bits=8, photometric=1, more=once))
    assert harmless.pixels.shape == (32, 32)
    with pytest.raises(UnreadableFileError, match="cannot be decoded as TIFF"):
        read_bytes(tmp_path, tiff_bytes(data, bits=8, photometric=1, more=often))


@pytest.mark.parametrize("case", IMAGES, ids=lambda case: case.name)
@pytest.mark.filterwarnings("error")
def test_hostile_and_unusual_files(tmp_path: Path, case: Case) -> None:
    case.build(tmp_path / case.name)
    if case.outcome == "refused":
        with pytest.raises(UnreadableFileError) as caught:
            read(tmp_path / case.name)
        message = str(caught.value)
        assert re.search(case.says, message)
        assert message.startswith(case.name)
        assert str(tmp_path) not in message
        assert "expected" in message
        assert "\n" not in message
        return
    picture = read(tmp_path / case.name)
    assert bool(picture.warnings) == (case.outcome == "warned"), picture.warnings
    assert re.search(case.says, "\n".join(picture.warnings))
    assert picture.pixels.dtype == np.float32
    assert picture.pixels.shape == (picture.facts["height"], picture.facts["width"])
    assert picture.pixels.min() >= 0
    assert picture.pixels.max() <= 1
    json.dumps(dict(picture.facts), allow_nan=False)


FUZZED = [
    case
    for case in IMAGES
    if case.name
    in ("grey.png", "cmyk.jpg", "grey.webp", "grey.bmp", "packed.tiff", "16_bit.tiff", "noise.png")
]


@pytest.mark.parametrize("case", FUZZED, ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore")
def test_damage_ends_in_a_picture_or_in_one_sentence(tmp_path: Path, case: Case) -> None:
    dice = np.random.default_rng(len(case.name))
    path = tmp_path / case.name
    case.build(path)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(40):
        damaged = whole[: dice.integers(1, len(whole) + 1)].copy()
        if dice.random() < 0.7:
            damaged = whole.copy()
        reach = len(damaged) if dice.random() < 0.5 else min(len(damaged), 200)  # often the header
        for at in dice.integers(0, reach, size=dice.integers(1, 8)):
            damaged[at] ^= 1 << dice.integers(0, 8)
        path.write_bytes(damaged.tobytes())
        try:
            picture = read(path, max_pixels=1_000_000)
        except UnreadableFileError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert np.isfinite(picture.pixels).all()
