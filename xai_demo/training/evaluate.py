"""One evaluation: from a model directory and a dataset to figures and plots."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo import networks
from xai_demo.errors import CheckpointUnavailableError, TrainingError
from xai_demo.files import write_atomically
from xai_demo.hub.checkpoint import WEIGHTS, Digests, read_model, read_tensors
from xai_demo.training import plots, predict
from xai_demo.training.recipe import Evaluation
from xai_demo.training.recipes import recipe_of

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model, Progress
    from xai_demo.settings import Settings
    from xai_demo.training.datasets import Dataset, Split

# Beside the weights: the patients that a network was trained on.
PATIENTS_FILE = "persons.json"
FILE = "evaluation.json"


def evaluate_model(
    model: str,
    *,
    settings: Settings,
    data: Path,
    out: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Evaluate a model on patients that it was not trained on; returns `evaluate --json`'s object.

    With `out`, that object is also written there as evaluation.json, together with a confusion
    matrix, a reliability diagram and ROC curves.
    """
    recipe = recipe_of(model)
    check_folder(data)
    record, network = load_trained_model(model, settings=settings, data=data)
    progress = progress or (lambda done, doing: None)
    # The data may have changed since training: the list says who was trained on, not the split.
    patients = training_patients(settings.weights_dir / model)
    if recipe.evaluate is not None:
        evaluation = recipe.evaluate(network, record, data, patients, progress)
    else:
        progress(0.0, "reading the dataset")
        dataset = recipe.read(data, record).held_out(patients)
        check_split(dataset, "test", 1)
        progress(0.3, "running the network")
        evaluation = predict.evaluate_test_split(network, record, dataset)
    if out is not None:
        _write_evaluation(out, record, evaluation)
    return evaluation.result


def load_trained_model(model: str, *, settings: Settings, data: Path) -> tuple[Model, nn.Module]:
    """A model's record and network; raises CheckpointUnavailableError if it is not trained yet.

    `data` is only named in that error, in the command that trains the model.
    """
    directory = settings.weights_dir / model
    if not (directory / WEIGHTS).is_file():
        raise CheckpointUnavailableError(
            f"{directory} holds no model.safetensors. Train the model first: "
            f"`python -m xai_demo train {model} --data {data} --out {directory}`."
        )
    record = read_model(directory)
    path = directory / WEIGHTS
    # The figures must be those of the weights that config.json names.
    Digests().verify(path, sha256=record.sha256)
    network = networks.architecture(record).build(record)
    network.load_state_dict(read_tensors(path))
    return record, network.eval()


def training_patients(directory: Path) -> frozenset[str] | None:
    """The patients that a network was trained on; None if its directory does not list them."""
    path = directory / PATIENTS_FILE
    if not path.is_file():
        return None
    # The key of the first shipped models, see `train`.
    return frozenset(json.loads(path.read_text(encoding="utf-8"))["learnt_from"])


def check_folder(data: Path) -> None:
    """Raise TrainingError unless `data` is a directory."""
    if not data.is_dir():
        raise TrainingError(
            f"{data} is not a directory; a dataset in its published layout is needed."
        )


def check_split(data: Dataset, split: Split, n_labels: int) -> None:
    """Raise TrainingError if a split has samples of fewer than `n_labels` labels."""
    targets = data.targets[data.indices(split)]
    if data.is_independent:
        # Samples without any label count as one label more: there is something to tell apart.
        without_any = int(not targets.any(axis=1).all())
        present = int(targets.any(axis=0).sum()) + without_any
    else:
        present = len(set(targets))
    if present < n_labels:
        raise TrainingError(
            f"The {split} split of {data.name} has {len(targets)} samples of {present} labels; "
            f"samples of at least {n_labels} are needed."
        )


def _write_evaluation(out: Path, model: Model, evaluation: Evaluation) -> None:
    """Write the figures as JSON and the plots of all predictions, each into its own folder."""
    out.mkdir(parents=True, exist_ok=True)
    # Figures that are not defined are null, so a NaN would be a mistake.
    text = json.dumps(evaluation.result, indent=2, allow_nan=False) + "\n"
    write_atomically(out / FILE, text)
    normal = model.labels.index(model.normal_label) if model.normal_label else None
    # The main test has the empty name, and so its plots lie in `out` itself.
    for folder, predictions in evaluation.predictions.items():
        plots.write_plots(
            out / folder,
            model=f"{model.name} {folder}".rstrip(),
            labels=model.labels,
            predictions=(predictions.probabilities, predictions.targets, predictions.decisions),
            normal=normal,
        )
