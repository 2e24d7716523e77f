"""Reading what visitors bring: in confined workers where a server has them, or in this process.

Everything that decodes a file goes through a `Reader`: sounds, pictures, DICOM, annotations,
previews, and DICOM written anew without patient data. What stays in the server's own process is
parsed by few lines of Python or by a format that cannot carry code: live chunks (the header of a
WAV of 16 bits), `config.json` and safetensors of a visitor's own model, and the first kilobyte of a
file, by which its format is detected.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from xai_demo import audio, imaging
from xai_demo.audio.segments import Cycle, read_cycles
from xai_demo.errors import UnreadableFileError
from xai_demo.examples import example_path
from xai_demo.files import detect_format
from xai_demo.imaging import age, gate
from xai_demo.imaging.dicom.deidentify import deidentify, is_deidentified
from xai_demo.records import LogMel, Model, Radiograph, Recording
from xai_demo.scheduler import TaskQueue
from xai_demo.service.sandbox import Limits
from xai_demo.service.workers import WorkerPool
from xai_demo.settings import worker_environment

if TYPE_CHECKING:
    from xai_demo.settings import Settings

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

# Rows or columns of a preview at least, more than twice as many as the page shows.
PREVIEW_SIDE = 512
# What the readers import only when they need it.
_PRELOAD = ("av", "gdcm", "pydicom.encaps", "pydicom.uid", f"{__name__}:warm_up")


def start_workers(settings: Settings) -> WorkerPool:
    """The workers of a server; the caller closes them."""
    server = settings.server
    # A float32 result is at most that of the largest picture or of an hour at 32 kHz.
    most = 4 * max(settings.max_pixels, round(33_000 * settings.max_duration_s))
    pool = WorkerPool(
        server.workers,
        environment=worker_environment(),
        deadline_s=server.read_seconds,
        limits=Limits(
            memory_bytes=server.worker_bytes,
            cpu_s=server.read_seconds,
            result_bytes=max(most, settings.max_upload_bytes) + 2**20,
        ),
        preload=_PRELOAD,
        records=(Recording, Radiograph, Cycle),
    )
    pool.start()
    return pool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What was read for a request, and how long that took."""

    content: Recording | Radiograph
    cycles: tuple[Cycle, ...] = ()
    warnings: tuple[str, ...] = ()  # about the cycles
    timing_ms: dict[str, float] = dataclasses.field(default_factory=dict)


class Reader:
    """Reads files within the limits of the settings; without `pool`, in the calling thread."""

    def __init__(self, settings: Settings, pool: WorkerPool | None = None) -> None:
        self._settings, self.pool = settings, pool
        most = max(1, settings.server.workers - 1)
        # One kind of file leaves a worker to the other: a film of 100 megapixels takes seconds, and
        # nobody with a sound has to wait for forty of them.
        self._images, self._sounds = TaskQueue(most), TaskQueue(most)

    def read(
        self,
        model: Model,
        path: Path,
        *,
        name: str | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Recording | Radiograph:
        """Read the file as the model's task needs it; raises UnreadableFileError, CancelledError.

        Messages call the file `name`, or by its own.
        """
        spec = model.preprocessing
        if not isinstance(spec, LogMel):
            most = self._settings.max_pixels
            with self._images.slot(cancelled=cancelled):
                image = self._run(
                    imaging.read_image, path, max_pixels=most, name=name, cancelled=cancelled
                )
            return _check(image)
        with self._sounds.slot(cancelled=cancelled):
            sound = self._run(
                audio.read_audio,
                path,
                sample_rate_hz=spec.sample_rate_hz,
                max_duration_s=self._settings.max_duration_s,
                name=name,
                cancelled=cancelled,
            )
        return _check(sound)

    def cycles(
        self,
        path: str | Path,
        *,
        duration_s: float,
        name: str | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[tuple[Cycle, ...], tuple[str, ...]]:
        """The annotated cycles of a recording, see `audio.segments.read_cycles`."""
        with self._sounds.slot(cancelled=cancelled):
            return self._run(
                read_cycles, Path(path), duration_s=duration_s, name=name, cancelled=cancelled
            )

    def preview(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Radiograph:
        """A radiograph at the size of a preview, screened by the gate."""
        most = self._settings.max_pixels
        with self._images.slot(cancelled=cancelled):
            preview = self._run(
                read_preview, Path(path), max_pixels=most, name=name, cancelled=cancelled
            )
        return _check(preview)

    def deidentify(
        self,
        path: str | Path,
        *,
        name: str,
        cancelled: Callable[[], bool] | None = None,
    ) -> bytes | None:
        """A DICOM file's content without patient data; None if nothing needs to be removed.

        Raises UnreadableFileError for a DICOM file that cannot be written anew: delete it.
        """
        with self._images.slot(cancelled=cancelled):
            return self._run(write_deidentified, Path(path), name=name, cancelled=cancelled)

    def check_workers(self) -> None:
        """Read an example in a worker and log what confines it; does nothing without workers."""
        if self.pool is None:
            return
        self.preview(example_path("clear-film"))
        size, isolation = self.pool.size, self.pool.isolation
        _log.info("Files are read by %d workers, confined by %s", size, isolation)

    def _run(
        self,
        function: Callable[..., _T],
        *args: Any,
        cancelled: Callable[[], bool] | None,
        **kwargs: Any,
    ) -> _T:
        if self.pool is None:
            return function(*args, **kwargs)
        return self.pool.run(function, *args, cancelled=cancelled, **kwargs)


def read_preview(path: Path, *, max_pixels: int, name: str | None = None) -> Radiograph:
    """Read a radiograph, screen it, guess whose it is; every so many rows and columns are kept."""
    radiograph = gate.screen_radiograph(imaging.read_image(path, max_pixels=max_pixels, name=name))
    radiograph = age.screen_age(radiograph)
    step = max(1, min(radiograph.pixels.shape) // PREVIEW_SIDE)
    pixels = np.ascontiguousarray(radiograph.pixels[::step, ::step])
    return dataclasses.replace(radiograph, pixels=pixels)


def write_deidentified(path: Path, *, name: str) -> bytes | None:
    """See `Reader.deidentify`; other formats, and files without patient data, are left alone."""
    with path.open("rb") as file:
        if detect_format(file) != "DICOM" or is_deidentified(file):
            return None
        return deidentify(file, name)


def warm_up() -> None:
    """Read an example of each kind, so that a worker has what the readers import when they run."""
    audio.read_audio(example_path("wheeze"), sample_rate_hz=8000, max_duration_s=60)
    read_preview(example_path("clear-film"), max_pixels=10**7)


def _check(source: _T) -> _T:
    """The source; raises UnreadableFileError if a worker has sent something else in its place."""
    match source:
        case Recording(samples=np.ndarray(ndim=1, dtype=np.float32), sample_rate_hz=int()):
            return source
        case Radiograph(pixels=np.ndarray(ndim=2, dtype=np.float32)):
            return source
    raise UnreadableFileError("What was read from this file is neither a sound nor an image.")
