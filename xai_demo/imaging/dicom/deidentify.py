"""A radiograph's DICOM file again, with what its picture needs and nothing else.

Written from what `header` reads, not copied: what is not read cannot be passed on.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

from xai_demo.imaging.dicom import frame_of
from xai_demo.imaging.dicom.header import Header, Table, read_header

if TYPE_CHECKING:
    from pydicom import Dataset

_PREAMBLE = b"Without patient's data: written anew by xai_demo".ljust(128, b"\0")
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_RLE, _EXPLICIT, _IMPLICIT, _BIG_ENDIAN = (
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
)


def is_stripped(file: BinaryIO) -> bool:
    """Whether `stripped` wrote it."""
    file.seek(0)
    return file.read(len(_PREAMBLE)) == _PREAMBLE


def stripped(file: BinaryIO, name: str) -> bytes:
    """The film as a file of its own; raises UnreadableFileError and DamagedError."""
    from pydicom import FileMetaDataset
    from pydicom.uid import UID

    header = read_header(file, name)
    syntax = UID(header.syntax)
    pixels = frame_of(file, header.pixels, syntax, header.rows, header.columns, header.allocated)
    encapsulated = syntax.is_encapsulated and header.syntax != _RLE
    if encapsulated:
        pixels = pixels[:-8]  # the delimiter, which is written after them anyway
    kept = _described(header)
    kept.add_new("PixelData", "OB" if header.allocated == 8 else "OW", pixels)
    kept.preamble = _PREAMBLE
    kept.file_meta = FileMetaDataset()
    kept.file_meta.TransferSyntaxUID = UID(_EXPLICIT) if header.syntax == _RLE else syntax
    kept["PixelData"].is_undefined_length = encapsulated
    stream = BytesIO()
    kept.save_as(
        stream,
        implicit_vr=header.syntax == _IMPLICIT,
        little_endian=header.syntax != _BIG_ENDIAN,
        enforce_file_format=False,
    )
    return stream.getvalue()


def _described(header: Header) -> Dataset:
    from pydicom import Dataset

    kept = Dataset()
    kept.Modality, kept.PhotometricInterpretation = header.modality, header.photometric
    kept.Rows, kept.Columns, kept.SamplesPerPixel = header.rows, header.columns, 1
    kept.BitsAllocated, kept.BitsStored = header.allocated, header.bits
    kept.HighBit, kept.PixelRepresentation = header.high_bit, int(header.signed)
    kept.RescaleSlope, kept.RescaleIntercept = _decimal(header.slope), _decimal(header.intercept)
    if header.view:
        kept.ViewPosition = header.view.upper()
    if header.window:
        kept.WindowCenter, kept.WindowWidth = map(_decimal, header.window)
    if header.function in _FUNCTIONS:
        kept.VOILUTFunction = header.function
    kind = "SS" if header.signed else "US"
    if header.padding:
        kept.add_new("PixelPaddingValue", kind, header.padding[0])
        kept.add_new("PixelPaddingRangeLimit", kind, header.padding[1])
    if header.modality_table:
        kept.ModalityLUTSequence = [_table(header.modality_table, kind)]
    if header.table:
        kept.VOILUTSequence = [_table(header.table, kind)]
    return kept


def _table(table: Table, kind: str) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    count = len(table.values)
    first = table.first if kind == "US" else table.first % 65536
    item.add_new("LUTDescriptor", "US", [count % 65536, first, table.bits])
    item.add_new("LUTData", "US", [int(value) for value in table.values])
    return item


def _decimal(number: float) -> str:
    """As a decimal string, which has 16 characters at most: PS3.5, 6.2."""
    return next(text for places in range(16, 0, -1) if len(text := f"{number:.{places}g}") <= 16)
