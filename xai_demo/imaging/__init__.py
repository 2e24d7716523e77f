"""Pictures in: one grey channel, 0..1, upright, with what the file had and what is odd about it.

The directories of TIFF and EXIF: what is in them, before a parser that copies it all.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import SEEK_END
from os import PathLike
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL.BmpImagePlugin import BmpImageFile
from PIL.Image import Exif, Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from xai_demo.errors import UnreadableFileError
from xai_demo.files import format_of, opened, shown_name
from xai_demo.imaging.dicom import read_pixels
from xai_demo.imaging.dicom.header import read_header
from xai_demo.records import Radiograph

if TYPE_CHECKING:
    from xai_demo.records import Floats

WANTED = "a picture as PNG, JPEG, TIFF, WebP, BMP or DICOM"

_LEAST_SIDE = 32
_MOST_ELONGATED = 10
_STRIP_PIXELS = 1 << 20  # converted at once: bounds the memory beside picture and result
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

# Mean of (max - min of R, G, B), 0..1. Grey films have 0; a film tinted by a tenth has 0.05, and so
# has one with a twentieth of its area in saturated annotations. Colour photographs of animals,
# people, flowers and buildings had 0.11 to 0.34.
_COLOURFUL = 0.09
_DARK = 1 / 8  # 12 bits in 16 that nobody told of have 1/16
_FLAT = 1.5 / 255  # a step of 8 bits, as JPEG leaves on a constant picture

_BITS, _PHOTOMETRIC = 258, 262

_HINTS = {
    "PDF": "a PDF: export the page as PNG or JPEG",
    "SVG": "an SVG drawing: export it as PNG",
    "HEIC": "a HEIC picture: export it as JPEG or PNG",
    "AVIF": "an AVIF picture: export it as JPEG or PNG",
    "GIF": "a GIF: export it as PNG",
}
_CONVERTED = {  # Pillow's mode -> the one whose arithmetic is known here
    "1": "L", "L": "L", "P": "RGBA", "PA": "RGBA", "LA": "RGBA", "La": "RGBA", "RGBa": "RGBA",
    "RGB": "RGB", "RGBX": "RGB", "RGBA": "RGBA", "CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB",
    "I;16": "I;16", "I;16L": "I;16", "I;16B": "I;16", "I": "I", "F": "F",
}  # fmt: skip
_NUMBERS = ("I;16", "I", "F")
_UPRIGHT: dict[int, Callable[[Floats], Floats]] = {  # by EXIF orientation
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).T,
    8: np.rot90,
}


class _NoExif:
    """Keeps Pillow from parsing EXIF, which takes gigabytes where tags share their values."""

    def getexif(self) -> Exif:
        """Say that there is none: the one tag that matters is read below."""
        return Exif()


class _Png(_NoExif, PngImageFile): ...


class _Jpeg(_NoExif, JpegImageFile): ...


class _WebP(_NoExif, WebPImageFile): ...


# The classes themselves: Image.open would warn or raise by a limit that is global to the process.
_READERS: dict[str, type[ImageFile]] = {
    "PNG": _Png,
    "JPEG": _Jpeg,
    "TIFF": TiffImageFile,
    "WebP": _WebP,
    "BMP": BmpImageFile,
}


def read_image(path: str | PathLike[str], *, max_pixels: int) -> Radiograph:
    """Read a picture; raises UnreadableFileError where it is none, or nothing to analyse.

    Its size is judged by the header, before anything is decoded.
    """
    name = shown_name(path)
    with opened(path, wanted=WANTED) as file:
        found = format_of(file)
        if found == "DICOM":
            return _from_dicom(file, name, max_pixels)
        if found not in _READERS:
            what = _HINTS.get(found) or f"{found or 'of an unknown format'}, not a picture"
            raise UnreadableFileError(f"{name} is {what}; wanted: {WANTED}.")
        try:
            if found == "TIFF":
                check_directories(file)
            file.seek(0)
            with _READERS[found](file) as picture:
                _check_size(name, picture.width, picture.height, max_pixels)
                return _radiograph(picture, name, found)
        except UnreadableFileError:
            raise
        # Pillow's parsers stumble over broken files with whatever comes: OSError, SyntaxError,
        # ValueError, KeyError, TypeError, EOFError, struct.error, zlib.error, MemoryError, ...
        except Exception as error:
            why = (
                "it is cut off"
                if "truncated" in str(error).lower()
                else "it is damaged or of a rare kind"
            )
            raise UnreadableFileError(
                f"{name} cannot be decoded as {found}: {why}; wanted: a whole {found} file."
            ) from error


def _from_dicom(file: BinaryIO, name: str, max_pixels: int) -> Radiograph:
    header = read_header(file, name)
    _check_size(name, header.columns, header.rows, max_pixels)
    pixels, warnings = read_pixels(file, header, name)
    return Radiograph(pixels=pixels, facts=header.facts, warnings=(*warnings, *_flatness(pixels)))


def _check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UnreadableFileError(
            f"{name} has {width} x {height} pixels ({width * height / 1e6:.3g} megapixels);"
            f" wanted: at most {max_pixels / 1e6:.3g} megapixels."
        )
    if min(width, height) < _LEAST_SIDE:
        raise UnreadableFileError(
            f"{name} has {width} x {height} pixels; wanted: at least {_LEAST_SIDE} x {_LEAST_SIDE}."
        )
    if max(width, height) > _MOST_ELONGATED * min(width, height):
        raise UnreadableFileError(
            f"{name} has {width} x {height} pixels;"
            f" wanted: one side at most {_MOST_ELONGATED} times the other."
        )


def _radiograph(picture: ImageFile, name: str, found: str) -> Radiograph:
    frames = getattr(picture, "n_frames", 1)
    mode = picture.mode
    if mode not in _CONVERTED:
        raise UnreadableFileError(
            f"{name} is in colour mode {mode}; wanted: grey, RGB, CMYK or a palette."
        )
    picture.load()
    grey = _grey(picture, name)
    # A TIFF is turned upright as it loads.
    orientation = 1 if found == "TIFF" else exif_orientation(picture.info.get("exif", b""))
    pixels = np.ascontiguousarray(_UPRIGHT.get(orientation, np.asarray)(grey.pixels))
    facts = {
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "mode": mode,
        "format": found,
        "modality": "radiograph (picture)",
        "view": "not given",
        "window": None,
        "colour": grey.chroma > _COLOURFUL,
    }
    warnings = tuple(_warnings(grey, frames, mode))
    return Radiograph(pixels=pixels, facts=facts, warnings=warnings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grey:
    pixels: Floats
    chroma: float  # mean over the picture, 0..1
    low: float  # the value drawn black
    high: float


def _grey(picture: ImageFile, name: str) -> _Grey:
    target = _CONVERTED[picture.mode]
    if target in ("L", "RGB") and picture.has_transparency_data:
        target = "RGBA"
    low, high = _range(picture, target, name)
    pixels = np.empty((picture.height, picture.width), np.float32)
    chroma = 0.0
    for top, strip in _strips(picture):
        if target in _NUMBERS:
            rows = (np.asarray(strip, np.float64) - low) / ((high - low) or 1)
        else:
            rows = np.asarray(strip.convert(target), np.float32) / 255
        if rows.ndim == 3:
            colour = rows[..., :3]
            if target == "RGBA":
                colour = colour * rows[..., 3:]  # over black
            red, green, blue = np.moveaxis(colour, 2, 0)
            most = np.maximum(np.maximum(red, green), blue)
            chroma += float((most - np.minimum(np.minimum(red, green), blue)).sum())
            rows = colour @ _LUMA
        pixels[top : top + len(rows)] = rows
    if target in _NUMBERS and _tag(picture, _PHOTOMETRIC, 1) == 0:  # Pillow inverts the rest
        pixels = 1 - pixels
    return _Grey(pixels=pixels, chroma=chroma / pixels.size, low=low, high=high)


def _range(picture: ImageFile, target: str, name: str) -> tuple[float, float]:
    """The values that are black and white."""
    if target == "I;16":
        bits = _tag(picture, _BITS, 16)
        return 0.0, 2.0**bits - 1
    if target not in _NUMBERS:
        return 0.0, 255.0
    bad = sum(int(np.count_nonzero(~np.isfinite(np.asarray(s)))) for _, s in _strips(picture))
    if bad:
        raise UnreadableFileError(
            f"{name} has {bad} pixels that are not finite numbers; wanted: finite ones."
        )
    low, high = picture.getextrema()
    return float(low), float(high)  # type: ignore[arg-type]


def _tag(picture: ImageFile, tag: int, default: int) -> int:
    """A number from the directory of a TIFF."""
    value = picture.tag_v2.get(tag, default) if isinstance(picture, TiffImageFile) else default
    return int(value[0] if isinstance(value, tuple) else value)


def _strips(picture: ImageFile) -> Iterator[tuple[int, Image]]:
    step = max(1, _STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, step):
        bottom = min(picture.height, top + step)
        yield top, picture.crop((0, top, picture.width, bottom))


def _warnings(grey: _Grey, frames: int, mode: str) -> Iterator[str]:
    if frames > 1:
        yield f"The file holds {frames} pictures: the first is used."
    high = float(grey.pixels.max())
    flat = [*_flatness(grey.pixels)]
    if flat:
        yield from flat
    elif _CONVERTED[mode] in ("I", "F"):
        yield (
            f"The picture's values go from {grey.low:g} to {grey.high:g} on no known scale: the"
            " lowest is taken as black and the highest as white."
        )
    elif _CONVERTED[mode] == "I;16" and high < _DARK:
        yield (
            f"The brightest pixel is at {100 * high:.2g} % of what 16 bits can hold: the"
            " picture is probably darker than it was meant."
        )


def _flatness(pixels: Floats) -> Iterator[str]:
    low, high = float(pixels.min()), float(pixels.max())
    if high - low < _FLAT:
        yield f"The picture has the same grey everywhere ({low:.2f} of white): nothing to explain."


_MOST_DIRECTORIES = 1000
_TIFF_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_TIFF_POINTERS = (0x8769, 0x8825, 0xA005)  # to further directories
_ORIENTATION = 274


def check_directories(file: BinaryIO) -> None:
    """Refuse a TIFF whose directories repeat themselves: Pillow reads all that they point at."""
    size = file.seek(0, SEEK_END)
    file.seek(0)
    order, first = _directory_start(file.read(8))
    waiting, seen, held = [first], set[int](), 0
    while waiting:
        at = waiting.pop()
        if at in seen or len(seen) > _MOST_DIRECTORIES:
            raise ValueError("directories without end")
        seen.add(at)
        file.seek(at)
        (count,) = struct.unpack(f"{order}H", file.read(2))
        for tag, kind, many, value in struct.iter_unpack(f"{order}HHII", file.read(12 * count)):
            held += many * _TIFF_BYTES.get(kind, 0)
            if tag in _TIFF_POINTERS and many == 1:
                waiting.append(value)
        if held > 2 * size:
            raise ValueError("directories that hold more than the file")
        following = file.read(4)
        if len(following) == 4 and any(following):
            waiting.append(struct.unpack(f"{order}I", following)[0])


def _directory_start(head: bytes) -> tuple[str, int]:
    """The byte order of a TIFF, and where its first directory is."""
    order = "<" if head.startswith(b"II") else ">"
    return order, struct.unpack_from(f"{order}I", head, 4)[0]


def exif_orientation(exif: bytes) -> int:
    """The orientation that an EXIF block gives; 1, upright, where it gives none."""
    block = exif.removeprefix(b"Exif\0\0")
    try:
        order, at = _directory_start(block)
        (count,) = struct.unpack_from(f"{order}H", block, at)
        for entry in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", block, at + 2 + 12 * entry)
            if tag == _ORIENTATION:
                return int(value)
    except struct.error:  # a broken block says nothing
        pass
    return 1
