from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

from xai_demo.errors import UnreadableFileError
from xai_demo.files import format_of, is_mpeg_audio, opened, shown_name

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
    assert format_of(file) == name
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
    assert shown_name("/home/mrs secret/a\nb.wav") == "a?b.wav"
    assert shown_name(Path("x") / ("a" * 300)) == "a" * 79 + "…"


def test_an_opened_file_stands_at_its_start(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with opened(tmp_path / "a", wanted="letters") as file:
        assert file.read() == b"abc"


@pytest.mark.parametrize("name", ["empty", "folder", "missing", "zero\0byte"])
def test_what_cannot_be_opened_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    with (
        pytest.raises(UnreadableFileError, match=r"^[a-z?]+ .*; wanted: letters\.$"),
        opened(tmp_path / name, wanted="letters"),
    ):
        pass
