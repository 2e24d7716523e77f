from __future__ import annotations

import struct
from io import SEEK_CUR, SEEK_END, BytesIO

import numpy as np
import pytest

from tests.support.hostile_files import wav_bytes
from xai_demo.audio.containers import (
    Container,
    FileSlice,
    SampleFormat,
    open_decoder,
    read_container,
)
from xai_demo.errors import UnreadableFileError

PCM = SampleFormat(
    subtype="PCM_16", endian="LITTLE", sample_rate_hz=48000, channels=1, declared_frames=2
)


def test_a_wav_header_says_where_its_samples_are() -> None:
    header = read_container(BytesIO(wav_bytes(b"\0\x40\0\xc0")), "a.wav")
    assert header == Container(format="WAV", start=44, size=4, sample_format=PCM)


def test_an_aiff_header_says_where_its_samples_are() -> None:
    rate = struct.pack(">HQ", 16383 + 15, 48000 << (63 - 15))  # an 80-bit float: 1.46... * 2^15
    comm = b"COMM" + struct.pack(">IHIH", 18, 1, 2, 16) + rate
    form = b"AIFF" + comm + b"SSND" + struct.pack(">III", 12, 0, 0) + b"\x40\0\xc0\0"
    header = read_container(BytesIO(b"FORM" + struct.pack(">I", len(form)) + form), "a.aiff")
    assert header.sample_format is not None
    assert (header.start, header.size) == (54, 4)
    assert header.sample_format.sample_rate_hz == 48000
    assert header.sample_format.endian == "BIG"


def test_samples_are_decoded_from_where_the_header_says() -> None:
    file = BytesIO(b"garbage!\0\x40\0\xc0garbage!")
    with open_decoder(file, Container(format="WAV", start=8, size=4, sample_format=PCM)) as sound:
        np.testing.assert_array_equal(sound.read(dtype="float32", frames=9), [0.5, -0.5])


def test_an_odd_chunk_is_followed_by_a_byte_of_padding() -> None:
    plain = wav_bytes(b"\0\x40")
    header = read_container(BytesIO(plain[:12] + b"note\3\0\0\0abc\0" + plain[12:]), "a.wav")
    assert (header.start, header.size) == (56, 2)


@pytest.mark.parametrize("tag", [2, 0x11, 0x55, 0x1234])
def test_a_codec_is_refused_by_the_header_alone(tag: int) -> None:
    with pytest.raises(UnreadableFileError, match="whose samples are"):
        read_container(BytesIO(wav_bytes(bytes(64), tag=tag)), "a.wav")


def test_a_window_is_a_file_of_its_own() -> None:
    window = FileSlice(BytesIO(b"0123456789"), 2, 5)
    assert window.read(100) == b"23456"
    assert window.seek(-2, SEEK_END) == 3
    assert window.read(1) == b"5"
    assert window.seek(-100, SEEK_CUR) == window.tell() == 0
    window.seek(100)
    assert window.read(1) == b""
