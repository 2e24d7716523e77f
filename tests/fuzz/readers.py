"""The readers that are fuzzed: what each is given to begin with, and what it must hold to."""

from __future__ import annotations

import contextlib
import json
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from pydicom import Dataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from tests.support.dicom_files import (
    SECRET,
    dicom_radiograph,
    dicom_with_codestream,
    jpeg_bytes,
    lossless_jpeg_bytes,
)
from tests.support.hostile_files import picture_bytes, radiograph, tone, wav_bytes
from xai_demo.errors import XaiDemoError

MAX_PIXELS, MAX_DURATION_S = 2_000_000, 20.0
_MOST_WORDS = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """A reader: sound files to start from, and a call that raises only what it may raise.

    `read` takes the path of a file, checks what it returns, and raises AssertionError for an answer
    that is none. `allowed` is what the reader may raise; everything else is a finding. New files
    are those that reach new lines of the `modules`.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], None]
    modules: tuple[str, ...]
    allowed: tuple[type[Exception], ...] = (XaiDemoError,)


def check_message(error: Exception, path: Path) -> None:
    """A refusal is one short sentence or two, without the folder and without a patient."""
    text = str(error)
    assert isinstance(error, XaiDemoError), f"not an error of ours: {error!r}"
    assert str(path.parent) not in text, f"the message has a path: {text}"
    assert SECRET not in text, "the message has what identifies a patient"
    assert text.isprintable(), f"not one line: {text!r}"
    assert 0 < len(text.split()) <= _MOST_WORDS, f"{len(text.split())} words: {text}"


# What is read


def _read_sound(path: Path) -> None:
    from xai_demo.audio import read_audio

    recording = read_audio(path, sample_rate_hz=8000, max_duration_s=MAX_DURATION_S)
    _check_values(recording.samples, -1, 1)
    assert 0 < recording.samples.size <= 8000 * (MAX_DURATION_S + 1)
    json.dumps(dict(recording.facts), allow_nan=False)
    _check_words(recording.warnings)


def _read_image(path: Path) -> None:
    from xai_demo.imaging import read_image

    image = read_image(path, max_pixels=MAX_PIXELS)
    _check_values(image.pixels, 0, 1)
    assert 0 < image.pixels.size <= MAX_PIXELS
    json.dumps(dict(image.facts), allow_nan=False)
    _check_words(image.warnings)
    assert SECRET not in f"{image.facts} {image.warnings}"


def _deidentify(path: Path) -> None:
    from xai_demo.imaging.dicom.deidentify import deidentify, is_deidentified

    with path.open("rb") as file:
        clean = deidentify(file, path.name)
    assert is_deidentified(BytesIO(clean))
    assert len(clean) < 40 * MAX_PIXELS


def _read_tags(path: Path) -> None:
    from xai_demo.imaging.dicom.tags import (
        PIXEL_DATA,
        DamagedError,
        ElementWalker,
        read_file_meta,
    )

    size = path.stat().st_size
    with path.open("rb") as file:
        _, start = read_file_meta(file, size)
        for order, explicit in (("<", True), ("<", False), (">", True)):
            walker = ElementWalker(file, size, order=order, explicit=explicit)
            with contextlib.suppress(DamagedError):
                for element in walker.dataset(start).values():
                    assert 0 <= element.start <= size
                    if element.tag != PIXEL_DATA:
                        walker.first_item(element)


def _read_cycles(path: Path) -> None:
    from xai_demo.audio.segments import read_cycles

    cycles, warnings = read_cycles(path, duration_s=10.0)
    assert cycles
    assert all(0 <= cycle.start_s < cycle.end_s <= 10 for cycle in cycles)
    _check_words(warnings)


def _read_live_chunk(path: Path) -> None:
    from xai_demo.tabs.live import AudioBuffer, wav_samples

    buffer = AudioBuffer(sample_rate_hz=8000)
    for _ in range(2):
        rate_hz, samples = wav_samples(path.read_bytes())
        buffer.add(rate_hz, samples)
    _check_values(buffer.take(), -1.5, 1.5)


def _read_own_model(path: Path) -> None:
    """A model directory of which one file is not as it should be."""
    from xai_demo.hub.checkpoint import read_model, read_tensors

    content = path.read_bytes()
    if content.lstrip()[:1] == b"{":
        (path.parent / "config.json").write_bytes(content)
        model = read_model(path.parent)
        assert all(isinstance(label, str) for label in model.labels)
        return
    suffix = ".pth" if content.startswith((b"PK", b"\x80")) else ".safetensors"
    weights = path.rename(path.with_suffix(suffix))
    for name, tensor in read_tensors(weights).items():
        assert isinstance(name, str)
        assert tensor.numel() <= len(content)


def _read_tiff_directories(path: Path) -> None:
    from xai_demo.imaging.containers import read_tiff_pages

    with path.open("rb") as file:
        assert all(page.width >= 0 <= page.height for page in read_tiff_pages(file))


def _read_exif(path: Path) -> None:
    from xai_demo.imaging.containers import exif_orientation

    assert exif_orientation(path.read_bytes()) in {None, *range(1, 9)}


def _check_values(values: Any, low: float, high: float) -> None:
    assert values.dtype == np.float32
    assert np.isfinite(values).all(), "NaN or infinite values"
    assert values.size == 0 or low <= values.min() <= values.max() <= high, "values out of range"


def _check_words(warnings: tuple[str, ...]) -> None:
    assert len(warnings) < 100
    assert all(text.isprintable() and len(text) < 1500 for text in warnings)


# What is read first


def _sound(subtype: str, format: str, channels: int = 1, **options: str) -> bytes:  # noqa: A002
    samples = np.stack([tone(0.15, 8000, 300.0)] * channels, axis=1)
    stream = BytesIO()
    soundfile.write(stream, samples, 8000, subtype=subtype, format=format, **options)
    return stream.getvalue()


def _encode(codec: str, container: str, rate_hz: int = 16000) -> bytes:
    """What a phone or a browser records."""
    import av

    stream = BytesIO()
    with av.open(stream, "w", format=container) as output:
        track: Any = output.add_stream(codec, rate=rate_hz)
        track.layout = "mono"
        block = (tone(0.2, rate_hz) * 2**15).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(track.format, "mono", rate_hz, track.frame_size or None)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            output.mux(track.encode(piece))
        output.mux(track.encode(None))
    return stream.getvalue()


@cache
def wav_seeds() -> list[bytes]:
    """Every kind of WAV and AIFF."""
    kinds = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
    pcm = (tone(0.1, 8000) * 2**15).astype("<i2").tobytes()
    return [
        *(_sound(kind, "WAV") for kind in kinds),
        _sound("PCM_16", "WAV", 2),
        _sound("PCM_16", "RF64"),
        _sound("PCM_16", "WAVEX"),
        _sound("PCM_16", "WAV", endian="BIG"),
        *(_sound(kind, "AIFF") for kind in ("PCM_16", "PCM_S8", "FLOAT")),
        _sound("PCM_16", "AIFF", endian="LITTLE"),
        _sound("IMA_ADPCM", "WAV"),
        _sound("ULAW", "WAV"),
        wav_bytes(pcm, declared=0),
        wav_bytes(pcm, frame=4),
        b"ID3\4\0\0\0\0\0\12" + bytes(10) + wav_bytes(pcm),
    ]


@cache
def compressed_seeds() -> list[bytes]:
    """Every kind of compressed sound, those of phones and browsers included."""
    mp3, ogg = _sound("MPEG_LAYER_III", "MP3"), _sound("VORBIS", "OGG")
    phones = (("aac", "mp4"), ("aac", "adts"), ("libopus", "webm"), ("flac", "flac"))
    return [
        _sound("PCM_16", "FLAC"),
        _sound("PCM_24", "FLAC", 2),
        mp3,
        mp3 * 2,
        b"ID3\4\0\0\0\0\0\12" + bytes(10) + bytes(7) + mp3,
        ogg,
        ogg * 2,
        _sound("OPUS", "OGG"),
        *(_encode(codec, container, 48000) for codec, container in phones),
    ]


def _exif(orientation: int, order: str = "<") -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(f"{order}HHIHH", 274, 3, 1, orientation, 0)
    return mark + struct.pack(f"{order}IH", 8, 1) + entry + bytes(4)


@cache
def image_seeds() -> list[bytes]:
    """Every kind of picture, with what says which way up it is."""
    grey = radiograph(48, 40)
    deep, rgba = grey.astype(np.uint16) * 257, np.stack([grey] * 4, axis=2)
    exif = b"Exif\0\0" + _exif(6)
    return [
        picture_bytes(grey, "PNG", exif=exif),
        picture_bytes(deep, "PNG"),
        picture_bytes(grey, "PNG", "P"),
        picture_bytes(grey, "PNG", "1"),
        picture_bytes(rgba, "PNG"),
        picture_bytes(grey, "JPEG", exif=exif),
        picture_bytes(grey, "JPEG", "CMYK"),
        picture_bytes(grey, "JPEG", "RGB", progressive=True),
        picture_bytes(grey, "WEBP", exif=exif),
        picture_bytes(rgba, "WEBP", lossless=True),
        picture_bytes(grey, "BMP"),
        picture_bytes(grey, "BMP", "1"),
        *tiff_seeds(),
    ]


@cache
def tiff_seeds() -> list[bytes]:
    """TIFFs of many codecs, of several pages, and one of 64 bits."""
    grey = radiograph(48, 40)
    deep = grey.astype(np.uint16) * 257
    small = Image.fromarray(grey[:32, :32])
    kinds = ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    return [
        picture_bytes(grey, "TIFF"),
        picture_bytes(deep, "TIFF", tiffinfo={274: 6}),
        picture_bytes(grey.astype(np.float32), "TIFF"),
        picture_bytes(grey.astype(np.int32) * 1000, "TIFF"),
        picture_bytes(grey, "TIFF", "1", compression="group4"),
        picture_bytes(grey, "TIFF", save_all=True, append_images=[small]),
        picture_bytes(grey, "TIFF", big_tiff=True),
        *(picture_bytes(grey, "TIFF", compression=kind) for kind in kinds),
    ]


def exif_seeds() -> list[bytes]:
    """EXIF blocks as they stand in a file."""
    return [b"Exif\0\0" + _exif(6), _exif(8, ">"), _exif(3)]


@cache
def dicom_seeds() -> list[bytes]:
    """Radiographs of every transfer syntax, with a patient's data and lookup tables."""
    grey = radiograph(40, 36)
    deep = (grey.astype(np.uint16) * 16).astype(np.uint16)
    patient = {"PatientName": SECRET, "PatientID": SECRET, "InstitutionName": SECRET}
    window = {"WindowCenter": "2000", "WindowWidth": "4000", "RescaleSlope": "1", "bits": 12}
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [256, 0, 8])
    table.add_new("LUTData", "US", list(range(256)))
    plain = dicom_radiograph(grey, **patient)
    return [
        plain,
        plain[132:],
        b"II*\0" + plain[4:],
        dicom_radiograph(deep, **patient, **window, PixelPaddingValue=7),
        dicom_radiograph(deep, ExplicitVRBigEndian, **window),
        dicom_radiograph(deep.astype(np.int16), ImplicitVRLittleEndian, RescaleIntercept="-1024"),
        dicom_radiograph(grey, VOILUTSequence=[table], PhotometricInterpretation="MONOCHROME1"),
        dicom_radiograph(grey, ModalityLUTSequence=[table]),
        dicom_radiograph(grey, RLELossless, **patient),
        dicom_radiograph(deep, RLELossless, bits=12),
        dicom_radiograph(grey, JPEG2000Lossless),
        dicom_radiograph(deep, JPEG2000Lossless, bits=12),
        dicom_with_codestream(jpeg_bytes(grey), grey, JPEGBaseline8Bit),
        dicom_with_codestream(lossless_jpeg_bytes(deep, 12), deep, JPEGLosslessSV1, bits=12),
        *_jpeg_ls(grey),
    ]


