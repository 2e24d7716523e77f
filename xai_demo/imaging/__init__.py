"""Reading radiographs: one grey channel, 0 to 1, upright, with facts about the file and warnings.

PNG, JPEG, TIFF, WebP and BMP are decoded by Pillow, once `imaging.containers` and
`imaging.codestreams` have checked their structure; DICOM by `imaging.dicom`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
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
from xai_demo.files import detect_format, display_name, open_file
from xai_demo.imaging.codestreams import CodestreamError, read_codestream
from xai_demo.imaging.containers import (
    ContainerError,
    check_png,
    choose_page,
    png_is_complete,
    read_orientation,
    read_tiff_pages,
    tiff_from_page,
    webp_size,
)
from xai_demo.imaging.dicom import read_pixels
from xai_demo.imaging.dicom.frames import missing_rows_note
from xai_demo.imaging.dicom.header import inflate_dataset, read_header
from xai_demo.records import Radiograph

if TYPE_CHECKING:
    from xai_demo.records import Floats

SUPPORTED_FORMATS = "a PNG, JPEG, TIFF, WebP, BMP or DICOM image"

_MIN_SIDE = 32
_MAX_ASPECT_RATIO = 10
# Pixels converted at once, to bound the memory used beside the image and the result.
_STRIP_PIXELS = 1 << 20
# Pillow's decoder for WebP takes 20 bytes of memory for a pixel, all others take at most 12: so of
# a WebP's pixels fewer are allowed.
_WEBP_SHARE = 12 / 20
# ITU-R BT.601, which Pillow's own conversion to grey uses as well.
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

# Mean of (max - min of R, G, B), 0 to 1. Grey radiographs have 0; a tint of a tenth gives 0.05, and
# so do saturated annotations on a twentieth of the area. Colour photographs of animals, people,
# flowers and buildings had 0.11 to 0.34.
_COLOUR_CHROMA = 0.09
# 12-bit values in a 16-bit file that does not declare it reach only 1/16 of the range.
_DARK_SHARE = 1 / 8
# One step of 8 bits, which JPEG may leave on a constant image.
_FLAT_RANGE = 1.5 / 255

# TIFF 6.0: BitsPerSample, Compression and PhotometricInterpretation.
_BITS, _COMPRESSION, _PHOTOMETRIC = 258, 259, 262
_JPEG_COMPRESSION = 7

_HINTS = {
    "PDF": "a PDF: export the page as PNG or JPEG",
    "SVG": "an SVG drawing: export it as PNG",
    "HEIC": "a HEIC image: export it as JPEG or PNG",
    "AVIF": "an AVIF image: export it as JPEG or PNG",
    "GIF": "a GIF: export it as PNG",
    "JPEG 2000": "a JPEG 2000 image: export it as PNG",
}
# Pillow's mode -> the mode in which `_convert_to_grey` can calculate.
_TARGET_MODES = {
    "1": "L", "L": "L", "P": "RGBA", "PA": "RGBA", "LA": "RGBA", "La": "RGBA", "RGBa": "RGBA",
    "RGB": "RGB", "RGBX": "RGB", "RGBA": "RGBA", "CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB",
    "I;16": "I;16", "I;16L": "I;16", "I;16B": "I;16", "I": "I", "F": "F",
}  # fmt: skip
_NUMERIC_MODES = ("I;16", "I", "F")
# By EXIF orientation, 1 being upright: the image as it is stored, as a view of the upright one.
_EXIF_VIEWS: dict[int, Callable[[Floats], Floats]] = {
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: np.transpose,
    6: np.rot90,
    7: lambda upright: np.rot90(upright, 2).T,
    8: lambda upright: np.rot90(upright, -1),
}


class _NoExif:
    """Keeps Pillow from parsing EXIF, which takes gigabytes if many tags share one value."""

    def getexif(self) -> Exif:
        """Return an empty block; `read_orientation` reads the only tag that matters."""
        return Exif()


# TIFF keeps Pillow's `getexif`, which turns it upright: `read_tiff_pages` protects it.
class _Png(_NoExif, PngImageFile): ...


class _Jpeg(_NoExif, JpegImageFile): ...


class _WebP(_NoExif, WebPImageFile): ...


# The plugin classes themselves, because Image.open applies a size limit global to the process.
_READERS: dict[str, type[ImageFile]] = {
    "PNG": _Png,
    "JPEG": _Jpeg,
    "TIFF": TiffImageFile,
    "WebP": _WebP,
    "BMP": BmpImageFile,
}


def read_image(
    path: str | PathLike[str], *, max_pixels: int, name: str | None = None
) -> Radiograph:
    """Read a radiograph as pixels, (height, width), 0 to 1.

    `name` is shown in messages instead of the file's own name, which an upload does not keep.
    Raises UnreadableFileError if the file is not a supported image, is damaged, or is too small,
    too elongated or larger than `max_pixels`. The size is checked by the header, before decoding.
    """
    name = display_name(path if name is None else name)
    with open_file(path, expected=SUPPORTED_FORMATS, name=name) as file:
        detected = detect_format(file)
        if detected == "DICOM":
            return _read_dicom(file, name, max_pixels)
        if detected not in _READERS:
            kind = f"type {detected}" if detected else "an unknown type"
            hint = _HINTS.get(detected, f"a file of {kind}, not an image")
            raise UnreadableFileError(f"{name} is {hint}; expected {SUPPORTED_FORMATS}.")
        problem = ""
        try:
            return _read_picture(file, name, detected, max_pixels)
        except UnreadableFileError:
            raise
        except (ContainerError, CodestreamError) as error:
            subject = "its pixels" if isinstance(error, CodestreamError) else "it"
            problem = f"{subject} {error}"
        # On damaged files Pillow's parsers raise almost anything: OSError, SyntaxError, ValueError,
        # KeyError, TypeError, EOFError, struct.error, zlib.error, MemoryError, ...
        except Exception as error:
            is_truncated = "truncated" in str(error).lower()
            problem = "it is truncated" if is_truncated else "it is damaged or of an unusual kind"
        raise UnreadableFileError(
            f"{name} cannot be decoded as {detected}: {problem}; expected a complete {detected}"
            " file."
        )


def _read_picture(file: BinaryIO, name: str, detected: str, max_pixels: int) -> Radiograph:
    others, is_first, note = 0, True, ""
    if detected == "TIFF":
        pages = read_tiff_pages(file)
        page, others = choose_page(pages)
        is_first = page == next((each for each in pages if not each.is_auxiliary), page)
        file = tiff_from_page(file, page)
    elif detected == "PNG":
        check_png(file)
    elif detected == "WebP":
        file.seek(0)
        width, height = webp_size(file.read(30)) or (0, 0)
        _check_size(name, width, height, max_pixels)
        _check_size(name, width, height, int(max_pixels * _WEBP_SHARE))
    elif detected == "JPEG":
        file.seek(0)
        note = _check_jpeg(file.read(), name)
    file.seek(0)
    with _READERS[detected](file) as image:
        _check_size(name, image.width, image.height, max_pixels)
        frames = others or getattr(image, "n_frames", 1)
        used = "first" if is_first else "largest"
        picture = _convert_image(image, name, detected)
        if note:
            warnings = (note, *picture.warnings)
            picture = replace(picture, warnings=warnings, doubt=picture.doubt or note)
        edges = (picture.pixels[[0, -1]], picture.pixels[:, [0, -1]].T)
        has_black_edge = any(not edge.any() for pair in edges for edge in pair)
        # Only then may rows be missing, and inflating the whole file once more costs time.
        if detected == "PNG" and has_black_edge and not png_is_complete(file):
            raise ContainerError("is truncated")
        if frames == 1:
            return picture
        warning = f"The file contains {frames} images: the {used} is used."
        return replace(picture, warnings=(warning, *picture.warnings))


def _check_jpeg(content: bytes, name: str) -> str:
    """Refuse a JPEG that Pillow cannot decode or that has too many scans; returns a warning."""
    header = read_codestream(content)
    if header is None:
        raise ContainerError("is damaged: it has no frame header")
    if header.process in ("lossless", "JPEG-LS"):
        raise UnreadableFileError(f"{name} is a {header.name}; expected {SUPPORTED_FORMATS}.")
    if header.bits != 8 or header.components not in (1, 3, 4):
        raise UnreadableFileError(
            f"{name} is a JPEG with {header.components} channels of {header.bits} bits;"
            " expected 1, 3 or 4 channels of 8 bits."
        )
    if header.process == "progressive" and not header.complete:
        return "The image's last scans are missing: it is coarser than it was, or not all there."
    return ""


def _read_dicom(file: BinaryIO, name: str, max_pixels: int) -> Radiograph:
    file = inflate_dataset(file, name)
    header = read_header(file, name)
    _check_size(name, header.columns, header.rows, max_pixels)
    # Pixels that are not square are made so by enlarging their longer side.
    width = round(header.columns / min(1, header.stretch))
    height = round(header.rows * max(1, header.stretch))
    _check_size(name, width, height, max_pixels)
    pixels, warnings, doubt = read_pixels(file, header, name)
    facts = header.facts
    if (height, width) != pixels.shape:
        import cv2

        stretched = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        pixels = np.asarray(stretched, np.float32)
        facts |= {"width": width, "height": height}
        warnings = (
            *warnings,
            f"The file's pixels are {header.stretch:.3g} times as tall as wide: the image was"
            f" stretched from {header.columns} x {header.rows} to {width} x {height}.",
        )
    return Radiograph(
        pixels=pixels,
        facts=facts,
        warnings=(*warnings, *_flat_image_warnings(pixels)),
        doubt=doubt,
    )


def _check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise UnreadableFileError(
            f"{name} has {width} x {height} pixels ({width * height / 1e6:.3g} megapixels);"
            f" expected at most {max_pixels / 1e6:.3g} megapixels."
        )
    if min(width, height) < _MIN_SIDE:
        raise UnreadableFileError(
            f"{name} has {width} x {height} pixels; expected at least {_MIN_SIDE} x {_MIN_SIDE}."
        )
    if max(width, height) > _MAX_ASPECT_RATIO * min(width, height):
        raise UnreadableFileError(
            f"{name} has {width} x {height} pixels;"
            f" expected one side to be at most {_MAX_ASPECT_RATIO} times the other."
        )


def _convert_image(image: ImageFile, name: str, image_format: str) -> Radiograph:
    mode = image.mode
    if mode not in _TARGET_MODES:
        raise UnreadableFileError(
            f"{name} is in colour mode {mode}; expected grey, RGB, CMYK or a palette."
        )
    image.load()
    # Pillow applies the orientation of a TIFF while loading it.
    orientation = 1 if image_format == "TIFF" else read_orientation(image.info)
    shape = (image.height, image.width) if orientation < 5 else (image.width, image.height)
    # Written in place, because turning a copy would cost as much memory again.
    upright = np.empty(shape, np.float32)
    grey = _convert_to_grey(image, name, _EXIF_VIEWS.get(orientation, np.asarray)(upright))
    facts = {
        "width": shape[1],
        "height": shape[0],
        "mode": mode,
        "format": image_format,
        "modality": "radiograph (picture)",
        "view": "not given",
        "window": None,
        "colour": grey.chroma > _COLOUR_CHROMA,
    }
    is_jpeg = image_format == "JPEG" or _tiff_tag(image, _COMPRESSION, 1) == _JPEG_COMPRESSION
    lost = missing_rows_note(grey.pixels, 128 / 255) if is_jpeg else ""
    warnings = (*((lost,) if lost else ()), *_warnings(grey, mode))
    return Radiograph(pixels=upright, facts=facts, warnings=warnings, doubt=lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class _GreyImage:
    pixels: Floats
    chroma: float  # mean over the image, 0 to 1
    low: float  # the value shown as black
    high: float  # the value shown as white


def _convert_to_grey(image: ImageFile, name: str, pixels: Floats) -> _GreyImage:
    """Fill `pixels`, (height, width), with the image's greys, 0 to 1."""
    target = _TARGET_MODES[image.mode]
    # A PNG may declare one grey or colour transparent instead of having an alpha channel.
    if target in ("L", "RGB") and image.has_transparency_data:
        target = "RGBA"
    low, high = _value_range(image, target, name)
    chroma = 0.0
    for top, strip in _horizontal_strips(image):
        if target in _NUMERIC_MODES:
            rows = (np.asarray(strip, np.float64) - low) / ((high - low) or 1)
        else:
            rows = np.asarray(strip.convert(target), np.float32) / 255
        if rows.ndim == 3:
            colour = rows[..., :3]
            if target == "RGBA":
                # Composited on black, the background of a radiograph.
                colour = colour * rows[..., 3:]
            red, green, blue = np.moveaxis(colour, 2, 0)
            brightest = np.maximum(np.maximum(red, green), blue)
            chroma += float((brightest - np.minimum(np.minimum(red, green), blue)).sum())
            rows = colour @ _LUMA
        pixels[top : top + len(rows)] = rows
    # WhiteIsZero: Pillow inverts 8-bit images itself, but not those of 16 or 32 bits.
    if target in _NUMERIC_MODES and _tiff_tag(image, _PHOTOMETRIC, 1) == 0:
        np.subtract(1, pixels, out=pixels)
    return _GreyImage(pixels=pixels, chroma=chroma / pixels.size, low=low, high=high)


