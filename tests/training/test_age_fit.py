"""The guess of the age, refitted on small data, and the default answer measured on them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.hostile_files import radiograph
from xai_demo.cli import main
from xai_demo.errors import TrainingError
from xai_demo.imaging import age
from xai_demo.settings import Settings
from xai_demo.training import age_fit, auto_eval

CHILDREN, ADULTS = 10, 10


def settings(folder: Path) -> Settings:
    return Settings(weights_dir=folder, cache_dir=folder, offline=True)


def write_film(path: Path, seed: int, *, adult: bool) -> None:
    """A small radiograph with noise; an adult's is dark below, which any fit can tell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 40, radiograph().shape, np.uint8)
    pixels = radiograph() // 2 + noise
    if adult:
        pixels = (pixels * np.linspace(1.2, 0.2, len(pixels))[:, None]).astype(np.uint8)
    Image.fromarray(pixels).resize((96, 96)).save(path, "JPEG")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cxr")
    for n in range(CHILDREN):
        place = root / "kermany/train" / ("NORMAL" if n % 2 else "PNEUMONIA")
        name = f"IM-{n:04}-0001.jpeg" if n % 2 else f"person{n}_virus_{n}.jpeg"
        write_film(place / name, n, adult=False)
    rows = []
    for n in range(ADULTS):
        write_film(root / f"radiography/Normal/{n}.jpg", 100 + n, adult=True)
        rows.append([f"Normal/{n}.jpg", "Normal", f"block-{n}", f"near-{n}"])
    write_film(root / "covid/COVID-19/one.jpg", 300, adult=True)
    with (root / "radiography/films.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "label", "block", "near_duplicates"], *rows])
    nih = [["Image Index", "Finding Labels", "Follow-up #", "Patient ID"]]
    ages = [["Image Index", "Patient Age"]]
    for n, years in enumerate((4, 15, 40, 60)):
        write_film(root / f"nih/images/0000000{n}_000.jpg", 200 + n, adult=years > 12)
        nih.append([f"0000000{n}_000.png", "No Finding", "0", str(n)])
        ages.append([f"0000000{n}_000.png", str(years)])
    for path, table in ((root / "nih/Data_Entry_2017.csv", nih), (root / "ages.csv", ages)):
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(table)
    return root


def test_test_patients_of_the_networks_are_in_no_fit(data) -> None:
    films = age_fit.list_films(data, data / "ages.csv")
    by_kind = {kind: [f for f in films if f.kind == kind] for kind in {f.kind for f in films}}
    assert len(by_kind[age_fit.CHILDREN]) == CHILDREN
    assert len(by_kind[age_fit.NORMAL_ADULTS]) == ADULTS
    assert {len(by_kind[k]) for k in (age_fit.NIH_CHILDREN, age_fit.NIH_TEENS)} == {1}
    assert len(by_kind[age_fit.NIH_ADULTS]) == 2
    assert [f.path.name for f in by_kind[age_fit.CXNET]] == ["one.jpg"]
    assert not any(film.is_fitted and film.is_test for film in films)
    assert not any(film.is_fitted for film in by_kind[age_fit.NIH_TEENS])
    assert any(film.is_fitted for film in by_kind[age_fit.CHILDREN])


def test_a_refit_tells_apart_what_differs_and_measures_on_the_rest(data) -> None:
    result = age_fit.refit_age(data, settings=settings(data), ages=data / "ages.csv")
    assert len(result["weights"]) == len(age.WEIGHTS)
    read = {name: row for name, row in result["refitted"].items() if "read as" in name}
    right = sum(row["right"] for name, row in read.items() if "NIH" not in name)
    assert right / sum(row["n"] for name, row in read.items() if "NIH" not in name) > 0.9
    films = age_fit.list_films(data, data / "ages.csv")
    assert sum(row["n"] for row in read.values()) == sum(not film.is_fitted for film in films)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_fit_needs_children_and_adults_and_a_table_with_ages(data) -> None:
    with pytest.raises(TrainingError, match="some of children and some of adults"):
        age_fit.refit_age(data / "kermany", settings=settings(data))
    with pytest.raises(TrainingError, match="Patient Age"):
        age_fit.list_films(data, data / "radiography/films.csv")
    with pytest.raises(TrainingError, match="Patient Age"):
        age_fit.list_films(data, data / "nowhere.csv")


def test_the_literals_are_those_of_as_many_statistics() -> None:
    assert np.isfinite([age.INTERCEPT, *age.WEIGHTS]).all()
    assert any(age.WEIGHTS)


def test_the_default_answer_is_measured_on_unseen_films(data, monkeypatch, capsys) -> None:
    # All films of test patients, so that few are enough.
    monkeypatch.setattr(auto_eval, "_is_test", lambda film, seen: film.kind != age_fit.CXNET)
    monkeypatch.setattr(auto_eval.metrics, "DRAWS", 20)
    guess = {"value": "adult", "source": "picture", "probability": 0.99}
    monkeypatch.setattr(age, "_guess", lambda radiograph: guess)
    assert main(["evaluate", "auto", "--data", str(data), "--most", "50", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["networks"]["child"] == "pneumonia-resnet18"
    normal = result["adults"][age_fit.NORMAL_ADULTS]
    assert normal["n"] == ADULTS
    assert normal["metrics"]["read_as_adult"]["value"] == 1
    # Whoever is read as an adult is answered by the adults' network.
    assert result["children"]["metrics"]["read_as_child"]["value"] == 0
    assert 0 <= result["children"]["metrics"]["auroc"]["value"] <= 1
    text = auto_eval.table(result)
    assert "| called_abnormal |" in text
    assert "<= 0.10" in text


def test_without_an_unseen_film_there_is_nothing_to_measure(tmp_path) -> None:
    with pytest.raises(TrainingError, match="no unseen film"):
        auto_eval.evaluate_auto(tmp_path, settings=Settings.from_env({}))
