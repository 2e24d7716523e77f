"""Results are written whole: the same result for somebody else does not touch the file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from gradio import processing_utils

from xai_demo.tabs.cache import WholeWriter, write_results_whole

PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


@pytest.fixture(autouse=True)
def _whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("save_pil_to_cache", "save_audio_to_cache", "save_bytes_to_cache"):
        monkeypatch.setattr(processing_utils, name, getattr(processing_utils, name))
    write_results_whole()


@pytest.mark.parametrize("kind", ["image", "audio", "bytes"])
def test_the_same_result_is_written_once(kind: str, tmp_path: Path) -> None:
    def save() -> Path:
        cache = str(tmp_path / "cache")
        if kind == "image":
            return Path(processing_utils.save_img_array_to_cache(PIXELS, cache, format="jpeg"))
        if kind == "audio":
            samples = np.arange(1000, dtype=np.int16)
            return Path(processing_utils.save_audio_to_cache(samples, 8000, "wav", cache))
        return Path(processing_utils.save_bytes_to_cache(b"1" * 1000, "a.bin", cache_dir=cache))

    first = save()
    content, inode = first.read_bytes(), first.stat().st_ino
    os.utime(first, (1, 1))
    with first.open("rb") as open_file:
        open_file.read(10)
        assert save() == first
        # Who reads meanwhile reads on in the same file.
        assert open_file.read() == content[10:]
    assert first.stat().st_ino == inode
    assert first.stat().st_mtime > 1, "the sweeper would take it for old"
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == [first]


def test_a_result_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    def fail(data: bytes, cache_dir: str) -> str:
        Path(cache_dir, "part").write_bytes(data)
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011
        WholeWriter(fail)(b"1", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_the_functions_are_replaced_once() -> None:
    before = processing_utils.save_pil_to_cache
    write_results_whole()
    assert processing_utils.save_pil_to_cache is before
