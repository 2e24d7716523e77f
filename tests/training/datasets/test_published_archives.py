"""The published archives of lung sounds: their layouts, names and headers, made here."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support.hostile_files import wav_bytes
from xai_demo.audio import measure_duration_s, read_audio
from xai_demo.errors import TrainingError
from xai_demo.training.datasets import breathing
from xai_demo.training.datasets.archive import unpack_dataset


def breath(seconds: float, rate_hz: int) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(round(seconds * rate_hz))
    return 0.1 * noise * np.sin(np.pi * np.arange(len(noise)) / len(noise))


def write_sprsound_wav(path: Path, seconds: float = 9.0) -> None:
    """As all of SPRSound: 16-bit mono at 8 kHz whose header says 4 bytes a frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.rint(breath(seconds, 8000) * 2**15).astype("<i2").tobytes()
    path.write_bytes(wav_bytes(data, rate=8000, frame=4))


def write_icbhi_wav(path: Path, rate_hz: int, bits: int, channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.stack([breath(20.0, rate_hz)] * channels, axis=1)
    soundfile.write(path, samples, rate_hz, subtype=f"PCM_{bits}", format="WAV")
    # The published files have a list of tags in front of the samples.
    content = path.read_bytes()
    tags = b"LIST" + struct.pack("<I", 26) + b"INFOISFT\x0d\0\0\0Lavf57.71.10\0\0"
    path.write_bytes(content[:12] + tags + content[12:])


def sprsound(folder: Path) -> None:
    event = {"start": "500", "end": "2500", "type": "Fine Crackle"}
    rows: list[tuple[str, str, str, dict[str, object]]] = [
        ("BioCAS2022", "train2022", "65058931_3.4_1_p2_1086", {"record_annotation": "DAS"}),
        ("BioCAS2022", "test2022", "40890405_3.3_0_p3_3655", {"record_annotation": "Normal"}),
        ("BioCAS2022", "test2022", "40813160_4.1_1_p2_674", {"record_annotation": "CAS & DAS"}),
        ("BioCAS2023", "test2023", "00014365_4.3_1_p4_7545", {"recording_annotation": "CAS"}),
        ("BioCAS2024", "test2024", "00015105_5.3_0_p1_25271", {}),
        ("releases/BioCAS2025", "test2025", "_5.3_0_p8_34877", {}),
    ]
    for place, part, stem, record in rows:
        write_sprsound_wav(folder / place / f"{part}_wav" / f"{stem}.wav")
        annotations = folder / place / f"{part}_json"
        if part == "test2022":
            annotations /= "inter_test_json" if "3655" in stem else "intra_test_json"
        annotations.mkdir(parents=True, exist_ok=True)
        text = json.dumps(record | {"event_annotation": [event]})
        (annotations / f"{stem}.json").write_text(text)


def icbhi(folder: Path, database: str = "ICBHI_final_database") -> None:
    for stem, rate_hz, bits, channels in (
        ("101_1b1_Al_sc_Meditron", 44100, 24, 1),
        ("104_1b1_Ar_sc_Litt3200", 4000, 16, 1),
        ("107_2b3_Ar_mc_AKGC417L", 44100, 16, 2),
        ("226_1b1_Pl_sc_LittC2SE", 10000, 24, 1),
    ):
        write_icbhi_wav(folder / database / f"{stem}.wav", rate_hz, bits, channels)
        (folder / database / f"{stem}.txt").write_text("0.036\t2.5\t0\t1\n2.5\t19.9\t1\t0\n")
    (folder / database / "filename_differences.txt").write_text("101_1b1_Al_sc_Meditron\n")
    (folder / database / "filename_format.txt").write_text("Each file name has 5 elements.\n")
    (folder / "patient_diagnosis.csv").write_text("101,URTI\n104,COPD\n")


def fraiwan(folder: Path) -> None:
    (folder / "Audio Files").mkdir(parents=True)
    for name in (
        "BP1_Asthma,I E W,P L L,70,M",
        "DP1_Asthma,I E W,P L L,70,M",
        "EP1_Asthma,I E W,P L L,70,M",
        "BP102_N,N,P L L,41,M",
        "DP12_COPD,E W,P R L ,57,F",
        "EP38_Asthma and lung fibrosis,Crep,A U R,90,M",
        "BP86_Heart Failure + Lung Fibrosis ,C,A L R,81,M",
    ):
        soundfile.write(folder / "Audio Files" / f"{name}.wav", breath(5, 4000), 4000)
    with zipfile.ZipFile(folder / "Data annotation.xlsx", "w") as table:
        table.writestr("xl/workbook.xml", "<workbook/>")


LAYOUTS = {"sprsound": (sprsound, 6, 6), "icbhi": (icbhi, 4, 4), "fraiwan": (fraiwan, 7, 5)}


def check(folder: Path, site: str) -> None:
    """Every sound of a layout is read, and nothing is left out."""
    _, n_takes, n_patients = LAYOUTS[site]
    corpus = breathing.read(folder)
    assert not [note for note in corpus.notes if "left out" in note or "cannot" in note]
    assert len(corpus.takes) == n_takes
    assert {take.site for take in corpus.takes} == {site}
    assert len({take.patient for take in corpus.takes}) == n_patients
    for take in corpus.takes:
        recording = read_audio(take.path, sample_rate_hz=4000, max_duration_s=600)
        assert recording.duration_s == pytest.approx(measure_duration_s(take.path), abs=0.01)
        assert not [text for text in recording.warnings if "header" in text or "cut" in text]


@pytest.mark.parametrize("site", LAYOUTS)
@pytest.mark.parametrize("below", [".", "archive/dataset-main"])
def test_a_published_folder_is_read_whole(tmp_path: Path, site: str, below: str) -> None:
    LAYOUTS[site][0](tmp_path / below)
    check(tmp_path, site)


@pytest.mark.parametrize("site", LAYOUTS)
def test_a_published_archive_is_read_whole(tmp_path: Path, site: str) -> None:
    LAYOUTS[site][0](tmp_path / "content")
    with zipfile.ZipFile(tmp_path / "dataset.zip", "w") as archive:
        for path in sorted((tmp_path / "content").rglob("*")):
            archive.write(path, path.relative_to(tmp_path / "content"))
            # What a Mac adds.
            if path.is_file():
                archive.writestr(f"__MACOSX/{path.parent.name}/._{path.name}", b"\0\5\x16\7")
    with unpack_dataset(tmp_path / "dataset.zip") as folder:
        check(folder, site)
        unpacked = folder
    assert not unpacked.exists()


def test_an_archive_within_a_download_is_unpacked_too(tmp_path: Path) -> None:
    fraiwan(tmp_path / "content")
    (tmp_path / "download").mkdir()
    with zipfile.ZipFile(tmp_path / "download" / "Audio Files.zip", "w") as archive:
        for path in sorted((tmp_path / "content" / "Audio Files").iterdir()):
            archive.write(path, f"Audio Files/{path.name}")
    with unpack_dataset(tmp_path / "download") as folder:
        check(folder, "fraiwan")


def test_the_copy_on_kaggle_is_read_whole(tmp_path: Path) -> None:
    icbhi(tmp_path / "Respiratory_Sound_Database", database="audio_and_txt_files")
    check(tmp_path, "icbhi")


def test_a_damaged_archive_is_refused_by_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.txt", "breath" * 1000)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    content[40:60] = bytes(20)
    (tmp_path / "a.zip").write_bytes(content)
    with (
        pytest.raises(TrainingError, match=r"^a\.zip cannot be unpacked"),
        unpack_dataset(tmp_path / "a.zip"),
    ):
        pass


def test_a_folder_stays_where_it_is(tmp_path: Path) -> None:
    with unpack_dataset(tmp_path) as folder:
        assert folder == tmp_path
