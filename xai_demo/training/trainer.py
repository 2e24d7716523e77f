"""The training loop: one for all recipes. Resumable after every epoch; same seed, same result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xai_demo.files import open_atomically
from xai_demo.training import class_imbalance, metrics
from xai_demo.training.datasets import Dataset, Split
from xai_demo.training.losses import Objective

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Progress
    from xai_demo.training.recipe import Schedule
    from xai_demo.training.tracking import Tracker

CHECKPOINT = "checkpoint.pt"
_BEGINNING = (0, float("inf"), 0)


def fit(
    objective: Objective,
    data: Dataset,
    schedule: Schedule,
    *,
    out: Path,
    seed: int,
    resume: bool,
    progress: Progress,
    track: Callable[[int], Tracker],
) -> nn.Module:
    """Train; the network comes back with the averaged weights of the best validation epoch.

    After every epoch `out/checkpoint.pt` holds all that is needed to go on, and the tracker, opened
    by `track` for the first epoch to come, one row more. Training stops before its time where
    validation has not improved for `schedule.patience` epochs.
    """
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective.to(device)
    objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = -(-len(data.indices("train")) // schedule.batch_size)
    parts = _parts(objective, schedule, steps)
    average, cycle = parts["average"], parts["cycle"]
    first, best, since = _resumed(out, parts) if resume else _BEGINNING
    tracker = track(first)
    for epoch in range(first, schedule.epochs):
        if schedule.patience and since >= schedule.patience:
            progress(1.0, f"stopped: {since} epochs without a better validation")
            break

        def told(step: int, loss: float, epoch: int = epoch) -> None:
            done = (epoch + step / steps) / schedule.epochs
            progress(done, f"epoch {epoch + 1} of {schedule.epochs}, loss {loss:.3f}")

        _thaw(objective, epoch, schedule)
        rng = np.random.default_rng((seed, epoch))
        scale = schedule.small_scale if epoch < schedule.small_until * schedule.epochs else 1.0
        batches = (
            _loss(objective, inputs, targets, schedule, scale, rng)
            for inputs, targets in _batches(data, schedule, rng, device)
        )
        loss = _epoch(batches, parts, schedule, told)
        row = {"train": loss, **_validated(average.module.network, data)}
        if schedule.plateau:
            cycle.step(row["validation"])
        since = 0 if row["validation"] <= best else since + 1
        if not since:
            best = row["validation"]
            _save(out / "best.pt", average.module.network.state_dict())
        _save(
            out / CHECKPOINT,
            {k: p.state_dict() for k, p in parts.items()}
            | {"epoch": epoch + 1, "best": best, "since": since, "random": _random_states()},
        )
        tracker.log(epoch, row | {"since_best": since})
    tracker.close()
    objective.network.load_state_dict(torch.load(out / "best.pt", weights_only=True))
    return objective.network.eval()


def _epoch(
    losses: Iterator[Tensor],
    parts: dict[str, Any],
    schedule: Schedule,
    told: Callable[[int, float], None],
) -> float:
    """Learn from every batch's loss as it comes; their mean."""
    objective, optimiser = parts["network"], parts["optimiser"]
    total, count = 0.0, 0
    for count, loss in enumerate(losses, start=1):
        loss.backward()
        nn.utils.clip_grad_norm_(objective.parameters(), schedule.clip)
        optimiser.step()
        optimiser.zero_grad()
        if not schedule.plateau:
            parts["cycle"].step()
        parts["average"].update_parameters(objective)
        total += float(loss.detach())
        told(count, total / count)
    return total / count


def _validated(network: nn.Module, data: Dataset) -> dict[str, float]:
    logits, truth = outputs(network, data, "validation")
    if not data.is_independent:
        accuracy = float((logits.argmax(1) == truth).float().mean())
        return {"validation": float(F.cross_entropy(logits, truth)), "accuracy": accuracy}
    loss = float(F.binary_cross_entropy_with_logits(logits, truth.float()))
    areas = [
        metrics.auroc(scores, there.astype(bool), np.ones(len(scores)))
        for scores, there in zip(logits.double().numpy().T, truth.numpy().T, strict=True)
    ]
    known = [area for area in areas if not np.isnan(area)]
    if not known:
        return {"validation": loss, "loss": loss}
    # Weighted and focal losses move all probabilities; what they rank is what shall get better.
    return {"validation": 1 - float(np.mean(known)), "loss": loss}


def _thaw(objective: Objective, epoch: int, schedule: Schedule) -> None:
    """Let as many stages of the network learn, from the last, as this epoch may; the rest sleep."""
    objective.train()
    if not schedule.thaw_every:
        return
    stages = [s for s in objective.network.children() if any(True for _ in s.parameters())]
    awake = 1 + epoch // schedule.thaw_every
    for number, stage in enumerate(reversed(stages)):
        stage.requires_grad_(number < awake)
        stage.train(number < awake)


