"""Training and evaluation; never loaded by the Space. The recipes are in `recipes`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xai_demo.records import Progress
    from xai_demo.settings import Settings


def train(
    recipe: str,
    *,
    data: Path,
    out: Path,
    epochs: int | None = None,
    seed: int = 0,
    resume: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Train a recipe and write its model directory `out`; returns that.

    It holds config.json, model.safetensors and MODEL_CARD.md. An interrupted run leaves
    `out/checkpoint.pt`, from which `resume` goes on. Raises UnknownNameError for the recipe,
    TrainingError where the data is at fault.
    """
    from xai_demo.training.runs import train as run

    return run(
        recipe, data=data, out=out, epochs=epochs, seed=seed, resume=resume, progress=progress
    )


def evaluate(
    model: str, *, settings: Settings, data: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure a model on the test split of its data set; the contract's `evaluate --json`."""
    from xai_demo.training.runs import evaluate as run

    return run(model, settings=settings, data=data, progress=progress)


def write_card(model: str, *, settings: Settings, result: dict[str, Any]) -> Path:
    """Write measured figures into a bundled model's config.json and MODEL_CARD.md."""
    from xai_demo.training.cards import write_figures

    return write_figures(settings.weights_dir / model, result)
