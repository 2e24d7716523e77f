"""The header of a DICOM radiograph: the few elements that its image needs.

Only the elements of `_TAGS` and the lookup tables are ever read, and of text values only known
terms are passed on: no name of a patient, a hospital or a device can leave this module.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from io import SEEK_END, BytesIO
from typing import Any, BinaryIO

from xai_demo.imaging.dicom.tags import (
    PIXEL_DATA,
    DamagedError,
    Element,
    ElementWalker,
    has_explicit_vr,
    is_big_endian,
    read_file_meta,
)
from xai_demo.imaging.dicom.values import LookupTable, ValueReader, refusal

EXPECTED_FILE = "a single frontal chest radiograph (modality DX or CR) in shades of grey"

_MODALITY, _VIEW, _FRAMES = 0x00080060, 0x00185101, 0x00280008
_SAMPLES, _PHOTOMETRIC, _ROWS, _COLUMNS = 0x00280002, 0x00280004, 0x00280010, 0x00280011
_ALLOCATED, _BITS, _HIGH_BIT, _SIGNED = 0x00280100, 0x00280101, 0x00280102, 0x00280103
_PADDING, _PADDING_LIMIT = 0x00280120, 0x00280121
_CENTER, _WIDTH, _FUNCTION = 0x00281050, 0x00281051, 0x00281056
_INTERCEPT, _SLOPE, _LUT_SHAPE = 0x00281052, 0x00281053, 0x20500020
_MODALITY_LUT, _VOI_LUT = 0x00283000, 0x00283010
# The shape of a pixel: stated as a ratio, or as the spacing of pixels in millimetres.
_ASPECT_RATIO, _SPACINGS = 0x00280034, (0x00280030, 0x00181164)
_PATIENT_AGE = 0x00101010
# Written by `deidentify`: a block of its own, which holds nothing but one of `AGE_TERMS`.
OWN_BLOCK, OWN_CREATOR, OWN_AGE_TAG = 0x0011, "XAI_DEMO", 0x00111001
_OWN_CREATOR_TAG = 0x00110010
AGE_TERMS = {"ADULT": "adult", "CHILD": "child"}

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
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
# 100 megapixels of 16 bits and 32 MB of everything else; deflate reaches a thousand times its size.
_MAX_INFLATED_BYTES = 232_000_000
_INFLATE_STEP = 1 << 20
# An age string has three digits; some writers leave the leading zeros out.
_AGE = re.compile(r"(\d{1,3})([DWMY])", re.ASCII)
_UNITS_A_YEAR = {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0}
_MAX_AGE_YEARS, ADULT_YEARS = 130, 18
# Pixels up to this much longer than wide, or the reverse, count as square.
_SQUARE = 1.01
_MAX_STRETCH = 10


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
    shape: str = ""  # of the presentation LUT: "IDENTITY", "INVERSE" or ""
    stretch: float = 1.0  # how much taller than wide a pixel is
    notes: tuple[str, ...] = ()  # what a person should know
    age: str = ""  # "adult", "child" or, where the file does not say, ""

    @property
    def is_inverted(self) -> bool:
        """Whether low values are bright: PS3.3, C.7.6.3.1.2 and C.11.6.1.2."""
        # INVERSE is how a presentation LUT says what MONOCHROME1 says; it does not undo it.
        return self.photometric == "MONOCHROME1" or self.shape == "INVERSE"

    @property
    def stored_range(self) -> tuple[float, float]:
        """The lowest and the highest value that the stored bits can have."""
        return stored_range(self.bits, self.signed)

    @property
    def facts(self) -> dict[str, Any]:
        """The facts for the report's `input`."""
        center, width = self.window or (None, None)
        age = {"value": self.age, "source": "dicom", "probability": None}
        return {
            **({"age": age} if self.age else {}),
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


def stored_range(bits: int, signed: bool) -> tuple[float, float]:
    """The lowest and the highest value that so many stored bits can have.

    >>> stored_range(12, True)
    (-2048.0, 2047.0)
    """
    lowest = -(2.0 ** (bits - 1)) if signed else 0.0
    return lowest, lowest + 2.0**bits - 1


def age_group(text: str) -> str:
    """Whether a DICOM age (PS3.5, 6.2: AS) is that of an adult or a child; "" if it is none.

    >>> age_group("045Y"), age_group("030M"), age_group("900Y"), age_group("-3")
    ('adult', 'child', '', '')
    """
    match = _AGE.fullmatch(text)
    years = int(match[1]) / _UNITS_A_YEAR[match[2]] if match else math.inf
    if years > _MAX_AGE_YEARS:
        return ""
    return "adult" if years >= ADULT_YEARS else "child"


def inflate_dataset(file: BinaryIO, name: str) -> BinaryIO:
    """The file itself, or a copy in memory if its dataset is deflated as a whole: PS3.5, A.5.

    Raises UnreadableFileError if it cannot be inflated, or to more than 232 MB.
    """
    try:
        syntax, at = read_file_meta(file, file.seek(0, SEEK_END))
    except DamagedError:
        # `read_header` says what is wrong.
        return file
    if syntax != DEFLATED:
        return file
    file.seek(0)
    content = bytearray(file.read(at))
    # Raw deflate, without the header of zlib.
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    problem = ""
    try:
        while not inflater.eof and not problem:
            data = inflater.unconsumed_tail or file.read(_INFLATE_STEP)
            content += inflater.decompress(data, _INFLATE_STEP) if data else inflater.flush()
            if not data and not inflater.eof:
                problem = "ends in the middle of its deflated dataset"
            if len(content) > _MAX_INFLATED_BYTES:
                problem = "is a deflated DICOM file of more than 232 MB"
    except zlib.error:
        problem = "is a DICOM file whose deflated dataset is damaged"
    if problem:
        raise refusal(name, problem, "a complete file of at most 232 MB when inflated")
    return BytesIO(content)


def read_header(file: BinaryIO, name: str) -> Header:
    """Read the header of a radiograph from a file as `inflate_dataset` returns it.

    Raises UnreadableFileError if the file is damaged or is not a single grey-scale radiograph.
    """
    size = file.seek(0, SEEK_END)
    reason = ""
    try:
        syntax, at = read_file_meta(file, size)
        # What the first element looks like counts, as files without meta information declare
        # nothing and others declare what is not so.
        is_big = is_big_endian(file, at, is_declared=syntax == BIG_ENDIAN)
        order = ">" if is_big else "<"
        is_explicit = has_explicit_vr(file, at)
        if syntax in ("", DEFLATED, EXPLICIT, IMPLICIT, BIG_ENDIAN):
            syntax = BIG_ENDIAN if order == ">" else EXPLICIT if is_explicit else IMPLICIT
        walker = ElementWalker(file, size, order=order, explicit=is_explicit)
        elements = walker.dataset(at)
        values = ValueReader(file, walker, elements, name=name, order=order)
        return _HeaderReader(values, elements.get(PIXEL_DATA), name, syntax).header()
    except DamagedError as error:
        reason = str(error)
    # Raised outside of the handler, so that an error that may quote the file is not chained to it.
    raise refusal(
        name,
        f"cannot be read as DICOM: {reason}",
        f"a complete DICOM file with {EXPECTED_FILE}",
    )


class _HeaderReader:
    """Reads the values of the few elements that are needed."""

    def __init__(self, values: ValueReader, pixels: Element | None, name: str, syntax: str) -> None:
        self._values, self._pixels = values, pixels
        self._name, self._syntax = name, syntax
        self._notes: list[str] = []

    def header(self) -> Header:
        # First, because it explains best why a CT or an ultrasound is refused.
        modality = self._modality()
        if self._pixels is None:
            raise refusal(self._name, "is a DICOM file without pixels", EXPECTED_FILE)
        frames = self._values.number(_FRAMES, "number of frames", 1)
        if frames != 1:
            raise refusal(self._name, f"contains {frames:g} frames", EXPECTED_FILE)
        photometric = self._photometric()
        allocated, bits, high_bit = self._bits()
        signed = self._values.integer(_SIGNED, "pixel representation", 0)
        if signed not in (0, 1):
            raise refusal(self._name, f"has {signed} as its pixel representation", "0 or 1")
        # An unknown view is not passed on as text, because it could hold anything.
        view = self._values.text(_VIEW)
        slope = self._values.number(_SLOPE, "rescale slope", 1.0)
        if slope == 0:
            raise refusal(self._name, "has 0 as its rescale slope", "any other number")
        intercept = self._values.number(_INTERCEPT, "rescale intercept", 0.0)
        stored = stored_range(bits, signed == 1)
        modality_table = self._values.lookup_table(_MODALITY_LUT, "modality lookup table", stored)
        ends = sorted(slope * value + intercept for value in stored)
        if modality_table:
            ends = [0.0, 2.0**modality_table.bits - 1]
        return Header(
            rows=self._values.integer(_ROWS, "number of rows"),
            columns=self._values.integer(_COLUMNS, "number of columns"),
            allocated=allocated,
            bits=bits,
            high_bit=high_bit,
            signed=signed == 1,
            photometric=photometric,
            modality=modality,
            view=view if view in _KNOWN_VIEWS else "unknown" if view else "",
            syntax=self._syntax,
            pixels=self._pixels,
            slope=slope,
            intercept=intercept,
            window=self._window(),
            function=self._values.text(_FUNCTION),
            padding=self._padding(signed == 1),
            modality_table=modality_table,
            table=self._values.lookup_table(_VOI_LUT, "VOI lookup table", (ends[0], ends[1])),
            shape=self._lut_shape(photometric),
            stretch=self._stretch(),
            age=self._age(),
            # Last, because the others add to them.
            notes=tuple(self._notes),
        )

    def _modality(self) -> str:
        modality = self._values.text(_MODALITY)
        if modality in RADIOGRAPH_MODALITIES or modality in UNSPECIFIED_MODALITIES:
            return modality
        # An unknown value is not quoted: it could be anything, even a name.
        other = _OTHER_MODALITIES.get(modality)
        kind = f"{modality} ({other})" if other else "unknown"
        problem = f"is a DICOM file whose modality is {kind}"
        raise refusal(self._name, problem, EXPECTED_FILE)

    def _age(self) -> str:
        """Whether the patient is an adult or a child: all that is ever kept of the age."""
        if self._values.text(_OWN_CREATOR_TAG) == OWN_CREATOR:
            return AGE_TERMS.get(self._values.text(OWN_AGE_TAG), "")
        text = self._values.text(_PATIENT_AGE)
        if text and not (age := age_group(text)):
            # Not quoted: it is about the patient, and could be anything.
            self._notes.append(
                f"The file's patient age, {len(text)} characters, is no age and is left out; "
                f"expected up to {_MAX_AGE_YEARS} years, written as 045Y (or with D, W or M)."
            )
        return age if text else ""

    def _photometric(self) -> str:
        photometric = self._values.text(_PHOTOMETRIC)
        samples = self._values.integer(_SAMPLES, "number of channels", 1)
        if samples == 1 and photometric in ("MONOCHROME1", "MONOCHROME2"):
            return photometric
        colour_models = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
        is_colour = photometric in colour_models or samples == 3
        kind = "in colour" if is_colour else "with an unknown kind of pixels"
        raise refusal(self._name, f"is a DICOM file {kind}", "MONOCHROME1 or MONOCHROME2")

    def _bits(self) -> tuple[int, int, int]:
        """How many bits a pixel has in the file, how many are used, and the highest of them."""
        allocated = self._values.integer(_ALLOCATED, "bits per pixel (Bits Allocated)")
        bits = self._values.integer(_BITS, "number of bits stored", allocated)
        high_bit = self._values.integer(_HIGH_BIT, "high bit", bits - 1)
        if allocated not in (8, 16) or not 1 < bits <= high_bit + 1 <= allocated:
            raise refusal(
                self._name,
                f"stores {bits} bits per pixel in {allocated}, up to bit {high_bit}",
                "8 to 16 bits stored in 8 or 16",
            )
        return allocated, bits, high_bit

    def _window(self) -> tuple[float, float] | None:
        centers = self._values.numbers(_CENTER, "window centre", may_be_empty=True)
        widths = self._values.numbers(_WIDTH, "window width", may_be_empty=True)
        if bool(centers) != bool(widths):
            missing, other = ("width", "centre") if centers else ("centre", "width")
            problem = f"has a window {other} without a window {missing}"
            raise refusal(self._name, problem, "both or neither")
        if not centers:
            if self._values.has(_CENTER):
                self._notes.append("The file's window is empty: the full range is shown.")
            return None
        if widths[0] <= 0:
            self._notes.append(
                f"The file's window has a width of {widths[0]:g}, and widths are above 0: the full"
                " range of its pixels is shown."
            )
            return None
        return centers[0], widths[0]

    def _padding(self, signed: bool) -> tuple[int, int] | None:
        value = self._values.integer(_PADDING, "pixel padding value", -1 << 20)
        if value == -1 << 20:
            return None
        limit = self._values.integer(_PADDING_LIMIT, "pixel padding range limit", value)
        # Both have the sign of the pixels, whatever value representation they were given.
        wrapped = [
            (each + 32768) % 65536 - 32768 if signed else each % 65536 for each in (value, limit)
        ]
        # The limit may be below the value: PS3.3, C.7.5.1.1.2.
        return min(wrapped), max(wrapped)

    def _lut_shape(self, photometric: str) -> str:
        shape = self._values.text(_LUT_SHAPE)
        if shape not in ("IDENTITY", "INVERSE"):
            return ""
        if (shape == "INVERSE") != (photometric == "MONOCHROME1"):
            self._notes.append(
                f"The file says {photometric} and presentation LUT shape {shape}, which contradict"
                " each other: it is shown inverted."
            )
        return shape

    def _stretch(self) -> float:
        """How much taller than wide a pixel is; 1 where the file does not say."""
        pair = self._values.numbers(_ASPECT_RATIO, "pixel aspect ratio", may_be_empty=True)
        for tag in _SPACINGS:
            pair = pair or self._values.numbers(tag, "pixel spacing", may_be_empty=True)
        # Both are given as vertical, then horizontal: PS3.3, C.7.6.3.1.7 and 10.7.1.3.
        if len(pair) != 2 or pair[0] == pair[1]:
            return 1.0
        if min(pair) <= 0 or max(pair) > _MAX_STRETCH * min(pair):
            raise refusal(
                self._name,
                f"has pixels of {pair[0]:g} x {pair[1]:g} (height x width)",
                f"positive sizes, one at most {_MAX_STRETCH} times the other",
            )
        ratio = pair[0] / pair[1]
        return 1.0 if 1 / _SQUARE < ratio < _SQUARE else ratio
