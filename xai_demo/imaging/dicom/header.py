"""The header of a DICOM radiograph: the few elements that its image needs.

Only the elements of `_TAGS` and the lookup tables are ever read, and of text values only known
terms are passed on: no name of a patient, a hospital or a device can leave this module.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import SEEK_END
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from xai_demo.errors import UnreadableFileError
from xai_demo.imaging.dicom.tags import (
    PIXEL_DATA,
    DamagedError,
    Element,
    ElementWalker,
    has_explicit_vr,
    read_file_meta,
    read_value,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXPECTED_FILE = "a single frontal chest radiograph (modality DX or CR) in shades of grey"

_TAGS = {
    "modality": 0x00080060, "view": 0x00185101, "frames": 0x00280008, "samples": 0x00280002,
    "photometric": 0x00280004, "rows": 0x00280010, "columns": 0x00280011, "allocated": 0x00280100,
    "bits": 0x00280101, "high_bit": 0x00280102, "signed": 0x00280103, "padding": 0x00280120,
    "padding_limit": 0x00280121, "center": 0x00281050, "width": 0x00281051,
    "intercept": 0x00281052, "slope": 0x00281053, "function": 0x00281056,
}  # fmt: skip
_MODALITY_LUT, _VOI_LUT, _DESCRIPTOR, _LUT_DATA = 0x00283000, 0x00283010, 0x00283002, 0x00283006
# Code and decimal strings have at most 16 bytes (PS3.5, 6.2), but there may be several values.
_MAX_TEXT_BYTES = 256

RADIOGRAPH_MODALITIES = {
    "DX": "digital radiography",
    "CR": "computed radiography",
    "RG": "film radiography",
}
# Accepted with a warning, because digitised films often have them.
UNSPECIFIED_MODALITIES = {"OT": "other", "": "not given"}
_OTHER_MODALITIES = {
    "CT": "computed tomography", "MR": "magnetic resonance", "US": "ultrasound",
    "MG": "mammography", "PT": "positron emission tomography", "NM": "nuclear medicine",
    "XA": "angiography", "RF": "fluoroscopy", "IO": "intra-oral radiography",
    "PX": "panoramic radiography", "ES": "endoscopy", "XC": "a photograph", "ECG": "a cardiogram",
    "SR": "a structured report", "DOC": "a document", "PR": "a presentation state",
    "SEG": "a segmentation", "KO": "a key object selection", "OP": "ophthalmic photography",
    "OPT": "ophthalmic tomography", "SM": "slide microscopy", "GM": "general microscopy",
    "RTIMAGE": "a radiotherapy image", "RTDOSE": "a radiotherapy dose",
    "RTSTRUCT": "a radiotherapy structure set", "RTPLAN": "a radiotherapy plan",
    "BMD": "bone densitometry", "DG": "diaphanography", "TG": "thermography", "AU": "audio",
}  # fmt: skip
LATERAL_VIEWS = {
    "LL": "left lateral",
    "RL": "right lateral",
    "LATERAL": "lateral",
    "LAT": "lateral",
}
OBLIQUE_VIEWS = ("LAO", "RAO", "LPO", "RPO", "LLO", "RLO", "OBLIQUE")
_KNOWN_VIEWS = {"PA", "AP", "LLD", "RLD", *LATERAL_VIEWS, *OBLIQUE_VIEWS}
_DEFLATED, _BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
_IMPLICIT = "1.2.840.10008.1.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupTable:
    """A lookup table: the first input value, and the output for each value from there on."""

    first: int
    values: NDArray[np.uint16]
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a DICOM file says about its image."""

    rows: int
    columns: int
    allocated: int
    bits: int
    high_bit: int
    signed: bool
    photometric: str
    modality: str
    view: str
    syntax: str
    pixels: Element
    slope: float
    intercept: float
    window: tuple[float, float] | None  # centre and width
    function: str  # the VOI LUT function; "" means LINEAR
    padding: tuple[int, int] | None  # lowest and highest stored value that is padding
    modality_table: LookupTable | None
    table: LookupTable | None  # the VOI LUT

    @property
    def facts(self) -> dict[str, Any]:
        """The facts for the report's `input`."""
        center, width = self.window or (None, None)
        return {
            "width": self.columns,
            "height": self.rows,
            "format": "DICOM",
            "modality": self.modality or "not given",
            "view": self.view or "not given",
            "window": {"center": center, "width": width} if self.window else None,
            "voi": "lookup table" if self.table else "window" if self.window else "none",
            "bits": self.bits,
            "photometric": self.photometric,
            "colour": False,
        }


def read_header(file: BinaryIO, name: str) -> Header:
    """Read the header of a radiograph.

    Raises UnreadableFileError if the file is damaged or is not a single grey-scale radiograph.
    """
    size = file.seek(0, SEEK_END)
    reason = ""
    try:
        syntax, at = read_file_meta(file, size)
        # Its elements have no positions in the file, so none could be skipped unread.
        if syntax == _DEFLATED:
            raise refusal(name, "is a DICOM file that is deflated as a whole")
        walker = ElementWalker(
            file,
            size,
            order=">" if syntax == _BIG_ENDIAN else "<",
            explicit=has_explicit_vr(file, at),
        )
        # Without a transfer syntax it is the default one: PS3.5, 10.1.
        return _HeaderReader(file, walker, walker.dataset(at), name, syntax or _IMPLICIT).header()
    except DamagedError as error:
        reason = str(error)
    # Raised outside of the handler, so that an error that may quote the file is not chained to it.
    raise UnreadableFileError(
        f"{name} cannot be read as DICOM: {reason}; expected a complete DICOM file with"
        f" {EXPECTED_FILE}."
    )


