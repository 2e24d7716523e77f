"""Builds DICOM files with pydicom, with whatever tags and pixels a test needs."""

from __future__ import annotations

import struct
import warnings
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

_ENCODERS = {
    RLELossless: "pydicom",
    JPEG2000Lossless: "pylibjpeg",
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
}
SECRET = "ZYXWSECRET"  # wherever a patient, a hospital or a device could be named


def dicom_radiograph(
    pixels: NDArray[Any] | None = None, syntax: str = ExplicitVRLittleEndian, **tags: Any
) -> bytes:
    """A radiograph as a DICOM file; `bits` is BitsStored, and a tag that is None is left out."""
    if pixels is None:
        pixels = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)
    bits = tags.pop("bits", 8 * pixels.dtype.itemsize)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (
        8 * pixels.dtype.itemsize,
        bits,
        bits - 1,
    )
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.Modality, dataset.ViewPosition = "DX", "PA"
    dataset.add_new("PixelData", "OW", pixels.tobytes())
    if syntax in _ENCODERS:
        options = {"jls_error": 2} if syntax == JPEGLSNearLossless else {}
        plugin = _ENCODERS[syntax]
        dataset.compress(syntax, encoding_plugin=plugin, generate_instance_uid=False, **options)
    elif syntax == ExplicitVRBigEndian:
        dataset["PixelData"].value = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    with warnings.catch_warnings(record=True):  # of values that are wrong on purpose
        for name, value in tags.items():
            if value is None:
                delattr(dataset, name)
            elif isinstance(value, tuple):
                dataset.add_new(name, *value)
            else:
                setattr(dataset, name, value)
        return dataset_bytes(dataset)


def dataset_bytes(dataset: Dataset) -> bytes:
    """A dataset as the bytes of a file."""
    stream = BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def dicom_with_codestream(stream: bytes, pixels: NDArray[Any], syntax: str, **tags: Any) -> bytes:
    """A radiograph whose pixels are a compressed codestream."""
    return dicom_radiograph(pixels, syntax, PixelData=("OB", encapsulate([stream])), **tags)


def jpeg_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """An image as baseline JPEG."""
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def lossless_jpeg_bytes(pixels: NDArray[Any], bits: int) -> bytes:
    """Lossless JPEG with the left neighbour as predictor: ISO 10918-1, annex H, process 14."""
    rows, columns = pixels.shape
    codes = "".join(_difference(step) for step in _steps(pixels.astype(int), bits))
    codes += "1" * (-len(codes) % 8)
    data = int(codes, 2).to_bytes(len(codes) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = struct.pack(">BHHB3B", bits, rows, columns, 1, 1, 0x11, 0)
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])  # 17 categories, 5 bits each
    segments = ((b"\xff\xc3", frame), (b"\xff\xc4", table), (b"\xff\xda", b"\1\1\0\1\0\0"))
    head = b"".join(kind + struct.pack(">H", len(body) + 2) + body for kind, body in segments)
    return b"\xff\xd8" + head + data + b"\xff\xd9"


def _steps(pixels: NDArray[Any], bits: int) -> list[int]:
    left = np.empty_like(pixels)
    left[:, 1:] = pixels[:, :-1]
    left[1:, 0] = pixels[:-1, 0]
    left[0, 0] = 2 ** (bits - 1)
    return [int(step) for step in (pixels - left).ravel()]


def _difference(step: int) -> str:
    size = abs(step).bit_length()
    more = step if step >= 0 else step + 2**size - 1
    return f"{size:05b}" + (f"{more:0{size}b}" if size else "")
