"""Films in folders named after labels, where nobody published them so."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.dicom_files import dicom_radiograph
from tests.support.tiny_network import TINY
from xai_demo import networks
from xai_demo.errors import TrainingError
from xai_demo.records import Raster
from xai_demo.settings import Settings
from xai_demo.training.datasets import (
    covid,
    kermany,
    nih,
    radiographs,
)
from xai_demo.training.evaluate import evaluate_model
from xai_demo.training.recipes import RECIPES
from xai_demo.training.train import train_model

SMALL = Raster(height=40, width=40, mean=0.5, std=0.25)


def model_of(name: str):
    return dataclasses.replace(RECIPES[name].model, preprocessing=SMALL)


def picture(path: Path, level: int, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    grey = np.random.default_rng(seed).normal(level, 20, (48, 44)).clip(0, 255)
    Image.fromarray(grey.astype(np.uint8)).save(path)
    return path


def test_folders_are_known_by_their_label_however_it_is_written(tmp_path):
    model = model_of("pneumonia3-resnet18")
    for i, name in enumerate(("normal", "Bacterial_Pneumonia", "train/viral-pneumonia", "other")):
        picture(tmp_path / name / f"{i}.png", 50 * i, i)
    (tmp_path / "normal" / "film.dcm").write_bytes(dicom_radiograph())
    (tmp_path / "normal" / "notes.txt").write_text("not a film")
    data = kermany.read(tmp_path, model)
    assert data.name == "folders"
    assert sorted(data.targets.tolist()) == [0, 0, 1, 2]
    assert data.load(0, None)[0].shape == (40, 40)
    assert data.load(0, None)[1].tolist() == np.eye(3)[data.targets[0]].tolist()
    (note,) = data.notes
    assert "4 radiographs of 4 patients; 0 are identified by file names" in note


def test_a_person_is_told_by_the_name_or_by_the_picture_alone(tmp_path):
    persons = [
        radiographs.patient_of(picture(tmp_path / name, 90, seed))
        for name, seed in (
            ("person12_virus_3.jpeg", 0),
            ("NORMAL2-IM-0003-0001.jpeg", 1),
            ("00000013_004.png", 2),
            ("one.png", 3),
            ("copy of one.png", 3),
            ("two.png", 4),
        )
    ]
    assert persons[:3] == ["person12", "NORMAL2-IM-0003", "nih:13"]
    assert persons[3] == persons[4] != persons[5]
    assert persons[3].startswith("folders:")


def test_a_published_layout_is_read_as_before(tmp_path):
    picture(tmp_path / "NORMAL" / "IM-0001-0001.jpeg", 50)
    picture(tmp_path / "PNEUMONIA" / "person1_virus_1.jpeg", 150)
    assert kermany.read(tmp_path, model_of("pneumonia-resnet18")).name == "kermany"
    picture(tmp_path / "PNEUMONIA" / "cat.jpeg", 150)
    with pytest.raises(
        TrainingError, match=r"cat\.jpeg does not name a patient; expected is person<N>"
    ):
        kermany.read(tmp_path, model_of("pneumonia-resnet18"))


def test_findings_are_folders_too_and_no_finding_is_none_of_them(tmp_path):
    for i, name in enumerate(("Mass", "Pleural Thickening", "No Finding")):
        picture(tmp_path / name / f"{i}.png", 80 * i, i)
    data = nih.read(tmp_path, model_of("nih14-efficientnet-lite0"))
    assert data.is_independent
    found = [[data.labels[k] for k in np.flatnonzero(row)] for row in data.targets]
    assert sorted(found) == [[], ["Mass"], ["Pleural_Thickening"]]


def test_lungs_are_blotted_out_in_folders_too_and_a_missing_class_is_named(tmp_path):
    model = model_of("covid3-simplecnn")
    for i, name in enumerate(("covid-19", "pneumonia")):
        picture(tmp_path / name / f"{i}.png", 80 * (i + 1), i)
    with pytest.raises(TrainingError, match="contains no radiograph of COVID-19; it must"):
        covid.read(tmp_path, model)
    picture(tmp_path / "normal" / "2.png", 240, 2)
    whole, bare = (covid.read(tmp_path, model, masked=masked) for masked in (False, True))
    assert sorted(whole.targets.tolist()) == [0, 1, 2]
    middle = (slice(15, 25), slice(15, 25))
    assert np.ptp(whole.load(0, None)[0][middle]) > 0
    assert np.ptp(bare.load(0, None)[0][middle]) == 0


def test_a_network_learns_from_folders_and_is_asked_about_others(tmp_path, monkeypatch):
    name = "pneumonia-resnet18"
    monkeypatch.setitem(networks.ARCHITECTURES, "tiny", TINY)
    recipe = RECIPES[name]
    model = dataclasses.replace(model_of(name), architecture="tiny")
    schedule = dataclasses.replace(
        recipe.schedule, epochs=1, batch_size=8, low_resolution_share=0.0
    )
    monkeypatch.setitem(RECIPES, name, dataclasses.replace(recipe, model=model, schedule=schedule))
    for i in range(60):
        label, level = (("Normal", 60), ("Pneumonia", 170))[i % 2]
        picture(tmp_path / ("mine" if i < 40 else "theirs") / label / f"{i}.png", level, i)
    train_model(name, data=tmp_path / "mine", out=tmp_path / "weights" / name)
    settings = Settings(weights_dir=tmp_path / "weights", cache_dir=tmp_path, offline=True)
    result = evaluate_model(name, settings=settings, data=tmp_path / "theirs")
    assert (result["data"], result["n"], result["groups"]) == ("folders", 20, 20)
    own = evaluate_model(name, settings=settings, data=tmp_path / "mine")
    assert 0 < own["n"] < 40  # those that it neither learnt from nor was tuned on


def test_without_a_list_of_patients_every_own_file_counts_and_the_others_are_noted(
    tmp_path, monkeypatch
):
    name = "pneumonia-resnet18"
    monkeypatch.setitem(networks.ARCHITECTURES, "tiny", TINY)
    model = dataclasses.replace(model_of(name), architecture="tiny")
    schedule = dataclasses.replace(
        RECIPES[name].schedule, epochs=1, batch_size=8, low_resolution_share=0.0
    )
    recipe = dataclasses.replace(RECIPES[name], model=model, schedule=schedule)
    monkeypatch.setitem(RECIPES, name, recipe)
    for i in range(40):
        label, level = (("Normal", 60), ("Pneumonia", 170))[i % 2]
        picture(tmp_path / "data" / label / f"{i}.png", level, i)
    train_model(name, data=tmp_path / "data", out=tmp_path / "weights" / name)
    settings = Settings(weights_dir=tmp_path / "weights", cache_dir=tmp_path, offline=True)
    known = evaluate_model(name, settings=settings, data=tmp_path / "data")
    assert 0 < known["n"] < 40
    left = f"Left out: {40 - known['n']} of 40 samples, of {40 - known['n']} patients or sources"
    assert any(f"{left}: the network was trained on them." in note for note in known["notes"])

    (tmp_path / "weights" / name / "persons.json").unlink()
    unknown = evaluate_model(name, settings=settings, data=tmp_path / "data")
    assert unknown["n"] == 40
    assert not any("Left out" in note for note in unknown["notes"])

    for i in range(30):
        picture(tmp_path / "named" / "Normal" / f"{i:08}_000.png", 60, i)
    picture(tmp_path / "named" / "Pneumonia" / "mine.png", 170)
    named = evaluate_model(name, settings=settings, data=tmp_path / "named")
    assert 1 < named["n"] < 31
    assert any(
        f"Left out: {31 - named['n']} of 31" in note and "without a list" in note
        for note in named["notes"]
    )


def test_what_cannot_be_read_is_left_out_and_named(tmp_path):
    for i, name in enumerate(("Normal", "Pneumonia")):
        picture(tmp_path / name / f"{i}.png", 90 * i, i)
    (tmp_path / "Normal" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "Normal" / "names.txt").write_text("no image")
    data = kermany.read(tmp_path, model_of("pneumonia-resnet18"))
    assert len(data.groups) == 2
    counts, unreadable = data.notes
    assert "2 radiographs of 2 patients" in counts
    assert counts.endswith("Left out, no image by their names: 1 (names.txt).")
    assert unreadable.startswith("Left out, unreadable: 1 (broken.png cannot be decoded as PNG")
    (tmp_path / "Normal" / "0.png").unlink()
    (tmp_path / "Pneumonia" / "1.png").unlink()
    with pytest.raises(TrainingError, match=r"None of 1 radiographs can be read: broken\.png"):
        kermany.read(tmp_path, model_of("pneumonia-resnet18"))
