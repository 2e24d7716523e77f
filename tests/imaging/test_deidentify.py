"""A film written anew: the same picture, and nothing of the patient."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from tests.support.dicom_files import (
    SECRET,
    dicom_radiograph,
    dicom_with_codestream,
    jpeg_bytes,
)
from tests.support.hostile_files import radiograph
from xai_demo.errors import UnreadableFileError
from xai_demo.imaging import read_image
from xai_demo.imaging.dicom.deidentify import deidentify, is_deidentified
from xai_demo.records import Radiograph

RAMP = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)
NAMED: dict[str, Any] = {
    "PatientName": f"{SECRET}^JANE",
    "PatientID": SECRET,
    "InstitutionName": SECRET,
    "ImageComments": SECRET,
    "StudyDescription": SECRET,
}


def read(content: bytes, folder: Path) -> Radiograph:
    (folder / "film").write_bytes(content)
    return read_image(folder / "film", max_pixels=1_000_000)


def lookup(first: int) -> tuple[str, list[Dataset]]:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [3072, first, 12])
    item.LUTExplanation = SECRET
    item.add_new("LUTData", "OW", (4095 - np.arange(3072, dtype="<u2")).tobytes())
    return "SQ", [item]


@pytest.mark.parametrize(
    "content",
    [
        dicom_radiograph(RAMP, ExplicitVRLittleEndian, bits=12, **NAMED),
        dicom_radiograph(RAMP, ImplicitVRLittleEndian, bits=12, **NAMED),
        dicom_radiograph(RAMP, ExplicitVRBigEndian, bits=12, **NAMED),
        dicom_radiograph(RAMP, RLELossless, bits=12, **NAMED),
        dicom_radiograph(RAMP, JPEG2000Lossless, bits=12, **NAMED),
        dicom_radiograph(RAMP.astype(np.int16) - 2048, bits=12, **NAMED),
        dicom_radiograph(RAMP, bits=12, WindowCenter="1000.5", WindowWidth="777", **NAMED),
        dicom_radiograph(
            RAMP, bits=12, VOILUTFunction="SIGMOID", WindowCenter="9", WindowWidth="7", **NAMED
        ),
        dicom_radiograph(
            RAMP, bits=12, RescaleSlope="2.5", RescaleIntercept="-1024", ViewPosition="LL"
        ),
        dicom_radiograph(RAMP, bits=12, PhotometricInterpretation="MONOCHROME1", **NAMED),
        dicom_radiograph(
            RAMP, bits=12, PixelPaddingValue=("US", 5), PixelPaddingRangeLimit=("US", 9)
        ),
        dicom_radiograph(RAMP, bits=12, VOILUTSequence=lookup(0), **NAMED),
        dicom_with_codestream(jpeg_bytes(radiograph()), radiograph(), JPEGBaseline8Bit, **NAMED),
    ],
)
def test_the_picture_stays_and_the_patient_goes(content: bytes, tmp_path: Path) -> None:
    written = deidentify(io.BytesIO(content), "film")
    before, after = read(content, tmp_path), read(written, tmp_path)
    assert np.array_equal(before.pixels, after.pixels)
    assert dict(before.facts) == dict(after.facts)
    assert before.warnings == after.warnings
    assert SECRET.encode() not in written
    assert not is_deidentified(io.BytesIO(content))
    assert is_deidentified(io.BytesIO(written))
    tags = {element.tag.group for element in dcmread(io.BytesIO(written))}
    assert tags <= {0x0008, 0x0018, 0x0028, 0x7FE0}
    assert deidentify(io.BytesIO(written), "film") == written


def test_free_words_in_what_is_kept_do_not_stay(tmp_path: Path) -> None:
    content = dicom_radiograph(RAMP, bits=12, ViewPosition=SECRET, VOILUTFunction=SECRET)
    written = deidentify(io.BytesIO(content), "film")
    assert SECRET.encode() not in written
    assert read(written, tmp_path).facts["view"] == "unknown"


def test_what_is_no_radiograph_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="modality is CT"):
        deidentify(io.BytesIO(dicom_radiograph(RAMP, Modality="CT")), "film")
