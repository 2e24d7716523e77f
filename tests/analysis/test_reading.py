"""Reading through workers: the same results, the same refusals, and none but those sentences."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.service import hostile_jobs
from tests.support.dicom_files import dicom_radiograph
from tests.support.small_models import MEL, RASTER, model_of
from xai_demo.analysis import reading
from xai_demo.analysis.reading import PREVIEW_SIDE, Reader, start_workers
from xai_demo.errors import AnnotationError, CancelledError, UnreadableFileError
from xai_demo.examples import EXAMPLES, example_path
from xai_demo.imaging import read_image
from xai_demo.records import Radiograph, Recording
from xai_demo.settings import Settings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="workers are for Linux")

SETTINGS = Settings.from_env({})
LUNG = model_of("resnet18", name="lung", preprocessing=MEL)
FILM = model_of("resnet18", name="film", preprocessing=RASTER)
PATIENT = "DOE^JANE"


@pytest.fixture(scope="module")
def served() -> Iterator[Reader]:
    """A reader as a server has it."""
    pool = start_workers(SETTINGS)
    yield Reader(SETTINGS, pool)
    pool.close()


@pytest.fixture
def local() -> Reader:
    return Reader(SETTINGS)


@pytest.fixture
def dicom(tmp_path: Path) -> Path:
    (tmp_path / "film.dcm").write_bytes(dicom_radiograph(PatientName=PATIENT))
    return tmp_path / "film.dcm"


def fields(source: Any) -> dict[str, Any]:
    """The fields of a record, arrays as their bytes."""
    values = {each.name: getattr(source, each.name) for each in dataclasses.fields(source)}
    arrays = {k: v for k, v in values.items() if isinstance(v, np.ndarray)}
    return values | {k: (v.dtype, v.shape, v.tobytes()) for k, v in arrays.items()}


@pytest.mark.parametrize("name", ["wheeze", "breathing", "dog"])
def test_a_sound_is_read_to_the_bit(served: Reader, local: Reader, name: str) -> None:
    there, here = (reader.read(LUNG, example_path(name)) for reader in (served, local))
    assert isinstance(there, Recording)
    assert fields(there) == fields(here)


def test_an_image_is_read_to_the_bit(served: Reader, local: Reader, dicom: Path) -> None:
    for path in (example_path("clear-film"), dicom):
        there, here = (reader.read(FILM, path) for reader in (served, local))
        assert isinstance(there, Radiograph)
        assert fields(there) == fields(here)


def test_a_preview_is_small_and_judged_as_the_whole(served: Reader, tmp_path: Path) -> None:
    from PIL import Image

    with Image.open(example_path("clear-film")) as image:
        image.resize((1600, 2000)).save(tmp_path / "large.png")
    preview = served.preview(tmp_path / "large.png", name="large.png")
    whole = read_image(tmp_path / "large.png", max_pixels=10**7)
    assert preview.pixels.shape == (667, 534)
    assert (preview.pixels == whole.pixels[::3, ::3]).all()
    assert min(preview.pixels.shape) >= PREVIEW_SIDE
    assert preview.facts["width"] == 1600
    assert preview.facts["gate"]["kind"] == "frontal"


def test_cycles_and_refusals_come_back(served: Reader, tmp_path: Path) -> None:
    path = tmp_path / "5f1c"
    path.write_text("0 1.5 0 1\n1.5 3 1 0\n")
    cycles, warnings = served.cycles(path, duration_s=3, name="mine.txt")
    assert [(c.start_s, c.end_s, c.label) for c in cycles] == [
        (0, 1.5, "wheeze"),
        (1.5, 3, "crackle"),
    ]
    assert warnings == ()
    path.write_text("no cycles")
    with pytest.raises(AnnotationError, match=r"^mine\.txt"):
        served.cycles(path, duration_s=3, name="mine.txt")
    for read in (served.preview, lambda p, name: served.read(LUNG, p, name=name)):
        with pytest.raises(UnreadableFileError, match=r"^mine\.bin") as caught:
            read(path, name="mine.bin")
        assert str(tmp_path) not in str(caught.value)


def test_a_dicom_is_written_anew_without_its_patient(served: Reader, dicom: Path) -> None:
    content = served.deidentify(dicom, name="film.dcm")
    assert content is not None
    assert PATIENT.encode() not in content
    before = read_image(dicom, max_pixels=10**7)
    dicom.write_bytes(content)
    assert (read_image(dicom, max_pixels=10**7).pixels == before.pixels).all()
    assert served.deidentify(dicom, name="film.dcm") is None
    assert served.deidentify(example_path("clear-film"), name="film.png") is None
    dicom.write_bytes(bytes(128) + b"DICMxx")
    with pytest.raises(UnreadableFileError, match=r"film\.dcm"):
        served.deidentify(dicom, name="film.dcm")


def test_images_leave_a_worker_to_the_sounds(
    served: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served.pool is not None
    monkeypatch.setattr(reading, "read_preview", slow_preview)
    with ThreadPoolExecutor(6) as visitors:
        path, done = example_path("clear-film"), []
        previews = [visitors.submit(served.preview, path) for _ in range(6)]
        for preview in previews:
            preview.add_done_callback(done.append)
        served.read(LUNG, example_path("wheeze"))
        # All previews together take three seconds, one after the other.
        assert len(done) < 6
        assert served.pool.busy <= 1
        for preview in previews:
            preview.result()


def test_reading_stops_when_it_is_cancelled(served: Reader) -> None:
    for read in (
        lambda: served.read(LUNG, example_path("wheeze"), cancelled=lambda: True),
        lambda: served.preview(example_path("clear-film"), cancelled=lambda: True),
    ):
        with pytest.raises(CancelledError):
            read()


def test_what_is_not_a_sound_or_an_image_is_not_taken_from_a_worker(
    served: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading.audio, "read_audio", hostile_jobs.forge_recording)
    with pytest.raises(UnreadableFileError, match="neither a sound nor an image"):
        served.read(LUNG, example_path("wheeze"))


def test_workers_have_room_for_the_largest_files() -> None:
    pool = start_workers(SETTINGS)
    pool.close()
    assert pool.limits.result_bytes > 4 * max(SETTINGS.max_pixels, 32_000 * 3600)
    assert pool.limits.memory_bytes == SETTINGS.server.worker_bytes == 2_000_000_000
    assert (pool.size, pool.deadline_s) == (2, 60)
    assert EXAMPLES["clear-film"].task == "chest_xray"


def test_a_server_says_at_its_start_what_confines_its_workers(
    served: Reader, local: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    local.check_workers()
    assert caplog.messages == []
    served.check_workers()
    assert served.pool is not None
    assert caplog.messages == [f"Files are read by 2 workers, confined by {served.pool.isolation}"]


def slow_preview(path: Path, *, max_pixels: int, name: str | None = None) -> Radiograph:
    time.sleep(0.5)
    return read_image(path, max_pixels=max_pixels, name=name)
