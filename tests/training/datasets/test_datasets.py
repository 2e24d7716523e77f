"""The data sets that the models are trained on, from small folders made here."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from xai_demo.errors import TrainingError
from xai_demo.training import augmentation, lung
from xai_demo.training.datasets import (
    esc10,
    kermany,
    one_hot,
    split_groups,
)
from xai_demo.training.recipes import RECIPES

LABELS = Path(esc10.__file__).parents[2] / "catalog" / "labels" / "audioset.txt"
FILMS, LUNGS, EVERYDAY = (
    RECIPES[name].model for name in ("pneumonia-resnet18", "lung-resnet18", "everyday-cnn6")
)


# Splits


def test_a_person_is_never_in_two_splits():
    groups = [f"person{i % 300}" for i in range(2000)]
    splits = split_groups(groups, seed="any")
    assert len(set(zip(groups, splits, strict=True))) == 300


def test_the_splits_have_about_the_sizes_asked_for():
    counts = Counter(split_groups([str(i) for i in range(10_000)], seed="any"))
    assert counts["train"] == pytest.approx(7000, abs=150)
    assert counts["validation"] == pytest.approx(1500, abs=120)
    assert counts["test"] == pytest.approx(1500, abs=120)


def test_the_split_of_a_name_never_changes():
    # Published figures and weights hold for exactly this split.
    splits = split_groups(["person3", "person5", "person4"], seed="kermany")
    assert splits == ("train", "validation", "test")
    assert split_groups(["41146240", "1"], seed="sprsound") == ("train", "validation")


def test_a_target_is_a_row_of_probabilities():
    assert one_hot(1, 3).tolist() == [0, 1, 0]
    assert one_hot(1, 3).dtype == np.float32


# Chest X-rays


@pytest.mark.parametrize(
    ("file_name", "who"),
    [
        ("person1_bacteria_1.jpeg", "person1"),
        ("person1_virus_12.jpeg", "person1"),
        ("person1000_virus_1681.jpeg", "person1000"),
        ("IM-0115-0001.jpeg", "IM-0115"),
        ("IM-0500-0001-0002.jpeg", "IM-0500"),
        ("NORMAL2-IM-0012-0001.jpeg", "NORMAL2-IM-0012"),
    ],
)
def test_a_published_file_name_tells_the_person(file_name, who):
    assert kermany.patient_of(file_name) == who


@pytest.mark.parametrize("file_name", ["cat.jpeg", "person_1.jpeg", "xperson1_virus_1.jpeg", ""])
def test_a_file_name_without_a_person_is_refused_by_name(file_name):
    with pytest.raises(
        TrainingError, match=f"{file_name} does not name a patient; expected is person<N>"
    ):
        kermany.patient_of(file_name)


def write_film(path: Path, grey: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(0, grey, 64).astype(np.uint8)
    Image.fromarray(np.tile(ramp, (48, 1))).save(path)


@pytest.fixture
def films(tmp_path):
    """Four pictures of three persons; one person is in two of the published folders."""
    write_film(tmp_path / "train" / "NORMAL" / "IM-0115-0001.jpeg")
    write_film(tmp_path / "train" / "PNEUMONIA" / "person4_bacteria_1.jpeg")
    write_film(tmp_path / "test" / "PNEUMONIA" / "person4_virus_2.jpeg")
    write_film(tmp_path / "val" / "PNEUMONIA" / "person5_virus_3.jpeg")
    write_film(tmp_path / "elsewhere" / "person6_virus_3.jpeg")
    return tmp_path


def test_pictures_are_regrouped_by_person_whatever_the_folders_say(films):
    data = kermany.read(films, FILMS)
    by_group = dict(zip(data.groups, data.splits, strict=True))
    assert by_group == {"IM-0115": "train", "person4": "test", "person5": "validation"}
    assert sorted(data.targets) == [0, 1, 1, 1]
    assert [data.groups[i] for i in data.indices("test")] == ["person4", "person4"]
    assert {data.groups[i]: data.targets[i] for i in range(4)}["IM-0115"] == 0


def test_a_picture_comes_at_the_networks_size_and_varies_only_with_a_generator(films):
    data = kermany.read(films, FILMS)
    picture, target = data.load(0, None)
    assert picture.shape == (224, 224)
    assert picture.dtype == np.float32
    assert target.tolist() == one_hot(int(data.targets[0]), 2).tolist()
    assert picture.min() == pytest.approx((0 - 0.482) / 0.236, abs=0.05)
    assert picture.max() == pytest.approx((128 / 255 - 0.482) / 0.236, abs=0.05)
    np.testing.assert_array_equal(data.load(0, None)[0], picture)
    varied, again, other = (data.load(0, np.random.default_rng(s))[0] for s in (1, 1, 2))
    assert varied.shape == picture.shape
    assert varied.dtype == np.float32
    np.testing.assert_array_equal(varied, again)
    assert np.abs(varied - picture).max() > 0.1
    assert np.abs(varied - other).max() > 0.1


@pytest.mark.parametrize(
    ("read", "model", "wanted"),
    [
        (kermany.read, FILMS, "contains no radiographs; NORMAL"),
        (lung.read, LUNGS, "contains no annotated lung sounds. It, or a folder in it, should"),
        (esc10.read, EVERYDAY, "contains no clips; files such as '001 - Dog bark"),
    ],
)
def test_an_empty_folder_is_told_what_is_wanted(tmp_path, read, model, wanted):
    with pytest.raises(TrainingError, match=wanted):
        read(tmp_path, model)


@pytest.mark.parametrize(
    ("read", "model"), [(kermany.read, LUNGS), (lung.read, FILMS), (esc10.read, FILMS)]
)
def test_a_model_of_the_other_kind_is_refused_by_name(tmp_path, read, model):
    with pytest.raises(TrainingError, match=f"{model.name} analyses .*; a model that analyses"):
        read(tmp_path, model)


# Everyday sounds


def test_every_class_is_one_of_the_527_of_audioset():
    names = LABELS.read_text(encoding="utf-8").splitlines()
    assert len(names) == 527
    assert set(esc10.AUDIOSET_NAMES.values()) <= set(names)
    assert EVERYDAY.labels == tuple(esc10.AUDIOSET_NAMES.values())
    assert len(set(EVERYDAY.labels)) == 10


def write_clip(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = 0.1 * np.random.default_rng(0).normal(size=16_000)
    soundfile.write(path, noise, 32_000, format="OGG", subtype="VORBIS")


def test_clips_are_split_by_fold_and_grouped_by_source(tmp_path):
    for name in ("1-100-A", "2-101-A", "3-102-A", "3-103-A", "3-103-B", "4-104-A", "5-105-A"):
        write_clip(tmp_path / "001 - Dog bark" / f"{name}.ogg")
    write_clip(tmp_path / "010 - Rooster" / "1-17-A.ogg")
    write_clip(tmp_path / "999 - Purring" / "1-18-A.ogg")
    data = esc10.read(tmp_path, EVERYDAY)
    assert dict(zip(data.groups, data.splits, strict=True)) == {
        "1-100": "train",
        "2-101": "train",
        "3-102": "train",
        "3-103": "validation",
        "4-104": "test",
        "5-105": "test",
        "1-17": "train",
    }
    assert [data.labels[k] for k in data.targets] == ["Dog"] * 7 + ["Crowing, cock-a-doodle-doo"]
    mel, target = data.load(7, None)
    assert mel.shape == (64, 501)  # half a second, repeated to five
    assert target.argmax() == 8
    varied, again = (data.load(7, np.random.default_rng(1))[0] for _ in range(2))
    assert varied.shape == (64, 250)  # an excerpt of half the length
    np.testing.assert_array_equal(varied, again)


# Variation

VARIATIONS = {
    "masked": lambda mel, rng: augmentation.mask_spectrogram(
        mel, rng, rows=8, columns=20, fill=-1.0
    ),
    "equalised": lambda mel, rng: augmentation.equalise(mel, rng, deviation=0.5),
    "shifted": lambda mel, rng: augmentation.shift_bands(mel, rng, max_rows=3),
    "stretched": lambda mel, rng: augmentation.stretch_time(mel, rng, max_share=0.2),
}
NOTHING = {
    "masked": lambda mel, rng: augmentation.mask_spectrogram(
        mel, rng, rows=0, columns=0, fill=-1.0
    ),
    "equalised": lambda mel, rng: augmentation.equalise(mel, rng, deviation=0),
    "shifted": lambda mel, rng: augmentation.shift_bands(mel, rng, max_rows=0),
    "stretched": lambda mel, rng: augmentation.stretch_time(mel, rng, max_share=0),
}


def mel_numbers() -> np.ndarray:
    return np.arange(64 * 50, dtype=np.float32).reshape(64, 50)


@pytest.mark.parametrize("name", VARIATIONS)
def test_a_variation_keeps_the_shape_is_reproducible_and_leaves_its_input_alone(name):
    mel = mel_numbers()
    results = [VARIATIONS[name](mel, np.random.default_rng(seed)) for seed in (*range(20), 7)]
    assert {r.shape for r in results} == {mel.shape}
    assert {r.dtype for r in results} == {mel.dtype}
    np.testing.assert_array_equal(results[7], results[-1])
    assert len({r.tobytes() for r in results}) > 1
    np.testing.assert_array_equal(mel, mel_numbers())


@pytest.mark.parametrize("name", NOTHING)
def test_a_variation_of_no_size_changes_nothing(name):
    mel = mel_numbers()
    for seed in range(5):
        np.testing.assert_allclose(NOTHING[name](mel, np.random.default_rng(seed)), mel)


def test_masking_blots_out_whole_bands_and_stretches_and_nothing_else():
    mel = mel_numbers()
    for seed in range(20):
        masked = VARIATIONS["masked"](mel, np.random.default_rng(seed))
        gone = masked != mel
        assert set(masked[gone]) <= {-1.0}
        bands, stretches = gone.all(axis=1), gone.all(axis=0)
        np.testing.assert_array_equal(gone, bands[:, None] | stretches[None, :])
        assert bands.sum() <= 2 * 8
        assert stretches.sum() <= 2 * 20


def test_equalising_adds_one_gain_to_all_frames_of_a_band():
    gain = VARIATIONS["equalised"](mel_numbers(), np.random.default_rng(0)) - mel_numbers()
    assert np.ptp(gain, axis=1).max() < 1e-3
    assert np.ptp(gain[:, 0]) > 0.1


def test_shifting_moves_bands_by_a_few_rows_and_repeats_the_edge():
    mel = mel_numbers()
    moves = set()
    for seed in range(40):
        rows = (VARIATIONS["shifted"](mel, np.random.default_rng(seed))[:, 0] / 50).astype(int)
        move = rows[32] - 32
        np.testing.assert_array_equal(rows, np.clip(np.arange(64) + move, 0, 63))
        moves.add(int(move))
    assert moves == set(range(-3, 4))


def test_stretching_turns_time_about_its_middle():
    for seed in range(10):
        at = VARIATIONS["stretched"](mel_numbers(), np.random.default_rng(seed))[0]
        assert at[25] == 25
        assert (np.diff(at) >= 0).all()
        assert at[35] == pytest.approx(35, abs=3)
