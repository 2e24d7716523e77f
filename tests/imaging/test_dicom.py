from __future__ import annotations

import functools
import io
import json
import logging
import re
import struct
import subprocess
import sys
import traceback
import tracemalloc
import warnings
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.datadict
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.support.dicom_files import (
    SECRET,
    dataset_bytes,
    dicom_radiograph,
    dicom_with_codestream,
    jpeg_bytes,
    lossless_jpeg_bytes,
)
from tests.support.hostile_files import radiograph
from xai_demo.errors import UnreadableFileError
from xai_demo.imaging import read_image
from xai_demo.records import Radiograph

RAMP = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)  # 0 to 3071
FRACTIONS = RAMP / 4095


def read(content: bytes, folder: Path, max_pixels: int = 1_000_000) -> Radiograph:
    (folder / "film").write_bytes(content)
    return read_image(folder / "film", max_pixels=max_pixels)


def refusal(content: bytes, folder: Path, **limits: int) -> str:
    with pytest.raises(UnreadableFileError) as caught:
        read(content, folder, **limits)
    error = caught.value
    assert error.__cause__ is None
    assert error.__context__ is None
    message = str(error)
    assert message.startswith("film ")
    assert "expected" in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        RLELossless,
        JPEG2000Lossless,
    ],
    ids=lambda uid: uid.name,
)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.filterwarnings("error")
def test_twelve_bits_are_fractions_of_4095(tmp_path: Path, syntax: str, signed: bool) -> None:
    stored = (RAMP.astype(np.int16) - 2048) if signed else RAMP
    picture = read(dicom_radiograph(stored, syntax, bits=12), tmp_path)
    np.testing.assert_allclose(picture.pixels, FRACTIONS, atol=1e-6)
    assert picture.pixels.dtype == np.float32
    assert picture.warnings == ()


@pytest.mark.parametrize("bits", [8, 10, 14, 16])
def test_all_depths_of_pixels_have_their_white(tmp_path: Path, bits: int) -> None:
    kind = np.uint8 if bits == 8 else np.uint16
    stored = np.full((40, 40), 2**bits - 1, kind)
    stored[:20] = 0
    pixels = read(dicom_radiograph(stored, bits=bits), tmp_path).pixels
    assert (pixels[:20] == 0).all()
    assert (pixels[20:] == 1).all()


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_eight_bits_of_either_sign_go_from_black_to_white(
    tmp_path: Path, kind: type[np.generic]
) -> None:
    info = np.iinfo(kind)
    stored = np.linspace(info.min, info.max, 64 * 64).round().astype(kind).reshape(64, 64)
    expected = (stored.astype(float) - info.min) / 255
    np.testing.assert_allclose(read(dicom_radiograph(stored), tmp_path).pixels, expected, atol=1e-6)


def test_bits_above_those_stored_are_an_overlay_and_ignored(tmp_path: Path) -> None:
    pixels = read(dicom_radiograph(RAMP | 0xF000, bits=12), tmp_path).pixels
    np.testing.assert_allclose(pixels, FRACTIONS, atol=1e-6)


def test_bits_stored_high_up_are_taken_from_there(tmp_path: Path) -> None:
    pixels = read(dicom_radiograph(RAMP << 4, bits=12, HighBit=15), tmp_path).pixels
    np.testing.assert_allclose(pixels, FRACTIONS, atol=1e-6)


def test_baseline_jpeg_is_what_it_was(tmp_path: Path) -> None:
    grey = radiograph()
    pixels = read(dicom_with_codestream(jpeg_bytes(grey), grey, JPEGBaseline8Bit), tmp_path).pixels
    np.testing.assert_allclose(pixels, grey / 255, atol=6 / 255)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    content = dicom_radiograph(RAMP, bits=12, PhotometricInterpretation="MONOCHROME1")
    picture = read(content, tmp_path)
    np.testing.assert_allclose(picture.pixels, 1 - FRACTIONS, atol=1e-6)
    assert picture.facts["photometric"] == "MONOCHROME1"


def test_padding_is_black_even_where_zero_is_white(tmp_path: Path) -> None:
    stored = np.full((40, 40), 100, np.uint8)
    stored[:5], stored[5:10] = 0, 3
    tags = {"PixelPaddingValue": ("US", 0), "PixelPaddingRangeLimit": ("US", 3)}
    pixels = read(
        dicom_radiograph(stored, PhotometricInterpretation="MONOCHROME1", **tags), tmp_path
    ).pixels
    assert (pixels[:10] == 0).all()
    np.testing.assert_allclose(pixels[10:], 155 / 255, atol=1e-6)


