"""Hostile and unusual files: how each is built, its outcome, and what the message must say."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image
from pydicom.uid import JPEG2000Lossless, RLELossless

from tests.support.dicom_files import dicom_radiograph

Samples = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A file and what must become of it; `says` is a regular expression for what a person reads."""

    name: str
    build: Callable[[Path], None]
    outcome: Literal["refused", "warned", "fine"]
    says: str = ""


def tone(seconds: float = 1.0, rate_hz: int = 48000, hz: float = 440.0) -> Samples:
    """A sine of amplitude one half."""
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz)


def wav_bytes(data: bytes, *, declared: int | None = None, **fmt: int) -> bytes:
    """A WAV by hand; `declared` is the size that its header declares."""
    tag, channels, bits = fmt.get("tag", 1), fmt.get("channels", 1), fmt.get("bits", 16)
    rate, frame = fmt.get("rate", 48000), fmt.get("frame", channels * bits // 8)
    size = len(data) if declared is None else declared
    head = struct.pack("<HHIIHH", tag, channels, rate, rate * frame % 2**32, frame, bits)
    body = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", min(len(body) + size, 2**32 - 1)) + body + data


def radiograph(height: int = 96, width: int = 80) -> NDArray[np.uint8]:
    """Something grey, soft and uneven, as a film is."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    lungs = np.exp(-8 * ((np.abs(x) - 0.45) ** 2 + 0.4 * y**2))
    return np.rint(220 * (1 - 0.7 * lungs) * (1 - 0.3 * np.abs(x))).astype(np.uint8)


def holiday_photo(height: int = 96, width: int = 128) -> NDArray[np.uint8]:
    """Sky, sea, sand and a red towel."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[: height // 2] = (110, 170, 230)
    picture[height // 2 : 3 * height // 4] = (20, 90, 140)
    picture[3 * height // 4 :] = (220, 190, 130)
    picture[-height // 6 : -height // 12, width // 4 : width // 2] = (210, 30, 40)
    return picture


def png_bytes(width: int, height: int, *, bits: int, colour: int, rows: Iterable[bytes]) -> bytes:
    """A PNG by hand, its rows compressed as they come."""
    press = zlib.compressobj(9)
    data = b"".join([*(press.compress(b"\0" + row) for row in rows), press.flush()])
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def picture_bytes(pixels: NDArray[Any], format: str, mode: str = "", **options: Any) -> bytes:  # noqa: A002
    """A picture as Pillow writes it."""
    stream, picture = BytesIO(), Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(stream, format, **options)
    return stream.getvalue()


def _bytes(content: bytes) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        path.write_bytes(content)

    return build


def _sound(
    samples: Callable[[], Samples], rate_hz: int = 48000, subtype: str = "PCM_16", **options: str
) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        soundfile.write(path, samples(), rate_hz, subtype=subtype, **options)

    return build


def _picture(
    pixels: Callable[[], NDArray[Any]],
    format: str,  # noqa: A002
    mode: str = "",
    **options: Any,
) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        path.write_bytes(picture_bytes(pixels(), format, mode, **options))

    return build


def _film(**tags: Any) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        path.write_bytes(dicom_radiograph(radiograph(), **tags))

    return build


def _cut(build: Callable[[Path], None], share: float) -> Callable[[Path], None]:
    def build_and_cut(path: Path) -> None:
        build(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return build_and_cut


def _three_hours(path: Path) -> None:
    block = np.zeros(8000 * 60, np.int16)
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16", format="FLAC") as file:
        for _ in range(180):
            file.write(block)


def _with(samples: Samples, at: int, value: float) -> Samples:
    changed = samples.copy()
    changed[at : at + 3] = value
    return changed


def _stereo(channels: int) -> Samples:
    return np.stack([tone()] * channels, axis=1)


def _rgba() -> NDArray[np.uint8]:
    grey = radiograph()
    return np.stack([grey, grey, grey, np.full_like(grey, 200)], axis=2)


def _annotated() -> NDArray[np.uint8]:
    picture = np.stack([radiograph()] * 3, axis=2)
    picture[4:10, 4:40] = (255, 0, 0)
    return picture


def _bomb(path: Path) -> None:
    path.write_bytes(png_bytes(16000, 10000, bits=1, colour=0, rows=[bytes(2000)] * 10000))


def _claims(width: int, height: int) -> bytes:
    return png_bytes(width, height, bits=8, colour=2, rows=[])


_PDF = b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog >>\nendobj\n%%EOF\n"
_TEXT = b"Patient was asked to breathe deeply.\n" * 40
_SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"></svg>\n'
_NOISE = np.random.default_rng(0).bytes(4096)
_FIRST = radiograph(40, 40)

AUDIO: tuple[Case, ...] = (
    Case(name="empty.wav", build=_bytes(b""), outcome="refused", says=r"empty \(0 bytes\)"),
    Case(name="text.wav", build=_bytes(_TEXT), outcome="refused", says="plain text"),
    Case(name="noise.wav", build=_bytes(_NOISE), outcome="refused", says="unknown type"),
    Case(
        name="picture.wav",
        build=_picture(radiograph, "PNG"),
        outcome="refused",
        says="is a file of type PNG",
    ),
    Case(name="film.pdf", build=_bytes(_PDF), outcome="refused", says="is a file of type PDF"),
    Case(
        name="recorder.webm",
        build=_bytes(b"\x1a\x45\xdf\xa3" + _NOISE),
        outcome="refused",
        says=r"cannot be decoded as Matroska \(.*expected a WAV, AIFF, FLAC, Ogg",
    ),
    Case(
        name="phone.m4a",
        build=_bytes(b"\0\0\0\x20ftypM4A " + _NOISE),
        outcome="refused",
        says=r"cannot be decoded as MP4 \(.*expected a WAV, AIFF, FLAC, Ogg",
    ),
    Case(
        name="declares_more.wav",
        build=_bytes(wav_bytes((tone() * 2**15).astype("<i2").tobytes(), declared=960_000)),
        outcome="warned",
        says=r"declares 10\.0 s, but only 1\.0 s could be read",
    ),
    Case(
        name="declares_all.wav",
        build=_bytes(wav_bytes(b"", declared=960_000)),
        outcome="refused",
        says=r"declares 10\.0 s of sound in its header, but none",
    ),
    Case(
        name="piped.wav",
        build=_bytes(wav_bytes((tone() * 2**15).astype("<i2").tobytes(), declared=2**32 - 1)),
        outcome="warned",
        says=r"does not give the length of the sound; all 1\.0 s of it were read",
    ),
    Case(name="no_samples.wav", build=_sound(lambda: tone(0)), outcome="refused", says="0 samples"),
    Case(
        name="header_only.wav", build=_bytes(b"RIFF\4\0\0\0WAVE"), outcome="refused", says="chunk"
    ),
    Case(name="10_ms.wav", build=_sound(lambda: tone(0.01)), outcome="warned", says="only 10 ms"),
    Case(
        name="nan.wav",
        build=_sound(lambda: _with(tone(), 12000, np.nan), subtype="FLOAT"),
        outcome="refused",
        says=r"3 samples that are not finite .*the first at 250 ms",
    ),
    Case(
        name="infinite.wav",
        build=_sound(lambda: _with(tone(), 24000, np.inf), subtype="DOUBLE"),
        outcome="refused",
        says=r"3 samples that are not finite .*the first at 500 ms",
    ),
    Case(
        name="silence.wav",
        build=_sound(lambda: np.zeros(48000)),
        outcome="warned",
        says=r"silent \(peak -?[0-9]+ dBFS\): there is nothing to explain",
    ),
    Case(
        name="constant.wav",
        build=_sound(lambda: np.full(48000, 0.25)),
        outcome="warned",
        says=r"constant at 0\.25 of full scale: there is nothing to explain",
    ),
    Case(
        name="cancelling.wav",
        build=_sound(lambda: np.stack([tone(), -tone()], axis=1)),
        outcome="warned",
        says="cancel each other",
    ),
    Case(
        name="clipped.wav",
        build=_sound(lambda: np.clip(4 * tone(), -1, 1)),
        outcome="warned",
        says=r"clipped: 6\d % of its samples",
    ),
    Case(
        name="unscaled.wav",
        build=_sound(lambda: 20000 * tone(), subtype="FLOAT"),
        outcome="warned",
        says="on the scale of 16-bit integers.* divided by 32768",
    ),
    Case(
        name="loudest.wav",
        build=_sound(lambda: 1e30 * tone(), subtype="FLOAT"),
        outcome="refused",
        says=r"samples of up to 5e\+29; expected samples between -1 and 1",
    ),
    Case(name="stereo.wav", build=_sound(lambda: _stereo(2)), outcome="fine"),
    Case(name="surround.wav", build=_sound(lambda: _stereo(6)), outcome="fine"),
    Case(name="192_khz.wav", build=_sound(lambda: tone(1, 192_000), 192_000), outcome="fine"),
    Case(
        name="8_khz.wav",
        build=_sound(lambda: tone(1, 8000), 8000),
        outcome="warned",
        says="sample rate is 8000 Hz.*nothing above 4000 Hz",
    ),
    Case(name="8_bit.wav", build=_sound(tone, subtype="PCM_U8"), outcome="fine"),
    Case(name="24_bit.wav", build=_sound(tone, subtype="PCM_24"), outcome="fine"),
    Case(name="32_bit.wav", build=_sound(tone, subtype="PCM_32"), outcome="fine"),
    Case(name="float.wav", build=_sound(tone, subtype="FLOAT"), outcome="fine"),
    Case(name="double.wav", build=_sound(tone, subtype="DOUBLE"), outcome="fine"),
    Case(name="big_endian.wav", build=_sound(tone, endian="BIG"), outcome="fine"),
    Case(name="extensible.wav", build=_sound(tone, format="WAVEX"), outcome="fine"),
    Case(name="rf64.wav", build=_sound(tone, format="RF64"), outcome="fine"),
    Case(name="apple.aiff", build=_sound(tone), outcome="fine"),
    Case(name="apple_float.aiff", build=_sound(tone, subtype="FLOAT"), outcome="fine"),
    Case(name="apple_little.aiff", build=_sound(tone, endian="LITTLE"), outcome="fine"),
    Case(name="tune.flac", build=_sound(tone), outcome="fine"),
    Case(name="tune.mp3", build=_sound(tone, subtype="MPEG_LAYER_III"), outcome="fine"),
    Case(name="tune.ogg", build=_sound(tone, subtype="VORBIS"), outcome="fine"),
    Case(name="opus.ogg", build=_sound(tone, subtype="OPUS"), outcome="fine"),
    Case(name="wave in name only.mp3", build=_sound(tone, format="WAV"), outcome="fine"),
    Case(
        name="cut.flac",
        build=_cut(_sound(lambda: tone(8)), 0.6),
        outcome="warned",
        says=r"truncated or damaged: its header declares 8\.0 s",
    ),
    Case(
        name="ima_adpcm.wav",
        build=_sound(tone, subtype="IMA_ADPCM"),
        outcome="fine",
    ),
    Case(
        name="ms_adpcm.wav",
        build=_sound(tone, subtype="MS_ADPCM"),
        outcome="fine",
    ),
    Case(
        name="ima4.aiff",
        build=_sound(tone, subtype="IMA_ADPCM"),
        outcome="fine",
    ),
    Case(
        name="telephone.wav",
        build=_sound(lambda: tone(1, 8000), 8000, subtype="ULAW"),
        outcome="warned",
        says="sample rate is 8000 Hz",
    ),
    Case(
        name="three_hours.flac",
        build=_three_hours,
        outcome="refused",
        says=r"lasts 3 h 0 min.*expected at most",
    ),
    Case(
        name="0_hz.wav",
        build=_bytes(wav_bytes(bytes(3200), rate=0)),
        outcome="refused",
        says="sample rate of 0 Hz; expected 1000 to 768000 Hz",
    ),
    Case(
        name="4_ghz.wav",
        build=_bytes(wav_bytes(bytes(3200), rate=4_000_000_000)),
        outcome="refused",
        says="sample rate of 4000000000 Hz; expected 1000 to 768000 Hz",
    ),
    Case(
        name="no_channels.wav",
        build=_bytes(wav_bytes(bytes(3200), channels=0)),
        outcome="refused",
        says="0 channels; expected 1 to 32",
    ),
    Case(
        name="1000_channels.wav",
        build=_bytes(wav_bytes(bytes(32000), channels=1000)),
        outcome="refused",
        says="1000 channels; expected 1 to 32",
    ),
    Case(
        name="odd_depth.wav",
        build=_bytes(wav_bytes(bytes(3200), bits=40)),
        outcome="refused",
        says="whole numbers of 40 bits; expected PCM of 8 to 32 bits",
    ),
)

IMAGES: tuple[Case, ...] = (
    Case(name="empty.png", build=_bytes(b""), outcome="refused", says=r"empty \(0 bytes\)"),
    Case(
        name="text.png",
        build=_bytes(_TEXT),
        outcome="refused",
        says="type plain text, not an image",
    ),
    Case(name="noise.png", build=_bytes(_NOISE), outcome="refused", says="unknown type"),
    Case(
        name="sound.png",
        build=_sound(tone, format="WAV"),
        outcome="refused",
        says="is a file of type WAV",
    ),
    Case(
        name="report.pdf",
        build=_bytes(_PDF),
        outcome="refused",
        says="a PDF: export the page as PNG or JPEG",
    ),
    Case(name="drawing.svg", build=_bytes(_SVG), outcome="refused", says="SVG.*export it as PNG"),
    Case(
        name="phone.heic",
        build=_bytes(b"\0\0\0\x18ftypheic" + _NOISE),
        outcome="refused",
        says="HEIC.*export it as JPEG or PNG",
    ),
    Case(
        name="film.dcm",
        build=_bytes(bytes(128) + b"DICM" + _NOISE),
        outcome="refused",
        says="cannot be read as DICOM: .*expected a complete DICOM file",
    ),
    Case(name="plain.dcm", build=_film(), outcome="fine"),
    Case(name="suffix of a picture.png", build=_film(), outcome="fine"),
    Case(name="packed.dcm", build=_film(syntax=RLELossless), outcome="fine"),
    Case(name="jpeg_2000.dcm", build=_film(syntax=JPEG2000Lossless), outcome="fine"),
    Case(
        name="lateral.dcm",
        build=_film(ViewPosition="LL"),
        outcome="warned",
        says="left lateral radiograph.*frontal radiographs only",
    ),
    Case(
        name="ct.dcm",
        build=_film(Modality="CT"),
        outcome="refused",
        says=r"CT \(computed tomography\); expected .*DX or CR",
    ),
    Case(
        name="cine.dcm",
        build=_film(NumberOfFrames=12),
        outcome="refused",
        says="contains 12 frames",
    ),
    Case(
        name="no_pixels.dcm",
        build=_film(PixelData=None),
        outcome="refused",
        says="is a DICOM file without pixels",
    ),
    Case(
        name="400_megapixels.dcm",
        build=_film(Rows=20000, Columns=20000),
        outcome="refused",
        says=r"20000 x 20000 pixels \(400 megapixels\); expected at most",
    ),
    Case(
        name="cut.dcm",
        build=_cut(_film(), 0.7),
        outcome="refused",
        says="element 7FE00010 declares 7680 bytes, but there are only [0-9]+",
    ),
    Case(
        name="400_megapixels.png",
        build=_bytes(_claims(20_000, 20_000)),
        outcome="refused",
        says=r"20000 x 20000 pixels \(400 megapixels\)",
    ),
    Case(
        name="one_pixel.tiff",
        build=_picture(lambda: np.zeros((1, 1), np.uint8), "TIFF"),
        outcome="refused",
        says="1 x 1 pixels; expected at least 32 x 32",
    ),
    Case(
        name="one_pixel.webp",
        build=_picture(lambda: np.zeros((1, 1), np.uint8), "WEBP"),
        outcome="refused",
        says="1 x 1 pixels; expected at least 32 x 32",
    ),
    Case(
        name="moving.gif",
        build=_picture(radiograph, "GIF"),
        outcome="refused",
        says="GIF: export it as PNG",
    ),
    Case(
        name="160_megapixels.png",
        build=_bomb,
        outcome="refused",
        says=r"16000 x 10000 pixels \(160 megapixels\); expected at most",
    ),
    Case(
        name="claims_10_gigapixels.png",
        build=_bytes(_claims(100_000, 100_000)),
        outcome="refused",
        says="megapixels",
    ),
    Case(
        name="one_pixel.png",
        build=_picture(lambda: np.zeros((1, 1), np.uint8), "PNG"),
        outcome="refused",
        says="1 x 1 pixels; expected at least 32 x 32",
    ),
    Case(
        name="ribbon.png",
        build=_picture(lambda: np.zeros((32, 4000), np.uint8), "PNG"),
        outcome="refused",
        says="4000 x 32 pixels; expected one side to be at most 10 times the other",
    ),
    Case(name="grey.png", build=_picture(radiograph, "PNG"), outcome="fine"),
    Case(name="grey.jpg", build=_picture(radiograph, "JPEG"), outcome="fine"),
    Case(name="grey.webp", build=_picture(radiograph, "WEBP"), outcome="fine"),
    Case(name="grey.bmp", build=_picture(radiograph, "BMP"), outcome="fine"),
    Case(name="grey.tiff", build=_picture(radiograph, "TIFF"), outcome="fine"),
    Case(
        name="packed.tiff",
        build=_picture(radiograph, "TIFF", compression="tiff_lzw"),
        outcome="fine",
    ),
    Case(name="rgb.png", build=_picture(radiograph, "PNG", "RGB"), outcome="fine"),
    Case(name="cmyk.jpg", build=_picture(radiograph, "JPEG", "CMYK"), outcome="fine"),
    Case(
        name="ycbcr.tiff",
        build=_picture(radiograph, "TIFF", "YCbCr", compression="jpeg"),
        outcome="fine",
    ),
    Case(
        name="lab.tiff",
        build=_picture(holiday_photo, "TIFF", "LAB"),
        outcome="refused",
        says="colour mode LAB; expected grey, RGB, CMYK or a palette",
    ),
    Case(name="palette.png", build=_picture(radiograph, "PNG", "P"), outcome="fine"),
    Case(name="one_bit.png", build=_picture(radiograph, "PNG", "1"), outcome="fine"),
    Case(name="alpha.png", build=_picture(_rgba, "PNG"), outcome="fine"),
    Case(name="grey_alpha.png", build=_picture(radiograph, "PNG", "LA"), outcome="fine"),
    Case(name="alpha.webp", build=_picture(_rgba, "WEBP"), outcome="fine"),
    Case(
        name="16_bit.png",
        build=_picture(lambda: radiograph().astype(np.uint16) * 257, "PNG"),
        outcome="fine",
    ),
    Case(
        name="16_bit.tiff",
        build=_picture(lambda: radiograph().astype(np.uint16) * 257, "TIFF"),
        outcome="fine",
    ),
    Case(
        name="12_bit_in_16.png",
        build=_picture(lambda: radiograph().astype(np.uint16) * 16, "PNG"),
        outcome="warned",
        says=r"brightest pixel is at \d\.\d % of the 16-bit range",
    ),
    Case(
        name="32_bit.tiff",
        build=_picture(lambda: radiograph().astype(np.int32) * 1000 - 50, "TIFF"),
        outcome="warned",
        says="values go from -?[0-9]+ to",
    ),
    Case(
        name="float.tiff",
        build=_picture(lambda: radiograph().astype(np.float32) - 100, "TIFF"),
        outcome="warned",
        says="values go from -?[0-9]+ to",
    ),
    Case(
        name="nan.tiff",
        build=_picture(lambda: np.full((64, 64), np.nan, np.float32), "TIFF"),
        outcome="refused",
        says="4096 pixels that are not finite numbers",
    ),
    Case(
        name="on_its_side.jpg",
        build=_picture(
            radiograph,
            "JPEG",
            exif=b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0",
        ),
        outcome="fine",
    ),
    Case(name="annotated.png", build=_picture(_annotated, "PNG"), outcome="fine"),
    Case(
        name="tinted.jpg",
        build=_picture(lambda: (radiograph()[..., None] * [0.9, 0.95, 1]).astype(np.uint8), "JPEG"),
        outcome="fine",
    ),
    Case(
        name="holiday.jpg",
        build=_picture(holiday_photo, "JPEG"),
        outcome="fine",  # to read; what it shows is for the gate to say
    ),
    Case(
        name="blank.png",
        build=_picture(lambda: np.full((64, 64), 128, np.uint8), "PNG"),
        outcome="warned",
        says=r"same grey everywhere \(0\.50 of white\): there is nothing to explain",
    ),
    Case(
        name="invisible.png",
        build=_picture(
            lambda: np.stack([radiograph()] * 3 + [np.zeros((96, 80), np.uint8)], 2), "PNG"
        ),
        outcome="warned",
        says="nothing to explain",
    ),
    Case(
        name="pages.tiff",
        build=_picture(
            radiograph, "TIFF", save_all=True, append_images=[Image.fromarray(_FIRST)] * 2
        ),
        outcome="warned",
        says="contains 3 images: the first is used",
    ),
    Case(
        name="truncated.jpg",
        build=_cut(_picture(radiograph, "JPEG"), 0.7),
        outcome="refused",
        says="cannot be decoded as JPEG: it is truncated",
    ),
    Case(
        name="truncated.png",
        build=_cut(_picture(radiograph, "PNG"), 0.7),
        outcome="refused",
        says="cannot be decoded as PNG",
    ),
    Case(
        name="endless.tiff",
        build=_bytes(b"II*\0\x08\0\0\0\0\0\x08\0\0\0" + bytes(64)),
        outcome="refused",
        says="cannot be decoded as TIFF: it is damaged",
    ),
)
