"""NIH's and the COVID-3 collections in their published layouts, and as they must not be."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.small_models import write_model
from tests.support.tiny_network import TINY
from xai_demo import networks
from xai_demo.catalog.hub_models import NIH_FINDINGS
from xai_demo.errors import TrainingError
from xai_demo.records import Model, Raster
from xai_demo.settings import Settings
from xai_demo.synthesis.thorax import lung_masks, thorax_phantom
from xai_demo.training.datasets import covid, nih, radiography, split_groups
from xai_demo.training.evaluate import evaluate_model
from xai_demo.training.initial_weights import load_initial_weights
from xai_demo.training.model_card import write_card
from xai_demo.training.recipes import RECIPES, chest, nih14
from xai_demo.training.train import train_model

SMALL = Raster(height=48, width=48, mean=0.5, std=0.25)
HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID"


def model_of(name: str) -> Model:
    return dataclasses.replace(RECIPES[name].model, preprocessing=SMALL)


NIH14, COVID3 = model_of("nih14-efficientnet-lite0"), model_of("covid3-simplecnn")


def picture(path: Path, level: int, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(level, 25, (56, 60))
    Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(path)


def nih_folder(folder: Path, *rows: str, header: str = HEADER, pictures: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / nih.TABLE).write_text("\n".join([header, *rows]) + "\n")
    for number, row in enumerate(rows):
        if pictures:
            picture(folder / "images" / row.split(",")[0], 60 + 90 * ("Mass" in row), number)
    return folder


ROWS = ("00000007_000.png,Mass|Edema,0,7", "00000007_001.png,No Finding,1,7")


# NIH ChestX-ray14


def test_findings_and_patients_are_read_and_no_finding_is_none(tmp_path):
    films, notes = nih.list_radiographs(nih_folder(tmp_path, *ROWS))
    assert [film.patient for film in films] == ["nih:7", "nih:7"]
    assert films[0].labels == ("Mass", "Edema")
    rows = nih.label_matrix(films, NIH14)
    assert [NIH14.labels[k] for k in np.flatnonzero(rows[0])] == ["Mass", "Edema"]
    assert not rows[1].any()
    assert notes == ()


def test_a_picture_saved_in_another_format_still_has_its_row(tmp_path):
    folder = nih_folder(tmp_path, ROWS[0], pictures=False)
    picture(folder / "images_001" / "images" / "00000007_000.JPG", 90)
    assert len(nih.list_radiographs(folder)[0]) == 1


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a.png,Broken heart,0,7", r"Data_Entry_2017\.csv, line 3: 'Broken heart' is not one of"),
        (
            "a.png,Mass|,0,7",
            r"line 3: '' is not one of NIH's findings; expected is No Finding or Atele",
        ),
        ("a.png,Mass,0,seven", r"Data_Entry_2017\.csv, line 3: the Patient ID is 'seven'; it must"),
        ("a.png,Mass,0", r"line 3: the Patient ID is ''; it must be a number"),
    ],
)
def test_a_row_that_will_not_do_is_named_with_its_line_and_value(tmp_path, row, said):
    with pytest.raises(TrainingError, match=said):
        nih.list_radiographs(nih_folder(tmp_path, ROWS[0], row))


def test_rows_without_pictures_and_pictures_without_rows_are_counted_and_named(tmp_path):
    folder = nih_folder(tmp_path, ROWS[0])
    with (folder / nih.TABLE).open("a") as file:
        file.write("00000009_000.png,Mass,0,9\n00000009_001.png,Mass,1,9\n")
    picture(folder / "images" / "stranger.png", 90)
    films, (without, stranger) = nih.list_radiographs(folder)
    assert len(films) == 1
    assert "rows without a radiograph, left out (2): 00000009_000.png; 00000009_001.png" in without
    assert "radiographs without a row, left out (1): stranger.png" in stranger


def test_a_table_of_other_columns_or_bytes_or_without_any_picture_is_refused(tmp_path):
    folder = nih_folder(tmp_path / "columns", "a.png,7", header="Image Index,Patient ID")
    with pytest.raises(
        TrainingError, match="Image Index, Patient ID; it also needs Finding Labels"
    ):
        nih.list_radiographs(folder)
    folder = nih_folder(tmp_path / "none", ROWS[0], pictures=False)
    with pytest.raises(
        TrainingError, match=r"names no radiograph that lies in .*00000007_000\.png"
    ):
        nih.list_radiographs(folder)
    (folder / nih.TABLE).write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(TrainingError, match=r"Data_Entry_2017\.csv cannot be read"):
        nih.list_radiographs(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match=r"contains no Data_Entry_2017\.csv; NIH"):
        nih.list_radiographs(tmp_path / "empty")


def many(folder: Path, n: int = 60) -> Path:
    kinds = ("Mass", "Mass|Edema", "No Finding", "Edema", "No Finding")
    return nih_folder(folder, *(f"{i:08}_000.png,{kinds[i % 5]},0,{i}" for i in range(1, n + 1)))


def test_patients_are_split_and_every_finding_is_in_each_part(tmp_path):
    data = nih.read(many(tmp_path), NIH14)
    assert data.is_independent
    assert data.targets.shape == (60, 14)
    mass = NIH14.labels.index("Mass")
    sizes = {s: len(data.indices(s)) for s in ("train", "validation", "test")}
    assert sizes == {"train": 42, "validation": 9, "test": 9}
    for split in sizes:
        assert data.targets[data.indices(split), mass].sum() >= 3
    shown, target = data.load(0, None)
    assert shown.shape == (48, 48)
    assert target.tolist() == data.targets[0].tolist()


def test_the_published_lists_are_followed_where_they_are(tmp_path):
    folder = many(tmp_path)
    (folder / "train_val_list.txt").write_text("\n".join(f"{i:08}_000.png" for i in range(1, 41)))
    (folder / "test_list.txt").write_text("\n".join(f"{i:08}_000.png" for i in range(41, 61)))
    data = nih.read(folder, NIH14)
    test = {data.groups[i] for i in data.indices("test")}
    assert test == {f"nih:{i}" for i in range(41, 61)}
    assert len(data.indices("validation")) == pytest.approx(40 * 0.15 / 0.85, abs=2)


def radiography_folder(folder: Path, *, blocks: int = 30, header: str | None = None) -> Path:
    """The COVID-19 Radiography Database: two films of each label in each block."""
    lines = [header or "file,label,block,near_duplicates"]
    for number in range(4 * blocks):
        label = ("COVID-19", "Normal")[number % 2]
        file = f"{label}/{number:05}.jpg"
        picture(folder / file, 200 if label == "COVID-19" else 75, 1000 + number)
        lines.append(f"{file},{label},block-{label}-{number // 4},near-{label}-{number}")
    (folder / radiography.TABLE).write_text("\n".join(lines) + "\n")
    return folder


def test_blocks_and_near_duplicates_of_films_are_kept_together(tmp_path):
    listed = radiography.list_radiographs(radiography_folder(tmp_path, blocks=3))
    assert len(listed) == 12
    assert len({film.patient for film in listed}) == 6
    keys = [("a", "1"), ("b", "2"), ("c", "1"), ("c", "3"), ("d", "3"), ("e", "4")]
    for order in (keys, keys[::-1]):
        groups = dict(zip(order, radiography.join_blocks(order), strict=True))
        assert [groups[key] for key in keys] == ["a", "b", "a", "a", "a", "e"]
    assert radiography.list_radiographs(tmp_path / "Normal") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("near_duplicates", "twins"), r"it also needs near_duplicates"),
        ((",Normal,", ",Healthy,"), r"films.csv, line 3: the label is 'Healthy'; expected is COV"),
        (("Normal/00001", "Normal/9"), r"films.csv, line 3: Normal/9.jpg is not in .*; every film"),
    ],
)
def test_a_table_of_films_that_will_not_do_is_refused(tmp_path, change, said):
    table = radiography_folder(tmp_path, blocks=1) / radiography.TABLE
    table.write_text(table.read_text().replace(*change))
    with pytest.raises(TrainingError, match=said):
        radiography.list_radiographs(tmp_path)


def test_normal_films_are_films_without_findings_in_splits_of_their_own(tmp_path):
    folder = many(tmp_path / "nih")
    alone = nih.read(folder, NIH14)
    radiography_folder(tmp_path / "radiography")
    data = nih.read(tmp_path, NIH14)
    assert data.targets.shape == (60 + 60, 14)
    is_added = np.array([group.startswith(radiography.PREFIX) for group in data.groups])
    assert not data.targets[is_added].any()
    # NIH's own patients stay where they are without those films.
    assert (
        dict(zip(alone.groups, alone.splits, strict=True)).items()
        <= dict(zip(data.groups, data.splits, strict=True)).items()
    )
    assert {split for split, added in zip(data.splits, is_added, strict=True) if added} == {
        "train",
        "validation",
        "test",
    }


def test_a_patient_in_two_parts_is_refused_with_file_line_and_number(tmp_path):
    folder = nih_folder(tmp_path, *ROWS)
    (folder / "train_val_list.txt").write_text("00000007_000.png\n")
    with pytest.raises(
        TrainingError, match=r"train_val_list.txt is present but test_list.txt is missing"
    ):
        nih.read(folder, NIH14)
    (folder / "test_list.txt").write_text("00000008_000.png\n00000007_001.png\n")
    said = r"test_list.txt, line 2: patient 7 \(00000007_001.png\) is also in train_val_list.txt"
    with pytest.raises(TrainingError, match=said):
        nih.read(folder, NIH14)


# COVID-19, pneumonia, normal


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    """All three collections, small; the classes differ in the frame as much as in the lungs."""
    folder = tmp_path_factory.mktemp("films")
    for i in range(1, 31):
        picture(folder / "covid" / "COVID-19" / f"{i:03}.jpg", 200, i)
        picture(folder / "kermany" / "NORMAL" / f"IM-{i:04}-0001.jpeg", 60, 100 + i)
        for kind in ("virus", "bacteria"):
            path = folder / "kermany" / "PNEUMONIA" / f"person{i}_{kind}_{i}.jpeg"
            picture(path, 130, 200 + i)
    kinds = ("No Finding", "Pneumonia", "Pneumonia|Mass")
    nih_folder(folder / "nih", *(f"{i:08}_000.png,{kinds[i % 3]},0,{i}" for i in range(1, 13)))
    return folder


def test_children_with_pneumonia_are_as_many_as_normal_ones_and_adults_are_kept_apart(films):
    data = covid.read(films, COVID3)
    assert data.labels == ("COVID-19", "Pneumonia", "Normal")
    assert np.bincount(data.targets).tolist() == [30, 30, 30]
    assert not any(group.startswith("nih:") for group in data.groups)
    splits = dict(zip(data.groups, data.splits, strict=True))
    assert splits["kermany:IM-0001"] == split_groups(["IM-0001"], seed="kermany")[0]
    abroad = covid.external(films, COVID3)
    assert set(abroad.splits) == {"test"}
    assert np.bincount(abroad.targets, minlength=3).tolist() == [0, 4, 4]


def test_the_second_source_of_covid_has_its_own_splits(films, tmp_path):
    shutil.copytree(films, tmp_path / "both")
    radiography_folder(tmp_path / "both" / "radiography")
    data = covid.read(tmp_path / "both", COVID3)
    assert np.bincount(data.targets).tolist() == [30 + 60, 30, 30 + 60]
    # The table's films are not COVID-CXNet's, though their folder has the same name.
    assert "its 30 radiographs count" in data.notes[0]
    group_of = {film.patient for film in radiography.list_radiographs(tmp_path / "both")}
    at = [i for i, group in enumerate(data.groups) if group in group_of]
    assert [data.splits[i] for i in at] == list(radiography.splits_of([data.groups[i] for i in at]))


def test_pictures_much_alike_are_one_persons(tmp_path):
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 400))
    small = np.stack([one, other, one + 0.05 * rng.normal(size=400), 3 * one + 2])
    assert covid.group_similar(small, ["d", "c", "b", "a"]) == ["a", "c", "a", "a"]


def test_the_lungs_are_masked_where_they_are():
    film = thorax_phantom(seed=2).pixels
    bare, note = covid.mask_lungs(film[None])
    lungs = lung_masks(film.shape[0])
    assert (bare[0][lungs.any(axis=0)] == 128).mean() > 0.95
    # The spine between them, the shoulders and the marker stay as they are.
    is_masked = bare[0] != film
    assert is_masked[:, 250:262].mean() < 0.1
    assert not is_masked[:60].any()
    assert note.endswith("no field was found, on 0 of 1 radiographs.")


def test_without_a_lung_field_a_rectangle_is_masked():
    held = np.random.default_rng(0).integers(0, 255, (2, 100, 100)).astype(np.uint8)
    bare, note = covid.mask_lungs(held)
    assert "on 2 of 2 radiographs" in note
    assert (bare[:, 8:90, 8:92] == 128).all()
    frame = np.ones((100, 100), bool)
    frame[8:90, 8:92] = False
    np.testing.assert_array_equal(bare[:, frame], held[:, frame])
    assert (held[:, 50, 50] != 128).any()


def test_a_collection_that_is_missing_is_named(tmp_path, films):
    (tmp_path / "NORMAL").mkdir()
    picture(tmp_path / "NORMAL" / "IM-0001-0001.jpeg", 60)
    with pytest.raises(
        TrainingError, match="contains no radiograph of COVID-19; it must contain a folder"
    ):
        covid.read(tmp_path, COVID3)
    assert covid.external(tmp_path, COVID3) is None


# Whole runs


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(networks.ARCHITECTURES, "tiny", TINY)

    def small(name: str, **changes) -> None:
        recipe = RECIPES[name]
        model = dataclasses.replace(recipe.model, architecture="tiny", preprocessing=SMALL)
        schedule = dataclasses.replace(
            recipe.schedule, epochs=2, batch_size=8, learning_rate=0.01, low_resolution_share=0.0
        )
        monkeypatch.setitem(
            RECIPES, name, dataclasses.replace(recipe, model=model, schedule=schedule, **changes)
        )

    return small


def settings_of(folder: Path) -> Settings:
    return Settings(weights_dir=folder, cache_dir=folder / "cache", offline=True)


@pytest.mark.parametrize("balance", [None, "smote"])
def test_fourteen_findings_are_learnt_and_evaluated(tiny, tmp_path, balance):
    tiny("nih14-resnet50")
    data, name = many(tmp_path / "data"), "nih14-resnet50"
    train_model(name, data=data, out=tmp_path / name, balance=balance)
    settings = settings_of(tmp_path)
    result = evaluate_model(name, settings=settings, data=data, out=tmp_path / "out")
    assert (result["data"], result["n"], result["groups"]) == ("nih14", 9, 9)
    assert set(result["metrics"]) >= {"auroc", "accuracy", "precision", "recall", "f1", "ece"}
    assert set(result["per_class"]) == set(NIH_FINDINGS)
    assert set(result["per_class"]["Mass"]) >= {"auroc", "accuracy", "precision", "recall", "f1"}
    assert result["per_class"]["Hernia"]["auroc"]["value"] is None
    assert np.array(result["confusion"]["counts"]).shape == (14, 2, 2)
    assert set(result["threshold"]) == set(NIH_FINDINGS)
    assert (tmp_path / "out" / "roc.png").is_file()
    card = write_card(name, settings=settings, result=result).read_text()
    assert "| label | true positives | false negatives |" in card
    assert "| label | precision | recall | F1 | AUROC | accuracy |" in card


def _config(directory: Path) -> dict:
    return json.loads((directory / "config.json").read_text())


def test_normal_adults_are_a_test_of_their_own(tiny, tmp_path):
    name = "nih14-efficientnet-lite0"
    tiny(name, is_from_imagenet=False)
    many(tmp_path / "data" / "nih")
    radiography_folder(tmp_path / "data" / "radiography")
    train_model(name, data=tmp_path / "data", out=tmp_path / name)
    settings = settings_of(tmp_path)
    result = evaluate_model(name, settings=settings, data=tmp_path / "data")
    assert result["n"] == 9
    normal = result["parts"][nih14.NORMAL_ADULTS]
    assert 0 < normal["n"] < 30
    assert normal["metrics"]["samples_with_findings"]["value"] <= 0.5
    assert normal["metrics"]["present_findings_listed"]["value"] is None
    assert 0 < _config(tmp_path / name)["any_label_point"] <= 1
    card = write_card(name, settings=settings, result=result).read_text()
    assert f"| {nih14.NORMAL_ADULTS} | {normal['n']} | " in card
    assert "none listed where the probability of any is below" in card


def test_whoever_was_not_learnt_from_is_asked_about_wherever_they_lie(tiny, tmp_path):
    tiny("nih14-resnet50")
    name = "nih14-resnet50"
    train_model(name, data=many(tmp_path / "data"), out=tmp_path / name)
    rows = (f"{i:08}_000.png,{('Mass', 'No Finding')[i % 2]},0,{i}" for i in range(100, 120))
    other = nih_folder(tmp_path / "other", *rows)
    result = evaluate_model(name, settings=settings_of(tmp_path), data=other)
    assert result["n"] == 20


def test_three_classes_are_judged_within_abroad_and_without_lungs(tiny, films, tmp_path):
    tiny("covid3-simplecnn")
    name = "covid3-simplecnn"
    train_model(name, data=films, out=tmp_path / name)
    settings = settings_of(tmp_path)
    result = evaluate_model(name, settings=settings, data=films, out=tmp_path / "out")
    assert result["data"] == "covid3"
    assert set(result["parts"]) == {chest.EXTERNAL, chest.LUNGS_MASKED, chest.BACKGROUND_CLASSIFIER}
    assert result["parts"][chest.EXTERNAL]["n"] == 8
    assert result["parts"][chest.LUNGS_MASKED]["n"] == result["n"]
    # the frame alone gives these classes away, which is what the figure is there to show
    assert result["parts"][chest.BACKGROUND_CLASSIFIER]["metrics"]["f1"]["value"] > 0.9
    assert (tmp_path / "out" / "external" / "confusion.png").is_file()
    card = write_card(name, settings=settings, result=result).read_text()
    external = "| external test: adults from NIH ChestX-ray14 (no COVID-19 among them) | 8 | "
    assert external in card


def test_a_recipe_starts_from_the_layers_of_a_model_that_is_here(tiny, tmp_path):
    tiny("pneumonia3-resnet18")
    tiny("pneumonia-resnet18")
    for i in range(1, 33):
        picture(tmp_path / "data" / "NORMAL" / f"IM-{i:04}-0001.jpeg", 60, i)
        for kind in ("virus", "bacteria"):
            path = tmp_path / "data" / "PNEUMONIA" / f"person{i}_{kind}_{i}.jpeg"
            picture(path, 130 if kind == "virus" else 200, i)
    said = "pneumonia-resnet18"
    train_model(said, data=tmp_path / "data", out=tmp_path / said, epochs=1)
    settings, out = settings_of(tmp_path), tmp_path / "pneumonia3-resnet18"
    train_model("pneumonia3-resnet18", data=tmp_path / "data", out=out, epochs=1, settings=settings)
    notes = _config(out)["notes"]
    sha256 = _config(tmp_path / said)["sha256"]
    assert any(f"Initialised from {said} (sha256 {sha256})" in note for note in notes)
    assert sha256 in (out / "MODEL_CARD.md").read_text()


def test_layers_of_another_shape_stay_and_another_architecture_is_refused(tiny, tmp_path):
    tiny("pneumonia-resnet18")
    tiny("pneumonia3-resnet18")
    recipe = RECIPES["pneumonia3-resnet18"]
    whole = TINY.build(RECIPES["pneumonia-resnet18"].model)
    write_model(tmp_path / "pneumonia-resnet18", RECIPES["pneumonia-resnet18"].model, seed=7)
    network = TINY.build(recipe.model)
    last = network.get_submodule("head.3").weight.clone()
    load_initial_weights(network, recipe, settings_of(tmp_path))
    assert torch.equal(network.get_submodule("head.3").weight, last)
    torch.manual_seed(7)
    whole = TINY.build(RECIPES["pneumonia-resnet18"].model)
    assert torch.equal(
        network.get_submodule("features.0").weight, whole.get_submodule("features.0").weight
    )
    other = dataclasses.replace(
        recipe, model=dataclasses.replace(recipe.model, architecture="simplecnn")
    )
    with pytest.raises(
        TrainingError, match="is a tiny; pneumonia3-resnet18 can only start from a simplecnn"
    ):
        load_initial_weights(network, other, settings_of(tmp_path))
