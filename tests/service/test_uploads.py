"""The folder of uploads: names, room, what is deleted when, and what a killed process leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xai_demo.errors import RequestError
from xai_demo.service.uploads import UploadFolder, discard_upload
from xai_demo.service.visitors import HTTPRefusalError

NO_ROOM = "no room for your file"
# A process that has an upload, says where, and waits.
HOLDER = """
import sys, time
from pathlib import Path
from xai_demo.service.uploads import UploadFolder
folder = UploadFolder(Path(sys.argv[1]), quota_bytes=10**6, min_free_bytes=1)
folder.new_path("a.wav").write_bytes(b"patient")
print(folder.path, flush=True)
time.sleep(60)
"""


def folder_in(base: Path, *, quota: int = 1000) -> UploadFolder:
    return UploadFolder(base, quota_bytes=quota, min_free_bytes=1)


def test_names_are_random_and_keep_a_known_suffix_only(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    paths = [folder.new_path(name) for name in ("Max Muster.WAV", "Max Muster.WAV", "a.muster")]
    assert paths[0] != paths[1]
    assert [path.suffix for path in paths] == [".wav", ".wav", ""]
    assert all(path.parent == folder.path for path in paths)
    assert not any("Muster" in str(path) or "muster" in str(path) for path in paths)


def test_only_files_inside_count_as_inside(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    upload = folder.new_path("a.wav")
    assert not folder.contains(str(upload))
    upload.write_bytes(b"1")
    assert folder.contains(str(upload))
    (folder.path / "link").symlink_to("/etc/passwd")
    for path in ("/etc/passwd", str(folder.path / "link"), str(folder.path), "a\0b", ""):
        assert not folder.contains(path)
    assert not folder.contains(f"{folder.path}/../../etc/passwd")


def test_no_room_is_a_refusal_and_what_is_old_makes_room(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    folder.claim(900)
    folder.new_path("a.wav").write_bytes(bytes(900))
    for _ in range(2):
        with pytest.raises(HTTPRefusalError, match=NO_ROOM) as refusal:
            folder.claim(200)
        assert refusal.value.status == 507
    assert folder.sweep(now=time.time() + 700, keep_s=600) == 1
    folder.claim(200)


def test_a_full_disk_takes_nothing_until_it_is_freed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = UploadFolder(tmp_path, quota_bytes=10**6, min_free_bytes=1000)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1100))
    folder.claim(100)
    with pytest.raises(HTTPRefusalError, match=NO_ROOM):
        folder.claim(101)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=5000))
    folder.claim(101)


def test_the_sweeper_takes_what_is_old_whatever_made_it(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    result = folder.path / "ab12" / "audio.wav"
    result.parent.mkdir()
    for path in (folder.new_path("a.wav"), result):
        path.write_bytes(b"1")
    assert folder.sweep() == 0
    assert folder.sweep(now=time.time() + 3500) == 0
    assert folder.sweep(now=time.time() + 3700) == 2
    assert list(folder.path.iterdir()) == []


def test_what_a_killed_process_leaves_the_next_one_deletes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        assert len(list(left.iterdir())) == 1
        # A living process keeps its own.
        folder_in(tmp_path / ".")
        assert left.is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait()
    # A base that this process has not opened yet.
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert (moved / left.name).is_dir()
    folder_in(moved)
    assert not (moved / left.name).exists()


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(RequestError, match="Set XAI_DEMO_UPLOADS to a folder"):
        folder_in(tmp_path / "link")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RequestError, match="cannot be used") as error:
        folder_in(tmp_path / "file")
    assert str(tmp_path) not in str(error.value)


def test_only_ones_own_upload_can_be_discarded(tmp_path: Path) -> None:
    folder = folder_in(tmp_path)
    upload, example = folder.new_path("a.wav"), folder.path / "ab12" / "wheeze.flac"
    example.parent.mkdir()
    outside = tmp_path / f"{'0' * 32}.wav"
    link = folder.path / f"{'1' * 32}.wav"
    for path in (upload, example, outside):
        path.write_bytes(b"1")
    link.symlink_to(outside)
    for path in (upload, example, outside, link, tmp_path / "absent"):
        discard_upload(str(path), folder.path)
    assert [path.exists() for path in (upload, example, outside, link)] == [False, True, True, True]


def test_a_process_that_ends_leaves_nothing(tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from xai_demo.service.uploads import *\n"
    program += "f = UploadFolder(Path(sys.argv[1]), quota_bytes=9, min_free_bytes=1)\n"
    program += "f.new_path('a.wav').write_bytes(b'1'); f.start(); f.delete()"
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=os.environ)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_files_that_are_kept_shortly_are_swept_more_often(tmp_path: Path) -> None:
    folder = UploadFolder(tmp_path, quota_bytes=10**6, min_free_bytes=1, keep_s=0.2)
    upload = folder.new_path("a.wav")
    upload.write_bytes(b"1")
    folder.start()
    try:
        end = time.monotonic() + 30
        while upload.exists() and time.monotonic() < end:
            time.sleep(0.05)
        assert not upload.exists()
    finally:
        folder.stop()
