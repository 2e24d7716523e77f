from __future__ import annotations

import json
import os
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.hostile_files import (
    AUDIO,
    Case,
    tone,
    wav_bytes,
)
from xai_demo.audio import (
    SILENCE_DBFS,
    format_duration,
    peak_dbfs,
    read_audio,
    rms_dbfs,
)
from xai_demo.errors import UnreadableFileError
from xai_demo.records import Recording


def read(path: Path, rate_hz: int = 16000, max_duration_s: float = 3600.0) -> Recording:
    return read_audio(path, sample_rate_hz=rate_hz, max_duration_s=max_duration_s)


def test_a_full_scale_sine_is_3_decibels_under_full_scale() -> None:
    sine = np.sin(2 * np.pi * np.arange(1600) / 16).astype(np.float32)
    assert peak_dbfs(sine) == pytest.approx(0.0, abs=1e-6)
    assert rms_dbfs(sine) == pytest.approx(-3.0103, abs=1e-3)


@pytest.mark.parametrize("samples", [np.zeros(10, np.float32), np.zeros(0, np.float32)])
def test_nothing_has_a_finite_level(samples: np.ndarray) -> None:
    assert peak_dbfs(samples) == rms_dbfs(samples) == SILENCE_DBFS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.01, "10 ms"), (1.0, "1.0 s"), (119.0, "119.0 s"), (3600, "1 h 0 min"), (600, "10 min")],
)
def test_durations_are_written_in_fitting_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_1_khz_sine_at_48_khz_is_the_same_sine_at_16_khz(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(2, 48000, 1000), 48000, subtype="FLOAT")
    recording = read(tmp_path / "a.wav")
    assert recording.samples.dtype == np.float32
    assert recording.sample_rate_hz == 16000
    assert recording.duration_s == 2.0
    inner = slice(1000, -1000)
    error = recording.samples[inner] - tone(2, 16000, 1000)[inner]
    assert np.abs(error).max() < 0.01 * 0.5


def test_the_rate_asked_for_leaves_16_bits_as_they_are(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1, 16000), 16000)
    exact, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    np.testing.assert_allclose(read(tmp_path / "a.wav").samples, exact, atol=1e-6)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(1, 16000), np.full(16000, 0.25)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    recording = read(tmp_path / "a.wav")
    np.testing.assert_allclose(recording.samples, (left + right) / 2, atol=1e-5)
    assert recording.facts["downmix"] == "mean of 2 channels"


def test_facts_are_what_the_file_had(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "a.wav", "w", 48000, 2, "PCM_24") as file:
        file.title, file.artist = "Mrs Secret", "her doctor"
        file.write(np.stack([tone(1.5, 48000)] * 2, axis=1))
    recording = read(tmp_path / "a.wav")
    assert recording.facts == {
        "duration_s": 1.5,
        "sample_rate_hz": 48000,
        "channels": 2,
        "downmix": "mean of 2 channels",
        "format": "WAV",
        "subtype": "PCM_24",
        "peak_dbfs": -6.02,
        "rms_dbfs": -9.03,
        "clipped_share": 0.0,
    }
    assert recording.warnings == ()


@pytest.mark.parametrize("name", ["a.mp3", "a.ogg", "a.flac", "a.wav", "a.aiff"])
def test_every_format_decodes_without_gaps(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, tone(4, 16000, 500), 16000)
    samples = read(tmp_path / name).samples
    levels = np.sqrt(np.square(samples[1600:-1600].reshape(-1, 800)).mean(axis=1))
    assert np.abs(levels - 0.5 / np.sqrt(2)).max() < 0.05 * 0.5


def test_a_tag_before_an_mp3_is_skipped(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.mp3", tone(1, 16000), 16000)
    plain = read(tmp_path / "a.mp3")
    tag = b"ID3\x04\0\0\0\0\x01\0" + bytes(128)  # sizes have seven bits a byte
    (tmp_path / "b.mp3").write_bytes(tag + (tmp_path / "a.mp3").read_bytes())
    np.testing.assert_array_equal(read(tmp_path / "b.mp3").samples, plain.samples)


def test_chunks_after_the_samples_are_not_played(tmp_path: Path) -> None:
    sound = wav_bytes(bytes(9600)) + b"LIST" + (800).to_bytes(4, "little") + b"\x7f" * 800
    (tmp_path / "a.wav").write_bytes(sound)
    assert read(tmp_path / "a.wav").facts["duration_s"] == 0.1


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.mp3"])
def test_too_long_is_refused(tmp_path: Path, name: str) -> None:
    soundfile.write(tmp_path / name, tone(3, 16000), 16000)
    assert read(tmp_path / name, max_duration_s=3.5).duration_s == pytest.approx(3, abs=0.1)
    with pytest.raises(
        UnreadableFileError, match=r"lasts 3\.\d s or more; expected at most 2\.0 s"
    ):
        read(tmp_path / name, max_duration_s=2.0)


def test_memory_is_bounded_by_the_result(tmp_path: Path) -> None:
    with soundfile.SoundFile(tmp_path / "a.wav", "w", 96000, 8, "PCM_16") as file:
        for _ in range(10):
            file.write(np.zeros((96000, 8), np.int16))  # 31 MB as float32
    tracemalloc.start()
    try:
        read(tmp_path / "a.wav")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8e6


@pytest.mark.parametrize("case", AUDIO, ids=lambda case: case.name)
def test_hostile_and_unusual_files(tmp_path: Path, case: Case) -> None:
    case.build(tmp_path / case.name)
    if case.outcome == "refused":
        with pytest.raises(UnreadableFileError) as caught:
            read(tmp_path / case.name)
        message = str(caught.value)
        assert re.search(case.says, message)
        assert message.startswith(case.name)
        assert str(tmp_path) not in message
        assert "expected" in message
        assert "\n" not in message
        return
    recording = read(tmp_path / case.name)
    assert bool(recording.warnings) == (case.outcome == "warned"), recording.warnings
    assert re.search(case.says, "\n".join(recording.warnings))
    assert np.isfinite(recording.samples).all()
    assert np.abs(recording.samples).max() <= 1
    assert len(recording.samples) > 0
    json.dumps(dict(recording.facts), allow_nan=False)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    for path in (tmp_path / "pipe.wav", tmp_path, tmp_path / "none.wav", tmp_path / "a\0b.wav"):
        with pytest.raises(UnreadableFileError, match="expected a WAV, AIFF"):
            read(path)


def test_a_name_cannot_break_the_line(tmp_path: Path) -> None:
    path = tmp_path / f"a\n\x1b[31m{'b' * 100}.wav"
    path.write_bytes(b"")
    with pytest.raises(UnreadableFileError) as caught:
        read(path)
    assert str(caught.value).startswith("a??[31mbbb")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.flac", "a.ogg", "a.mp3", "none"])
def test_damage_ends_in_a_recording_or_in_one_sentence(tmp_path: Path, name: str) -> None:
    dice = np.random.default_rng(len(name) + ord(name[-1]))
    path = tmp_path / name
    path.write_bytes(dice.bytes(2000))
    if name != "none":
        soundfile.write(path, tone(0.4, 16000), 16000)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(40):
        damaged = whole[: dice.integers(1, len(whole) + 1)].copy()
        reach = len(damaged) if dice.random() < 0.5 else min(len(damaged), 64)  # often the header
        for at in dice.integers(0, reach, size=dice.integers(1, 8)):
            damaged[at] ^= 1 << dice.integers(0, 8)
        path.write_bytes(damaged.tobytes())
        try:
            recording = read(path)
        except UnreadableFileError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert np.isfinite(recording.samples).all()
