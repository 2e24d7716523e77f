"""De-identification of a DICOM radiograph (PS3.15): a new file with only what its image needs.

The file is written from the few elements that `header` reads and not copied: an element that is
never read, such as the patient's name, cannot be passed on.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, BinaryIO

from xai_demo.errors import DeidentificationError, UnreadableFileError
from xai_demo.imaging.dicom.frames import SYNTAXES, Frame, read_frame
from xai_demo.imaging.dicom.header import (
    AGE_TERMS,
    EXPLICIT,
    OWN_AGE_TAG,
    OWN_BLOCK,
    OWN_CREATOR,
    Header,
    inflate_dataset,
    read_header,
)
from xai_demo.imaging.dicom.values import LookupTable

if TYPE_CHECKING:
    from pydicom import Dataset

# Marks the file, so that it is not de-identified again; PS3.10 leaves the preamble to applications.
_PREAMBLE = b"Without patient's data: written anew by xai_demo".ljust(128, b"\0")
_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


def is_deidentified(file: BinaryIO) -> bool:
    """Whether a file was written by `deidentify`."""
    file.seek(0)
    return file.read(len(_PREAMBLE)) == _PREAMBLE


def deidentify(file: BinaryIO, name: str) -> bytes:
    """A DICOM radiograph as the bytes of a new file without patient data.

    Pixels are written uncompressed, or as the codestream that they are. Raises
    DeidentificationError, and nothing else, for every file that cannot be de-identified: it is not
    a readable radiograph, and whoever holds it should delete it.
    """
    reason = ""
    try:
        return _write_anew(file, name)
    except UnreadableFileError as error:
        reason = str(error)
    # A file that the reader would accept may still hold values that cannot be written.
    except Exception:
        reason = f"{name} cannot be written without its patient's data; expected a valid file."
    # Raised outside of the handler, so that an error that may quote the file is not chained to it.
    raise DeidentificationError(reason)


def _write_anew(file: BinaryIO, name: str) -> bytes:
    from pydicom import FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID

    file = inflate_dataset(file, name)
    header = read_header(file, name)
    frame = read_frame(file, header, name)
    dataset = _new_dataset(header)
    is_encapsulated = frame.codestream is not None
    kind = "OB" if header.allocated == 8 or is_encapsulated else "OW"
    pixels = encapsulate([frame.data]) if is_encapsulated else frame.data
    # Values have an even length: PS3.5, 7.1.1.
    dataset.add_new("PixelData", kind, pixels + b"\0" * (len(pixels) % 2))
    dataset.preamble = _PREAMBLE
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(_transfer_syntax(header, frame))
    dataset["PixelData"].is_undefined_length = is_encapsulated
    stream = BytesIO()
    # A complete file would need the UIDs of its instance, which lead back to the patient.
    dataset.save_as(stream, implicit_vr=False, little_endian=True, enforce_file_format=False)
    return stream.getvalue()


def _transfer_syntax(header: Header, frame: Frame) -> str:
    """The declared one where the codestream is of that kind, as it may say lossless or not."""
    if frame.codestream is None:
        return EXPLICIT
    syntaxes = SYNTAXES[frame.codestream.process]
    return header.syntax if header.syntax in syntaxes else syntaxes[0]


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
    if header.shape:
        dataset.PresentationLUTShape = header.shape
    if header.stretch != 1:
        dataset.PixelSpacing = [_decimal_string(header.stretch), "1"]
    if header.age:
        # Not as a patient's age: that would be a number of years, and nobody's.
        term = next(term for term, age in AGE_TERMS.items() if age == header.age)
        block = dataset.private_block(OWN_BLOCK, OWN_CREATOR, create=True)
        block.add_new(OWN_AGE_TAG & 0xFF, "CS", term)
    kind = "SS" if header.signed else "US"
    if header.padding:
        dataset.add_new("PixelPaddingValue", kind, header.padding[0])
        dataset.add_new("PixelPaddingRangeLimit", kind, header.padding[1])
    if header.modality_table:
        dataset.ModalityLUTSequence = [_lookup_table_item(header.modality_table)]
    if header.table:
        dataset.VOILUTSequence = [_lookup_table_item(header.table)]
    return dataset


def _lookup_table_item(table: LookupTable) -> Dataset:
    from pydicom import Dataset

    item = Dataset()
    # All three are signed or none is, so that a count of 40000 is written as its bit pattern.
    kind = "SS" if table.first < 0 else "US"
    descriptor = [len(table.values) % 65536, table.first, table.bits]
    if kind == "SS":
        descriptor = [value - 65536 if value > 32767 else value for value in descriptor]
    item.add_new("LUTDescriptor", kind, descriptor)
    # Not US, whose explicit length has no room for a full table.
    item.add_new("LUTData", "OW", table.values.astype("<u2").tobytes())
    return item


def _decimal_string(number: float) -> str:
    """A number as a DICOM decimal string, which has at most 16 characters: PS3.5, 6.2."""
    return next(text for places in range(16, 0, -1) if len(text := f"{number:.{places}g}") <= 16)
