"""The gate's rates: intervals known by hand, and every kind of picture counted where it belongs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.support.hostile_files import holiday_photo
from xai_demo.cli import main
from xai_demo.errors import TrainingError
from xai_demo.imaging import gate
from xai_demo.settings import Settings
from xai_demo.synthesis.thorax import thorax_phantom
from xai_demo.training import gate_eval
from xai_demo.training.gate_eval import ImageFolders, evaluate_gate, wilson_interval


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(gate_eval, "IMAGES_PER_KIND", 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Four films of which one lies on its side, one photograph, one sound, and what is neither."""
    root = tmp_path_factory.mktemp("gate")
    for place in ("films/one", "films/other", "others/holidays", "sounds"):
        (root / place).mkdir(parents=True)
    for seed in range(4):
        film = Image.fromarray(thorax_phantom(seed=seed).pixels)
        place = root / "films" / ("one" if seed < 3 else "other")
        (film.rotate(90) if seed == 2 else film).save(place / f"{seed}.png")
    (root / "films" / "one" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.fromarray(holiday_photo()).save(root / "others" / "holidays" / "sea.png")
    tone = 0.5 * np.sin(2 * np.pi * 700 * np.arange(32000) / 16000)
    soundfile.write(root / "sounds" / "tone.wav", tone, 16000)
    (root / "sounds" / "noise.wav").write_bytes(b"RIFF")
    return root


def measured(folder: Path, **options) -> dict:
    settings = Settings(weights_dir=folder, cache_dir=folder, offline=True)
    return evaluate_gate(ImageFolders(radiographs=folder / "films", **options), settings=settings)


def test_the_interval_is_the_published_one():
    # Newcombe 1998, table I: 81 of 263, and 0 of 20, by Wilson's method
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=2e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=2e-4)
    assert wilson_interval(20, 20)[1] == 1.0


def test_films_others_and_turned_films_are_counted_by_folder(folder):
    result = measured(folder, others=folder / "others", sounds=folder / "sounds", turned=2)
    assert result["films"]["one"]["n"] == 3
    assert result["films"]["one"]["right"] == 2  # the third lies on its side
    assert result["films"]["other"]["right"] == 1
    assert result["together"]["films"]["rate"]["value"] == 0.75
    assert result["together"]["films"]["wanted"] == 0.99
    # two of the one folder and one of the other, each in seven ways
    ways = {name: row["n"] for name, row in result["turned"].items()}
    assert ways == {"turned": 9, "inverted": 3, "turned and inverted": 9}
    kinds = {name: row["n"] for name, row in result["others"].items()}
    assert kinds == {"holidays": 1, "holidays, in grey": 1, "spectrograms": 1} | dict.fromkeys(
        gate_eval.DRAWINGS, 3
    )
    assert sum(row["n"] for row in result["others"].values()) == result["together"]["others"]["n"]
    assert "2 files could not be read and are left out: broken.png, noise.wav." in result["notes"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_no_more_films_are_asked_about_than_wanted(folder):
    result = measured(folder, most=1, turned=0)
    assert {name: row["n"] for name, row in result["films"].items()} == {"one": 1, "other": 1}
    assert result["turned"] == {}
    assert result["others"]["spectrograms"]["n"] == 3  # made here, as no sounds were brought


@pytest.mark.parametrize("kind", gate_eval.DRAWINGS)
def test_what_is_drawn_is_a_picture_in_grey_that_no_seed_repeats(kind):
    made = [gate_eval.DRAWINGS[kind](np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert made[0].dtype == np.float32
    assert made[0].min() >= 0
    assert made[0].max() <= 1
    assert np.ptp(made[0]) > 0.3
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


@pytest.mark.parametrize("kind", gate_eval.DRAWINGS)
def test_the_gate_stops_nineteen_of_twenty_of_what_is_drawn(kind):
    stopped = [
        gate.classify_image(gate_eval.DRAWINGS[kind](np.random.default_rng(seed))).kind != "frontal"
        for seed in range(20)
    ]
    assert sum(stopped) >= 19


def test_the_command_prints_the_rates_and_refuses_what_is_no_folder(folder, capsys):
    asked = ["evaluate-gate", "--data", str(folder / "films"), "--turned", "0"]
    assert main(asked) == 0
    out = capsys.readouterr().out
    assert "| **all films, target 99%** | 4 | 3 (75.00%) | 30.06%-95.44% |" in out
    assert "The gate was fitted on radiographs of NIH ChestX-ray14" in out
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["films"]["one"]["n"] == 3
    assert main([*asked, "--others", str(folder / "nowhere")]) == 2
    assert "nowhere is not a folder; a folder of other images" in capsys.readouterr().err
    assert main([*asked, "--sounds", str(folder / "nowhere")]) == 2
    assert "nowhere is not a folder; a folder of sounds" in capsys.readouterr().err
    with pytest.raises(TrainingError, match="sounds contains no readable radiograph"):
        evaluate_gate(
            ImageFolders(radiographs=folder / "sounds"),
            settings=Settings(weights_dir=folder, cache_dir=folder, offline=True),
        )