def test_slope_and_intercept_come_before_the_window(tmp_path: Path) -> None:
    # 2 x - 1000 from -500 to 500.5: the window's centre 0.5 is shown as one half (C.11.2.1.2)
    content = dicom_radiograph(
        RAMP,
        bits=12,
        RescaleSlope="2",
        RescaleIntercept="-1000",
        WindowCenter=["0.5", "9"],
        WindowWidth=["1001", "7"],
    )
    picture = read(content, tmp_path)
    expected = np.clip((2.0 * RAMP - 1000 - 0) / 1000 + 0.5, 0, 1)
    np.testing.assert_allclose(picture.pixels, expected, atol=1e-6)
    assert picture.facts["window"] == {"center": 0.5, "width": 1001.0}


@pytest.mark.parametrize(
    ("function", "at_1500"),
    [("LINEAR", 500.5 / 999 + 0.5), ("LINEAR_EXACT", 1.0), ("SIGMOID", 1 / (1 + np.exp(-2)))],
)
def test_the_function_of_the_window(tmp_path: Path, function: str, at_1500: float) -> None:
    stored = np.full((40, 40), 1500, np.uint16)
    stored[:20] = 1000
    window = {"WindowCenter": "1000", "WindowWidth": "1000", "VOILUTFunction": function}
    pixels = read(dicom_radiograph(stored, bits=12, **window), tmp_path).pixels
    assert pixels[0, 0] == pytest.approx(0.5, abs=1e-3)
    assert pixels[-1, 0] == pytest.approx(min(1, at_1500), abs=1e-6)


def table(first: int, values: list[int], bits: int) -> list[Dataset]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(values), first, bits])
    item.add_new("LUTData", "US", values)
    return [item]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_a_lookup_table_comes_before_the_window(tmp_path: Path, syntax: str) -> None:
    stored = np.full((40, 40), 11, np.uint16)
    stored[0], stored[1], stored[2] = 5, 10, 4000  # before, at and after what it maps
    tags = {
        "WindowCenter": "9",
        "WindowWidth": "3",
        "VOILUTSequence": table(10, [0, 511, 1023], 10),
    }
    picture = read(dicom_radiograph(stored, syntax, bits=12, **tags), tmp_path)
    np.testing.assert_allclose(picture.pixels[:4, 0], [0, 0, 1, 511 / 1023], atol=1e-6)
    assert picture.facts["voi"] == "lookup table"


def test_a_modality_table_stands_for_slope_and_intercept(tmp_path: Path) -> None:
    stored = (np.arange(1600) % 4).astype(np.uint16).reshape(40, 40)
    tags = {"ModalityLUTSequence": table(0, [0, 255, 51, 102], 8)}
    pixels = read(dicom_radiograph(stored, bits=12, **tags), tmp_path).pixels
    np.testing.assert_allclose(pixels[0, :4], [0, 1, 0.2, 0.4], atol=1e-6)


def test_facts_are_what_the_file_says_of_the_picture(tmp_path: Path) -> None:
    content = dicom_radiograph(
        RAMP, bits=12, Modality="CR", ViewPosition="AP", WindowCenter=2048, WindowWidth=4096
    )
    assert read(content, tmp_path).facts == {
        "width": 48,
        "height": 64,
        "format": "DICOM",
        "modality": "CR",
        "view": "AP",
        "window": {"center": 2048.0, "width": 4096.0},
        "voi": "window",
        "bits": 12,
        "photometric": "MONOCHROME2",
        "colour": False,
    }


@pytest.mark.parametrize("start", [0, 132], ids=["without a preamble", "and its magic word"])
def test_a_file_is_known_by_its_content(tmp_path: Path, start: int) -> None:
    content = dicom_radiograph(bits=12)
    content = content[132:] if start == 0 else content
    np.testing.assert_allclose(read(content, tmp_path).pixels, FRACTIONS, atol=1e-6)


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_sequences_of_the_patient_are_stepped_over(
    tmp_path: Path, undefined: bool, syntax: str
) -> None:
    inner, outer = Dataset(), Dataset()
    inner.Modality, inner.Rows = "CT", 7
    outer.ReferencedSeriesSequence = [inner, inner]
    outer.is_undefined_length_sequence_item = undefined
    tags = {"RequestAttributesSequence": [outer]}
    content = dicom_radiograph(RAMP, syntax, bits=12, **tags)
    dataset = dcmread(io.BytesIO(content))
    dataset["RequestAttributesSequence"].is_undefined_length = undefined
    picture = read(dataset_bytes(dataset), tmp_path)
    np.testing.assert_allclose(picture.pixels, FRACTIONS, atol=1e-6)


