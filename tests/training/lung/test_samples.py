"""What lung models hear while they learn: of whom, of which source, with which label."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.support.lung_datasets import (
    MODEL,
    TESTED,
    TRAINED,
    VALIDATED,
    write_adult,
    write_child,
    write_cycles,
    write_manikin,
)
from xai_demo.errors import TrainingError
from xai_demo.training import lung
from xai_demo.training.datasets.breathing import (
    BOTH,
    CRACKLE,
    NORMAL,
    WHEEZE,
)
from xai_demo.training.lung import assign_splits, event_bank, read_lung_dataset
from xai_demo.training.lung.samples import SOURCES, Segment


@pytest.fixture(scope="module", autouse=True)
def small_bank():
    """Three synthesised events of each kind are enough."""
    whole, patch = event_bank.event_bank, pytest.MonkeyPatch()
    few = whole(3, 0, MODEL.preprocessing)
    patch.setattr(
        event_bank, "event_bank", lambda count, seed, spec: {k: v * 200 for k, v in few.items()}
    )
    yield
    patch.undo()


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """All three published layouts, side by side."""
    folder = tmp_path_factory.mktemp("all")
    both = [(300, 1300, "Normal"), (1500, 2500, "Wheeze"), (2700, 3600, "Fine Crackle")]
    for child in (TRAINED, VALIDATED, TESTED):
        write_child(folder / "spr", child, both, number=1, record="CAS & DAS")
        write_child(folder / "spr", child, [(200, 1800, "Normal")], number=2)
    write_cycles(folder / "icbhi", 101, "0.0 1.5 0 0\n1.5 3.0 1 0\n3.0 5.5 0 1\n", "train")
    write_cycles(folder / "icbhi", 102, "0.0 2.0 0 0\n2.0 4.0 1 1\n", "test")
    for patient, sound in ((1, "N"), (2, "E W"), (3, "Crep")):
        write_adult(folder / "fraiwan", patient, sound)
    return folder


@pytest.fixture(scope="module")
def dataset(everything):
    return read_lung_dataset(everything, MODEL)[0]


def test_a_patient_is_in_one_split_and_those_of_training_are_told(everything):
    data = lung.read(everything, MODEL)
    assert data.name == "fraiwan + icbhi + sprsound"
    assert dict(zip(data.groups, data.splits, strict=True)) == {
        f"sprsound:{TRAINED}": "train",
        f"sprsound:{VALIDATED}": "validation",
        f"sprsound:{TESTED}": "test",
    }
    assert data.training_groups() == {
        f"sprsound:{TRAINED}",
        f"sprsound:{VALIDATED}",
        "icbhi:101",
        "fraiwan:1",
        "fraiwan:2",
        "fraiwan:3",
    }
    assert Counter(data.targets.tolist()) == {NORMAL: 6, WHEEZE: 3, CRACKLE: 3}


def draws(dataset, n=240):
    train = [i for i, p in enumerate(dataset.events) if p.split == "train"]
    for seed in range(n):
        rng = np.random.default_rng(seed)
        source = int(rng.choice(len(SOURCES), p=dataset._source_probabilities))
        way = (
            dataset._plan_event,
            dataset._plan_window,
            dataset._plan_cycle,
            dataset._plan_synthetic,
        )[source]
        yield way(train[seed % len(train)], rng)


def test_training_hears_every_source_and_nobody_of_validation_or_test(dataset):
    found = list(draws(dataset))
    assert {d.source for d in found} == {0, 1, 2, 3}
    assert {dataset.splits[d.recording] for d in found} == {"train"}
    assert {dataset.recordings[d.recording].take.site for d in found} == {"sprsound", "icbhi"}
    assert all(d.label.sum() == pytest.approx(1) for d in found)
    assert {bool(d.times is None) for d in found if d.source == 2} == {True}


def test_the_same_seed_gives_the_same_sample_and_none_the_plain_event(dataset):
    first, again, other = (dataset.load(0, np.random.default_rng(s)) for s in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert not np.array_equal(first[0], other[0])
    assert first[0].shape == (64, 200)
    assert first[1].shape == (4 + len(SOURCES) + 1 + 2 * 200,)
    window, target = dataset.load(0, None)
    assert target.tolist() == [1, 0, 0, 0]
    shown = np.flatnonzero((window != 0).any(axis=0))
    assert shown.tolist() == list(range(50, 150))  # a second, in the middle of two


def test_a_window_is_labelled_by_what_sounds_in_it(dataset):
    # Normal 0.3-1.3 s, wheeze 1.5-2.5 s, crackle 2.7-3.6 s; windows of two seconds.
    at = next(
        i
        for i, s in enumerate(dataset.recordings)
        if s.take.site == "sprsound" and len(s.events) == 3
    )
    times, label = dataset.window_label(at, 0)
    assert label.tolist() == [0, 0, 1, 0]
    assert np.flatnonzero(times[1]).tolist() == list(range(150, 200))
    assert not times[0].any()
    times, label = dataset.window_label(at, 150)
    assert label.tolist() == [0, 0, 0, 1]
    assert np.flatnonzero(times[0]).tolist() == list(range(120, 200))
    assert np.flatnonzero(times[1]).tolist() == list(range(100))
    # 0.10 s of the crackle are too few to be sure: half wheeze, half both.
    _, label = dataset.window_label(at, 80)
    assert label.tolist() == [0, 0, 0.5, 0.5]
    _, label = dataset.window_label(at, -60)
    assert label.tolist() == [1, 0, 0, 0]


def test_a_synthesised_event_is_where_its_times_say(dataset):
    for seed in range(40):
        draw = dataset._plan_synthetic(0, np.random.default_rng(seed))
        sounding = draw.times.max(0) > 0
        covered = np.zeros(200, bool)
        for added in draw.overlays:
            covered[added.first_frame : added.first_frame + added.power.shape[1]] = True
        np.testing.assert_array_equal(sounding, covered)
        kind = int(draw.label.argmax())
        assert bool(draw.times[0].any()) == (kind in (CRACKLE, BOTH))
        assert bool(draw.times[1].any()) == (kind in (WHEEZE, BOTH))
        place = dataset.recordings[draw.recording].events
        assert any(k == NORMAL for _, _, k in place)


def test_without_times_of_its_own_a_cycle_is_heard_from_beginning_to_end(dataset):
    long = next(p for p in dataset.cycles if p.kind == WHEEZE)  # 2.5 s
    parts = dataset.segment_windows(long)
    assert [p.shape for p in parts] == [(64, 200)] * 2
    event = Segment(recording=0, start=0, end=250, kind=NORMAL, split="test")
    assert len(dataset.segment_windows(event)) == 1


def test_icbhi_alone_lends_some_of_its_patients_for_validation(tmp_path):
    for patient in range(101, 112):
        split = "test" if patient == 102 else "train"
        write_cycles(tmp_path, patient, "0.0 2.0 0 0\n2.0 4.0 1 0\n", split)
    data = lung.read(tmp_path, MODEL)
    by_patient = dict(zip(data.groups, data.splits, strict=True))
    assert by_patient["icbhi:102"] == "test"
    assert by_patient["icbhi:109"] == "validation"
    assert by_patient["icbhi:101"] == "train"
    assert Counter(data.targets.tolist()) == {NORMAL: 11, CRACKLE: 11}


def test_recordings_with_a_label_alone_are_learnt_from_as_they_are(tmp_path):
    for patient, sound in ((1, "N"), (2, "E W"), (3, "Crep")):
        write_adult(tmp_path, patient, sound, filters="B")
    data = lung.read(tmp_path, MODEL)
    assert sorted(data.targets.tolist()) == [NORMAL, CRACKLE, WHEEZE]
    dataset, _ = read_lung_dataset(tmp_path, MODEL)
    assert dataset.labelled_recordings == []  # heard as events already
    draw = dataset._plan_segment(dataset.events[0], np.random.default_rng(0), source=0)
    assert draw.times is None


def test_a_folder_of_sounds_without_any_label_is_refused(tmp_path):
    write_child(tmp_path, TRAINED, [], record="Poor Quality")
    with pytest.raises(TrainingError, match="but no event or label; annotated"):
        lung.read(tmp_path, MODEL)


def test_fraiwan_is_for_training_beside_timed_sites_and_split_by_patient_alone(dataset):
    takes = [s.take for s in dataset.recordings]
    alone = [t for t in takes if t.site == "fraiwan"]
    both = dict(zip([t.patient for t in takes], assign_splits(takes), strict=True))
    assert {both[t.patient] for t in alone} == {"train"}
    assert len(assign_splits(alone)) == 6


def test_of_the_manikin_training_hears_its_own_half_alone_and_is_not_sure_of_a_window(tmp_path):
    write_child(tmp_path / "spr", TRAINED, [(300, 1300, "Normal")])
    write_manikin(tmp_path / "m", [("Fine Crackles", n) for n in range(12)] + [("Normal", 90)])
    dataset = read_lung_dataset(tmp_path, MODEL)[0]
    chosen = dataset.manikin_recordings
    takes = [dataset.recordings[i].take for i in chosen]
    assert 1 < len(chosen) < 13
    assert {t.official_split for t in takes} == {"train"}
    assert {dataset.splits[i] for i in chosen} == {"train"}
    rest = [i for i, r in enumerate(dataset.recordings) if r.take.site == "manikin"]
    assert {dataset.splits[i] for i in rest if i not in chosen} == {"test"}
    for seed in range(20):
        plan = dataset._plan_manikin(0, np.random.default_rng(seed))
        kind = dataset.recordings[plan.recording].take.kind
        wanted = [1, 0, 0, 0] if kind == NORMAL else [0.3, 0.7, 0, 0]
        assert plan.label.tolist() == pytest.approx(wanted)
        assert plan.times is None
        assert plan.recording in chosen


def test_a_voice_changes_no_label(dataset):
    with_voice = 0
    for seed in range(60):
        rng, other = (np.random.default_rng(seed) for _ in range(2))
        source = int(other.choice(len(SOURCES), p=dataset._source_probabilities))
        if source != 0:
            continue
        plan = dataset._plan_event(0, other)
        with_voice += other.random() < 0.25
        _, target = dataset.load(0, rng)
        assert target[:4].tolist() == plan.label.tolist()
    assert with_voice > 2
