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
from xai_demo.training import calibration, cards, loop, objectives, tracking
from xai_demo.training.evaluation import PERSONS, check_folder, check_part
from xai_demo.training.recipes import recipe_of

if TYPE_CHECKING:
    from xai_demo.records import Progress
    from xai_demo.training.dataset import DataSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What of a run may be chosen."""

    epochs: int | None = None  # None: as the recipe says
    patience: int | None = None  # None: as the recipe says; 0: never stop early
    seed: int = 0
    resume: bool = False
    track: str = "csv"  # one of `tracking.TRACKERS`


def train(
    recipe: str,
    *,
    data: Path,
    out: Path,
    options: Options,
    progress: Progress | None,
    notice: Callable[[str], None] | None,
) -> Path:
    """See `xai_demo.training.train`."""
    chosen = recipe_of(recipe)
    tracking.known(options.track)
    check_folder(data)
    tell = progress or (lambda done, doing: None)
    tell(0.0, "reading the data")
    data_set = chosen.read(data, chosen.model)
    for note in data_set.notes if notice else ():
        notice(note)  # type: ignore[misc]
    schedule = dataclasses.replace(
        chosen.schedule,
        epochs=options.epochs or chosen.schedule.epochs,
        patience=chosen.schedule.patience if options.patience is None else options.patience,
    )
    check_part(data_set, "train", 2)
    check_part(data_set, "validation", 2)
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    network = networks.architecture(chosen.model).whole(chosen.model)
    objective = objectives.of(network, chosen)

    def track(first: int) -> tracking.Tracker:
        settings = dataclasses.asdict(schedule) | {"seed": options.seed, "data": data_set.name}
        return tracking.opened(
            options.track,
            tracking.Tracked(out=out, name=recipe, settings=settings, first_step=first),
        )

    loop.fit(
        objective,
        data_set,
        schedule,
        out=out,
        seed=options.seed,
        resume=options.resume,
        progress=tell,
        track=track,
    )
    if data_set.finish is not None:
        data_set.finish(network)
    logits, targets = loop.outputs(network.float(), data_set, "validation")
    model = calibration.calibrated(chosen, logits.numpy().astype(np.float64), targets.numpy())
    if data_set.recordings is not None:
        model = calibration.of_recordings(chosen, model, *data_set.recordings(network, model))
    _write(out, dataclasses.replace(model, notes=data_set.notes), network, data_set)
    return out


def _write(out: Path, model: Model, network: torch.nn.Module, data: DataSet) -> None:
    state = {
        k: (v.half() if v.is_floating_point() else v).contiguous().cpu()
        for k, v in network.state_dict().items()
    }
    content = save(state, metadata={"format": "pt"})
    learnt_from = json.dumps({"learnt_from": sorted(data.learnt_from())}, indent=1) + "\n"
    for name, text in (("model.safetensors", content), (PERSONS, learnt_from.encode())):
        part = out / f"{name}.part"
        part.write_bytes(text)
        os.replace(part, out / name)
    cards.write(out, dataclasses.replace(model, sha256=hashlib.sha256(content).hexdigest()))


__all__ = ["Options", "train"]