# What is refused, and what is warned of.


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({"Modality": "CT"}, r"modality is CT \(computed tomography\); expected .*DX or CR"),
        ({"Modality": "MR"}, r"modality is MR \(magnetic resonance\)"),
        ({"Modality": "US"}, r"US \(ultrasound\)"),
        ({"Modality": "MG"}, r"MG \(mammography\)"),
        ({"Modality": "SR"}, r"SR \(a structured report\)"),
        ({"Modality": "DOE^JOHN"}, "modality is unknown"),
        ({"NumberOfFrames": "30"}, "contains 30 frames"),
        ({"PixelData": None}, "is a DICOM file without pixels"),
        ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3}, "is a DICOM file in colour"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "unknown kind of pixels"),
        ({"Rows": 0}, "48 x 0 pixels"),
        ({"Rows": 1, "Columns": 1}, "1 x 1 pixels; expected at least 32 x 32"),
        ({"Rows": 640}, r"48 x 640 pixels; expected one side to be at most 10 times"),
        ({"Rows": 65}, r"48 x 65 pixels of 16 bits \(6240 bytes\), but there are only 6144 bytes"),
        ({"Rows": 20000, "Columns": 20000}, r"20000 x 20000 pixels \(400 megapixels\)"),
        ({"BitsAllocated": 32}, "stores 16 bits per pixel in 32"),
        ({"BitsStored": 17}, "stores 17 bits per pixel in 16"),
    ],
    ids=str,
)
def test_what_is_no_radiograph_is_refused_by_name(
    tmp_path: Path, tags: dict[str, Any], says: str
) -> None:
    assert re.search(says, refusal(dicom_radiograph(**tags), tmp_path))


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        ({"ViewPosition": "LL"}, "left lateral radiograph.*frontal radiographs only"),
        ({"ViewPosition": "RL"}, "right lateral radiograph"),
        ({"ViewPosition": "LATERAL"}, "a lateral radiograph"),
        ({"ViewPosition": "RAO"}, "oblique radiograph"),
        ({"Modality": "OT"}, "modality is other"),
        ({"Modality": None}, "modality is not given"),
        ({"bits": 16}, "specifies no window, and its brightest pixel is at 4.7 %"),
        ({"pixels": np.full((40, 40), 200, np.uint8)}, r"same grey everywhere \(0.78 of white\)"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_what_is_odd_is_said(tmp_path: Path, tags: dict[str, Any], says: str) -> None:
    pixels, bits = tags.get("pixels", RAMP), tags.get("bits", 8 if "pixels" in tags else 12)
    rest = {key: value for key, value in tags.items() if key not in ("pixels", "bits")}
    (warning,) = read(dicom_radiograph(pixels, bits=bits, **rest), tmp_path).warnings
    assert re.search(says, warning)


def test_an_unread_transfer_syntax_is_named(tmp_path: Path) -> None:
    mpeg = "1.2.840.10008.1.2.4.100"
    content = dicom_with_codestream(b"\0\0\1\xba", RAMP, mpeg)
    assert re.search("compressed as MPEG2.*not supported", refusal(content, tmp_path))
    for other in (b"1.2.840.SECRET1.2.1", b"1.2.840.99999.1.2.1"):
        message = refusal(dicom_radiograph(RAMP).replace(b"1.2.840.10008.1.2.1", other), tmp_path)
        assert "has an unknown transfer syntax" in message


@pytest.mark.parametrize("module", ["openjpeg.utils", "gdcm", "jpeg_ls"])
def test_a_decoder_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    contents = {
        "openjpeg.utils": dicom_radiograph(RAMP, JPEG2000Lossless, bits=12),
        "gdcm": dicom_with_codestream(lossless_jpeg_bytes(RAMP, 12), RAMP, JPEGLossless, bits=12),
        "jpeg_ls": dicom_radiograph(RAMP, JPEGLSLossless, bits=12),
    }
    monkeypatch.setitem(sys.modules, module, None)
    message = refusal(contents[module], tmp_path)
    package = module.partition(".")[0]
    assert f"whose decoder {package} is not installed; expected uncompressed pixels" in message


def test_what_is_required_is_not_under_the_gpl() -> None:
    lines = (Path(__file__).resolve().parents[2] / "requirements.txt").read_text().split()
    for name in (line.partition("==")[0] for line in lines):
        facts = metadata(name)
        licences = [facts.get("License", ""), *facts.get_all("Classifier", [])]
        assert not [text for text in licences if re.match(r"GPL|.*:: GNU General Public", text)], (
            name
        )


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEG2000Lossless])
def test_a_codestream_of_another_size_is_never_decoded(tmp_path: Path, syntax: str) -> None:
    big = np.zeros((4000, 4000), np.uint8)
    if syntax == JPEGBaseline8Bit:
        content = dicom_with_codestream(jpeg_bytes(big), big, syntax)
    else:
        content = dicom_radiograph(big, syntax)
    dataset = dcmread(io.BytesIO(content))
    dataset.Rows = dataset.Columns = 40
    content = dataset_bytes(dataset)
    tracemalloc.start()
    try:
        message = refusal(content, tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert re.search("4000 x 4000", message)
    assert peak < len(content) + 8e6


def test_rle_is_unpacked_no_further_than_the_picture(tmp_path: Path) -> None:
    dataset = dcmread(io.BytesIO(dicom_radiograph(np.full((4000, 4000), 9, np.uint8), RLELossless)))
    dataset.Rows = dataset.Columns = 40
    content = dataset_bytes(dataset)
    tracemalloc.start()
    try:
        pixels = read(content, tmp_path).pixels
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(pixels, 9 / 255, atol=1e-6)
    assert peak < 8e6


def test_rle_that_is_too_little_is_refused(tmp_path: Path) -> None:
    dataset = dcmread(io.BytesIO(dicom_radiograph(RAMP, RLELossless)))
    dataset.Rows = 65
    assert re.search(
        "unpacks to 307[0-9] bytes instead of 3120", refusal(dataset_bytes(dataset), tmp_path)
    )


def element(group: int, number: int, vr: bytes, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return struct.pack("<HH2sxxI", group, number, vr, size) + body


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (element(9, 1, b"OB", b"1234", 0xFFFFFFF0), "00090001 declares 4294967280 bytes"),
        (element(9, 1, b"SQ", b"1234", 0xFFFFFFFF), "no item"),
        (b"\t\0\1\0\1\2\3\4", "no value representation"),
        (struct.pack("<HH2sH", 9, 1, b"LO", 0) * 300_000, "more than 200000 elements"),
    ],
    ids=["long", "no item", "no representation", "many"],
)
def test_hostile_lengths_end_in_one_sentence(tmp_path: Path, more: bytes, says: str) -> None:
    content = dicom_radiograph(RAMP, bits=12)
    at = content.index(struct.pack("<HH2s", 0x18, 0x5101, b"CS"))
    assert re.search(says, refusal(content[:at] + more + content[at:], tmp_path))


