from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import pytest

from xai_demo.errors import UnreadableFileError
from xai_demo.files import (
    detect_format,
    display_name,
    is_mpeg_audio,
    open_atomically,
    open_file,
    write_atomically,
)

HEADS = {
    "WAV": b"RIFF\0\0\0\0WAVEfmt ",
    "PNG": b"\x89PNG\r\n\x1a\n",
    "MP3": b"\xff\xfb\x90\x64",
    "AAC": b"\xff\xf1\x50\x80",
    "DICOM": bytes(128) + b"DICM",
    "HEIC": b"\0\0\0\x18ftypheic",
    "MP4 or M4A": b"\0\0\0\x18ftypisom",
    "SVG": b"<svg/>",
    "plain text": "Grüße\n".encode(),
    "": b"\0\1\2\3",
}


@pytest.mark.parametrize(("name", "head"), HEADS.items())
def test_a_file_is_what_its_first_bytes_say(name: str, head: bytes) -> None:
    file = BytesIO(head)
    assert detect_format(file) == name
    assert file.tell() == 0


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff\xfb\x90",  # three bytes are no header
        b"\xff\x1b\x90\x64",  # no sync
        b"\xff\xeb\x90\x64",  # reserved version
        b"\xff\xf9\x90\x64",  # reserved layer: AAC
        b"\xff\xfb\xf0\x64",  # bad bit rate
        b"\xff\xfb\x9c\x64",  # reserved sample rate
    ],
)
def test_what_is_no_frame_header_is_no_mpeg_audio(head: bytes) -> None:
    assert not is_mpeg_audio(head)


def test_a_name_is_shown_without_its_folder_and_on_one_line() -> None:
    assert display_name("/home/mrs secret/a\nb.wav") == "a?b.wav"
    assert display_name(Path("x") / ("a" * 300)) == "a" * 79 + "…"


def test_an_opened_file_stands_at_its_start(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with open_file(tmp_path / "a", expected="letters") as file:
        assert file.read() == b"abc"


@pytest.mark.parametrize("name", ["empty", "folder", "missing", "zero\0byte"])
def test_what_cannot_be_opened_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(UnreadableFileError, match=r"^[a-z?]+ .*; expected letters\.$"),
        open_file(tmp_path / name, expected="letters"),
    ):
        pass


@pytest.mark.parametrize(
    ("data", "content"), [(b"\0\xff", b"\0\xff"), ("Grüße\r\n", b"Gr\xc3\xbc\xc3\x9fe\r\n")]
)
def test_a_file_is_replaced_as_a_whole(tmp_path: Path, data: bytes | str, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old and longer than the new content")
    write_atomically(path, data)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["a.json"]


def _interrupt(file: BinaryIO) -> None:
    file.write(b"new")
    raise KeyboardInterrupt


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), open_atomically(path) as file:
        _interrupt(file)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_reader_sees_the_old_file_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with open_atomically(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_what_cannot_be_replaced_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_atomically(tmp_path / "folder", b"")
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "a", b"")
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_permissions_are_those_of_an_ordinary_write(tmp_path: Path, mask: int, mode: int) -> None:
    (tmp_path / "secret").touch(0o600)
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "new", b"")
        write_atomically(tmp_path / "secret", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == mode
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    path = tmp_path / ("a" * 255)
    write_atomically(path, b"abc")
    assert path.read_bytes() == b"abc"