class _HeaderReader:
    """Reads the values of the few elements that are needed."""

    def __init__(
        self,
        file: BinaryIO,
        walker: ElementWalker,
        elements: Mapping[int, Element],
        name: str,
        syntax: str,
    ) -> None:
        self._file, self._walker, self._elements = file, walker, elements
        self._name, self._syntax = name, syntax
        self._order = ">" if syntax == _BIG_ENDIAN else "<"

    def header(self) -> Header:
        # First, because it explains best why a CT or an ultrasound is refused.
        modality = self._modality()
        frames = self._number("frames", 1)
        if frames != 1:
            raise refusal(self._name, f"contains {frames:g} frames")
        if PIXEL_DATA not in self._elements:
            raise refusal(self._name, "is a DICOM file without pixels")
        photometric = self._text("photometric")
        samples = self._short("samples", 1)
        if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
            colour_models = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
            is_colour = photometric in colour_models or samples == 3
            kind = "in colour" if is_colour else "with an unknown kind of pixels"
            raise refusal(self._name, f"is a DICOM file {kind}", "MONOCHROME1 or MONOCHROME2")
        allocated = self._short("allocated", 16)
        bits = self._short("bits", allocated)
        high_bit = self._short("high_bit", bits - 1)
        if allocated not in (8, 16) or not 1 < bits <= high_bit + 1 <= allocated:
            raise refusal(
                self._name,
                f"stores {bits} bits per pixel in {allocated}, up to bit {high_bit}",
                "8 to 16 bits stored in 8 or 16",
            )
        # An unknown view is not passed on as text, because it could hold anything.
        view = self._text("view")
        signed = self._short("signed", 0) == 1
        return Header(
            rows=self._short("rows", 0),
            columns=self._short("columns", 0),
            allocated=allocated,
            bits=bits,
            high_bit=high_bit,
            signed=signed,
            photometric=photometric,
            modality=modality,
            view=view if view in _KNOWN_VIEWS else "unknown" if view else "",
            syntax=self._syntax,
            pixels=self._elements[PIXEL_DATA],
            slope=self._number("slope", 1.0) or 1.0,
            intercept=self._number("intercept", 0.0),
            window=self._window(),
            function=self._text("function"),
            padding=self._padding(signed),
            modality_table=self._table(_MODALITY_LUT, signed),
            table=self._table(_VOI_LUT, signed),
        )

    def _modality(self) -> str:
        modality = self._text("modality")
        if modality in RADIOGRAPH_MODALITIES or modality in UNSPECIFIED_MODALITIES:
            return modality
        # An unknown value is not quoted: it could be anything, even a name.
        other = _OTHER_MODALITIES.get(modality)
        kind = f"{modality} ({other})" if other else "unknown"
        raise refusal(self._name, f"is a DICOM file whose modality is {kind}")

    def _window(self) -> tuple[float, float] | None:
        center, width = self._number("center", math.nan), self._number("width", math.nan)
        return (center, width) if math.isfinite(center) and width > 0 else None

    def _padding(self, signed: bool) -> tuple[int, int] | None:
        if _TAGS["padding"] not in self._elements:
            return None
        value = self._short("padding", 0, signed=signed)
        limit = self._short("padding_limit", value, signed=signed)
        # The limit may be below the value: PS3.3, C.7.5.1.1.2.
        return min(value, limit), max(value, limit)

    def _table(self, tag: int, signed: bool) -> LookupTable | None:
        if tag not in self._elements:
            return None
        item = self._walker.first_item(self._elements[tag])
        if _DESCRIPTOR not in item or _LUT_DATA not in item:
            return None
        descriptor = read_value(self._file, item[_DESCRIPTOR], limit=6)
        if len(descriptor) < 6:
            return None
        # Count, first input value, bits; the first value has the sign of the pixels.
        count, _, bits = struct.unpack(f"{self._order}HHH", descriptor)
        (first,) = struct.unpack_from(f"{self._order}{'h' if signed else 'H'}", descriptor, 2)
        # The count of a full table does not fit into 16 bits and is stored as 0: PS3.3, C.11.1.1.1.
        count = count or 65536
        data = read_value(self._file, item[_LUT_DATA], limit=2 * count)
        # A table of 8 bits has one or two bytes a value; only its length tells which.
        is_wide = len(data) >= 2 * count
        if not 8 <= bits <= 16 or len(data) < count or (bits > 8 and not is_wide):
            raise DamagedError(f"its lookup table of {count} values has {len(data)} bytes")
        values = np.frombuffer(data, f"{self._order}u2" if is_wide else np.uint8, count)
        return LookupTable(first=first, values=values.astype(np.uint16), bits=bits)

    def _bytes(self, key: str) -> bytes:
        element = self._elements.get(_TAGS[key])
        return b"" if element is None else read_value(self._file, element, limit=_MAX_TEXT_BYTES)

    def _text(self, key: str) -> str:
        # Several values of one element are separated by backslashes: PS3.5, 6.4.
        first = self._bytes(key).split(b"\\")[0]
        return first.decode("ascii", "replace").strip("\0 ").upper()

    def _number(self, key: str, default: float) -> float:
        try:
            number = float(self._text(key) or default)
        except ValueError:
            return default
        return number if math.isfinite(number) else default

    def _short(self, key: str, default: int, *, signed: bool = False) -> int:
        data = self._bytes(key)[:2]
        kind = "h" if signed else "H"
        return int(struct.unpack(f"{self._order}{kind}", data)[0]) if len(data) == 2 else default


def refusal(name: str, problem: str, expected: str = EXPECTED_FILE) -> UnreadableFileError:
    """The error for a file that is not accepted, as one sentence that starts with its name."""
    return UnreadableFileError(f"{name} {problem}; expected {expected}.")