def test_sequences_inside_sequences_have_a_depth(tmp_path: Path) -> None:
    item = b"\xfe\xff\0\xe0\xff\xff\xff\xff"
    deep = (element(9, 1, b"SQ", b"", 0xFFFFFFFF) + item) * 2000
    content = dicom_radiograph(RAMP, bits=12)
    at = content.index(struct.pack("<HH2s", 0x18, 0x5101, b"CS"))
    assert "nested more than 50 deep" in refusal(content[:at] + deep + content[at:], tmp_path)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.99])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
def test_a_film_that_is_cut_off_is_refused(tmp_path: Path, share: float, syntax: str) -> None:
    noisy = np.random.default_rng(0).integers(0, 4096, (64, 48)).astype(np.uint16)
    content = dicom_radiograph(noisy, syntax, bits=12)
    message = refusal(content[: max(140, int(share * len(content)))], tmp_path)
    assert re.search("declares|ends at byte|without pixels|no fragment", message)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
@pytest.mark.filterwarnings("error")
def test_damage_ends_in_a_picture_or_in_one_sentence(tmp_path: Path, syntax: str) -> None:
    dice = np.random.default_rng(7)
    whole = np.frombuffer(
        dicom_radiograph(RAMP, syntax, bits=12, WindowCenter=9, WindowWidth=5), np.uint8
    )
    for _ in range(60):
        damaged = whole.copy()
        reach = len(damaged) if dice.random() < 0.5 else min(len(damaged), 700)
        for at in dice.integers(132, reach, size=dice.integers(1, 6)):
            damaged[at] ^= 1 << dice.integers(0, 8)
        (tmp_path / "film").write_bytes(damaged.tobytes())
        try:
            picture = read_image(tmp_path / "film", max_pixels=1_000_000)
        except UnreadableFileError as error:
            assert "\n" not in str(error)  # noqa: PT017
            assert error.__context__ is None  # noqa: PT017
        else:
            assert np.isfinite(picture.pixels).all()