def _jpeg_ls(grey: Any) -> list[bytes]:
    import jpeg_ls

    stream = bytes(jpeg_ls.encode_array(grey))
    return [dicom_with_codestream(stream, grey, "1.2.840.10008.1.2.4.80")]


def cycle_seeds() -> list[bytes]:
    """Annotations of respiratory cycles, as people write them."""
    lines = "0.5\t1.5\t0\t1\n1.5\t3.25\t1\t0\n3.25\t9\t1\t1\n"
    return [
        lines.encode(),
        lines.replace("\t", ",").encode(),
        ("start,end,crackles,wheezes\n" + lines.replace("\t", ",")).encode(),
        lines.replace(".", ",").replace("\t", ";").encode(),
        lines.encode("utf-16"),
        b"\xef\xbb\xbf" + lines.replace("\n", "\r\n").encode(),
    ]


def live_seeds() -> list[bytes]:
    """What browsers send, with sizes in the header that are wrong."""
    pcm = (tone(0.1, 8000) * 2**15).astype("<i2").tobytes()
    return [wav_bytes(pcm), wav_bytes(pcm, channels=2), wav_bytes(pcm, rate=44100, declared=0)]


@cache
def own_model_seeds() -> list[bytes]:
    """A description, and weights in both formats."""
    import torch
    from safetensors.torch import save

    folder = Path(__file__).resolve().parents[2] / "weights"
    configs = [folder / name / "config.json" for name in ("lung-resnet18", "pneumonia-resnet18")]
    tensors = {"conv.weight": torch.ones(2, 3), "backbone.fc.bias": torch.zeros(2)}
    wrapped, old = BytesIO(), BytesIO()
    torch.save({"state_dict": tensors}, wrapped)
    torch.save(tensors, old, _use_new_zipfile_serialization=False)
    described = [config.read_bytes() for config in configs]
    return [*described, save(tensors), wrapped.getvalue(), old.getvalue()]


