"""config.json and MODEL_CARD.md: written by `train`, figures filled in by `evaluate`."""

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

TRUST_FILE = "explainers.json"  # what `evaluate-explainers` measured, beside the card
TRUST_TITLE = "## How far the explanations can be believed"
FOLDS_TITLE = "## By folds"

_PIPELINES = {"chest_xray": "image-classification"}
_HUB_LICENCES = {"CC-BY-4.0": "cc-by-4.0", "GPL-3.0": "gpl-3.0", "CC-BY-3.0": "cc-by-3.0"}


def write(directory: Path, model: Model, result: dict[str, Any] | None = None) -> None:
    """Write both files, each whole or not at all."""
    write_atomically(directory / "config.json", json.dumps(model.to_config(), indent=2) + "\n")
    sections = _folds_section(_folded(directory, model)) + _trust_section(
        _trusted(directory, model)
    )
    write_atomically(directory / "MODEL_CARD.md", _card(model, result, sections))


def write_card(model: str, *, settings: Settings, result: dict[str, Any]) -> Path:
    """Write measured figures into a bundled model's config.json and MODEL_CARD.md.

    Raises TrainingError where they are of persons that the model learnt from.
    """
    if result.get("site") in result.get("no_test", ()):
        raise TrainingError(
            f"The figures are of {result['site']} and {model} learnt from all of its patients, "
            "wanted for a card: patients that it has not met."
        )
    return write_figures(settings.weights_dir / model, result)


def write_figures(directory: Path, result: dict[str, Any]) -> Path:
    """Put an evaluation's figures into both files; returns the card's path."""
    config = json.loads((directory / "config.json").read_text())
    metrics = {
        name: Metric(**row) for name, row in result["metrics"].items() if None not in row.values()
    }
    model = dataclasses.replace(
        Model.from_config(config),
        metrics=metrics,
        measured_on=f"{result['n']} samples of {result['groups']} persons or sources, "
        f"none of them trained or tuned on",
    )
    write(directory, model, result)
    return directory / "MODEL_CARD.md"


def write_trust(directory: Path, result: dict[str, Any]) -> Path:
    """Put the figures of `evaluate-explainers` beside a card and into it; returns its path."""
    path = directory / "MODEL_CARD.md"
    if not path.is_file():
        raise TrainingError(
            f"{directory} holds no MODEL_CARD.md to write into, wanted: the directory of a model "
            "that ships with the demo, or --out DIR without --write-card."
        )
    write_atomically(directory / TRUST_FILE, json.dumps(result, indent=2, allow_nan=False) + "\n")
    before, after = _around(path.read_text(encoding="utf-8"), TRUST_TITLE, "## Known failures")
    section = "\n".join(_trust_section(result))
    write_atomically(path, f"{before.rstrip()}\n\n{section}\n{after}")
    return path


def write_folds(directory: Path, result: dict[str, Any]) -> Path:
    """Put the figures of `cross-validate` beside a card and into it; returns its path."""
    path = directory / "MODEL_CARD.md"
    if not path.is_file():
        raise TrainingError(
            f"{directory} holds no MODEL_CARD.md to write into, wanted: the directory of a model "
            "that ships with the demo, or --out DIR without --write-card."
        )
    fold_metrics.write(directory / fold_metrics.FILE, result)
    card = path.read_text(encoding="utf-8")
    following = TRUST_TITLE if TRUST_TITLE in card else "## Known failures"
    before, after = _around(card, FOLDS_TITLE, following)
    section = "\n".join(_folds_section(result))
    write_atomically(path, f"{before.rstrip()}\n\n{section}\n{after}")
    return path


def _around(card: str, title: str, following: str) -> tuple[str, str]:
    """What stands before and after a section, where it is or would be."""
    before, found, rest = card.partition(f"{title}\n")
    if found:
        _, mark, after = rest.partition("\n## ")
        return before, mark.lstrip("\n") + after
    before, mark, after = card.partition(following)
    return before, mark + after


def _folds_section(result: dict[str, Any] | None) -> list[str]:
    return [FOLDS_TITLE, "", *fold_metrics.card_section(result), ""] if result else []


def _folded(directory: Path, model: Model) -> dict[str, Any] | None:
    """What was measured by folds; None where it was of the features of other weights."""
    path = directory / fold_metrics.FILE
    if not path.is_file():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    # Networks that are trained anew for each fold are of the recipe, and name no weights.
    return result if result.get("sha256", model.sha256) == model.sha256 else None


def _trust_section(result: dict[str, Any] | None) -> list[str]:
    return [TRUST_TITLE, "", *card_section(result), ""] if result else []


def _trusted(directory: Path, model: Model) -> dict[str, Any] | None:
    """What was measured of these weights' explanations; None where it was of others."""
    path = directory / TRUST_FILE
    if not path.is_file():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result if result.get("sha256") == model.sha256 else None


def _card(model: Model, result: dict[str, Any] | None, sections: list[str]) -> str:
    recipe = RECIPES[model.name]
    return "\n".join(
        [
            _front_matter(model),
            f"# {model.title}",
            "",
            f"**{DISCLAIMER}**",
            "",
            f"`{model.name}`: {model.architecture}, labels {', '.join(model.labels)}; weights "
            f"with sha256 `{model.sha256}`.",
            "",
            "## Data and split",
            "",
            model.data,
            "",
            f"Licence of data and weights: {model.licence}. Please cite: {model.citation}.",
            "",
            *(f"- {note}" for note in model.notes),
            *[""] * bool(model.notes),
            "## Training",
            "",
            model_card_text.training(recipe, model),
            "",
            "## Figures",
            "",
            *model_card_text.figures(model, result),
            "",
            *sections,
            "## Known failures",
            "",
            recipe.failures,
            "",
        ]
    )


def _front_matter(model: Model) -> str:
    licence = _hub_licence(model.licence)
    meta: dict[str, Any] = {"license": licence}
    if licence == "other":  # the Hub wants it named then, and told of
        meta |= {"license_name": "several-see-card", "license_link": "README.md"}
    meta |= {
        "library_name": "timm" if model.architecture.startswith("resnet") else "pytorch",
        "pipeline_tag": _PIPELINES.get(model.task, "audio-classification"),
        "tags": ["explainable-ai", "grad-cam", model.task.replace("_", "-")],
    }
    return f"---\n{yaml.safe_dump(meta, sort_keys=False)}---\n"


def _hub_licence(licence: str) -> str:
    """As the Hub spells the licence of the data, which the weights cannot be freer than."""
    named = licence.partition(" (data)")[0]
    return _HUB_LICENCES.get(named, "other")  # of several, the text below names each