def _value_range(image: ImageFile, target: str, name: str) -> tuple[float, float]:
    """The values to be shown as black and as white."""
    if target == "I;16":
        bits = _tiff_tag(image, _BITS, 16)
        return 0.0, 2.0**bits - 1
    if target not in _NUMERIC_MODES:
        return 0.0, 255.0
    strips = (np.asarray(strip) for _, strip in _horizontal_strips(image))
    not_finite = sum(int(np.count_nonzero(~np.isfinite(strip))) for strip in strips)
    # A single NaN or infinity would spoil the range, and with it every other pixel.
    if not_finite:
        raise UnreadableFileError(
            f"{name} has {not_finite} pixels that are not finite numbers; expected finite ones."
        )
    low, high = image.getextrema()
    # Fractions of white, as programs for research write them.
    if target == "F" and low >= 0 and _DARK_SHARE < high <= 1:  # type: ignore[operator]
        return 0.0, 1.0
    return float(low), float(high)  # type: ignore[arg-type]


def _tiff_tag(image: ImageFile, tag: int, default: int) -> int:
    """The value of a numeric TIFF tag, or the default for other formats."""
    value = image.tag_v2.get(tag, default) if isinstance(image, TiffImageFile) else default
    return int(value[0] if isinstance(value, tuple) else value)


def _horizontal_strips(image: ImageFile) -> Iterator[tuple[int, Image]]:
    step = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, step):
        bottom = min(image.height, top + step)
        yield top, image.crop((0, top, image.width, bottom))


def _warnings(grey: _GreyImage, mode: str) -> Iterator[str]:
    high = float(grey.pixels.max())
    flat = [*_flat_image_warnings(grey.pixels)]
    if flat:
        yield from flat
    elif _TARGET_MODES[mode] in ("I", "F") and (grey.low, grey.high) != (0.0, 1.0):
        yield (
            f"The image's values go from {grey.low:g} to {grey.high:g} on an unknown scale:"
            " the lowest is shown as black and the highest as white."
        )
    elif _TARGET_MODES[mode] == "I;16" and high < _DARK_SHARE:
        yield (
            f"The brightest pixel is at {100 * high:.2g} % of the 16-bit range: the image is"
            " probably darker than intended."
        )


def _flat_image_warnings(pixels: Floats) -> Iterator[str]:
    low, high = float(pixels.min()), float(pixels.max())
    if high - low < _FLAT_RANGE:
        yield (
            f"The image is the same grey everywhere ({low:.2f} of white): there is nothing to"
            " explain."
        )