_DAMAGED: tuple[type[Exception], ...] = (XaiDemoError, ValueError, struct.error)
_SOUND = ("xai_demo.files", "xai_demo.audio.containers", "xai_demo.audio")
_DICOM = (
    "xai_demo.imaging.dicom.tags",
    "xai_demo.imaging.dicom.header",
    "xai_demo.imaging.dicom.deidentify",
    "xai_demo.imaging.dicom",
)
_IMAGE = ("xai_demo.files", *_DICOM, "xai_demo.imaging")

READERS: dict[str, Reader] = {
    "dicom": Reader(seeds=dicom_seeds, read=_read_image, modules=_IMAGE),
    "image": Reader(seeds=image_seeds, read=_read_image, modules=_IMAGE),
    "sound": Reader(seeds=compressed_seeds, read=_read_sound, modules=_SOUND),
    "wav": Reader(seeds=wav_seeds, read=_read_sound, modules=_SOUND),
    "deidentify": Reader(seeds=dicom_seeds, read=_deidentify, modules=_DICOM, allowed=_DAMAGED),
    "tags": Reader(seeds=dicom_seeds, read=_read_tags, modules=_DICOM, allowed=_DAMAGED),
    "tiff": Reader(seeds=tiff_seeds, read=_read_tiff_directories, modules=_IMAGE, allowed=_DAMAGED),
    "exif": Reader(seeds=exif_seeds, read=_read_exif, modules=_IMAGE),
    "cycles": Reader(seeds=cycle_seeds, read=_read_cycles, modules=("xai_demo.audio.segments",)),
    "live": Reader(seeds=live_seeds, read=_read_live_chunk, modules=("xai_demo.tabs.live",)),
    "own_model": Reader(
        seeds=own_model_seeds, read=_read_own_model, modules=("xai_demo.hub.checkpoint",)
    ),
}


def read_bytes(reader: Reader, content: bytes, folder: Path | None = None) -> str:
    """Give a reader a file of these bytes: "read", "refused"; raises whatever is a finding."""
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        path = Path(inside) / "upload"
        path.write_bytes(content)
        try:
            reader.read(path)
        except reader.allowed as error:
            if isinstance(error, XaiDemoError):
                check_message(error, path)
            return "refused"
        return "read"