def _parts(objective: Objective, schedule: Schedule, steps: int) -> dict[str, Any]:
    """Everything with a state that a checkpoint holds."""
    average = torch.optim.swa_utils.AveragedModel(
        objective,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(schedule.averaging),
        use_buffers=True,
    )
    kind = torch.optim.AdamW if schedule.decoupled else torch.optim.Adam
    optimiser = kind(
        objective.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    cycle: Any = None
    if schedule.plateau:
        cycle = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, factor=0.5, patience=schedule.plateau
        )
    else:
        total = steps * schedule.epochs
        rise = 0.4 if total == 5 else 0.2  # a fifth of five: OneCycleLR would divide by nought
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, schedule.learning_rate, total_steps=total, pct_start=rise
        )
    return {"network": objective, "average": average, "optimiser": optimiser, "cycle": cycle}


def outputs(network: nn.Module, data: Dataset, split: Split) -> tuple[Tensor, Tensor]:
    """Logits (samples, labels) and the targets of one split, without variation."""
    network.eval()
    device = next(network.parameters()).device
    logits = []
    with torch.inference_mode():
        for chunk in _chunks(data.indices(split), 64):
            inputs, _ = _loaded(data, chunk, [None] * len(chunk))
            logits.append(network(inputs.to(device)).float().cpu())
    return torch.cat(logits), torch.from_numpy(data.targets[data.indices(split)])


def _loss(
    objective: Objective,
    inputs: Tensor,
    targets: Tensor,
    schedule: Schedule,
    scale: float,
    rng: np.random.Generator,
) -> Tensor:
    if scale != 1.0:
        inputs = F.interpolate(inputs, scale_factor=scale, mode="bilinear", antialias=True)
    if schedule.mixup:
        share = float(rng.beta(schedule.mixup, schedule.mixup))
        inputs = share * inputs + (1 - share) * inputs.flip(0)
        targets = share * targets + (1 - share) * targets.flip(0)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    return objective.loss(inputs, targets, schedule)


def _batches(
    data: Dataset, schedule: Schedule, rng: np.random.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch: as many samples as there are, labels drawn by their size to a power."""
    train = data.indices("train")
    if schedule.sampling_power == 1.0:
        drawn = rng.permutation(train)
    else:
        chance = class_imbalance.chances(
            data.targets[train], len(data.labels), schedule.sampling_power
        )
        drawn = rng.choice(train, size=len(train), p=chance)
    load = _loader(data, rng)
    with ThreadPoolExecutor(1) as ahead:  # the next batch is made while this one is learnt
        waiting = None
        for chunk in _chunks(drawn, schedule.batch_size):
            coming = ahead.submit(load, chunk)
            if waiting is not None:
                yield tuple(t.to(device) for t in waiting.result())  # type: ignore[misc]
            waiting = coming
        if waiting is not None:
            yield tuple(t.to(device) for t in waiting.result())  # type: ignore[misc]


def _loader(
    data: Dataset, rng: np.random.Generator
) -> Callable[[NDArray[np.int64]], tuple[Tensor, Tensor]]:
    seeds = np.random.default_rng(rng.integers(2**63))
    return lambda chunk: _loaded(data, chunk, seeds.spawn(len(chunk)))


def _loaded(data: Dataset, chunk: NDArray[np.int64], rngs: list[Any]) -> tuple[Tensor, Tensor]:
    samples = [data.load(int(i), rng) for i, rng in zip(chunk, rngs, strict=True)]
    inputs = torch.from_numpy(np.stack([s[0] for s in samples]))[:, None]
    return inputs, torch.from_numpy(np.stack([s[1] for s in samples]))


def _chunks(indices: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _save(path: Path, state: dict[str, Any]) -> None:
    with open_atomically(path) as file:
        torch.save(state, file)


def _resumed(out: Path, parts: dict[str, Any]) -> tuple[int, float, int]:
    """The epoch to go on with, the best validation so far, and the epochs since it."""
    path = out / CHECKPOINT
    if not path.is_file():
        return _BEGINNING
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    for i, random_state in enumerate(state.get("random", ())):
        if i == 0:
            torch.set_rng_state(random_state)
        elif i <= torch.cuda.device_count():
            torch.cuda.set_rng_state(random_state, i - 1)
    return int(state["epoch"]), float(state["best"]), int(state.get("since", 0))


def _random_states() -> list[Tensor]:
    """Of the CPU and every GPU: what dropout draws from."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
