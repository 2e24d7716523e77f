"""Files that recorders, phones, browsers and published data sets write, and what is right."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from tests.support.hostile_files import Samples, tone, wav_bytes
from xai_demo.audio import measure_duration_s, read_audio
from xai_demo.errors import UnreadableFileError
from xai_demo.files import mpeg_frame_bytes
from xai_demo.records import Recording

RATE_HZ = 8000


def read(content: bytes, folder: Path, rate_hz: int = RATE_HZ) -> Recording:
    path = folder / "upload"
    path.write_bytes(content)
    return read_audio(path, sample_rate_hz=rate_hz, max_duration_s=3600)


def encode(samples: Samples, rate_hz: int, format_: str, **options: str) -> bytes:
    file = BytesIO()
    soundfile.write(file, samples, rate_hz, format=format_, **options)
    return file.getvalue()


def mux(samples: Samples, rate_hz: int, container: str, codec: str, **options: str) -> bytes:
    """A file as FFmpeg writes it."""
    file = BytesIO()
    with av.open(file, "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate_hz, layout="mono")
        stream.bit_rate = 12_200 if "amr" in codec else 64_000
        stream.codec_context.open()
        format_ = stream.codec_context.format.name
        resampler = av.AudioResampler(format=format_, layout="mono", rate=rate_hz)
        frame = av.AudioFrame.from_ndarray(
            np.asarray(samples, np.float32)[None], format="fltp", layout="mono"
        )
        frame.sample_rate = rate_hz
        for part in (frame, None):
            for converted in resampler.resample(part):
                output.mux(stream.encode(converted))
        output.mux(stream.encode(None))
    return file.getvalue()


def pcm(seconds: float = 2.0, rate_hz: int = RATE_HZ) -> bytes:
    return np.rint(tone(seconds, rate_hz) * 2**15).astype("<i2").tobytes()


def plain(seconds: float = 2.0) -> Samples:
    return np.rint(tone(seconds, RATE_HZ) * 2**15) / 2**15


def level(recording: Recording) -> float:
    inner = recording.samples[800:-800]
    return float(np.sqrt(np.square(inner).mean()))


def vbr_mp3(*, xing: bool) -> bytes:
    """Five quiet seconds and five loud ones: the bit rate rises after the first frames."""
    noise = np.random.default_rng(0).standard_normal(5 * 44100) * 0.2
    samples = np.concatenate([1e-4 * noise, noise])
    content = encode(samples, 44100, "MP3", bitrate_mode="VARIABLE")
    assert b"Xing" in content[:200]
    return content if xing else content[mpeg_frame_bytes(content) :]


@pytest.mark.parametrize("frame", [0, 1, 4, 77])
def test_the_bytes_of_a_frame_follow_from_bits_and_channels(tmp_path: Path, frame: int) -> None:
    recording = read(wav_bytes(pcm(), rate=RATE_HZ, frame=frame), tmp_path)
    np.testing.assert_allclose(recording.samples, plain(), atol=1e-6)
    assert recording.warnings == ()


def test_a_header_without_bits_is_read_by_its_frames(tmp_path: Path) -> None:
    recording = read(wav_bytes(pcm(), rate=RATE_HZ, bits=0, frame=2), tmp_path)
    np.testing.assert_allclose(recording.samples, plain(), atol=1e-6)


@pytest.mark.parametrize("shift", [0, 8])
def test_24_bits_in_4_bytes_are_found_in_the_samples(tmp_path: Path, shift: int) -> None:
    whole = (tone(2, RATE_HZ) * 2**23).astype("<i4") << shift
    content = wav_bytes(whole.tobytes(), rate=RATE_HZ, bits=24, frame=4)
    np.testing.assert_allclose(read(content, tmp_path).samples, tone(2, RATE_HZ), atol=1e-5)


@pytest.mark.parametrize(
    ("format_", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 0.01),
        ("WAV", "ALAW", 0.02),
        ("WAV", "ULAW", 0.02),
        ("WAVEX", "PCM_24", 1e-5),
        ("RF64", "PCM_16", 1e-4),
        ("RF64", "FLOAT", 1e-6),
        ("W64", "PCM_16", 1e-4),
        ("W64", "FLOAT", 1e-6),
        ("AU", "PCM_16", 1e-4),
        ("AU", "ULAW", 0.02),
        ("AU", "DOUBLE", 1e-6),
        ("CAF", "PCM_16", 1e-4),
        ("CAF", "PCM_24", 1e-5),
        ("CAF", "FLOAT", 1e-6),
        ("AIFF", "PCM_24", 1e-5),
        ("AIFF", "DOUBLE", 1e-6),
        ("AIFF", "ALAW", 0.02),
        ("AIFF", "PCM_U8", 0.01),
        ("FLAC", "PCM_24", 1e-5),
    ],
)
def test_every_sample_format_has_the_same_scale(
    tmp_path: Path, format_: str, subtype: str, tolerance: float
) -> None:
    content = encode(tone(2, RATE_HZ), RATE_HZ, format_, subtype=subtype)
    for start in (b"", b"ID3\3\0\0\0\0\1\0" + bytes(128)):
        recording = read(start + content, tmp_path)
        np.testing.assert_allclose(recording.samples, tone(2, RATE_HZ), atol=tolerance)
        assert recording.warnings == ()


def test_little_endian_aiff_keeps_its_byte_order(tmp_path: Path) -> None:
    content = encode(tone(2, RATE_HZ), RATE_HZ, "AIFF", subtype="PCM_16", endian="LITTLE")
    assert b"sowt" in content[:64]
    np.testing.assert_allclose(read(content, tmp_path).samples, tone(2, RATE_HZ), atol=1e-4)


@pytest.mark.parametrize(
    ("container", "codec", "rate_hz", "tolerance"),
    [
        ("ipod", "aac", 44100, 0.05),
        ("adts", "aac", 44100, 0.05),
        ("3gp", "libopencore_amrnb", 8000, 0.1),
        ("amr", "libopencore_amrnb", 8000, 0.1),
        ("webm", "libopus", 48000, 0.05),
        ("matroska", "libopus", 48000, 0.05),
        ("mov", "alac", 44100, 0.01),
        ("asf", "wmav2", 44100, 0.05),
        ("caf", "alac", 44100, 0.01),
        ("mp3", "libmp3lame", 44100, 0.05),
        ("matroska", "pcm_s16le", 16000, 0.01),
        ("wav", "adpcm_ima_wav", 16000, 0.05),
    ],
)
def test_what_phones_and_browsers_record_is_read(
    tmp_path: Path, container: str, codec: str, rate_hz: int, tolerance: float
) -> None:
    recording = read(mux(tone(4, rate_hz), rate_hz, container, codec), tmp_path)
    assert recording.duration_s == pytest.approx(4, abs=0.15)
    assert level(recording) == pytest.approx(0.5 / np.sqrt(2), abs=tolerance)
    assert recording.warnings == ()


@pytest.mark.parametrize(
    ("container", "codec"), [("matroska", "libopus"), ("matroska", "libmp3lame"), ("adts", "aac")]
)
def test_an_estimated_length_is_no_promise(tmp_path: Path, container: str, codec: str) -> None:
    noise = np.random.default_rng(0).standard_normal(4 * 48000) * 0.1
    samples = np.concatenate([0 * noise, noise])
    # Written to a pipe, a Matroska file has no length in its header.
    options = {"live": "1"} if container == "matroska" else {}
    content = mux(samples, 48000, container, codec, **options)
    recording = read(content, tmp_path)
    assert recording.duration_s == pytest.approx(8, abs=0.15)
    assert recording.warnings == ()


@pytest.mark.parametrize("xing", [True, False])
def test_an_mp3_is_decoded_by_its_frames_to_the_end(tmp_path: Path, xing: bool) -> None:
    recording = read(vbr_mp3(xing=xing), tmp_path)
    assert recording.duration_s == pytest.approx(10, abs=0.1)
    assert np.abs(recording.samples[-4 * RATE_HZ :]).max() > 0.1
    assert recording.warnings == ()


def test_a_cut_mp3_is_called_so_if_its_header_counts_the_frames(tmp_path: Path) -> None:
    content = vbr_mp3(xing=True)
    (warning,) = read(content[: len(content) // 2], tmp_path).warnings
    assert "truncated or damaged: its header declares 10.0 s" in warning
    without = vbr_mp3(xing=False)
    assert read(without[: len(without) // 2], tmp_path).warnings == ()


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("matroska", "libopus"),
        ("asf", "wmav2"),
        ("caf", "pcm_s16le"),
        ("au", "pcm_s16be"),
        ("w64", "pcm_s16le"),
        ("aiff", "pcm_s16be"),
        ("flac", "flac"),
    ],
)
def test_a_length_in_the_header_is_a_promise(tmp_path: Path, container: str, codec: str) -> None:
    content = mux(tone(8, 48000), 48000, container, codec)
    recording = read(content[: 2 * len(content) // 3], tmp_path)
    assert 4 < recording.duration_s < 6
    (warning,) = recording.warnings
    assert "truncated or damaged: its header declares" in warning


def test_a_fragmented_mp4_may_end_anywhere(tmp_path: Path) -> None:
    options = {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}
    content = mux(tone(8, 44100), 44100, "mp4", "aac", **options)
    assert read(content, tmp_path).duration_s == pytest.approx(8, abs=0.15)
    assert read(content[: len(content) // 2], tmp_path).duration_s > 3


def test_an_m4a_that_lost_its_index_is_refused(tmp_path: Path) -> None:
    content = mux(tone(8, 44100), 44100, "ipod", "aac")
    with pytest.raises(UnreadableFileError, match=r"^upload cannot be decoded as MP4 \("):
        read(content[: len(content) // 2], tmp_path)


def test_mp3s_one_after_the_other_are_all_read(tmp_path: Path) -> None:
    content = mux(tone(2, 44100), 44100, "mp3", "libmp3lame")
    assert read(content + content, tmp_path).duration_s == pytest.approx(4, abs=0.15)


@pytest.mark.parametrize("padding", [0, 5000])
def test_what_lies_before_the_first_frame_is_skipped(tmp_path: Path, padding: int) -> None:
    content = encode(tone(2, 44100), 44100, "MP3")
    tag = b"ID3\3\0\0\0\0\1\0" + bytes(128)
    recording = read(tag + bytes(padding) + content, tmp_path)
    assert recording.duration_s == pytest.approx(2, abs=0.1)
    # A file that was cut out of a stream starts within a frame.
    assert read(content[700:], tmp_path).duration_s == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_every_stream_of_a_chained_ogg_is_read(tmp_path: Path, subtype: str) -> None:
    parts = [encode(tone(2, 16000, hz), 16000, "OGG", subtype=subtype) for hz in (300, 900)]
    recording = read(b"".join(parts), tmp_path)
    assert recording.duration_s == pytest.approx(4, abs=0.02)
    spectrum = np.abs(np.fft.rfft(recording.samples[-RATE_HZ:]))
    assert np.argmax(spectrum) == pytest.approx(900, abs=2)
    assert recording.warnings == ()


def test_streams_of_other_rates_and_channels_are_read_and_named(tmp_path: Path) -> None:
    first = encode(tone(2, 16000, 300), 16000, "OGG", subtype="VORBIS")
    second = np.stack([tone(3, 44100, 900)] * 2, axis=1)
    recording = read(first + encode(second, 44100, "OGG", subtype="VORBIS"), tmp_path)
    assert recording.duration_s == pytest.approx(5, abs=0.02)
    assert recording.facts["duration_s"] == pytest.approx(5, abs=0.02)
    (warning,) = recording.warnings
    assert "changes from 16000 Hz and 1 channel(s) to 44100 Hz and 2 at 2.0 s" in warning


@pytest.mark.parametrize("scale", [2.0**15, 2.0**23, 2.0**31])
@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
def test_floats_on_the_scale_of_integers_are_the_same_sound(
    tmp_path: Path, scale: float, subtype: str
) -> None:
    whole = np.rint(0.9 * tone(2, RATE_HZ) * scale)
    recording = read(encode(whole, RATE_HZ, "WAV", subtype=subtype), tmp_path)
    np.testing.assert_allclose(recording.samples, 0.9 * tone(2, RATE_HZ), atol=1e-4)
    (warning,) = recording.warnings
    assert f"divided by {scale:.0f}" in warning


@pytest.mark.parametrize("bits", [16, 24])
def test_quiet_integers_as_floats_are_not_clipped(tmp_path: Path, bits: int) -> None:
    # 16 bits that fill the upper ones of 24 are told by their step of 256.
    whole = np.rint(128 * tone(2, RATE_HZ)) * 2 ** (bits - 16)
    recording = read(encode(whole, RATE_HZ, "WAV", subtype="FLOAT"), tmp_path)
    assert recording.facts["peak_dbfs"] == pytest.approx(20 * np.log10(64 / 2**15), abs=0.01)
    assert recording.facts["clipped_share"] == 0
    assert "clipped" not in " ".join(recording.warnings)


def test_floats_in_another_unit_are_scaled_by_the_loudest(tmp_path: Path) -> None:
    recording = read(encode(10.1 * tone(2, RATE_HZ), RATE_HZ, "WAV", subtype="FLOAT"), tmp_path)
    np.testing.assert_allclose(recording.samples, 2 * tone(2, RATE_HZ), atol=1e-4)
    assert recording.facts["clipped_share"] == 0
    assert "reach 5.0" in recording.warnings[0]


@pytest.mark.parametrize("declared", [0, 2**32 - 1, 0x7FFFFFFF, 2000])
@pytest.mark.parametrize("riff", [0, 4088, 2**32 - 1])
def test_the_length_is_that_of_the_bytes(tmp_path: Path, declared: int, riff: int) -> None:
    content = bytearray(wav_bytes(pcm(), rate=RATE_HZ, declared=declared))
    content[4:8] = struct.pack("<I", riff)
    recording = read(bytes(content), tmp_path)
    np.testing.assert_allclose(recording.samples, plain(), atol=1e-6)
    (warning,) = recording.warnings
    assert "2.0 s" in warning


@pytest.mark.parametrize("tail", [b"LIST\4\0\0\0INFO", b"TAG" + bytes(125), bytes(4000)])
def test_what_follows_the_samples_is_not_played(tmp_path: Path, tail: bytes) -> None:
    recording = read(wav_bytes(pcm(), rate=RATE_HZ) + tail, tmp_path)
    assert recording.duration_s == 2.0
    assert recording.warnings == ()


def test_an_empty_wav_with_a_list_behind_stays_empty(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="0 samples"):
        read(wav_bytes(b"", rate=RATE_HZ) + b"LIST\4\0\0\0INFO", tmp_path)


def test_a_damaged_part_is_left_out_and_said(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(8 * RATE_HZ)
    content = bytearray(encode(noise, RATE_HZ, "FLAC"))
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    recording = read(bytes(content), tmp_path)
    assert recording.duration_s > 6
    assert "damaged" in " ".join(recording.warnings) or "truncated" in " ".join(recording.warnings)


def test_a_video_is_heard_and_a_silent_one_is_refused(tmp_path: Path) -> None:
    file = BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(3):
            output.mux(stream.encode(av.VideoFrame(64, 48, "yuv420p")))
        output.mux(stream.encode(None))
    with pytest.raises(UnreadableFileError, match="no sound track"):
        read(file.getvalue(), tmp_path)


@pytest.mark.parametrize("channels", [2, 6, 8])
@pytest.mark.parametrize(("container", "codec"), [("flac", "flac"), ("matroska", "pcm_s16le")])
def test_every_channel_is_read(tmp_path: Path, container: str, codec: str, channels: int) -> None:
    layout = {2: "stereo", 6: "5.1", 8: "7.1"}[channels]
    values = np.zeros((4 * 4096, channels), np.int16)
    values[:, -1] = 8000
    file = BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=RATE_HZ, layout=layout)
        for part in np.split(values, 4):
            frame = av.AudioFrame.from_ndarray(part.reshape(1, -1), format="s16", layout=layout)
            frame.sample_rate = RATE_HZ
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    recording = read(file.getvalue(), tmp_path)
    assert recording.facts["channels"] == channels
    assert recording.samples[8000] == pytest.approx(8000 / 2**15 / channels, abs=1e-4)


def test_eight_planes_are_eight(tmp_path: Path) -> None:
    samples = np.zeros((8, 48000), np.float32)
    samples[7] = 0.5 * tone(1, 48000)
    file = BytesIO()
    with av.open(file, "w", format="adts") as output:
        stream = output.add_stream("aac", rate=48000, layout="7.1")
        for part in np.split(samples[:, : 46 * 1024].copy(), 46, axis=1):
            frame = av.AudioFrame(format="fltp", layout="7.1", samples=1024)
            frame.sample_rate = 48000
            for plane, values in zip(frame.planes, part, strict=False):
                plane.update(np.ascontiguousarray(values).tobytes())
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert read(file.getvalue(), tmp_path).facts["channels"] == 8


def test_a_name_is_shown_in_place_of_the_files_own(tmp_path: Path) -> None:
    (tmp_path / "3f9a").write_bytes(b"nonsense")
    with pytest.raises(UnreadableFileError, match=r"^breath\.m4a is a file of type plain text"):
        read_audio(tmp_path / "3f9a", sample_rate_hz=8000, max_duration_s=60, name="breath.m4a")


def test_more_samples_than_an_hour_of_stereo_are_refused(tmp_path: Path) -> None:
    content = bytearray(encode(np.zeros((192_000, 8)), 192_000, "FLAC"))
    # STREAMINFO holds the number of samples in 36 bits: RFC 9639, section 8.2.
    content[21:26] = bytes([content[21] & 0xF0]) + struct.pack(">I", 192_000 * 1800)
    with pytest.raises(UnreadableFileError, match="million samples in all channels"):
        read(bytes(content), tmp_path)


@pytest.mark.parametrize("format_", ["WAV", "FLAC", "OGG", "MP3", "AIFF"])
def test_a_duration_is_measured_without_resampling(tmp_path: Path, format_: str) -> None:
    (tmp_path / "a").write_bytes(encode(tone(3, 16000), 16000, format_))
    assert measure_duration_s(tmp_path / "a") == pytest.approx(3, abs=0.1)
    (tmp_path / "b").write_bytes(b"nonsense")
    assert measure_duration_s(tmp_path / "b") is None


@pytest.mark.parametrize("declared", [0, 24, 1000, 2**63 - 1, 2**64 - 1])
def test_a_w64_is_as_long_as_its_bytes(tmp_path: Path, declared: int) -> None:
    content = bytearray(encode(tone(2, RATE_HZ), RATE_HZ, "W64"))
    at = content.find(b"data")
    content[at + 16 : at + 24] = struct.pack("<Q", declared)
    recording = read(bytes(content), tmp_path)
    assert recording.duration_s == 2.0
    assert "all" in recording.warnings[0]


@pytest.mark.parametrize("declared", [-1, 0, 1000])
def test_a_caf_is_as_long_as_its_bytes(tmp_path: Path, declared: int) -> None:
    content = bytearray(encode(tone(2, RATE_HZ), RATE_HZ, "CAF"))
    at = content.find(b"data")
    content[at + 4 : at + 12] = struct.pack(">q", declared)
    assert read(bytes(content), tmp_path).duration_s == 2.0


@pytest.mark.parametrize("total", [0, RATE_HZ])
def test_a_flac_is_as_long_as_its_frames(tmp_path: Path, total: int) -> None:
    content = bytearray(encode(tone(2, RATE_HZ), RATE_HZ, "FLAC"))
    content[21:26] = bytes([content[21] & 0xF0]) + struct.pack(">I", total)
    recording = read(bytes(content), tmp_path)
    assert (recording.duration_s, recording.warnings) == (2.0, ())


@pytest.mark.parametrize("field", [slice(18, 20), slice(24, 26), slice(6, 8)])
def test_odd_fields_of_an_extensible_wav_do_not_matter(tmp_path: Path, field: slice) -> None:
    content = bytearray(encode(tone(2, RATE_HZ), RATE_HZ, "WAVEX", subtype="PCM_16"))
    at = content.find(b"fmt ") + 8
    # The valid bits, the format in the GUID, and a byte of the sample rate that is zero anyway.
    content[at + field.start : at + field.stop] = bytes(2)
    np.testing.assert_allclose(read(bytes(content), tmp_path).samples, plain(), atol=1e-4)


def test_an_ogg_with_damaged_pages_is_decoded_as_far_as_it_can_be(tmp_path: Path) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(8 * 16000)
    content = encode(noise, 16000, "OGG", subtype="VORBIS")
    middle = len(content) // 2
    recording = read(content[:middle] + bytes(range(256)) * 4 + content[middle:], tmp_path)
    assert recording.duration_s > 6
    assert "truncated or damaged" in recording.warnings[0]


def test_the_first_of_two_sound_tracks_is_read_and_said(tmp_path: Path) -> None:
    file = BytesIO()
    with av.open(file, "w", format="matroska") as output:
        streams = [output.add_stream("pcm_s16le", rate=RATE_HZ, layout="mono") for _ in range(2)]
        samples = np.rint(tone(2, RATE_HZ) * 2**15).astype(np.int16)
        for stream, values in zip(streams, (samples, samples // 4), strict=True):
            frame = av.AudioFrame.from_ndarray(values[None], format="s16", layout="mono")
            frame.sample_rate = RATE_HZ
            output.mux(stream.encode(frame))
            output.mux(stream.encode(None))
    recording = read(file.getvalue(), tmp_path)
    np.testing.assert_allclose(recording.samples, plain(), atol=1e-4)
    assert recording.warnings == ("The file has 2 sound tracks; the first was read.",)


@pytest.mark.parametrize("container", ["m4a", "ogg", "adts", "webm"])
def test_a_tag_may_stand_before_any_sound(tmp_path: Path, container: str) -> None:
    tag = b"ID3\3\0\0\0\0\1\0" + bytes(128)
    content = {
        "m4a": lambda: mux(tone(2, 44100), 44100, "ipod", "aac"),
        "ogg": lambda: encode(tone(2, 48000), 48000, "OGG", subtype="OPUS"),
        "adts": lambda: mux(tone(2, 44100), 44100, "adts", "aac"),
        "webm": lambda: mux(tone(2, 48000), 48000, "webm", "libopus"),
    }[container]()
    assert read(tag + content, tmp_path).duration_s == pytest.approx(2, abs=0.1)


def test_a_track_that_is_announced_late_ends_the_sound_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_file = av.open

    class LateTrack:
        """A container that meets a further track after ten packets, where PyAV fails."""

        def __init__(self, container: Any) -> None:
            self._container = container

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

        def demux(self, stream: Any) -> Iterator[Any]:
            for number, packet in enumerate(self._container.demux(stream)):
                if number == 10:
                    raise IndexError("list index out of range")
                yield packet

    monkeypatch.setattr(av, "open", lambda *args, **kwargs: LateTrack(open_file(*args, **kwargs)))
    recording = read(encode(tone(4, RATE_HZ), RATE_HZ, "MP3"), tmp_path)
    assert 0.3 < recording.duration_s < 3
    assert "truncated or damaged" in recording.warnings[0]
