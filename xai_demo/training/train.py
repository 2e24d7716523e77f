"""One training run: from a data set to a model directory.

Where a network's layers start from: nothing, or those of a model that ships with the demo.

Weights in half the bytes where the answers stay: float16, tried against what they were.
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
from xai_demo.engine import read_tensors
from xai_demo.errors import TrainingError
from xai_demo.files import write_atomically
from xai_demo.hub import Hub
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
from xai_demo.training.evaluate import PERSONS, check_folder, check_part
from xai_demo.training.recipes import recipe_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.records import Progress
    from xai_demo.training.datasets import Dataset
    from xai_demo.training.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What of a run may be chosen."""

    epochs: int | None = None  # None: as the recipe says
    patience: int | None = None  # None: as the recipe says; 0: never stop early
    seed: int = 0
    resume: bool = False
    track: str = "csv"  # one of `tracking.TRACKERS`
    balance: str | None = None  # one of `balance.BALANCES`; None: as the recipe says


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
    """Train a recipe and write its model directory `out`; returns that.

    It holds config.json, model.safetensors, MODEL_CARD.md and persons.json: whom it learnt from. An
    interrupted run leaves `out/checkpoint.pt`, from which `resume` goes on. `patience` epochs
    without a better validation end it; `track` is "csv" or "wandb"; `notice` is told what of the
    data was left out. `balance` is a choice of `balance.BALANCES`; a recipe that starts from a
    bundled model finds it by `settings`. Raises UnknownNameError for the recipe, the tracker or the
    balance, TrainingError where the data is at fault.
    """
    options = Options(
        epochs=epochs, patience=patience, seed=seed, resume=resume, track=track, balance=balance
    )
    return _run(
        recipe,
        data=data,
        out=out,
        options=options,
        settings=settings or Settings.from_env(),
        progress=progress,
        notice=notice,
    )


def _run(
    recipe: str,
    *,
    data: Path,
    out: Path,
    options: Options,
    settings: Settings,
    progress: Progress | None,
    notice: Callable[[str], None] | None,
) -> Path:
    chosen = recipe_of(recipe)
    tracking.known(options.track)
    schedule = dataclasses.replace(
        class_imbalance.chosen(chosen, options.balance),
        epochs=options.epochs or chosen.schedule.epochs,
        patience=chosen.schedule.patience if options.patience is None else options.patience,
    )
    chosen = dataclasses.replace(chosen, schedule=schedule)
    check_folder(data)
    tell = progress or (lambda done, doing: None)
    tell(0.0, "reading the data")
    data_set = chosen.read(data, chosen.model)
    for note in data_set.notes if notice else ():
        notice(note)  # type: ignore[misc]
    check_part(data_set, "train", 2)
    check_part(data_set, "validation", 2)
    torch.manual_seed(options.seed)
    network = networks.architecture(chosen.model).whole(chosen.model)
    notes = data_set.notes + started(network, chosen, settings)
    out.mkdir(parents=True, exist_ok=True)

    def track(first: int) -> tracking.Tracker:
        said = dataclasses.asdict(schedule) | {"seed": options.seed, "data": data_set.name}
        return tracking.opened(
            options.track,
            tracking.Tracked(out=out, name=recipe, settings=said, first_step=first),
        )

    learnt(network, chosen, data_set, out=out, options=options, progress=tell, track=track)
    model = tuned(network, chosen, data_set)
    state, told = stored(network, model, data_set)
    _write(out, dataclasses.replace(model, notes=(*notes, told)), state, data_set)
    return out


def learnt(
    network: torch.nn.Module,
    recipe: Recipe,
    data: Dataset,
    *,
    out: Path,
    options: Options,
    progress: Progress,
    track: Callable[[int], tracking.Tracker],
) -> None:
    """Let a network learn by its recipe, from the training part."""
    schedule, train = recipe.schedule, data.targets[data.indices("train")]
    weights = class_imbalance.label_weights(train, len(data.labels), schedule.weighted)
    trainer.fit(
        losses.of(network, recipe, weights),
        data,
        schedule,
        out=out,
        seed=options.seed,
        resume=options.resume,
        progress=progress,
        track=track,
    )
    network.float()
    if schedule.smote:
        class_imbalance.refit(recipe.model, network, data)
    if data.finish is not None:
        data.finish(network)


