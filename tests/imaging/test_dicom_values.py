"""What the numbers, tables and terms of a DICOM file mean, and that none is guessed."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.support.dicom_files import dicom_radiograph
from xai_demo.errors import UnreadableFileError
from xai_demo.imaging import read_image
from xai_demo.imaging.dicom.deidentify import deidentify
from xai_demo.imaging.gate import screen_radiograph
from xai_demo.records import Radiograph

RAMP = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)  # 0 to 3071
SYNTAXES = [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]


def read(content: bytes, folder: Path) -> Radiograph:
    """The radiograph, which must be the same once it is de-identified."""
    (folder / "film").write_bytes(content)
    radiograph = read_image(folder / "film", max_pixels=1_000_000)
    (folder / "clean").write_bytes(deidentify(io.BytesIO(content), "film"))
    clean = read_image(folder / "clean", max_pixels=1_000_000)
    np.testing.assert_allclose(clean.pixels, radiograph.pixels, atol=1e-6)
    assert dict(clean.facts) == dict(radiograph.facts)
    return radiograph


def refusal(content: bytes, folder: Path) -> str:
    with pytest.raises(UnreadableFileError) as caught:
        read(content, folder)
    assert caught.value.__context__ is None
    return str(caught.value)


def raw(tags: dict[str, str]) -> bytes:
    """A radiograph with decimal strings exactly as given, which pydicom would check."""
    placeholder = {name: f"1{'7' * (len(text) + len(text) % 2 - 1)}" for name, text in tags.items()}
    content = dicom_radiograph(RAMP, bits=12, **{n: p for n, p in placeholder.items() if p != "1"})
    for name, text in tags.items():
        head = {"RescaleSlope": (0x28, 0x1053), "RescaleIntercept": (0x28, 0x1052),
                "WindowCenter": (0x28, 0x1050), "WindowWidth": (0x28, 0x1051),
                "NumberOfFrames": (0x28, 0x0008), "PixelSpacing": (0x28, 0x0030)}[name]  # fmt: skip
        vr = b"IS" if name == "NumberOfFrames" else b"DS"
        at = content.index(struct.pack("<HH2s", *head, vr)) + 8
        data = text.encode().ljust(len(text) + len(text) % 2)
        content = content[:at] + data + content[at + len(data) :]
    return content


@pytest.mark.parametrize("text", ["2,0000", "abc", "nan", "inf", "1e999", "1_000", "0x10", "--1"])
@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept", "WindowCenter"])
def test_a_number_that_cannot_be_read_is_refused_by_its_value(
    tmp_path: Path, name: str, text: str
) -> None:
    tags = {name: text} | ({"WindowWidth": "100"} if name == "WindowCenter" else {})
    message = refusal(raw(tags), tmp_path)
    label = {
        "RescaleSlope": "rescale slope",
        "RescaleIntercept": "rescale intercept",
        "WindowCenter": "window centre",
    }[name]
    # Letters are not quoted, as they might be a name.
    is_number_like = not re.search("[a-z]", text) or text in ("nan", "inf", "1e999")
    shown = (
        repr(text) if is_number_like and "_" not in text else f"a text of {len(text)} characters"
    )
    assert f"has {shown} as its {label}; expected a decimal number" in message


@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept"])
def test_an_empty_number_is_no_default(tmp_path: Path, name: str) -> None:
    assert "has no value as its rescale" in refusal(
        dicom_radiograph(RAMP, bits=12, **{name: ("DS", "")}), tmp_path
    )


@pytest.mark.parametrize("text", ["2.5E-1", "+.25", "0.2500e0", " 0.25 "])
def test_every_way_to_write_a_decimal_string_is_read(tmp_path: Path, text: str) -> None:
    # Beyond white, so that the slope counts: a window of 0 to 100 in units of a quarter.
    picture = read(
        raw({"RescaleSlope": text, "WindowCenter": "100.5", "WindowWidth": "201"}), tmp_path
    )
    np.testing.assert_allclose(picture.pixels, np.clip(RAMP * 0.25 / 200, 0, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({"RescaleSlope": "0"}, "has 0 as its rescale slope"),
        ({"WindowCenter": "9"}, "has a window centre without a window width"),
        ({"WindowWidth": "9"}, "has a window width without a window centre"),
        ({"PixelSpacing": ["0.1", "9"]}, r"has pixels of 0.1 x 9 \(height x width\)"),
        ({"PixelRepresentation": 2}, "has 2 as its pixel representation; expected 0 or 1"),
        ({"Rows": None}, "is a DICOM file without its number of rows"),
        ({"BitsAllocated": None}, "without its bits per pixel"),
        ({"NumberOfFrames": ("IS", "")}, "has no value as its number of frames"),
        ({"Rows": ("OB", b"\1\2\3\4\5\6")}, "has 513 x 48|has 48 x 513"),
        ({"PixelPaddingValue": ("US", [])}, "has 0 bytes as its pixel padding value"),
    ],
    ids=str,
)
def test_what_contradicts_itself_or_is_missing_is_refused(
    tmp_path: Path, tags: dict[str, Any], says: str
) -> None:
    assert re.search(says, refusal(dicom_radiograph(RAMP, bits=12, **tags), tmp_path))


@pytest.mark.parametrize(
    ("window", "says"), [(("0", "0"), "width of 0"), (("", ""), "window is empty")]
)
def test_a_window_of_nothing_shows_the_full_range_and_says_so(
    tmp_path: Path, window: tuple[str, str], says: str
) -> None:
    tags = {"WindowCenter": ("DS", window[0]), "WindowWidth": ("DS", window[1])}
    picture = read(dicom_radiograph(RAMP, bits=12, **tags), tmp_path)
    np.testing.assert_allclose(picture.pixels, RAMP / 4095, atol=1e-6)
    assert any(says in warning for warning in picture.warnings)


def table(first: int, vr: str, values: list[int], bits: int, data_vr: str = "US") -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [len(values) % 65536, first, bits])
    packed = np.array(values, "<u2").tobytes() if data_vr == "OW" else values
    item.add_new("LUTData", data_vr, packed)
    return [item]


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("vr", ["SS", "US"])
def test_a_table_begins_where_its_values_are_whatever_its_sign(
    tmp_path: Path, syntax: str, vr: str
) -> None:
    # -1024 to 2047 after the intercept. As US the first value is 64512, where no pixel is.
    tags = {
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
        "VOILUTSequence": table(-1024 if vr == "SS" else 64512, vr, [*range(0, 4096, 2)], 12),
    }
    picture = read(dicom_radiograph(RAMP, syntax, bits=12, **tags), tmp_path)
    expected = np.minimum(2 * RAMP.astype(int), 4094) / 4095
    np.testing.assert_allclose(picture.pixels, expected, atol=1e-6)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_table_of_signed_pixels_begins_below_zero(tmp_path: Path, syntax: str) -> None:
    stored = (RAMP.astype(np.int16) - 2048).astype(np.int16)
    tags = {"ModalityLUTSequence": table(-2048, "SS", [*range(4096)], 12)}
    picture = read(dicom_radiograph(stored, syntax, bits=12, **tags), tmp_path)
    np.testing.assert_allclose(picture.pixels, RAMP / 4095, atol=1e-6)


def test_an_unsigned_table_may_begin_above_32767(tmp_path: Path) -> None:
    stored = (RAMP + 40000).astype(np.uint16)
    tags = {"VOILUTSequence": table(40000, "US", [*range(3072)], 12)}
    picture = read(dicom_radiograph(stored, bits=16, **tags), tmp_path)
    np.testing.assert_allclose(picture.pixels, RAMP / 4095, atol=1e-6)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("data_vr", ["OW", "OB"])
def test_a_table_of_eight_bits_may_have_one_byte_per_value(
    tmp_path: Path, syntax: str, data_vr: str
) -> None:
    values = bytes(range(0, 256, 5))
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values), 0, 8])
    is_swapped = syntax == ExplicitVRBigEndian and data_vr == "OW"
    packed = np.frombuffer(values, np.uint16).byteswap().tobytes() if is_swapped else values
    item.add_new("LUTData", data_vr, packed)
    stored = (np.arange(1600) % len(values)).astype(np.uint16).reshape(40, 40)
    picture = read(dicom_radiograph(stored, syntax, bits=12, VOILUTSequence=[item]), tmp_path)
    np.testing.assert_allclose(picture.pixels, stored * 5 / 255, atol=1e-6)


def test_a_full_table_has_a_count_of_zero(tmp_path: Path) -> None:
    tags = {"VOILUTSequence": table(0, "US", [*range(65535, -1, -1)], 16, "OW")}
    stored = (RAMP * 21).astype(np.uint16)
    picture = read(dicom_radiograph(stored, bits=16, **tags), tmp_path)
    np.testing.assert_allclose(picture.pixels, 1 - stored / 65535, atol=1e-6)


def test_a_table_with_more_bits_than_it_says_is_shown_by_its_values(tmp_path: Path) -> None:
    stored = (np.arange(1600) % 4).astype(np.uint16).reshape(40, 40)
    tags = {"VOILUTSequence": table(0, "US", [0, 1365, 2730, 4095], 8)}
    picture = read(dicom_radiograph(stored, bits=12, **tags), tmp_path)
    np.testing.assert_allclose(picture.pixels, stored / 3, atol=1e-3)


@pytest.mark.parametrize("keyword", ["LUTDescriptor", "LUTData"])
def test_half_a_table_is_refused(tmp_path: Path, keyword: str) -> None:
    (item,) = table(0, "US", [0, 1, 2], 12)
    del item[keyword]
    message = refusal(dicom_radiograph(RAMP, bits=12, VOILUTSequence=[item]), tmp_path)
    assert "VOI lookup table whose descriptor or data are missing" in message


@pytest.mark.parametrize(
    ("tags", "is_inverted", "is_said"),
    [
        ({"PhotometricInterpretation": "MONOCHROME1"}, True, False),
        ({"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}, True, 0),
        ({"PresentationLUTShape": "IDENTITY"}, False, False),
        ({"PresentationLUTShape": "INVERSE"}, True, True),
        ({"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "IDENTITY"}, True, 1),
    ],
)
def test_white_is_where_the_file_says(
    tmp_path: Path, tags: dict[str, str], is_inverted: bool, is_said: bool
) -> None:
    picture = read(dicom_radiograph(RAMP, bits=12, **tags), tmp_path)
    expected = 1 - RAMP / 4095 if is_inverted else RAMP / 4095
    np.testing.assert_allclose(picture.pixels, expected, atol=1e-6)
    assert bool(picture.warnings) == bool(is_said)


@pytest.mark.parametrize(
    ("tags", "shape"),
    [
        ({"PixelSpacing": ["0.2", "0.1"]}, (128, 48)),
        ({"PixelSpacing": ["0.1", "0.2"]}, (64, 96)),
        ({"ImagerPixelSpacing": ["0.2", "0.1"]}, (128, 48)),
        ({"PixelAspectRatio": [3, 2]}, (96, 48)),
        ({"PixelAspectRatio": [1, 1], "PixelSpacing": ["0.2", "0.1"]}, (64, 48)),
        ({"PixelSpacing": ["0.143", "0.143"]}, (64, 48)),
        ({"PixelSpacing": ("DS", "")}, (64, 48)),
    ],
    ids=str,
)
def test_pixels_that_are_not_square_are_made_so(
    tmp_path: Path, tags: dict[str, Any], shape: tuple[int, int]
) -> None:
    picture = read(dicom_radiograph(RAMP, bits=12, **tags), tmp_path)
    assert picture.pixels.shape == shape
    assert (picture.facts["height"], picture.facts["width"]) == shape
    assert any("stretched" in warning for warning in picture.warnings) == (shape != (64, 48))
    assert picture.pixels[0, 0] == pytest.approx(0)
    assert picture.pixels[-1, -1] == pytest.approx(3071 / 4095, abs=1e-3)


@pytest.mark.parametrize("vr", ["US", "SS"])
@pytest.mark.parametrize("signed", [False, True])
def test_padding_has_the_sign_of_the_pixels(tmp_path: Path, vr: str, signed: bool) -> None:
    stored = np.full((40, 40), 200, np.int16 if signed else np.uint16)
    stored[:10] = -5 if signed else 65531
    tags = {"PixelPaddingValue": (vr, -5 if vr == "SS" else 65531), "bits": 16}
    tags["PhotometricInterpretation"] = "MONOCHROME1"
    pixels = read(dicom_radiograph(stored, **tags), tmp_path).pixels
    assert (pixels[:10] == 0).all()
    assert (pixels[10:] > 0).all()


@pytest.mark.parametrize(
    ("center", "width", "look"),
    [
        ("32768", "65536", "is nearly black"),
        ("-9000", "20000", "is nearly white"),
        ("2048", "60000", "uses only 5.1 % of the grey levels"),
        # 14 bits, and 8 bits.
        ("8192", "16384", "uses only 19 % of the grey levels"),
        ("128", "256", "is nearly white"),
        ("5000", "4000", "is nearly black"),
    ],
)
def test_a_window_that_is_not_of_these_pixels_makes_the_answer_doubtful(
    tmp_path: Path, center: str, width: str, look: str
) -> None:
    tags = {"WindowCenter": center, "WindowWidth": width}
    stored = np.where(RAMP % 10, 3071, 0).astype(np.uint16)
    if center == "-9000":
        stored[stored > 0] = 1024
    picture = read(dicom_radiograph(stored, bits=12, **tags), tmp_path)
    assert f"does not fit its 12-bit pixels: the image {look}" in picture.doubt
    assert picture.doubt in picture.warnings
    # What the gate finds does not hide it.
    assert screen_radiograph(picture).doubt
    assert screen_radiograph(picture, "as-is").doubt == ""


def test_a_window_that_fits_is_nothing_to_doubt(tmp_path: Path) -> None:
    tags = {"WindowCenter": "1500", "WindowWidth": "3000"}
    picture = read(dicom_radiograph(RAMP, bits=12, **tags), tmp_path)
    assert (picture.doubt, picture.warnings) == ("", ())
