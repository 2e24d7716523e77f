"""What a DICOM file says of its one picture.

Only the elements of `_TAGS` are ever read, and of those that hold text only words that are known
here are passed on: nothing that a patient, a hospital or a device is called can leave this module.
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
    Walk,
    looks_explicit,
    meta,
    value,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

WANTED = "one frontal chest radiograph (modality DX or CR) in shades of grey"

_TAGS = {
    "modality": 0x00080060, "view": 0x00185101, "frames": 0x00280008, "samples": 0x00280002,
    "photometric": 0x00280004, "rows": 0x00280010, "columns": 0x00280011, "allocated": 0x00280100,
    "bits": 0x00280101, "high_bit": 0x00280102, "signed": 0x00280103, "padding": 0x00280120,
    "padding_limit": 0x00280121, "center": 0x00281050, "width": 0x00281051,
    "intercept": 0x00281052, "slope": 0x00281053, "function": 0x00281056,
}  # fmt: skip
_MODALITY_LUT, _VOI_LUT, _DESCRIPTOR, _LUT_DATA = 0x00283000, 0x00283010, 0x00283002, 0x00283006
_MOST_TEXT = 256

RADIOGRAPHS = {"DX": "digital radiography", "CR": "computed radiography", "RG": "film radiography"}
UNSAID = {"OT": "other", "": "not given"}  # taken, and said: digitised films are often such
_OTHERS = {
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
LATERAL = {"LL": "left lateral", "RL": "right lateral", "LATERAL": "lateral", "LAT": "lateral"}
OBLIQUE = ("LAO", "RAO", "LPO", "RPO", "LLO", "RLO", "OBLIQUE")
_VIEWS = {"PA", "AP", "LLD", "RLD", *LATERAL, *OBLIQUE}
_DEFLATED, _BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
_IMPLICIT = "1.2.840.10008.1.2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A lookup table: the first value it maps, and what each value from there on becomes."""

    first: int
    values: NDArray[np.uint16]
    bits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What a file says of its one picture."""

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
    function: str
    padding: tuple[int, int] | None
    modality_table: Table | None
    table: Table | None

    @property
    def facts(self) -> dict[str, Any]:
        """For the report's `input`."""
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
    """What the file says of its picture; raises UnreadableFileError where it is not to be read."""
    size = file.seek(0, SEEK_END)
    why = ""
    try:
        syntax, at = meta(file, size)
        if syntax == _DEFLATED:
            raise refused(name, "is a DICOM file deflated as a whole")
        walk = Walk(
            file,
            size,
            order=">" if syntax == _BIG_ENDIAN else "<",
            explicit=looks_explicit(file, at),
        )
        return _Values(file, walk, walk.dataset(at), name, syntax or _IMPLICIT).header()
    except DamagedError as error:
        why = str(error)
    # Outside the handler, here and below: an error that quotes the file must not hang on to this.
    raise UnreadableFileError(
        f"{name} cannot be read as DICOM: {why}; wanted: a whole DICOM file with {WANTED}."
    )


class _Values:
    """The few elements that are read."""

    def __init__(
        self, file: BinaryIO, walk: Walk, found: Mapping[int, Element], name: str, syntax: str
    ) -> None:
        self._file, self._walk, self._found = file, walk, found
        self._name, self._syntax = name, syntax
        self._order = ">" if syntax == _BIG_ENDIAN else "<"

    def header(self) -> Header:
        modality = self._modality()
        frames = self._number("frames", 1)
        if frames != 1:
            raise refused(self._name, f"holds {frames:g} frames")
        if PIXEL_DATA not in self._found:
            raise refused(self._name, "is a DICOM file without pixels")
        photometric = self._text("photometric")
        samples = self._short("samples", 1)
        if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
            known = photometric in ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
            kind = "in colour" if known or samples == 3 else "of an unknown kind of pixels"
            raise refused(self._name, f"is a DICOM file {kind}", "MONOCHROME1 or MONOCHROME2")
        allocated = self._short("allocated", 16)
        bits = self._short("bits", allocated)
        high_bit = self._short("high_bit", bits - 1)
        if allocated not in (8, 16) or not 1 < bits <= high_bit + 1 <= allocated:
            raise refused(
                self._name,
                f"stores {bits} bits of a pixel in {allocated} up to bit {high_bit}",
                "8 to 16 bits in 8 or 16",
            )
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
            view=view if view in _VIEWS else "unknown" if view else "",
            syntax=self._syntax,
            pixels=self._found[PIXEL_DATA],
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
        if modality in RADIOGRAPHS or modality in UNSAID:
            return modality
        named = f"{modality} ({_OTHERS[modality]})" if modality in _OTHERS else "one unknown here"
        raise refused(self._name, f"is a DICOM file whose modality is {named}")

    def _window(self) -> tuple[float, float] | None:
        center, width = self._number("center", math.nan), self._number("width", math.nan)
        return (center, width) if math.isfinite(center) and width > 0 else None

    def _padding(self, signed: bool) -> tuple[int, int] | None:
        if _TAGS["padding"] not in self._found:
            return None
        one = self._short("padding", 0, signed=signed)
        two = self._short("padding_limit", one, signed=signed)
        return min(one, two), max(one, two)

    def _table(self, tag: int, signed: bool) -> Table | None:
        if tag not in self._found:
            return None
        item = self._walk.first_item(self._found[tag])
        if _DESCRIPTOR not in item or _LUT_DATA not in item:
            return None
        descriptor = value(self._file, item[_DESCRIPTOR], most=6)
        if len(descriptor) < 6:
            return None
        count, _, bits = struct.unpack(f"{self._order}HHH", descriptor)
        (first,) = struct.unpack_from(f"{self._order}{'h' if signed else 'H'}", descriptor, 2)
        count = count or 65536
        data = value(self._file, item[_LUT_DATA], most=2 * count)
        wide = len(data) >= 2 * count
        if not 8 <= bits <= 16 or len(data) < count or (bits > 8 and not wide):
            raise DamagedError(f"its lookup table of {count} values has {len(data)} bytes")
        values = np.frombuffer(data, f"{self._order}u2" if wide else np.uint8, count)
        return Table(first=first, values=values.astype(np.uint16), bits=bits)

    def _bytes(self, key: str) -> bytes:
        element = self._found.get(_TAGS[key])
        return b"" if element is None else value(self._file, element, most=_MOST_TEXT)

    def _text(self, key: str) -> str:
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


def refused(name: str, what: str, wanted: str = WANTED) -> UnreadableFileError:
    """The one sentence in which a file is refused."""
    return UnreadableFileError(f"{name} {what}; wanted: {wanted}.")