def tuned(network: torch.nn.Module, recipe: Recipe, data: Dataset) -> Model:
    """The recipe's model with what is chosen on validation; may shift the network's last layer."""
    logits, targets = trainer.outputs(network, data, "validation")
    values = logits.numpy().astype(np.float64)
    if data.is_independent:
        known = np.concatenate([data.indices("train"), data.indices("validation")])
        rates = data.targets[known].mean(axis=0)
        model, shifts = findings.calibrated(recipe.model, values, targets.numpy(), rates)
        _, last = class_imbalance.last_layer(recipe.model, network)
        with torch.no_grad():
            last.bias.copy_(last.bias + torch.from_numpy(shifts).to(last.bias))
        return model
    model = calibration.calibrated(recipe, values, targets.numpy())
    if data.recordings is not None:
        model = calibration.of_recordings(recipe, model, data.recordings(network, model))
    return model


def _write(out: Path, model: Model, state: dict[str, torch.Tensor], data: Dataset) -> None:
    content = save(state, metadata={"format": "pt"})
    learnt_from = json.dumps({"learnt_from": sorted(data.learnt_from())}, indent=1) + "\n"
    write_atomically(out / "model.safetensors", content)
    write_atomically(out / PERSONS, learnt_from)
    model_card.write(out, dataclasses.replace(model, sha256=hashlib.sha256(content).hexdigest()))


def started(network: nn.Module, recipe: Recipe, settings: Settings) -> tuple[str, ...]:
    """Give a network the layers that a recipe starts from; what to say of it in the card.

    Layers of another shape, as the last one, stay as they are. Raises CheckpointUnavailableError
    where that model is not here, TrainingError where it is of another architecture.
    """
    if recipe.start is None:
        return ()
    hub = Hub(settings)
    other, located = hub.model(recipe.start), hub.located(recipe.start)
    if other.architecture != recipe.model.architecture:
        raise TrainingError(
            f"{recipe.start} is a {other.architecture}, wanted to start {recipe.model.name} from: "
            f"a {recipe.model.architecture}."
        )
    state = network.state_dict()
    taken = {
        name: tensor.to(state[name].dtype)
        for name, tensor in read_tensors(located.path).items()
        if name in state and state[name].shape == tensor.shape
    }
    network.load_state_dict(state | taken)
    return (
        f"Started from {recipe.start}, sha256 {located.sha256}: {len(taken)} of {len(state)} "
        "tensors, all but those of another shape.",
    )


MOST_MOVED = 1e-3  # of any probability


def stored(network: nn.Module, model: Model, data: Dataset) -> tuple[dict[str, Tensor], str]:
    """What to keep of a trained network, and what to say of it.

    float32 only where float16 would move a probability of a validation sample by more than
    `MOST_MOVED`, as where a number is too large for it.
    """
    exact = {name: tensor.contiguous().cpu() for name, tensor in network.state_dict().items()}
    half = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in exact.items()
    }
    if not all(tensor.isfinite().all() for tensor in half.values()):
        return exact, "Weights are stored in float32: some are too large for float16."
    moved, count = _moved(network, half, model, data)
    told = f"a probability of {count} validation samples moves by {moved:.1e} at most"
    if moved <= MOST_MOVED:
        return half, f"Weights are stored in float16: {told}."
    return exact, f"Weights are stored in float32: in float16 {told}, more than {MOST_MOVED:g}."


def _moved(
    network: nn.Module, half: dict[str, Tensor], model: Model, data: Dataset
) -> tuple[float, int]:
    """The largest change of a probability, and of how many samples."""
    rounded = copy.deepcopy(network)
    rounded.load_state_dict(half)  # copied into what is float32
    before, after = (
        predict.probabilities(each, model, data, "validation")[0] for each in (network, rounded)
    )
    return float(np.abs(before - after).max()), len(before)
