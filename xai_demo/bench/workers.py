"""What reading a file in a worker costs, compared with this process, and the memory it takes.

Ordinary files are read in turns, in the worker and here, and the medians compared. The largest
files that the settings allow are read once each, under the limits that a server sets.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
from PIL import Image

from xai_demo import audio, imaging
from xai_demo.analysis.reading import read_preview, start_workers

if TYPE_CHECKING:
    from xai_demo.records import Progress
    from xai_demo.service.workers import WorkerPool
    from xai_demo.settings import Settings

ROUNDS = 30
# Of the median read, so that a visitor does not notice.
LIMITS = {"detour_ms": 10.0}
_RATE_HZ = 16_000
_NETWORK_RATE_HZ = 32_000  # the highest of the models' rates
# Of WebP the reader takes fewer pixels, because its decoder takes more memory.
_WEBP_SHARE = 0.6
_PAUSE_S = 0.1  # between two reads, in which the next worker starts

Read = Callable[..., Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """What a worker has taken when it was done."""

    seconds: float
    resident_mb: float
    address_space_mb: float


def run(
    settings: Settings, *, rounds: int = ROUNDS, progress: Progress | None = None
) -> dict[str, Any]:
    """Milliseconds to read ordinary files in both ways, and the memory for the largest ones."""
    report = progress or (lambda _done, _doing: None)
    pool = start_workers(settings)
    try:
        with tempfile.TemporaryDirectory() as folder:
            ordinary = {}
            for number, (name, path, read) in enumerate(_ordinary_files(Path(folder))):
                report(0.15 * number, f"Reading {name}, {rounds} times each way")
                ordinary[name] = _compare(pool, read, path, rounds)
            largest = {}
            for number, (name, path) in enumerate(_largest_files(Path(folder), settings)):
                report(0.45 + 0.2 * number, f"Reading {name}")
                largest[name] = dataclasses.asdict(_measure_peak(pool, path, settings))
        return {
            "rounds": rounds,
            "isolation": pool.isolation,
            "ordinary": ordinary,
            "largest": largest,
            "limit_mb": pool.limits.memory_bytes / 1e6,
            "wanted": LIMITS,
        }
    finally:
        pool.close()


def read_and_measure(path: Path, *, max_pixels: int, max_duration_s: float) -> dict[str, float]:
    """Read a file in a worker; what it took is in megabytes."""
    if path.suffix in (".wav", ".mp3"):
        audio.read_audio(path, sample_rate_hz=_NETWORK_RATE_HZ, max_duration_s=max_duration_s)
    else:
        imaging.read_image(path, max_pixels=max_pixels)
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return {
        "resident_mb": int(status["VmHWM"].split()[0]) / 1000,
        "address_space_mb": int(status["VmPeak"].split()[0]) / 1000,
    }


def table(result: Mapping[str, Any]) -> str:
    """The figures as two Markdown tables."""
    limit = result["wanted"]["detour_ms"]
    return "\n".join(
        [
            "| file | here (ms) | in a worker (ms) | detour (ms) | limit (ms) |",
            "| --- | --- | --- | --- | --- |",
            *(
                f"| {name} | {row['here_ms']:.1f} | {row['worker_ms']:.1f} | "
                f"{row['detour_ms']:.1f} | {limit:g} |"
                for name, row in result["ordinary"].items()
            ),
            "",
            "| file | seconds | resident (MB) | address space (MB) | limit (MB) |",
            "| --- | --- | --- | --- | --- |",
            *(
                f"| {name} | {row['seconds']:.1f} | {row['resident_mb']:.0f} | "
                f"{row['address_space_mb']:.0f} | {result['limit_mb']:.0f} |"
                for name, row in result["largest"].items()
            ),
            "",
            f"Median of {result['rounds']} rounds, in turns; workers confined by "
            f"{result['isolation']}.",
        ]
    )


def _compare(pool: WorkerPool, read: Read, path: Path, rounds: int) -> dict[str, float]:
    here, there = [], []
    function, options = read.func, read.keywords  # type: ignore[attr-defined]
    read(path)
    pool.run(function, path, **options)
    for _ in range(rounds):
        time.sleep(_PAUSE_S)
        here.append(_elapsed_ms(functools.partial(read, path)))
        there.append(_elapsed_ms(functools.partial(pool.run, function, path, **options)))
    medians = {"here_ms": statistics.median(here), "worker_ms": statistics.median(there)}
    return {**medians, "detour_ms": medians["worker_ms"] - medians["here_ms"]}


def _elapsed_ms(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def _measure_peak(pool: WorkerPool, path: Path, settings: Settings) -> Peak:
    start = time.perf_counter()
    # Without its samples or pixels the result is small, so this is the worker's own share.
    most, longest = settings.max_pixels, settings.max_duration_s
    taken = pool.run(read_and_measure, path, max_pixels=most, max_duration_s=longest)
    return Peak(seconds=time.perf_counter() - start, **taken)


def _ordinary_files(folder: Path) -> Iterator[tuple[str, Path, Read]]:
    rng = np.random.default_rng(0)
    sound = folder / "sound.wav"
    soundfile.write(sound, rng.normal(0, 0.1, 9 * _RATE_HZ), _RATE_HZ, subtype="PCM_16")
    read_sound = functools.partial(audio.read_audio, sample_rate_hz=8000, max_duration_s=60)
    yield "9 s of WAV at 16 kHz", sound, read_sound
    picture = folder / "picture.png"
    Image.fromarray(_film(1024, 1024)).save(picture)
    read_picture = functools.partial(imaging.read_image, max_pixels=10**7)
    yield "PNG of 1024 x 1024 pixels", picture, read_picture
    dicom = folder / "film.dcm"
    _write_dicom(dicom, _film(1600, 1250))
    yield "DICOM of 2 megapixels", dicom, read_picture
    yield "preview of that DICOM", dicom, functools.partial(read_preview, max_pixels=10**7)


def _largest_files(folder: Path, settings: Settings) -> Iterator[tuple[str, Path]]:
    for mode, suffix in (("L", "png"), ("RGBA", "png"), ("RGB", "webp"), ("L", "tif")):
        path = folder / f"largest-{mode}.{suffix}"
        side = int((settings.max_pixels * (_WEBP_SHARE if suffix == "webp" else 1)) ** 0.5)
        image = Image.fromarray(_film(side, side)).convert(mode)
        image.save(path, quality=50, method=0)
        yield f"{suffix.upper()} ({mode}) of {side**2 / 1e6:.0f} megapixels", path
        path.unlink()
    # A lossy encoder adds some silence, which must not make it too long.
    minutes = max(1, int(settings.max_duration_s // 60) - 1)
    for suffix in ("wav", "mp3"):
        path = folder / f"longest.{suffix}"
        _write_noise(path, minutes)
        yield f"{suffix.upper()} of {minutes} minutes", path
        path.unlink()


def _film(rows: int, columns: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A bright oval with some noise, which does not compress to nothing."""
    y, x = np.ogrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j]
    noise = np.random.default_rng(0).integers(0, 16, (64, 64), np.uint8)
    tiled = np.tile(noise, (rows // 64 + 1, columns // 64 + 1))[:rows, :columns]
    oval = np.asarray(200 * (x**2 + y**2 < 0.8), np.uint8)
    return np.asarray(oval + tiled, np.uint8)


def _write_noise(path: Path, minutes: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, 60 * _RATE_HZ)
    with soundfile.SoundFile(path, "w", _RATE_HZ, 1) as file:
        for _ in range(minutes):
            file.write(noise)


def _write_dicom(path: Path, pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
    from pydicom import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    dataset = Dataset()
    dataset.Modality, dataset.PhotometricInterpretation = "DX", "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PixelData = (pixels.astype("<u2") * 16).tobytes()
    dataset.preamble = bytes(128)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=False, little_endian=True, enforce_file_format=False)
