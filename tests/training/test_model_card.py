"""Model cards and config.json: what readers learn about a model."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import yaml

from xai_demo.errors import TrainingError
from xai_demo.records import DISCLAIMER, Metric, Model
from xai_demo.training import model_card
from xai_demo.training.recipes import RECIPES

RADIOGRAPHS = RECIPES["pneumonia-resnet18"].model
WEIGHTS = Path(__file__).resolve().parents[2] / "weights"
BUNDLED = sorted(WEIGHTS.iterdir())


def figure(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.05}


RESULT = {
    "n": 33,
    "groups": 21,
    "metrics": {
        "accuracy": figure(0.9),
        "auroc": {"value": None, "low": None, "high": None},
    },
    "per_class": {
        label: {name: figure(0.8) for name in ("precision", "recall", "f1", "auroc")}
        for label in RADIOGRAPHS.labels
    },
    "confusion": {"labels": list(RADIOGRAPHS.labels), "counts": [[11, 2], [1, 19]]},
    "notes": ["3 radiographs were left out."],
}


def card_of(directory) -> str:
    return (directory / "MODEL_CARD.md").read_text(encoding="utf-8")


def front_matter(card: str) -> dict:
    opening, matter, _ = card.split("---\n", 2)
    assert opening == ""
    return yaml.safe_load(matter)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_makes_a_card_that_the_hub_can_read(tmp_path, name):
    model = RECIPES[name].model
    model_card.write(tmp_path, model)
    card = card_of(tmp_path)
    meta = front_matter(card)
    licences = {"everyday-cnn6": "cc-by-3.0"} | dict.fromkeys(
        ("pneumonia-resnet18", "pneumonia3-resnet18", "covid3-simplecnn", "covid3-resnet50"),
        "cc-by-4.0",
    )
    assert meta["license"] == licences.get(name, "other")  # data of several, each named below
    assert f"Licence of data and weights: {model.licence}" in card
    assert meta["pipeline_tag"] in {"image-classification", "audio-classification"}
    assert (meta["pipeline_tag"] == "image-classification") == (model.task == "chest_xray")
    assert "explainable-ai" in meta["tags"]
    assert f"# {model.title}\n" in card
    assert DISCLAIMER in card
    assert RECIPES[name].failures in card
    assert model.citation in card
    assert f"`python -m xai_demo train {name} --data DIR" in card
    assert f"{RECIPES[name].schedule.epochs} epochs" in card
    assert "Not measured yet" in card
    assert sorted(p.name for p in tmp_path.iterdir()) == ["MODEL_CARD.md", "config.json"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_config_is_read_back_as_the_same_model(tmp_path, name):
    model = RECIPES[name].model
    model_card.write(tmp_path, model)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert Model.from_config(config) == model


def test_figures_have_their_intervals_in_brackets(tmp_path):
    model_card.write(tmp_path, RADIOGRAPHS)
    assert model_card.write_figures(tmp_path, RESULT) == tmp_path / "MODEL_CARD.md"
    lines = card_of(tmp_path).splitlines()
    assert "| accuracy | 0.900 (0.800-0.950) |" in lines
    assert "| auroc | not defined |" in lines
    assert "| Normal | " + " | ".join(["0.800 (0.700-0.850)"] * 4) + " |" in lines
    assert "| true \\ predicted | Normal | Pneumonia |" in lines
    assert "| Normal | 11 | 2 |" in lines
    assert "| Pneumonia | 1 | 19 |" in lines
    assert "3 radiographs were left out." in lines
    assert "33 samples from 21 patients or sources, none used for" in card_of(tmp_path)
    assert "Not measured yet" not in card_of(tmp_path)


def test_every_table_of_a_card_is_rectangular(tmp_path):
    model_card.write(tmp_path, RADIOGRAPHS)
    model_card.write_figures(tmp_path, RESULT)
    tables = card_of(tmp_path).split("\n\n")
    widths = [
        {line.count("|") for line in block.splitlines()} for block in tables if block[0] == "|"
    ]
    assert widths == [{3}, {6}, {4}]


def test_figures_go_into_the_config_except_those_not_defined(tmp_path):
    model_card.write(tmp_path, RADIOGRAPHS)
    model_card.write_figures(tmp_path, RESULT)
    model = Model.from_config(json.loads((tmp_path / "config.json").read_text(encoding="utf-8")))
    assert set(model.metrics) == {"accuracy"}
    assert model.metrics["accuracy"] == Metric(**figure(0.9))
    assert "33 samples from 21 patients" in model.measured_on


def test_figures_can_be_written_again(tmp_path):
    model_card.write(tmp_path, RADIOGRAPHS)
    model_card.write_figures(tmp_path, RESULT)
    first = card_of(tmp_path)
    model_card.write_figures(tmp_path, RESULT)
    assert card_of(tmp_path) == first


def test_a_card_says_what_was_chosen_on_the_validation_split(tmp_path):
    chosen = dataclasses.replace(
        RADIOGRAPHS,
        temperature=1.5,
        operating_points={"Pneumonia": 0.625, "Normal": 0.375},
        uncertain_margin=0.125,
        sha256="abc",
    )
    model_card.write(tmp_path, chosen)
    card = card_of(tmp_path)
    assert "temperature 1.5; operating points Pneumonia 0.625, Normal 0.375" in card
    assert "; uncertain if the two best labels are closer than 0.125." in card
    assert "sha256 `abc`" in card
    model_card.write(tmp_path, dataclasses.replace(RADIOGRAPHS, uncertain_below=0.4))
    assert "Chosen on the validation split: temperature 1; uncertain below 0.400." in card_of(
        tmp_path
    )


def explainers_result(sha256: str | None, value: float = 0.25) -> dict:
    return {
        "model": RADIOGRAPHS.name,
        "sha256": sha256,
        "n": 7,
        "explainers": {"Grad-CAM": {"randomisation": figure(value), "cost_ms": 3.0}},
        "notes": [],
    }


def test_the_evaluation_of_explainers_has_a_section_in_the_card(tmp_path):
    model_card.write(tmp_path, RADIOGRAPHS)
    plain = card_of(tmp_path)
    assert (
        model_card.write_explainers(tmp_path, explainers_result(None)) == tmp_path / "MODEL_CARD.md"
    )
    card = card_of(tmp_path)
    start = card.index(model_card.EXPLAINERS_TITLE)
    assert card.index("## Evaluation") < start < card.index("## Known failures")
    assert "| Grad-CAM | 0.25 (0.15-0.30) | 3 |" in card
    assert RECIPES[RADIOGRAPHS.name].failures in card
    assert card[:start].rstrip() == plain[: plain.index("## Known failures")].rstrip()
    kept = json.loads((tmp_path / model_card.EXPLAINERS_FILE).read_text(encoding="utf-8"))
    assert kept == explainers_result(None)


def test_a_second_measurement_replaces_the_section(tmp_path):
    model_card.write(tmp_path, RADIOGRAPHS)
    model_card.write_explainers(tmp_path, explainers_result(None))
    first = card_of(tmp_path)
    model_card.write_explainers(tmp_path, explainers_result(None, value=0.75))
    again = card_of(tmp_path)
    assert again.count(model_card.EXPLAINERS_TITLE) == 1
    assert again.count("## Known failures") == 1
    assert "0.75 (0.65-0.80)" in again
    model_card.write_explainers(tmp_path, explainers_result(None))
    assert card_of(tmp_path) == first


def test_a_card_written_anew_keeps_the_section_while_the_weights_are_the_same(tmp_path):
    model = dataclasses.replace(RADIOGRAPHS, sha256="abc")
    model_card.write(tmp_path, model)
    model_card.write_explainers(tmp_path, explainers_result("abc"))
    model_card.write(tmp_path, model)
    assert card_of(tmp_path).count(model_card.EXPLAINERS_TITLE) == 1
    model_card.write(tmp_path, dataclasses.replace(RADIOGRAPHS, sha256="of other weights"))
    assert model_card.EXPLAINERS_TITLE not in card_of(tmp_path)


def test_explainers_cannot_be_written_without_a_card(tmp_path):
    with pytest.raises(
        TrainingError, match=r"holds no MODEL_CARD\.md to write into\. Use --write-card with"
    ):
        model_card.write_explainers(tmp_path, explainers_result(None))


@pytest.mark.parametrize("file", ["config.json", "MODEL_CARD.md"])
def test_no_bundled_model_claims_an_icbhi_score_for_sprsound(file):
    for directory in BUNDLED:
        assert "icbhi_score" not in (directory / file).read_text(encoding="utf-8")


def test_a_refreshed_card_has_todays_texts_and_the_same_figures(tmp_path):
    model = dataclasses.replace(RADIOGRAPHS, sha256="abc", temperature=1.5)
    model_card.write(tmp_path, dataclasses.replace(model, title="An old title"))
    model_card.write_figures(tmp_path, RESULT)
    model_card.write_explainers(tmp_path, explainers_result("abc"))
    old = card_of(tmp_path)
    assert model_card.refresh_card(tmp_path) == tmp_path / "MODEL_CARD.md"
    assert card_of(tmp_path) == old.replace("An old title", RADIOGRAPHS.title)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert config["title"] == RADIOGRAPHS.title
    assert config["temperature"] == 1.5
    assert config["metrics"] == {"accuracy": figure(0.9)}


def test_a_card_without_an_evaluation_cannot_be_refreshed(tmp_path):
    model_card.write(tmp_path, RADIOGRAPHS)
    (tmp_path / "MODEL_CARD.md").write_text("# Empty", encoding="utf-8")
    with pytest.raises(TrainingError, match="has no section '## Evaluation' to keep"):
        model_card.refresh_card(tmp_path)


@pytest.mark.parametrize("name", [directory.name for directory in BUNDLED])
def test_bundled_cards_are_in_todays_words(tmp_path, name):
    shutil.copytree(WEIGHTS / name, tmp_path / name, ignore=shutil.ignore_patterns("*.safetensors"))
    model_card.refresh_card(tmp_path / name)
    for file in ("config.json", "MODEL_CARD.md"):
        assert (tmp_path / name / file).read_bytes() == (WEIGHTS / name / file).read_bytes()