# The patient.

_TEXTS = {"AE", "AS", "CS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UT"}
_GROUPS = (0x0008, 0x0010, 0x0018, 0x0020, 0x0032, 0x0038, 0x0040, 0x4008)
_READ = {"Modality", "ViewPosition", "VOILUTFunction", "WindowCenter", "WindowWidth"}


@functools.cache
def with_secrets(content: bytes, *, also: tuple[str, ...] = ()) -> bytes:
    """The same film with a secret in every text tag of every group up to the pixels but those that
    are read, in private tags and after the pixels."""
    dataset = dcmread(io.BytesIO(content))
    with warnings.catch_warnings(record=True):
        for tag, (vr, *_, keyword) in pydicom.datadict.DicomDictionary.items():
            is_secret = vr in _TEXTS and tag >> 16 in _GROUPS and keyword not in _READ
            if is_secret and keyword not in ("SpecificCharacterSet", ""):
                dataset.add_new(tag, vr, SECRET)
        for keyword in also:
            setattr(dataset, keyword, SECRET)
        block = dataset.private_block(0x0009, SECRET, create=True)
        block.add_new(1, "LO", SECRET)
        block.add_new(2, "UN", SECRET.encode() * 2)
        inner = Dataset()
        inner.PatientName = inner.PatientID = SECRET
        dataset.OtherPatientIDsSequence = [inner]
        dataset.add_new(0xFFFCFFFC, "OB", SECRET.encode() * 5)
        dataset.preamble = SECRET.encode().ljust(128, b"\0")
        dataset["PixelData"].value = dataset.PixelData + SECRET.encode() * 2
        return dataset_bytes(dataset)


def everything_of(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


SECRETIVE: dict[str, NDArray[np.uint8] | bytes] = {
    "read": dicom_radiograph(RAMP, bits=12),
    "implicit": dicom_radiograph(RAMP, ImplicitVRLittleEndian, bits=12),
    "lateral": dicom_radiograph(RAMP, bits=12, ViewPosition="LL"),
    "padded": dicom_radiograph(RAMP, bits=12, PixelPaddingValue=("US", 0)),
    "rle": dicom_radiograph(RAMP, RLELossless, bits=12),
    "jpeg 2000": dicom_radiograph(RAMP, JPEG2000Lossless, bits=12),
    "frames": dicom_radiograph(NumberOfFrames=3),
    "ct": dicom_radiograph(Modality="CT"),
    "too large": dicom_radiograph(Rows=20000, Columns=20000),
    "too little": dicom_radiograph(Rows=70),
    "deep": dicom_radiograph(BitsStored=17),
}


@pytest.mark.parametrize(
    ("name", "damage", "also"),
    [
        *((name, damage, ()) for name in SECRETIVE for damage in ("whole", "cut off", "damaged")),
        ("read", "whole", ("Modality",)),
        ("read", "whole", ("ViewPosition", "VOILUTFunction")),
        ("read", "whole", ("PhotometricInterpretation",)),
    ],
)
def test_nothing_of_the_patient_leaves_the_reader(
    tmp_path: Path,
    name: str,
    damage: str,
    also: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    content = with_secrets(bytes(SECRETIVE[name]), also=also)
    assert content.count(SECRET.encode()) > 500
    if damage == "cut off":
        content = content[: len(content) // 2]
    elif damage == "damaged":
        content = content.replace(b"\x10\0\x10\0PN", b"\x10\0\x10\0??")
    output: list[str] = []
    caplog.clear()
    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            picture = read(content, tmp_path)
        except UnreadableFileError as error:
            output.append(everything_of(error))
        else:
            output += [json.dumps(dict(picture.facts)), *picture.warnings, repr(picture)]
    output += [str(warning.message) for warning in caught]
    output += [caplog.text, *capfd.readouterr()]
    assert SECRET not in "\n".join(output)
    assert not caught


def test_reading_a_picture_imports_no_dicom_library(tmp_path: Path) -> None:
    program = (
        "import sys, xai_demo.imaging;"
        "print(*{'pydicom', 'openjpeg', 'libjpeg', 'pylibjpeg'} & set(sys.modules))"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == ""
