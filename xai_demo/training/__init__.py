"""Training and evaluation; never loaded by the Space. The recipes are in `recipes`."""

from __future__ import annotations

from collections.abc import Callable
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
    patience: int | None = None,
    seed: int = 0,
    resume: bool = False,
    track: str = "csv",
    balance: str | None = None,
    settings: Settings | None = None,
    progress: Progress | None = None,
    notice: Callable[[str], None] | None = None,
) -> Path:
    """Train a recipe and write its model directory `out`; returns that.

    It holds config.json, model.safetensors, MODEL_CARD.md and persons.json: whom it learnt from. An
    interrupted run leaves `out/checkpoint.pt`, from which `resume` goes on. `patience` epochs
    without a better validation end it; `track` is "csv" or "wandb"; `notice` is told what of the
    data was left out. `balance` is a choice of `balance.BALANCES`; a recipe that starts from a
    bundled model finds it by `settings`. Raises UnknownNameError for the recipe, the tracker or the
    balance, TrainingError where the data is at fault.
    """
    from xai_demo.settings import Settings
    from xai_demo.training.train import Options
    from xai_demo.training.train import train as run

    options = Options(
        epochs=epochs, patience=patience, seed=seed, resume=resume, track=track, balance=balance
    )
    return run(
        recipe,
        data=data,
        out=out,
        options=options,
        settings=settings or Settings.from_env(),
        progress=progress,
        notice=notice,
    )


def evaluate(
    model: str,
    *,
    settings: Settings,
    data: Path,
    out: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure a model on what it did not learn from; the contract's `evaluate --json`.

    `out` gets that as evaluation.json, with a confusion matrix, a reliability diagram and ROC
    curves.
    """
    from xai_demo.training.evaluate import evaluate as run

    return run(model, settings=settings, data=data, out=out, progress=progress)


def write_card(model: str, *, settings: Settings, result: dict[str, Any]) -> Path:
    """Write measured figures into a bundled model's config.json and MODEL_CARD.md.

    Raises TrainingError where they are of persons that the model learnt from.
    """
    from xai_demo.errors import TrainingError
    from xai_demo.training.model_card import write_figures

    if result.get("site") in result.get("no_test", ()):
        raise TrainingError(
            f"The figures are of {result['site']} and {model} learnt from all of its patients, "
            "wanted for a card: patients that it has not met."
        )
    return write_figures(settings.weights_dir / model, result)
