"""One training run: from a dataset to a model directory.

The network starts from random weights or from those of a bundled model. After training it is
calibrated on the validation split, and its weights are stored in float16 where that leaves the
probabilities as they are.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save

from xai_demo import networks
from xai_demo.files import write_atomically
from xai_demo.records import Model
from xai_demo.settings import Settings
from xai_demo.training import (
    calibration,
    class_imbalance,
    findings,
    losses,
    model_card,
    predict,
    tracking,
    trainer,
)
from xai_demo.training.evaluate import PATIENTS_FILE, check_folder, check_split
from xai_demo.training.initial_weights import load_initial_weights
from xai_demo.training.recipes import recipe_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.records import Progress
    from xai_demo.training.datasets import Dataset
    from xai_demo.training.recipe import Recipe

# How far float16 may move any probability.
MAX_PROBABILITY_SHIFT = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """What a caller may choose about a training run."""

    epochs: int | None = None  # None: as the recipe says
    # None: as the recipe says; 0: never stop early.
    patience: int | None = None
    seed: int = 0
    resume: bool = False
    track: str = "csv"  # one of `tracking.TRACKERS`
    # One of `class_imbalance.BALANCES`; None: as the recipe says.
    balance: str | None = None


def train_model(
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
    """Train a recipe, write the model directory `out` and return its path.

    `out` gets config.json, model.safetensors, MODEL_CARD.md and persons.json, which lists the
    patients that the network was trained on. An interrupted run leaves `out/checkpoint.pt`, from
    which `resume` continues. Training stops after `patience` epochs without improvement. `track` is
    "csv" or "wandb", `balance` one of `class_imbalance.BALANCES`; `settings` say where bundled
    models are, for recipes that start from one. `notice` is called with a note on each kind of
    sample that was left out. Raises UnknownNameError for an unknown recipe, tracker or balance, and
    TrainingError if the data cannot be used.
    """
    options = TrainingOptions(
        epochs=epochs, patience=patience, seed=seed, resume=resume, track=track, balance=balance
    )
    return _train(
        recipe,
        data=data,
        out=out,
        options=options,
        settings=settings or Settings.from_env(),
        progress=progress or (lambda done, doing: None),
        notice=notice,
    )


def _train(
    recipe_name: str,
    *,
    data: Path,
    out: Path,
    options: TrainingOptions,
    settings: Settings,
    progress: Progress,
    notice: Callable[[str], None] | None,
) -> Path:
    recipe = recipe_of(recipe_name)
    # Names are checked before the data are read, so that a misspelt one costs no time.
    tracking.check_tracker(options.track)
    schedule = dataclasses.replace(
        class_imbalance.balanced_schedule(recipe, options.balance),
        epochs=options.epochs or recipe.schedule.epochs,
        # Not `or`, as for the epochs: 0 is a choice, never to stop early.
        patience=recipe.schedule.patience if options.patience is None else options.patience,
    )
    recipe = dataclasses.replace(recipe, schedule=schedule)
    check_folder(data)
    progress(0.0, "reading the dataset")
    dataset = recipe.read(data, recipe.model)
    for note in dataset.notes if notice else ():
        notice(note)  # type: ignore[misc]
    # One label alone gives nothing to tell apart, in training or in calibration.
    check_split(dataset, "train", 2)
    check_split(dataset, "validation", 2)
    # Before the network is built, whose random weights depend on it.
    torch.manual_seed(options.seed)
    network = networks.architecture(recipe.model).build(recipe.model)
    notes = dataset.notes + load_initial_weights(network, recipe, settings)
    out.mkdir(parents=True, exist_ok=True)

    def track(first_step: int) -> tracking.Tracker:
        hyperparameters = dataclasses.asdict(schedule)
        return tracking.open_tracker(
            options.track,
            tracking.TrackedRun(
                out=out,
                name=recipe_name,
                settings=hyperparameters | {"seed": options.seed, "data": dataset.name},
                first_step=first_step,
            ),
        )

    fit_network(network, recipe, dataset, out=out, options=options, progress=progress, track=track)
    model = calibrate_network(network, recipe, dataset)
    state, storage_note = half_precision_state(network, model, dataset)
    model = dataclasses.replace(model, notes=(*notes, storage_note))
    _write_model(out, model, state, dataset)
    return out


def fit_network(
    network: nn.Module,
    recipe: Recipe,
    data: Dataset,
    *,
    out: Path,
    options: TrainingOptions,
    progress: Progress,
    track: Callable[[int], tracking.Tracker],
) -> None:
    """Train a network in place by its recipe, on the training split."""
    schedule, targets = recipe.schedule, data.targets[data.indices("train")]
    weights = class_imbalance.label_weights(targets, len(data.labels), schedule.label_weight_power)
    trainer.fit(
        losses.objective_for(network, recipe, weights),
        data,
        schedule,
        out=out,
        seed=options.seed,
        resume=options.resume,
        progress=progress,
        track=track,
    )
    network.float()
    # After the best epoch is restored, because both replace the last layer alone.
    if schedule.smote:
        refit_last_layer(recipe.model, network, data)
    if data.finish is not None:
        data.finish(network)


def refit_last_layer(model: Model, network: nn.Module, data: Dataset) -> None:
    """Refit the last layer on features of the training split, balanced by SMOTE."""
    backbone, last = class_imbalance.split_last_layer(model, network)
    # (samples, features), by the same pass as logits and so without augmentation.
    features, targets = trainer.logits_and_targets(backbone, data, "train")
    weight, bias = class_imbalance.fit_balanced_layer(
        features.numpy().astype(np.float64), targets.numpy(), len(model.labels)
    )
    with torch.no_grad():
        last.weight.copy_(torch.from_numpy(weight))
        last.bias.copy_(torch.from_numpy(bias))


def calibrate_network(network: nn.Module, recipe: Recipe, data: Dataset) -> Model:
    """The recipe's model with all values that are chosen on the validation split.

    For independent labels this also adds the calibration's shifts to the bias of the last layer.
    """
    logits, targets = trainer.logits_and_targets(network, data, "validation")
    values = logits.numpy().astype(np.float64)
    if data.is_independent:
        # Rates come from all samples that may be looked at; validation alone has few of a label.
        seen = np.concatenate([data.indices("train"), data.indices("validation")])
        rates = data.targets[seen].mean(axis=0)
        model, shifts = findings.calibrate_model(
            recipe.model,
            values,
            targets.numpy(),
            rates,
            most=recipe.max_false_alarms,
            listed=recipe.min_listed,
        )
        # A shifted bias gives the same probabilities, so config.json needs no shifts.
        _, last = class_imbalance.split_last_layer(recipe.model, network)
        with torch.no_grad():
            last.bias.copy_(last.bias + torch.from_numpy(shifts).to(last.bias))
        return model
    model = calibration.calibrate_model(recipe, values, targets.numpy())
    if data.predict_recordings is not None:
        # With the calibrated model, because a recording pools probabilities, not logits.
        recordings = data.predict_recordings(network, model)
        model = calibration.calibrate_recordings(recipe, model, recordings)
    return model


def _write_model(out: Path, model: Model, state: dict[str, Tensor], data: Dataset) -> None:
    # In memory first: config.json has the sha256 of these very bytes.
    content = save(state, metadata={"format": "pt"})
    # The key is read by earlier versions too, so it stays.
    patients = json.dumps({"learnt_from": sorted(data.training_groups())}, indent=1) + "\n"
    write_atomically(out / "model.safetensors", content)
    write_atomically(out / PATIENTS_FILE, patients)
    # Last, because config.json with the sha256 makes the directory a complete model.
    model_card.write(out, dataclasses.replace(model, sha256=hashlib.sha256(content).hexdigest()))


def half_precision_state(
    network: nn.Module, model: Model, data: Dataset
) -> tuple[dict[str, Tensor], str]:
    """The tensors to store, in float16 where possible, and a note on them for the card.

    They stay in float32 if float16 would move the probability of any validation sample by more than
    `MAX_PROBABILITY_SHIFT`, or if a weight overflows it.
    """
    # safetensors refuses tensors in channels_last, in which `trainer.fit` leaves them.
    exact = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
    half = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in exact.items()
    }
    # Above 65,504, float16 is infinite.
    if not all(tensor.isfinite().all() for tensor in half.values()):
        return exact, "Weights are stored in float32 because some overflow float16."
    shift, count = _largest_shift(network, half, model, data)
    changes = f"changes the probabilities of {count} validation samples by at most {shift:.1e}"
    if shift <= MAX_PROBABILITY_SHIFT:
        return half, f"Weights are stored in float16, which {changes}."
    return exact, (
        f"Weights are stored in float32: float16 {changes}, more than the {MAX_PROBABILITY_SHIFT:g}"
        " allowed."
    )


def _largest_shift(
    network: nn.Module, half: dict[str, Tensor], model: Model, data: Dataset
) -> tuple[float, int]:
    """The largest change of any probability, and the number of samples it was measured on."""
    rounded = copy.deepcopy(network)
    # load_state_dict copies into the float32 tensors, so only the weights are rounded, not the
    # arithmetic: that is how the demo runs them.
    rounded.load_state_dict(half)
    before, after = (
        predict.split_probabilities(each, model, data, "validation")[0]
        for each in (network, rounded)
    )
    return float(np.abs(before - after).max()), len(before)
