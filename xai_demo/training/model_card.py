"""Writes config.json and MODEL_CARD.md of a model directory.

`train` writes both. `evaluate`, `evaluate-explainers` and `cross-validate` fill in what they
measured, each in a section of its own.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import yaml

from xai_demo.errors import TrainingError
from xai_demo.files import write_atomically
from xai_demo.records import DISCLAIMER, Metric, Model
from xai_demo.settings import Settings
from xai_demo.training import fold_metrics, model_card_text
from xai_demo.training.explainer_report import card_section
from xai_demo.training.recipes import RECIPES

CONFIG, CARD = "config.json", "MODEL_CARD.md"
# The result of `evaluate-explainers`, beside the card.
EXPLAINERS_FILE = "explainers.json"
EVALUATION_TITLE = "## Evaluation"
FOLDS_TITLE = "## Cross-validation"
EXPLAINERS_TITLE = "## How far to trust the explanations"
FAILURES_TITLE = "## Known failures"

# The Hub's names for tasks (all others are of sounds) and for licences.
_PIPELINES = {"chest_xray": "image-classification"}
_HUB_LICENCES = {"CC-BY-4.0": "cc-by-4.0", "GPL-3.0": "gpl-3.0", "CC-BY-3.0": "cc-by-3.0"}
# What config.json takes from the recipe and no measurement changes.
_TEXTS = ("title", "licence", "data", "citation", "caveat", "patients", "meant_for")


def write(directory: Path, model: Model, result: dict[str, Any] | None = None) -> None:
    """Write both files, with the figures of an evaluation if there is one."""
    _write_json(directory / CONFIG, model.to_config())
    _write_card(directory, model, model_card_text.evaluation(model, result))


def write_card(model: str, *, settings: Settings, result: dict[str, Any]) -> Path:
    """Write an evaluation's figures into a bundled model's config.json and MODEL_CARD.md.

    Raises TrainingError if they were measured on patients that the model was trained on.
    """
    if result.get("site") in result.get("no_test", ()):
        raise TrainingError(
            f"The figures are of {result['site']}, and {model} was trained on all of its patients; "
            "a card needs figures of other patients."
        )
    return write_figures(settings.weights_dir / model, result)


def write_figures(directory: Path, result: dict[str, Any]) -> Path:
    """Write an evaluation's figures into both files of a model directory; returns the card."""
    config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    # config.json holds numbers only; the card says which figures are not defined.
    metrics = {
        name: Metric(**row) for name, row in result["metrics"].items() if None not in row.values()
    }
    model = dataclasses.replace(
        Model.from_config(config),
        metrics=metrics,
        measured_on=model_card_text.measured_on(result["n"], result["groups"]),
    )
    write(directory, model, result)
    return directory / CARD


def write_explainers(directory: Path, result: dict[str, Any]) -> Path:
    """Write the result of `evaluate-explainers` beside a card and into it; returns the card."""
    path = _existing_card(directory)
    _write_json(directory / EXPLAINERS_FILE, result)
    before, after = _around_section(
        path.read_text(encoding="utf-8"), EXPLAINERS_TITLE, FAILURES_TITLE
    )
    section = "\n".join(_explainers_section(result))
    write_atomically(path, f"{before.rstrip()}\n\n{section}\n{after}")
    return path


def write_folds(directory: Path, result: dict[str, Any]) -> Path:
    """Write the result of `cross-validate` beside a card and into it; returns the card."""
    path = _existing_card(directory)
    _write_json(directory / fold_metrics.FILE, result)
    card = path.read_text(encoding="utf-8")
    # Sections stand in the order of `_write_card`.
    following = EXPLAINERS_TITLE if EXPLAINERS_TITLE in card else FAILURES_TITLE
    before, after = _around_section(card, FOLDS_TITLE, following)
    section = "\n".join(_folds_section(result))
    write_atomically(path, f"{before.rstrip()}\n\n{section}\n{after}")
    return path


