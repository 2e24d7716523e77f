from __future__ import annotations

import struct
from io import SEEK_CUR, SEEK_END, BytesIO

import numpy as np
import pytest

from tests.support.hostile_files import wav_bytes
from xai_demo.audio.containers import read_container
from xai_demo.audio.decoders import open_decoder
from xai_demo.audio.pcm import Container, FileSlice, SampleFormat
from xai_demo.errors import UnreadableFileError

PCM = SampleFormat(subtype="PCM_16", endian="LITTLE", sample_rate_hz=48000, channels=1)


def test_a_wav_header_says_where_its_samples_are() -> None:
    header = read_container(BytesIO(wav_bytes(b"\0\x40\0\xc0")), "a.wav")
    assert header == Container(
        format="WAV", start=44, size=4, sample_format=PCM, declared_s=2 / 48000
    )


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
    header = Container(format="WAV", start=8, size=4, sample_format=PCM)
    with open_decoder(file, header, "a.wav") as decoder:
        (block,) = decoder.blocks()
    np.testing.assert_array_equal(block.samples, [[0.5], [-0.5]])
    assert block.sample_rate_hz == 48000


def test_an_odd_chunk_is_followed_by_a_byte_of_padding() -> None:
    plain = wav_bytes(b"\0\x40")
    header = read_container(BytesIO(plain[:12] + b"note\3\0\0\0abc\0" + plain[12:]), "a.wav")
    assert (header.start, header.size) == (56, 2)


def test_an_odd_chunk_may_lack_its_padding() -> None:
    plain = wav_bytes(b"\0\x40")
    header = read_container(BytesIO(plain[:12] + b"note\3\0\0\0abc" + plain[12:]), "a.wav")
    assert (header.start, header.size) == (55, 2)


@pytest.mark.parametrize("tag", [2, 0x11, 0x31, 0x55, 0x1234])
def test_libsndfile_never_gets_the_header_of_a_codec(tag: int) -> None:
    header = read_container(BytesIO(wav_bytes(bytes(64), tag=tag)), "a.wav")
    assert header.demuxer == "wav"


def test_a_codec_that_nobody_records_with_is_refused() -> None:
    file = BytesIO(wav_bytes(bytes(640), tag=0x42))  # G.723.1
    header = read_container(file, "a.wav")
    with pytest.raises(UnreadableFileError, match="whose codec is"):  # noqa: SIM117
        with open_decoder(file, header, "a.wav"):
            pass


def test_a_window_is_a_file_of_its_own() -> None:
    window = FileSlice(BytesIO(b"0123456789"), 2, 5)
    assert window.read(100) == b"23456"
    assert window.seek(-2, SEEK_END) == 3
    assert window.read(1) == b"5"
    assert window.seek(-100, SEEK_CUR) == window.tell() == 0
    window.seek(100)
    assert window.read(1) == b""
