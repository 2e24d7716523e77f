"""The pixels of a DICOM file: encodings, codecs, what is nested, and bounds before decoding."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from tests.support.dicom_files import (
    SECRET,
    dicom_radiograph,
    dicom_with_codestream,
    jpeg_bytes,
    lossless_jpeg_bytes,
)
from tests.support.hostile_files import radiograph
from xai_demo.errors import DeidentificationError, UnreadableFileError
from xai_demo.files import detect_format
from xai_demo.imaging import read_image
from xai_demo.imaging.codestreams import read_codestream
from xai_demo.imaging.dicom.deidentify import deidentify
from xai_demo.records import Radiograph

RAMP = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)  # 0 to 3071
GREY = radiograph(64, 48)


def read(content: bytes, folder: Path, max_pixels: int = 1_000_000) -> Radiograph:
    """The radiograph, which must be the same once it is de-identified."""
    (folder / "film").write_bytes(content)
    picture = read_image(folder / "film", max_pixels=max_pixels)
    clean = deidentify(io.BytesIO(content), "film")
    assert SECRET.encode() not in clean
    (folder / "clean").write_bytes(clean)
    np.testing.assert_array_equal(
        read_image(folder / "clean", max_pixels=max_pixels).pixels, picture.pixels
    )
    return picture


def refusal(content: bytes, folder: Path, max_pixels: int = 1_000_000) -> str:
    """What is said of a file that is not read; it cannot be de-identified either."""
    with pytest.raises(UnreadableFileError) as caught:
        read(content, folder, max_pixels)
    assert caught.value.__context__ is None
    return str(caught.value)


def frame_of(content: bytes) -> bytes:
    return next(generate_frames(dcmread(io.BytesIO(content)).PixelData, number_of_frames=1))


def twelve_bit_jpeg_bytes(blocks: NDArray[np.int64]) -> bytes:
    """Extended JPEG of 12 bits whose blocks of 8 x 8 are even: ISO 10918-1, process 4."""
    codes, last = "", 0
    for level in blocks.ravel():
        # The DC coefficient of an even block is eight times its level.
        step, last = 8 * (int(level) - 2048) - last, 8 * (int(level) - 2048)
        size = abs(step).bit_length()
        codes += f"{size:05b}" + (
            f"{step if step > 0 else step + 2**size - 1:0{size}b}" * bool(size)
        )
        # The end of the block, the only code of the other table.
        codes += "0"
    codes += "1" * (-len(codes) % 8)
    data = int(codes, 2).to_bytes(len(codes) // 8, "big").replace(b"\xff", b"\xff\0")
    rows, columns = (8 * side for side in blocks.shape)
    segments = (
        (b"\xff\xdb", b"\0" + b"\1" * 64),
        (b"\xff\xc1", struct.pack(">BHHB3B", 12, rows, columns, 1, 1, 0x11, 0)),
        (b"\xff\xc4", bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])),
        (b"\xff\xc4", bytes([0x10, 1, *[0] * 15, 0])),
        (b"\xff\xda", b"\1\1\0\0\x3f\0"),
    )
    head = b"".join(kind + struct.pack(">H", len(body) + 2) + body for kind, body in segments)
    return b"\xff\xd8" + head + data + b"\xff\xd9"


# How the dataset is encoded.


@pytest.mark.parametrize("vr", ["OB", "OW"])
@pytest.mark.parametrize("side", [48, 47])
def test_words_of_eight_bit_pixels_are_swapped_and_bytes_are_not(
    tmp_path: Path, vr: str, side: int
) -> None:
    stored = radiograph(side, side)
    data = stored.tobytes() + b"\0" * (stored.size % 2)
    if vr == "OW":
        data = np.frombuffer(data, np.uint16).byteswap().tobytes()
    content = dicom_radiograph(stored, ExplicitVRBigEndian, PixelData=(vr, data))
    np.testing.assert_allclose(read(content, tmp_path).pixels, stored / 255, atol=1e-6)


@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
@pytest.mark.parametrize("with_group_2", [False, True])
def test_a_dataset_without_file_meta_is_read(
    tmp_path: Path, syntax: str, with_group_2: bool
) -> None:
    content = dicom_radiograph(RAMP, syntax, bits=12)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    content = content[content.index(struct.pack(f"{order}HH", 8, 0x16)) :]
    if with_group_2:
        # One element of it, and neither a preamble nor the length of the group.
        uid = syntax.encode() + b"\0" * (len(syntax) % 2)
        content = struct.pack("<HH2sH", 2, 0x10, b"UI", len(uid)) + uid + content
    assert detect_format(io.BytesIO(content)) == "DICOM"
    np.testing.assert_allclose(read(content, tmp_path).pixels, RAMP / 4095, atol=1e-6)


@pytest.mark.parametrize(
    "preamble", [b"II*\0\x08\0\0\0", b"MM\0*", b"II+\0", b"\xff\xd8\xff", b"ID3\3\0\0\0\0\0\x10"]
)
def test_a_preamble_of_another_format_decides_nothing_and_is_not_kept(
    tmp_path: Path, preamble: bytes
) -> None:
    content = (preamble + SECRET.encode()).ljust(128, b"\0") + dicom_radiograph(RAMP, bits=12)[128:]
    np.testing.assert_allclose(read(content, tmp_path).pixels, RAMP / 4095, atol=1e-6)


@pytest.mark.parametrize("declared", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("actual", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_what_the_elements_look_like_decides(tmp_path: Path, declared: str, actual: str) -> None:
    content = dicom_radiograph(RAMP, actual, bits=12)
    dataset = content[content.index(struct.pack("<HH", 8, 0x16)) :]
    meta = dicom_radiograph(RAMP, declared, bits=12)
    meta = meta[: meta.index(struct.pack("<HH", 8, 0x16))]
    np.testing.assert_allclose(read(meta + dataset, tmp_path).pixels, RAMP / 4095, atol=1e-6)


def test_a_dataset_that_is_deflated_as_a_whole_is_inflated(tmp_path: Path) -> None:
    content = dicom_radiograph(
        RAMP, DeflatedExplicitVRLittleEndian, bits=12, PatientName=SECRET, PatientID=SECRET
    )
    np.testing.assert_allclose(read(content, tmp_path).pixels, RAMP / 4095, atol=1e-6)
    assert "ends in the middle of its deflated dataset" in refusal(content[:-40], tmp_path)
    at = content.index(b"\0", 400)
    damaged = content[:at] + b"\xff" * 40 + content[at + 40 :]
    assert re.search("deflated dataset is damaged|cannot be read", refusal(damaged, tmp_path))


def test_a_deflated_bomb_ends_at_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xai_demo.imaging.dicom.header._MAX_INFLATED_BYTES", 4_000_000)
    content = dicom_radiograph(RAMP, DeflatedExplicitVRLittleEndian, bits=12)
    meta = content[: content.index(DeflatedExplicitVRLittleEndian.encode()) + 22]
    press = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(press.compress(bytes(1 << 20)) for _ in range(200)) + press.flush()
    tracemalloc.start()
    try:
        message = refusal(meta + bomb, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert "of more than 232 MB" in message
    assert peak < 20e6


# What is nested.


def element(tag: int, vr: bytes, body: bytes, *, undefined: bool = False) -> bytes:
    length = 0xFFFFFFFF if undefined else len(body)
    return struct.pack("<HH2sxxI", tag >> 16, tag & 0xFFFF, vr, length) + body


def item(body: bytes, *, undefined: bool) -> bytes:
    head = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF if undefined else len(body))
    return head + body + (struct.pack("<HHI", 0xFFFE, 0xE00D, 0) if undefined else b"")


END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def sequence(vr: bytes, tag: int, body: bytes, *, undefined: bool = True) -> bytes:
    items = item(body, undefined=undefined)
    return element(tag, vr, items + (END if undefined else b""), undefined=undefined)


ICON = struct.pack("<HH2sHH", 0x28, 0x10, b"US", 2, 9) + element(
    0x7FE00010, b"OB", SECRET.encode() * 2
)
PACKED_ICON = struct.pack("<HH2sHH", 0x28, 0x10, b"US", 2, 9) + element(
    0x7FE00010, b"OB", encapsulate([SECRET.encode() * 3]) + END, undefined=True
)
IMPLICIT = struct.pack("<HHI", 0x10, 0x10, len(SECRET)) + SECRET.encode()
NESTED = {
    "icon": sequence(b"SQ", 0x00880200, ICON),
    "icon of defined length": sequence(b"SQ", 0x00880200, ICON, undefined=False),
    "compressed icon": sequence(b"SQ", 0x00880200, PACKED_ICON),
    "icons in an icon": sequence(b"SQ", 0x00880200, sequence(b"SQ", 0x00880200, ICON) + ICON),
    "private in implicit VR": sequence(b"UN", 0x00091001, IMPLICIT),
    "private in explicit VR": sequence(b"UN", 0x00091001, ICON),
    "private within private": sequence(
        b"UN",
        0x00091001,
        struct.pack("<HHI", 9, 0x1002, 0xFFFFFFFF) + item(IMPLICIT, undefined=True) + END,
    ),
    "empty items": element(
        0x00880200, b"SQ", item(b"", undefined=True) + item(b"", undefined=False) + END,
        undefined=True,
    ),
    "an element in implicit VR": struct.pack("<HHI", 9, 0x1001, 4) + b"\1\2\3\4",
}  # fmt: skip


@pytest.mark.parametrize("nested", NESTED.values(), ids=NESTED)
def test_what_is_nested_is_stepped_over(tmp_path: Path, nested: bytes) -> None:
    content = dicom_radiograph(RAMP, bits=12)
    tag = struct.unpack_from("<HH", nested)
    # In the order of tags: before the view, or before the pixels.
    before = struct.pack("<HH", 0x18, 0x5101) if tag[0] == 9 else struct.pack("<HH", 0x7FE0, 0x10)
    at = content.index(before)
    picture = read(content[:at] + nested + content[at:], tmp_path)
    np.testing.assert_allclose(picture.pixels, RAMP / 4095, atol=1e-6)


# Codecs.


def _lossless(syntax: str) -> bytes:
    return dicom_with_codestream(lossless_jpeg_bytes(RAMP, 12), RAMP, syntax, bits=12)


CODECS: dict[str, tuple[bytes, float]] = {
    "lossless JPEG": (_lossless(JPEGLossless), 1e-6),
    "lossless JPEG SV1": (_lossless(JPEGLosslessSV1), 1e-6),
    "JPEG-LS": (dicom_radiograph(RAMP, JPEGLSLossless, bits=12), 1e-6),
    "near-lossless JPEG-LS": (dicom_radiograph(RAMP, JPEGLSNearLossless, bits=12), 2.5 / 4095),
    "declared as another": (_lossless(JPEG2000Lossless), 1e-6),
    "signed JPEG-LS": (
        dicom_radiograph((RAMP.astype(np.int16) - 2048), JPEGLSLossless, bits=12),
        1e-6,
    ),
    "12 bits declared as 16": (
        dicom_with_codestream(lossless_jpeg_bytes(RAMP, 12), RAMP, JPEGLosslessSV1, bits=16),
        1e-6,
    ),
}


@pytest.mark.parametrize(("content", "tolerance"), CODECS.values(), ids=CODECS)
def test_compressed_pixels_are_what_they_were(
    tmp_path: Path, content: bytes, tolerance: float
) -> None:
    picture = read(content, tmp_path)
    np.testing.assert_allclose(picture.pixels, RAMP / 4095, atol=tolerance)
    assert picture.warnings == ()


def test_extended_jpeg_has_twelve_bits(tmp_path: Path) -> None:
    blocks = np.array([[0, 100, 2048, 4095], [3000, 17, 2500, 1], [9, 8, 7, 6], [5, 4, 4000, 2]])
    large = np.tile(blocks, (2, 2))
    stored = large.repeat(8, axis=0).repeat(8, axis=1).astype(np.uint16)
    stream = twelve_bit_jpeg_bytes(large)
    content = dicom_with_codestream(stream, stored, JPEGExtended12Bit, bits=12)
    np.testing.assert_allclose(read(content, tmp_path).pixels, stored / 4095, atol=1e-6)


def test_a_codestream_that_aborts_its_decoder_ends_in_one_sentence(tmp_path: Path) -> None:
    # Without its Huffman table, for which GDCM calls `abort`.
    stream = lossless_jpeg_bytes(RAMP, 12)
    at = stream.index(b"\xff\xc4")
    broken = stream[:at] + b"\xff\xfe" + stream[at + 2 :]
    message = refusal(dicom_with_codestream(broken, RAMP, JPEGLossless, bits=12), tmp_path)
    assert "lossless JPEG, are damaged or of an unusual kind" in message
    program = (
        "import xai_demo.imaging.dicom.gdcm_decoder as g, sys;"
        "g._decode(sys.stdin.buffer.read(), 64, 48, 12, '1.2.840.10008.1.2.4.57')"
    )
    command = [sys.executable, "-c", program]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, input=broken, capture_output=True, cwd=root, check=False)
    assert done.returncode


def test_pixels_without_fragments_are_read_although_the_file_declares_a_codec(
    tmp_path: Path,
) -> None:
    content = dicom_radiograph(RAMP, bits=12)
    dataset = content[content.index(struct.pack("<HH", 8, 0x16)) :]
    meta = _lossless(JPEGLosslessSV1)
    meta = meta[: meta.index(struct.pack("<HH", 8, 0x16))]
    np.testing.assert_allclose(read(meta + dataset, tmp_path).pixels, RAMP / 4095, atol=1e-6)


def test_fragments_are_read_where_the_file_declares_no_codec(tmp_path: Path) -> None:
    content = dicom_with_codestream(lossless_jpeg_bytes(RAMP, 12), RAMP, JPEGLosslessSV1, bits=12)
    dataset = content[content.index(struct.pack("<HH", 8, 0x16)) :]
    np.testing.assert_allclose(read(dataset, tmp_path).pixels, RAMP / 4095, atol=1e-6)


@pytest.mark.parametrize("declared", ["", JPEG2000Lossless], ids=["nothing", "JPEG 2000"])
def test_rle_is_known_by_its_header(tmp_path: Path, declared: str) -> None:
    content = dicom_radiograph(RAMP, RLELossless, bits=12)
    at = content.index(struct.pack("<HH", 8, 0x16))
    other = _lossless(declared or JPEG2000Lossless)
    meta = other[: other.index(struct.pack("<HH", 8, 0x16))] if declared else b""
    np.testing.assert_allclose(read(meta + content[at:], tmp_path).pixels, RAMP / 4095, atol=1e-6)
    unknown = dicom_radiograph(RAMP, RLELossless, PixelData=("OB", encapsulate([b"?" * 99])))
    unknown = unknown[unknown.index(struct.pack("<HH", 8, 0x16)) :]
    assert "has compressed pixels of an unknown kind" in refusal(unknown, tmp_path)


def test_a_frame_in_several_fragments_is_joined(tmp_path: Path) -> None:
    stream = lossless_jpeg_bytes(RAMP, 12)
    pixels = encapsulate([stream], fragments_per_frame=5)
    content = dicom_radiograph(RAMP, JPEGLossless, bits=12, PixelData=("OB", pixels))
    np.testing.assert_allclose(read(content, tmp_path).pixels, RAMP / 4095, atol=1e-6)


# What is there only in part, or more than once.


def test_more_frames_than_declared_are_named(tmp_path: Path) -> None:
    stream = jpeg_bytes(GREY)
    two = dicom_radiograph(GREY, JPEGBaseline8Bit, PixelData=("OB", encapsulate([stream, stream])))
    assert "contains 2 frames, although it declares one" in refusal(two, tmp_path)
    native = dicom_radiograph(RAMP, bits=12, PixelData=("OW", RAMP.tobytes() * 3))
    (warning,) = read(native, tmp_path).warnings
    assert "holds 3 times the pixels that it declares: only the first are shown" in warning


@pytest.mark.parametrize("codec", ["lossless", "JPEG-LS", "JPEG 2000", "baseline"])
@pytest.mark.parametrize("ending", [b"", b"\xff\xd9"], ids=["open", "closed"])
def test_a_codestream_that_breaks_off_is_refused_or_the_loss_is_said(
    tmp_path: Path, codec: str, ending: bytes
) -> None:
    noise = np.random.default_rng(0).integers(0, 4096, (64, 48)).astype(np.uint16)
    streams = {
        "lossless": (lossless_jpeg_bytes(noise, 12), noise, JPEGLossless),
        "JPEG-LS": (frame_of(dicom_radiograph(noise, JPEGLSLossless)), noise, JPEGLSLossless),
        "JPEG 2000": (frame_of(dicom_radiograph(noise, JPEG2000Lossless)), noise, JPEG2000Lossless),
        "baseline": (jpeg_bytes((noise >> 4).astype(np.uint8)), GREY, JPEGBaseline8Bit),
    }
    stream, pixels, syntax = streams[codec]
    cut = stream[: len(stream) * 6 // 10] + ending
    content = dicom_with_codestream(cut, pixels, syntax)
    if codec in ("lossless", "baseline") and ending:
        picture = read(content, tmp_path)
        assert re.search(r"lowest \d+ % of the image are one even grey", picture.doubt)
        assert picture.doubt in picture.warnings
    else:
        assert re.search("break off|are damaged", refusal(content, tmp_path))


# Bounds before decoding.


def jpeg_2000_bytes(
    *, side: int = 64, tile: int = 64, components: int = 1, bits: int = 8, step: int = 1,
    code_block: int = 4, levels: int = 5, precincts: bytes = b"",
) -> bytes:  # fmt: skip
    """The main header of a JPEG 2000 codestream with whatever it claims, and no data."""
    siz = struct.pack(">H8IH", 0, side, side, 0, 0, tile, tile, 0, 0, components)
    siz += struct.pack("3B", bits - 1, step, step) * components
    style = 1 if precincts else 0
    cod = struct.pack(">BBHB5B", style, 0, 1, 0, levels, code_block, code_block, 0, 1) + precincts
    segments = ((b"\xff\x51", siz), (b"\xff\x52", cod))
    head = b"".join(kind + struct.pack(">H", len(body) + 2) + body for kind, body in segments)
    return b"\xff\x4f" + head + b"\xff\x90" + bytes(10) + b"\xff\x93\xff\xd9"


@pytest.mark.parametrize("is_jp2", [False, True])
@pytest.mark.parametrize(
    ("claims", "says"),
    [
        ({"components": 40}, "has 40 channels in its JPEG 2000 pixels; expected one grey"),
        ({"components": 16384}, "has 16384 channels"),
        ({"bits": 38}, "has 38 bits in its JPEG 2000; expected 2 to 16 bits"),
        (
            {"side": 60000},
            "declares 10000 x 10000 pixels, but its JPEG 2000 contains 60000 x 60000",
        ),
        ({"tile": 1}, "have 100000000 tiles, where 65535 are allowed"),
        ({"tile": 0}, "are 10000 x 10000 in tiles of 0 x 0"),
        ({"step": 2}, "have a channel of another size than the image"),
        ({"code_block": 0, "tile": 10000}, "are in about 62500.. blocks and 5 levels"),
        ({"levels": 200, "tile": 10000}, "and 200 levels, where 1000000 and 32 are allowed"),
        ({"precincts": b"\0" * 6, "tile": 10000}, "are in about 100000000 blocks"),
    ],
    ids=str,
)
def test_a_codestream_out_of_bounds_is_never_decoded(
    tmp_path: Path, claims: dict[str, Any], says: str, is_jp2: bool
) -> None:
    stream = jpeg_2000_bytes(**{"side": 10000, "tile": 1000} | claims)
    if is_jp2:
        stream = b"\0\0\0\x0cjP  \r\n\x87\n" + struct.pack(">I", len(stream) + 8) + b"jp2c" + stream
    content = dicom_with_codestream(stream, GREY, JPEG2000Lossless, Rows=10000, Columns=10000)
    tracemalloc.start()
    try:
        message = refusal(content, tmp_path, max_pixels=100_000_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert re.search(says, message)
    assert message.startswith("film ")
    assert peak < 5e6


def test_an_ordinary_codestream_is_within_bounds() -> None:
    stream = frame_of(dicom_radiograph(RAMP, JPEG2000Lossless, bits=12))
    header = read_codestream(stream)
    assert header is not None
    assert (header.rows, header.columns, header.components, header.bits) == (64, 48, 1, 12)
    large = read_codestream(jpeg_2000_bytes(side=10000, tile=10000))
    assert large is not None
    assert large.process == "JPEG 2000"


@pytest.mark.parametrize(
    ("stream", "says"),
    [
        (
            lambda s: s.replace(b"\xff\xc0\0\x0b\x08", b"\xff\xc9\0\x0b\x08"),
            r"unusual process \(SOF9\)",
        ),
        (
            lambda s: s.replace(b"\xff\xc4", b"\xff\xc0\0\x0b\x08" + s[163:171] + b"\xff\xc4", 1),
            "two frame headers",
        ),
        (
            lambda s: s[:-2] + s[s.index(b"\xff\xda") : -2] * 200 + b"\xff\xd9",
            "more than 100 scans",
        ),
        (lambda s: b"\xff\xd8\xff\xd9", "are not JPEG Baseline"),
        (lambda s: s.replace(b"\xff\xda\0\x08", b"\xff\xda\0\x03"), "middle of a header"),
        (lambda s: s[:170], r"\(baseline JPEG\) break off"),
    ],
    ids=["arithmetic", "two frames", "scans", "nothing", "short scan header", "cut"],
)
def test_a_jpeg_out_of_bounds_is_never_decoded(tmp_path: Path, stream: Any, says: str) -> None:
    content = dicom_with_codestream(stream(jpeg_bytes(GREY)), GREY, JPEGBaseline8Bit)
    assert re.search(says, refusal(content, tmp_path))


def test_a_jpeg_of_three_channels_is_not_taken_for_grey(tmp_path: Path) -> None:
    colour = jpeg_bytes(np.stack([GREY] * 3, axis=2))
    content = dicom_with_codestream(colour, GREY, JPEGBaseline8Bit)
    assert "has 3 channels in its baseline JPEG pixels; expected one" in refusal(content, tmp_path)


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ([3, 64, 64, 64], "has 3 segments instead of 2"),
        ([2, 64, 2**31], "an RLE segment is at bytes 64 to 2147483648"),
        ([2, 0, 64], "an RLE segment is at bytes 0 to 64"),
        ([2, 64, 64], "unpacks to 0 bytes instead of 3072"),
    ],
    ids=str,
)
def test_rle_segments_lie_within_the_frame(tmp_path: Path, header: list[int], says: str) -> None:
    data = struct.pack(f"<{len(header)}I", *header).ljust(64, b"\0") + bytes(200)
    content = dicom_radiograph(RAMP, RLELossless, bits=12, PixelData=("OB", encapsulate([data])))
    assert re.search(says, refusal(content, tmp_path))


# De-identification.


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"II*\0\x08\0\0\0",
        dicom_radiograph(RAMP, Modality="CT", PatientName=SECRET),
        dicom_radiograph(RAMP, PatientName=SECRET)[:-20],
        dicom_radiograph(RAMP).replace(b"1.2.840.10008.1.2.1", b"1.\1\0\0\0" + b"0.10008.1.2.1"),
        dicom_with_codestream(b"\0\0\1\xba", RAMP, "1.2.840.10008.1.2.4.100"),
    ],
    ids=["empty", "tiff", "ct", "cut", "syntax", "mpeg"],
)
def test_what_cannot_be_deidentified_is_told_by_one_error(content: bytes) -> None:
    with pytest.raises(DeidentificationError) as caught:
        deidentify(io.BytesIO(content), "film")
    assert str(caught.value).startswith("film ")
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


def test_an_icon_is_not_kept() -> None:
    icon = Dataset()
    icon.add_new("PixelData", "OB", SECRET.encode() * 2)
    content = dicom_radiograph(RAMP, bits=12, IconImageSequence=[icon])
    clean = deidentify(io.BytesIO(content), "film")
    assert SECRET.encode() not in clean
    assert "IconImageSequence" not in dcmread(io.BytesIO(clean))