def refresh_card(directory: Path) -> Path:
    """Write a card anew in today's words, without measuring anything; returns its path.

    Texts come from the recipe, figures from config.json, cross_validation.json and explainers.json.
    The section with the evaluation's tables stays as it is: no other file holds them.
    """
    path = _existing_card(directory)
    config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
    recipe_texts = dataclasses.asdict(RECIPES[config["name"]].model)
    # An empty text is not added to a config.json that never had it.
    texts = {name: recipe_texts[name] for name in _TEXTS if name in config or recipe_texts[name]}
    _write_json(directory / CONFIG, config | texts)
    model = Model.from_config(config | texts)
    _, _, rest = path.read_text(encoding="utf-8").partition(f"{EVALUATION_TITLE}\n\n")
    evaluation, found, _ = rest.partition("\n\n## ")
    if not found:
        raise TrainingError(f"{path} has no section {EVALUATION_TITLE!r} to keep.")
    _write_card(directory, model, evaluation.split("\n"))
    return path


def _existing_card(directory: Path) -> Path:
    path = directory / CARD
    if not path.is_file():
        raise TrainingError(
            f"{directory} holds no {CARD} to write into. Use --write-card with a model that ships "
            "with the demo, or --out DIR without --write-card."
        )
    return path


def _around_section(card: str, title: str, following: str) -> tuple[str, str]:
    """What stands before and after a section, or before and from the following one without it."""
    before, found, rest = card.partition(f"{title}\n")
    if found:
        # The next heading of the same level ends the section.
        _, mark, after = rest.partition("\n## ")
        return before, mark.lstrip("\n") + after
    before, mark, after = card.partition(following)
    return before, mark + after


def _folds_section(result: dict[str, Any] | None) -> list[str]:
    return [FOLDS_TITLE, "", *fold_metrics.card_section(result), ""] if result else []


def _explainers_section(result: dict[str, Any] | None) -> list[str]:
    return [EXPLAINERS_TITLE, "", *card_section(result), ""] if result else []


def _read_folds(directory: Path, model: Model) -> dict[str, Any] | None:
    """The stored cross-validation; None if its features were those of other weights."""
    path = directory / fold_metrics.FILE
    if not path.is_file():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    # Where a network was trained for each fold, the figures are of the recipe and name no weights.
    return result if result.get("sha256", model.sha256) == model.sha256 else None


def _read_explainers(directory: Path, model: Model) -> dict[str, Any] | None:
    """The stored evaluation of explainers; None if it was of other weights."""
    path = directory / EXPLAINERS_FILE
    if not path.is_file():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result if result.get("sha256") == model.sha256 else None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _write_card(directory: Path, model: Model, evaluation: list[str]) -> None:
    recipe = RECIPES[model.name]
    lines = [
        _front_matter(model),
        f"# {model.title}",
        "",
        f"**{DISCLAIMER}**",
        "",
        f"`{model.name}`: {model.architecture}, labels {', '.join(model.labels)}; weights "
        f"with sha256 `{model.sha256}`.",
        "",
        *(["## Intended use", "", model.meant_for, ""] if model.meant_for else []),
        "## Data and split",
        "",
        model.data,
        "",
        f"Licence of data and weights: {model.licence}. Please cite: {model.citation}.",
        "",
        *(f"- {note}" for note in model.notes),
        # An empty line ends the list, if there is one.
        *[""] * bool(model.notes),
        "## Training",
        "",
        model_card_text.training(recipe, model),
        "",
        EVALUATION_TITLE,
        "",
        *evaluation,
        "",
        *_folds_section(_read_folds(directory, model)),
        *_explainers_section(_read_explainers(directory, model)),
        FAILURES_TITLE,
        "",
        recipe.failures,
        "",
    ]
    write_atomically(directory / CARD, "\n".join(lines))


def _front_matter(model: Model) -> str:
    licence = _hub_licence(model.licence)
    meta: dict[str, Any] = {"license": licence}
    # The Hub asks for a name and a link with any licence that it does not know.
    if licence == "other":
        meta |= {"license_name": "several-see-card", "license_link": "README.md"}
    meta |= {
        "library_name": "timm" if model.architecture.startswith("resnet") else "pytorch",
        "pipeline_tag": _PIPELINES.get(model.task, "audio-classification"),
        "tags": ["explainable-ai", "grad-cam", model.task.replace("_", "-")],
    }
    return f"---\n{yaml.safe_dump(meta, sort_keys=False)}---\n"


def _hub_licence(licence: str) -> str:
    """The Hub's name for the licence of the data, which binds the weights too."""
    data_licence = licence.partition(" (data)")[0]
    # Several licences are "other" to the Hub; the card's text names each of them.
    return _HUB_LICENCES.get(data_licence, "other")
