"""The published layouts of lung sounds, whole and broken, from small folders made here."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from xai_demo.audio import measure_duration_s
from xai_demo.errors import TrainingError
from xai_demo.training.datasets import (
    breathing,
    fraiwan,
    icbhi,
    manikin,
    sprsound,
)
from xai_demo.training.datasets.breathing import (
    BOTH,
    CRACKLE,
    LABELS,
    NORMAL,
    WHEEZE,
    Annotation,
    Ledger,
    check_splits,
    usable_events,
)

CHILD = "41000001_3.2_1_p2_17"
ADULT = "101_1b1_Al_sc_Meditron"


def write_sound(path: Path, seconds: float = 4.0, rate: int = 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(seconds * rate), 0.1), rate)
    return path


def write_events(path: Path, events: list, record: str = "Normal", key: str = "record_annotation"):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [dict(zip(("start", "end", "type"), event, strict=True)) for event in events]
    path.write_text(json.dumps({key: record, "event_annotation": rows}))


def write_child(folder: Path, events: list, stem: str = CHILD, **options) -> None:
    write_sound(folder / "train_wav" / f"{stem}.wav")
    write_events(folder / "train_json" / f"{stem}.json", events, **options)


def write_adult(folder: Path, text: str, stem: str = ADULT, suffix: str = ".wav") -> None:
    database = folder / "ICBHI_final_database"
    write_sound(database / f"{stem}{suffix}")
    (database / f"{stem}.txt").write_text(text)


def spans(take) -> list[tuple[float, float, int]]:
    return [(a.start_s, a.end_s, a.kind) for a in take.annotations]


def one(corpus):
    """The only take, of which there is nothing to tell."""
    assert corpus.notes == ()
    (take,) = corpus.takes
    return take


# What every layout shares


def kept(*events: tuple[float, float], duration_s: float = 4.0):
    ledger = Ledger("Here")
    rows = [
        (f"line {n}", Annotation(start_s=start, end_s=end, kind=NORMAL))
        for n, (start, end) in enumerate(events, 1)
    ]
    found = usable_events(rows, duration_s=duration_s, ledger=ledger)
    return [(event.start_s, event.end_s) for event in found], ledger.notes()


def test_events_in_their_sound_are_sorted_by_time_and_there_is_nothing_to_tell():
    assert kept((2.0, 4.0), (0.0, 2.0)) == ([(0.0, 2.0), (2.0, 4.0)], ())


@pytest.mark.parametrize("event", [(2.0, 1.0), (1.0, 1.0), (float("nan"), 1.0)])
def test_a_reversed_event_is_left_out_and_named(event):
    assert kept((0.0, 2.0), event) == (
        [(0.0, 2.0)],
        ("Here: events that end before they start, left out (1): line 2.",),
    )


@pytest.mark.parametrize("event", [(3.0, 4.06), (-0.06, 1.0), (4.0, 4.04), (3.0, float("inf"))])
def test_an_event_beyond_its_sound_is_left_out_and_named(event):
    found, notes = kept((1.0, 2.0), event)
    assert found == [(1.0, 2.0)]
    (note,) = notes
    assert note.startswith("Here: events beyond the sound, left out (1): line 2 (")


def test_an_event_that_reaches_at_most_50_ms_beyond_its_sound_is_cut_to_it():
    assert kept((-0.05, 1.0), (3.0, 4.05)) == ([(0.0, 1.0), (3.0, 4.0)], ())


def test_overlapping_events_are_kept_and_named():
    found, notes = kept((0.0, 3.0), (1.0, 2.0), (2.5, 4.0))
    assert found == [(0.0, 3.0), (1.0, 2.0), (2.5, 4.0)]
    assert notes == ("Here: events that overlap the one before, kept (2): line 2; line 3.",)


def test_a_note_counts_all_and_names_the_first_five():
    ledger = Ledger("Here")
    for n in range(7):
        ledger.add("left out", f"{n}.wav")
    assert ledger.notes() == ("Here: left out (7): 0.wav; 1.wav; 2.wav; 3.wav; 4.wav and 2 more.",)


def test_a_patient_in_two_splits_is_refused_with_both_of_them():
    check_splits(["a", "b", "a"], ["train", "test", "train"])
    with pytest.raises(TrainingError, match="Patient a is in both the 'train' and the 'test'"):
        check_splits(["a", "b", "a"], ["train", "test", "test"])


@pytest.mark.parametrize(
    ("crackles", "wheezes", "kind"),
    [(0, 0, NORMAL), (1, 0, CRACKLE), (0, 1, WHEEZE), (1, 1, BOTH)],
)
def test_the_class_of_what_is_heard(crackles, wheezes, kind):
    assert breathing.kind_of(crackles=bool(crackles), wheezes=bool(wheezes)) == kind


def test_a_file_that_is_no_sound_has_no_duration(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF, or so it says")
    assert measure_duration_s(tmp_path / "a.wav") is None
    assert measure_duration_s(write_sound(tmp_path / "none.wav", seconds=0)) is None
    assert measure_duration_s(write_sound(tmp_path / "b.wav", seconds=2.5)) == 2.5


# Any mixture


@pytest.fixture
def mixture(tmp_path):
    """A folder with all layouts."""
    write_child(tmp_path / "sprsound", [(0, 1000, "Wheeze")])
    write_adult(tmp_path / "icbhi", "0.5\t1.5\t1\t0\n")
    write_sound(tmp_path / "extra" / "wav__102_1b1_Ar_mc_AKGC417L.flac")
    (tmp_path / "extra" / "cycles.csv").write_text(
        "file,start_s,end_s,crackles,wheezes,label4,patient,official_split\n"
        "wav__102_1b1_Ar_mc_AKGC417L.flac,1,2,1,1,both,102,test\n"
    )
    write_sound(tmp_path / "fraiwan" / "Audio Files" / "DP1_Asthma,I E W,P L L,70,M.wav")
    return tmp_path


def test_a_mixture_is_read_whole_and_every_patient_is_told_from_the_others(mixture):
    corpus = breathing.read(mixture)
    assert corpus.notes == ()
    assert {take.patient: take.site for take in corpus.takes} == {
        "sprsound:41000001": "sprsound",
        "icbhi:101": "icbhi",
        "icbhi:102": "icbhi",
        "fraiwan:1": "fraiwan",
    }
    assert len(corpus.takes) == 4


@pytest.mark.parametrize(
    ("below", "count"),
    [
        ("sprsound", 1),
        ("icbhi", 1),
        ("icbhi/ICBHI_final_database", 1),
        ("extra", 1),
        ("fraiwan", 1),
        ("fraiwan/Audio Files", 1),
    ],
)
def test_each_folder_is_read_on_its_own_as_well(mixture, below, count):
    assert len(breathing.read(mixture / below).takes) == count


def test_a_folder_without_lung_sounds_is_told_what_is_wanted(tmp_path):
    with pytest.raises(TrainingError, match=r"contains no annotated lung sounds\. It, or"):
        breathing.read(tmp_path)
    with pytest.raises(TrainingError, match="missing is not a directory; a folder of lung"):
        breathing.read(tmp_path / "missing")


def test_annotations_alone_are_refused_and_said_to_be_there(tmp_path):
    write_events(tmp_path / "train_json" / f"{CHILD}.json", [(0, 1000, "Normal")])
    with pytest.raises(TrainingError, match=rf"annotations without a sound.*\(1\): {CHILD}"):
        breathing.read(tmp_path)


# SPRSound


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("Normal", NORMAL),
        ("Fine Crackle", CRACKLE),
        ("Coarse Crackle", CRACKLE),
        ("Wheeze", WHEEZE),
        ("Rhonchi", WHEEZE),
        ("Stridor", WHEEZE),
        ("Wheeze+Crackle", BOTH),
    ],
)
def test_sprsound_times_are_milliseconds_and_every_published_type_has_a_class(
    tmp_path, kind, expected
):
    write_child(tmp_path, [("250", "1500", kind)])  # it writes its numbers as texts
    take = one(sprsound.read(tmp_path))
    assert spans(take) == [(0.25, 1.5, expected)]
    assert (take.name, take.patient, take.site) == (CHILD, "sprsound:41000001", "sprsound")
    assert (take.official_split, take.device) == ("train", "Yunting II")
    assert (take.start_s, take.end_s) == (None, None)


@pytest.mark.parametrize(
    ("record", "kind", "quality"),
    [
        ("Normal", NORMAL, ""),
        ("DAS", CRACKLE, ""),
        ("CAS", WHEEZE, ""),
        ("CAS & DAS", BOTH, ""),
        ("Poor Quality", None, "poor"),
    ],
)
@pytest.mark.parametrize("key", ["record_annotation", "recording_annotation"])
def test_sprsound_recordings_have_a_class_or_are_poor(tmp_path, record, kind, quality, key):
    write_child(tmp_path, [], record=record, key=key)
    take = one(sprsound.read(tmp_path))
    assert (take.kind, take.quality, take.annotations) == (kind, quality, ())


def test_sprsound_folders_may_be_nested_and_hold_flac(tmp_path):
    years = tmp_path / "BioCAS2022"
    for n, folder in enumerate(("inter_test_json", "intra_test_json")):
        stem = f"4200000{n}_1.0_0_p1_{n}"
        write_sound(years / "test2022_wav" / f"{stem}.flac")
        write_events(years / "test2022_json" / folder / f"{stem}.json", [(0, 500, "Normal")])
    corpus = sprsound.read(tmp_path)
    assert corpus.notes == ()
    assert {take.patient: take.official_split for take in corpus.takes} == {
        "sprsound:42000000": "test",
        "sprsound:42000001": "test of known patients",
    }


def test_sprsound_files_without_their_counterpart_are_counted_and_named(tmp_path):
    write_child(tmp_path, [(0, 500, "Normal")])
    write_sound(tmp_path / "train_wav" / "extra.wav")
    write_events(tmp_path / "train_json" / "lonely.json", [])
    write_events(tmp_path / "test_json" / f"{CHILD}.json", [])
    write_sound(tmp_path / "test_wav" / f"{CHILD}.wav")
    corpus = sprsound.read(tmp_path)
    assert [take.name for take in corpus.takes] == [CHILD]
    assert set(corpus.notes) == {
        "SPRSound: annotations without a sound, left out (1): lonely.json.",
        "SPRSound: sounds without an annotation, left out (1): extra.wav.",
        f"SPRSound: sounds with the same name as another one, left out (1): {CHILD}.wav.",
        "SPRSound: annotations of a recording that is already annotated, left out (1): "
        f"{CHILD}.json.",
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty annotations, left out (1): bad.json."),
        ("{", "files that are not SPRSound annotations, left out (1): bad.json (JSONDecodeError"),
        ("[]", "files that are not SPRSound annotations, left out (1): bad.json (TypeError"),
        (
            '{"record_annotation": "Normal"}',
            "files that are not SPRSound annotations, left out (1):",
        ),
        (
            '{"record_annotation": "Normal", "event_annotation": [{"start": 1, "end": 2}]}',
            "files that are not SPRSound annotations, left out (1): bad.json (KeyError: 'type')",
        ),
    ],
)
def test_a_broken_sprsound_annotation_is_named_and_the_others_are_read(tmp_path, content, words):
    write_child(tmp_path, [(0, 500, "Normal")])
    write_sound(tmp_path / "train_wav" / "bad.wav")
    (tmp_path / "train_json" / "bad.json").write_text(content)
    corpus = sprsound.read(tmp_path)
    assert [take.name for take in corpus.takes] == [CHILD]
    assert len(corpus.notes) == 1
    assert corpus.notes[0].startswith(f"SPRSound: {words}")


def test_bad_sprsound_events_are_repaired_or_named(tmp_path):
    events = [
        ("0,5", 1000, "Normal"),
        ("soon", 1000, "Normal"),
        (None, 1000, "Normal"),
        (1000, 2000, "Hiccup"),
    ]
    write_child(tmp_path, events, record="Odd")
    corpus = sprsound.read(tmp_path)
    (take,) = corpus.takes
    assert spans(take) == [(0.0005, 1.0, NORMAL)]
    assert take.kind is None
    place = f"{CHILD}.json event"
    assert set(corpus.notes) == {
        f"SPRSound: events with a decimal comma, repaired (1): {place} 1.",
        f"SPRSound: events without a time, left out (2): {place} 2 ('soon'-1000); "
        f"{place} 3 (None-1000).",
        f"SPRSound: events of an unknown type, left out (1): {place} 4 ('Hiccup').",
        f"SPRSound: recordings with an unknown record_annotation (1): {CHILD}.json ('Odd').",
    }


# ICBHI 2017


def test_an_icbhi_recording_has_its_cycles_patient_device_and_split(tmp_path):
    text = "0.036\t0.579\t0\t0\r\n0.579\t2.45\t1\t0\r\n2.45\t3\t0\t1\r\n3\t4\t1\t1\r\n\r\n"
    write_adult(tmp_path, text, suffix=".flac")
    (tmp_path / "ICBHI_challenge_train_test.txt").write_text(f"{ADULT}\ttest\n")
    take = one(icbhi.read(tmp_path))
    assert spans(take) == [
        (0.036, 0.579, NORMAL),
        (0.579, 2.45, CRACKLE),
        (2.45, 3.0, WHEEZE),
        (3.0, 4.0, BOTH),
    ]
    assert (take.patient, take.device, take.official_split) == ("icbhi:101", "Meditron", "test")
    assert (take.kind, take.start_s) == (None, None)


@pytest.mark.parametrize("text", ["0,5\t1,5\t1\t0", "0.5,1.5,1,0", "\ufeff0,5 1,5 1 0"])
def test_commas_in_an_icbhi_annotation_are_repaired_and_named(tmp_path, text):
    write_adult(tmp_path, text)
    corpus = icbhi.read(tmp_path)
    (take,) = corpus.takes
    assert spans(take) == [(0.5, 1.5, CRACKLE)]
    assert corpus.notes == (
        f"ICBHI 2017: cycles written with commas, repaired (1): {ADULT}.txt line 1.",
    )


@pytest.mark.parametrize(
    "line", ["0.5 1.5 1", "0.5 1.5 2 0", "start end 0 0", "0.5 1.5 1 0 0", "0.5 1.5 nan 0"]
)
def test_a_line_that_is_no_icbhi_cycle_is_left_out_and_shown(tmp_path, line):
    write_adult(tmp_path, f"0 1 0 0\n{line}\n")
    corpus = icbhi.read(tmp_path)
    (take,) = corpus.takes
    assert spans(take) == [(0.0, 1.0, NORMAL)]
    assert corpus.notes == (
        "ICBHI 2017: lines that are not 'start end crackles wheezes', left out (1): "
        f"{ADULT}.txt line 2 ('{line}').",
    )


def test_bad_icbhi_cycles_and_files_are_counted_and_named(tmp_path):
    write_adult(tmp_path, "0 2 0 0\n1 3 0 0\n3 2 0 0\n3 9 0 0\n")
    write_adult(tmp_path, "\n", stem="102_1b1_Al_sc_Meditron")
    write_adult(tmp_path, "9 10 0 0\n", stem="103_1b1_Al_sc_Meditron")
    write_adult(tmp_path, "0 1 0 0\n", stem="104_1b1_Al_sc_Meditron")
    database = tmp_path / "ICBHI_final_database"
    (database / "104_1b1_Al_sc_Meditron.wav").write_bytes(b"no sound")
    write_sound(database / "105_1b1_Al_sc_Meditron.wav")
    (database / "106_1b1_Al_sc_Meditron.txt").write_text("0 1 0 0\n")
    (database / "readme.txt").write_text("not an annotation")
    corpus = icbhi.read(tmp_path)
    assert [spans(take) for take in corpus.takes] == [[(0.0, 2.0, NORMAL), (1.0, 3.0, NORMAL)]]
    assert set(corpus.notes) == {
        f"ICBHI 2017: events that overlap the one before, kept (1): {ADULT}.txt line 2.",
        f"ICBHI 2017: events that end before they start, left out (1): {ADULT}.txt line 3.",
        f"ICBHI 2017: events beyond the sound, left out (2): {ADULT}.txt line 4 (3-9 s); "
        "103_1b1_Al_sc_Meditron.txt line 1 (9-10 s).",
        "ICBHI 2017: recordings without a usable cycle, left out (1): 103_1b1_Al_sc_Meditron.wav.",
        "ICBHI 2017: empty annotations, left out (1): 102_1b1_Al_sc_Meditron.txt.",
        "ICBHI 2017: sounds that cannot be read, left out (1): 104_1b1_Al_sc_Meditron.wav.",
        "ICBHI 2017: sounds without an annotation, left out (1): 105_1b1_Al_sc_Meditron.wav.",
        "ICBHI 2017: annotations without a sound, left out (1): 106_1b1_Al_sc_Meditron.txt.",
    }


def test_a_patient_whom_the_official_file_puts_in_both_splits_stays_in_test_alone(tmp_path):
    stems = {
        "156_2b3_Al_mc_AKGC417L": "train",
        "156_8b3_Al_mc_AKGC417L": "test",
        "157_1b1_Al_sc_Meditron": "train",
        "158_1b1_Al_sc_Meditron": None,
    }
    for stem in stems:
        write_adult(tmp_path, "0 1 0 0\n", stem=stem)
    rows = "".join(f"{stem}\t{split}\n" for stem, split in stems.items() if split)
    (tmp_path / "ICBHI_challenge_train_test.txt").write_text(rows)
    corpus = icbhi.read(tmp_path)
    assert [take.official_split for take in corpus.takes] == [None, "test", "train", None]
    assert corpus.notes == (
        "ICBHI 2017: recordings in train in ICBHI_challenge_train_test.txt of a patient also in "
        "test, no split (1): 156_2b3_Al_mc_AKGC417L.",
        "ICBHI 2017: recordings not listed in ICBHI_challenge_train_test.txt, no split (1): "
        "158_1b1_Al_sc_Meditron.",
    )
    told = [take for take in corpus.takes if take.official_split]
    check_splits([t.patient for t in told], [t.official_split for t in told])


def test_icbhi_excerpts_are_one_take_a_file_that_spans_its_rows(tmp_path):
    write_sound(tmp_path / "clips__107_2b4_Tc_mc_AKGC417L_3.flac", seconds=6)
    write_sound(tmp_path / "renamed.flac", seconds=6)
    write_sound(tmp_path / "unlisted.flac")
    (tmp_path / "cycles.csv").write_text(
        "file,start_s,end_s,crackles,wheezes,label4,patient,official_split\n"
        "clips__107_2b4_Tc_mc_AKGC417L_3.flac,1.5,3,0,0,normal,107,train\n"
        "clips__107_2b4_Tc_mc_AKGC417L_3.flac,3,4.5,0,1,wheeze,107,train\n"
        "renamed.flac,0,5,1,0,crackle,108,test\n"
        "missing.flac,0,5,1,0,crackle,109,test\n"
    )
    corpus = icbhi.read(tmp_path)
    clip, renamed = corpus.takes
    assert spans(clip) == [(1.5, 3.0, NORMAL), (3.0, 4.5, WHEEZE)]
    assert (clip.start_s, clip.end_s) == (1.5, 4.5)
    assert (clip.patient, clip.device, clip.official_split) == ("icbhi:107", "AKGC417L", "train")
    assert (renamed.patient, renamed.device, renamed.official_split) == ("icbhi:108", "", "test")
    assert corpus.notes == (
        "ICBHI excerpts: sounds without a row in cycles.csv, left out (1): unlisted.flac.",
        "ICBHI excerpts: files of cycles.csv without a sound, left out (1): missing.flac.",
    )


# Fraiwan


@pytest.mark.parametrize(
    ("name", "patient", "kind", "device"),
    [
        ("BP1_Asthma,I E W,P L L,70,M", "1", WHEEZE, "Litt3200 B"),
        ("DP12_Asthma,E W,P L L,50,F", "12", WHEEZE, "Litt3200 D"),
        ("EP102_N,N,P L L,41,M", "102", NORMAL, "Litt3200 E"),
        ("BP11_Heart Failure,C,P L L,53,M", "11", CRACKLE, "Litt3200 B"),
        ("BP39_heart failure,Crep,P R L ,67,M", "39", CRACKLE, "Litt3200 B"),
        ("BP4_Heart Failure + Lung Fibrosis ,I C,P L R,72,F", "4", CRACKLE, "Litt3200 B"),
        ("BP5_Heart Failure + COPD,I C E W,P L R ,71,M", "5", BOTH, "Litt3200 B"),
        ("BP6_Plueral Effusion,I C B,P L R,81,M", "6", CRACKLE, "Litt3200 B"),
        ("BP69_pneumonia,Bronchial,P R L ,64,M", "69", None, "Litt3200 B"),
        ("BP26_Lung Fibrosis,Crep,P,90,F", "26", CRACKLE, "Litt3200 B"),
        ("BP7_Asthma, mild ,E W, P L R,65,M", "7", WHEEZE, "Litt3200 B"),  # one comma more
        ("BP8_Asthma,E W,P L R,65", "8", WHEEZE, "Litt3200 B"),  # one comma less
    ],
)
def test_a_fraiwan_name_tells_patient_sound_and_filter(tmp_path, name, patient, kind, device):
    write_sound(tmp_path / "Audio Files" / f"{name}.wav")
    corpus = fraiwan.read(tmp_path)
    (take,) = corpus.takes
    assert (take.patient, take.kind, take.device) == (f"fraiwan:{patient}", kind, device)
    assert (take.site, take.name, take.annotations) == ("fraiwan", name, ())
    assert len(corpus.notes) == (kind is None)


def test_the_filters_of_one_case_share_their_patient(tmp_path):
    for letter in "BDE":
        write_sound(tmp_path / "Audio Files" / f"{letter}P9_Asthma,E W,P R L,59,M.wav")
    assert Counter(t.patient for t in fraiwan.read(tmp_path).takes) == {"fraiwan:9": 3}


def test_the_fraiwan_table_wins_over_the_names_and_disagreement_is_named(tmp_path):
    audio = tmp_path / "Audio Files"
    write_sound(audio / "BP1_N,N,P L L ,70,M.wav")
    write_sound(audio / "BP2_Asthma,E W,P L L,70,M.wav")
    write_sound(audio / "BP3_Asthma,gurgling,P L L,70,M.wav")
    write_sound(audio / "BP4_N,N,P L L,70,M.wav")
    (tmp_path / "labels.csv").write_text(
        "file,label4\n"
        '"BP1_N,N,P L L,70,M.flac",normal\n'
        '"BP2_Asthma,E W,P L L,70,M.flac",both\n'
        '"BP3_Asthma,gurgling,P L L,70,M.flac",other\n'
        '"BP5_N,N,P L L,70,M.flac",normal\n'
        '"BP6_N,N,P L L,70,M.flac",odd\n'
    )
    corpus = fraiwan.read(tmp_path)
    kinds = {take.patient: take.kind for take in corpus.takes}
    assert kinds == {"fraiwan:1": NORMAL, "fraiwan:2": BOTH, "fraiwan:3": None, "fraiwan:4": NORMAL}
    assert set(corpus.notes) == {
        "Fraiwan: names that disagree with labels.csv, which is used (2): "
        "BP2_Asthma,E W,P L L,70,M.wav (wheeze, not both); "
        "BP3_Asthma,gurgling,P L L,70,M.wav (unknown, not other).",
        "Fraiwan: sounds without a row in labels.csv, labelled by their names (1): "
        "BP4_N,N,P L L,70,M.wav.",
        "Fraiwan: rows of labels.csv without a sound, left out (1): BP5_N,N,P L L,70,M.",
        "Fraiwan: rows of labels.csv without a known label4, left out (1): line 6 ('odd').",
    }


def test_fraiwan_files_that_tell_nothing_are_left_out_and_named(tmp_path):
    audio = tmp_path / "Audio Files"
    write_sound(audio / "BP1_N,N,P L L,70,M.wav")
    write_sound(audio / "BP2_Asthma,gurgling,P L L,70,M.wav")
    write_sound(audio / "cough.wav")
    (audio / "BP3_N,N,P L L,70,M.wav").write_bytes(b"no sound")
    corpus = fraiwan.read(tmp_path)
    assert [take.patient for take in corpus.takes] == ["fraiwan:1"]
    assert set(corpus.notes) == {
        "Fraiwan: files whose name does not give a known sound, left out (1): "
        "BP2_Asthma,gurgling,P L L,70,M.wav.",
        "Fraiwan: files whose name does not give the patient, left out (1): cough.wav.",
        "Fraiwan: sounds that cannot be read, left out (1): BP3_N,N,P L L,70,M.wav.",
    }


def test_the_labels_are_those_of_the_models():
    assert LABELS == ("normal", "crackle", "wheeze", "both")


# The manikin


def write_manikin(folder: Path, rows: list[tuple[str, str, str, int]]) -> None:
    """Sounds of noise by seed, and their table."""
    lines = ["file,kind,type,location,sex"]
    for name, kind, what, seed in rows:
        folder.mkdir(parents=True, exist_ok=True)
        samples = np.random.default_rng(seed).integers(-9000, 9000, 4000, dtype=np.int16)
        soundfile.write(folder / name, samples, 4000)
        lines.append(f"{name},{kind},{what},RUA,M")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")


def test_a_manikin_sounds_once_however_often_it_is_there(tmp_path):
    write_manikin(
        tmp_path,
        [
            ("a.wav", "lung", "Fine Crackles", 1),
            ("b.flac", "lung", "Fine Crackles", 1),
            ("c.wav", "lung", "Rhonchi", 2),
            ("d.wav", "lung", "Pleural Rub", 3),
            ("e.wav", "heart", "Normal", 4),
            ("f.wav", "lung", "Normal", 5),
        ],
    )
    corpus = breathing.read(tmp_path)
    assert [(t.name, t.kind, t.detail) for t in corpus.takes] == [
        ("a", CRACKLE, "Fine Crackles"),
        ("c", WHEEZE, "Rhonchi"),
        ("f", NORMAL, "Normal"),
    ]
    assert {t.site for t in corpus.takes} == {"manikin"}
    assert len({t.patient for t in corpus.takes}) == 3
    assert set(corpus.notes) == {
        "Manikin: repetitions of a recording, left out (1): b.flac (a).",
        "Manikin: sounds other than crackles and wheezes, no class, left out (1): d.wav.",
        "Manikin: heart sounds, left out (1): e.wav.",
    }


def test_a_recording_of_the_manikin_stays_in_its_half_whatever_it_is_called(tmp_path):
    rows = [(f"{n}.wav", "lung", "Normal", n) for n in range(40)]
    write_manikin(tmp_path / "one", rows)
    write_manikin(tmp_path / "two", [(f"x{n}.flac", *rest, n) for _, *rest, n in rows[:20]])
    halves = {t.patient: t.official_split for t in manikin.read(tmp_path / "one").takes}
    assert 10 <= list(halves.values()).count("test") <= 30
    for take in manikin.read(tmp_path / "two").takes:
        assert take.official_split == halves[take.patient]


def test_a_table_of_the_manikin_may_name_what_is_not_there_or_no_sound(tmp_path):
    write_manikin(tmp_path, [("a.wav", "lung", "Normal", 1)])
    (tmp_path / "b.wav").write_bytes(b"no sound")
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("b.wav,lung,Normal,RUA,M\nc.wav,lung,Normal,RUA,M\nd.wav,lung\n")
    corpus = manikin.read(tmp_path)
    assert [t.name for t in corpus.takes] == ["a"]
    assert len(corpus.notes) == 3
    assert not manikin.has_layout(tmp_path / "nowhere")
