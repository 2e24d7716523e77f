"""One training run: from a data set to a model directory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save

from xai_demo import networks
from xai_demo.records import Model
from xai_demo.training import (
    balance,
    calibration,
    cards,
    findings,
    halved,
    loop,
    objectives,
    smote,
    starting,
    tracking,
)
from xai_demo.training.evaluation import PERSONS, check_folder, check_part
from xai_demo.training.recipes import recipe_of

if TYPE_CHECKING:
    from xai_demo.records import Progress
    from xai_demo.settings import Settings
    from xai_demo.training.dataset import DataSet
    from xai_demo.training.schedule import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What of a run may be chosen."""

    epochs: int | None = None  # None: as the recipe says
    patience: int | None = None  # None: as the recipe says; 0: never stop early
    seed: int = 0
    resume: bool = False
    track: str = "csv"  # one of `tracking.TRACKERS`
    balance: str | None = None  # one of `balance.BALANCES`; None: as the recipe says


def train(
    recipe: str,
    *,
    data: Path,
    out: Path,
    options: Options,
    settings: Settings,
    progress: Progress | None,
    notice: Callable[[str], None] | None,
) -> Path:
    """See `xai_demo.training.train`."""
    chosen = recipe_of(recipe)
    tracking.known(options.track)
    schedule = dataclasses.replace(
        balance.chosen(chosen, options.balance),
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
    notes = data_set.notes + starting.started(network, chosen, settings)
    out.mkdir(parents=True, exist_ok=True)

    def track(first: int) -> tracking.Tracker:
        said = dataclasses.asdict(schedule) | {"seed": options.seed, "data": data_set.name}
        return tracking.opened(
            options.track,
            tracking.Tracked(out=out, name=recipe, settings=said, first_step=first),
        )

    learnt(network, chosen, data_set, out=out, options=options, progress=tell, track=track)
    model = tuned(network, chosen, data_set)
    state, told = halved.stored(network, model, data_set)
    _write(out, dataclasses.replace(model, notes=(*notes, told)), state, data_set)
    return out


def learnt(
    network: torch.nn.Module,
    recipe: Recipe,
    data: DataSet,
    *,
    out: Path,
    options: Options,
    progress: Progress,
    track: Callable[[int], tracking.Tracker],
) -> None:
    """Let a network learn by its recipe, from the training part."""
    schedule, train = recipe.schedule, data.targets[data.indices("train")]
    weights = balance.label_weights(train, len(data.labels), schedule.weighted)
    loop.fit(
        objectives.of(network, recipe, weights),
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
        smote.refit(recipe.model, network, data)
    if data.finish is not None:
        data.finish(network)


def tuned(network: torch.nn.Module, recipe: Recipe, data: DataSet) -> Model:
    """The recipe's model with what is chosen on validation; may shift the network's last layer."""
    logits, targets = loop.outputs(network, data, "validation")
    values = logits.numpy().astype(np.float64)
    if data.is_independent:
        known = np.concatenate([data.indices("train"), data.indices("validation")])
        rates = data.targets[known].mean(axis=0)
        model, shifts = findings.calibrated(recipe.model, values, targets.numpy(), rates)
        _, last = smote.last_layer(recipe.model, network)
        with torch.no_grad():
            last.bias.copy_(last.bias + torch.from_numpy(shifts).to(last.bias))
        return model
    model = calibration.calibrated(recipe, values, targets.numpy())
    if data.recordings is not None:
        model = calibration.of_recordings(recipe, model, data.recordings(network, model))
    return model


def _write(out: Path, model: Model, state: dict[str, torch.Tensor], data: DataSet) -> None:
    content = save(state, metadata={"format": "pt"})
    learnt_from = json.dumps({"learnt_from": sorted(data.learnt_from())}, indent=1) + "\n"
    for name, text in (("model.safetensors", content), (PERSONS, learnt_from.encode())):
        part = out / f"{name}.part"
        part.write_bytes(text)
        os.replace(part, out / name)
    cards.write(out, dataclasses.replace(model, sha256=hashlib.sha256(content).hexdigest()))


__all__ = ["Options", "learnt", "train", "tuned"]
