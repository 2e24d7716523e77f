"""De-identification of a DICOM radiograph (PS3.15): a new file with only what its image needs.

The file is written from the few elements that `header` reads and not copied: an element that is
never read, such as the patient's name, cannot be passed on.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

from xai_demo.imaging.dicom import read_frame
from xai_demo.imaging.dicom.header import Header, LookupTable, read_header

if TYPE_CHECKING:
    from pydicom import Dataset

# Marks the file, so that it is not de-identified again; PS3.10 leaves the preamble to applications.
_PREAMBLE = b"Without patient's data: written anew by xai_demo".ljust(128, b"\0")
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_RLE, _EXPLICIT, _IMPLICIT, _BIG_ENDIAN = (
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.2",
)


def is_deidentified(file: BinaryIO) -> bool:
    """Whether a file was written by `deidentify`."""
    file.seek(0)
    return file.read(len(_PREAMBLE)) == _PREAMBLE


def deidentify(file: BinaryIO, name: str) -> bytes:
    """A DICOM radiograph as the bytes of a new file without patient data.

    Raises UnreadableFileError if it is not a readable radiograph, DamagedError if its pixels are
    not as declared.
    """
    from pydicom import FileMetaDataset
    from pydicom.uid import UID

    header = read_header(file, name)
    syntax = UID(header.syntax)
    pixels = read_frame(file, header.pixels, syntax, header.rows, header.columns, header.allocated)
    is_encapsulated_frame = syntax.is_encapsulated and header.syntax != _RLE
    if is_encapsulated_frame:
        # Without the sequence delimiter, which pydicom writes itself.
        pixels = pixels[:-8]
    dataset = _new_dataset(header)
    dataset.add_new("PixelData", "OB" if header.allocated == 8 else "OW", pixels)
    dataset.preamble = _PREAMBLE
    dataset.file_meta = FileMetaDataset()
    # `read_frame` has unpacked RLE already.
    dataset.file_meta.TransferSyntaxUID = UID(_EXPLICIT) if header.syntax == _RLE else syntax
    dataset["PixelData"].is_undefined_length = is_encapsulated_frame
    stream = BytesIO()
    dataset.save_as(
        stream,
        implicit_vr=header.syntax == _IMPLICIT,
        little_endian=header.syntax != _BIG_ENDIAN,
        # A complete file would need the UIDs of its instance, which lead back to the patient.
        enforce_file_format=False,
    )
    return stream.getvalue()


def _new_dataset(header: Header) -> Dataset:
    """A dataset with everything that the display of the image needs, except the pixels."""
    from pydicom import Dataset

    dataset = Dataset()
    dataset.Modality, dataset.PhotometricInterpretation = header.modality, header.photometric
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = header.rows, header.columns, 1
    dataset.BitsAllocated, dataset.BitsStored = header.allocated, header.bits
    dataset.HighBit, dataset.PixelRepresentation = header.high_bit, int(header.signed)
    dataset.RescaleSlope, dataset.RescaleIntercept = (
        _decimal_string(header.slope),
        _decimal_string(header.intercept),
    )
    if header.view:
        dataset.ViewPosition = header.view.upper()
    if header.window:
        dataset.WindowCenter, dataset.WindowWidth = map(_decimal_string, header.window)
    # Any other function is free text, and displayed like LINEAR.
    if header.function in _FUNCTIONS:
        dataset.VOILUTFunction = header.function
    kind = "SS" if header.signed else "US"
    if header.padding:
        dataset.add_new("PixelPaddingValue", kind, header.padding[0])
        dataset.add_new("PixelPaddingRangeLimit", kind, header.padding[1])
    if header.modality_table:
        dataset.ModalityLUTSequence = [_lookup_table_item(header.modality_table, kind)]
    if header.table:
        dataset.VOILUTSequence = [_lookup_table_item(header.table, kind)]
    return dataset


def _lookup_table_item(table: LookupTable, kind: str) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    count = len(table.values)
    # The descriptor is written as unsigned shorts: a negative first value keeps its bit pattern and
    # a count of 65536 becomes 0.
    first = table.first if kind == "US" else table.first % 65536
    item.add_new("LUTDescriptor", "US", [count % 65536, first, table.bits])
    item.add_new("LUTData", "US", [int(value) for value in table.values])
    return item


def _decimal_string(number: float) -> str:
    """A number as a DICOM decimal string, which has at most 16 characters: PS3.5, 6.2."""
    return next(text for places in range(16, 0, -1) if len(text := f"{number:.{places}g}") <= 16)
