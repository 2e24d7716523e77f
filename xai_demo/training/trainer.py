"""The training loop that all recipes share.

A run can be resumed after every epoch, and the same seed gives the same network.
"""

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

# All that `--resume` needs. The weights to keep in the end are in best.pt beside it.
CHECKPOINT = "checkpoint.pt"
# First epoch, best validation so far, epochs without improvement: of a run that starts now.
_FRESH_START = (0, float("inf"), 0)


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
    """Train, and return the network with the averaged weights of its best validation epoch.

    After every epoch, `out/checkpoint.pt` holds everything needed to resume, and the tracker (which
    `track` opens, given the first epoch of this run) gets one more row. Training stops early once
    validation has not improved for `schedule.patience` epochs.
    """
    torch.manual_seed(seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    objective.to(device)
    objective.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    steps = -(-len(data.indices("train")) // schedule.batch_size)
    parts = _stateful_parts(objective, schedule, steps)
    average, cycle = parts["average"], parts["cycle"]
    first, best, since = _restore_checkpoint(out, parts) if resume else _FRESH_START
    tracker = track(first)
    for epoch in range(first, schedule.epochs):
        if schedule.patience and since >= schedule.patience:
            progress(1.0, f"stopped early: no improvement in {since} epochs")
            break

        def report(step: int, loss: float, epoch: int = epoch) -> None:
            done = (epoch + step / steps) / schedule.epochs
            progress(done, f"epoch {epoch + 1} of {schedule.epochs}, loss {loss:.3f}")

        _unfreeze_stages(objective, epoch, schedule)
        # Seeded by epoch, so that a resumed run draws the same batches as one that ran through.
        rng = np.random.default_rng((seed, epoch))
        scale = _input_scale(schedule, epoch)
        losses = (
            _batch_loss(objective, inputs, targets, schedule, scale, rng)
            for inputs, targets in _batches(data, schedule, rng, device)
        )
        loss = _run_epoch(losses, parts, schedule, report)
        row = {"train": loss, **_validation_row(average.module.network, data)}
        if schedule.plateau_patience:
            cycle.step(row["validation"])
        since = 0 if row["validation"] <= best else since + 1
        if not since:
            best = row["validation"]
            _save(out / "best.pt", average.module.network.state_dict())
        _save(
            out / CHECKPOINT,
            {name: part.state_dict() for name, part in parts.items()}
            | {"epoch": epoch + 1, "best": best, "since": since, "random": _random_states()},
        )
        tracker.log(epoch, row | {"since_best": since})
    tracker.close()
    objective.network.load_state_dict(torch.load(out / "best.pt", weights_only=True))
    return objective.network.eval()


def _input_scale(schedule: Schedule, epoch: int) -> float:
    """The relative size of the inputs in an epoch."""
    is_low_resolution = epoch < schedule.low_resolution_share * schedule.epochs
    return schedule.low_resolution_scale if is_low_resolution else 1.0


def _run_epoch(
    losses: Iterator[Tensor],
    parts: dict[str, Any],
    schedule: Schedule,
    report: Callable[[int, float], None],
) -> float:
    """Take one optimiser step per batch loss; returns their mean."""
    objective, optimiser = parts["network"], parts["optimiser"]
    total, count = 0.0, 0
    # `losses` is lazy: each forward pass sees the weights of the step before.
    for count, loss in enumerate(losses, start=1):
        loss.backward()
        nn.utils.clip_grad_norm_(objective.parameters(), schedule.max_gradient_norm)
        optimiser.step()
        optimiser.zero_grad()
        # One cycle advances with every step; a plateau schedule only after validation.
        if not schedule.plateau_patience:
            parts["cycle"].step()
        parts["average"].update_parameters(objective)
        total += float(loss.detach())
        report(count, total / count)
    return total / count


def _validation_row(network: nn.Module, data: Dataset) -> dict[str, float]:
    """What the log says of the validation split; "validation" is the value to minimise."""
    logits, truth = logits_and_targets(network, data, "validation")
    if not data.is_independent:
        accuracy = float((logits.argmax(1) == truth).float().mean())
        return {"validation": float(F.cross_entropy(logits, truth)), "accuracy": accuracy}
    loss = float(F.binary_cross_entropy_with_logits(logits, truth.float()))
    areas = [
        metrics.auroc(scores, present.astype(bool), np.ones(len(scores)))
        for scores, present in zip(logits.double().numpy().T, truth.numpy().T, strict=True)
    ]
    defined = [area for area in areas if not np.isnan(area)]
    if not defined:
        return {"validation": loss, "loss": loss}
    # Label weights and the focal loss shift all probabilities, so the loss itself is no measure of
    # progress; the ranking is.
    return {"validation": 1 - float(np.mean(defined)), "loss": loss}


def _unfreeze_stages(objective: Objective, epoch: int, schedule: Schedule) -> None:
    """Set training mode; with gradual unfreezing, only on the last stages due by this epoch."""
    objective.train()
    if not schedule.unfreeze_every:
        return
    # Pooling and activations have no parameters, so they are no stages of their own.
    stages = [s for s in objective.network.children() if any(True for _ in s.parameters())]
    n_trainable = 1 + epoch // schedule.unfreeze_every
    for number, stage in enumerate(reversed(stages)):
        stage.requires_grad_(number < n_trainable)
        # A frozen stage must not update the running statistics of its batch norms either.
        stage.train(number < n_trainable)


def _stateful_parts(objective: Objective, schedule: Schedule, steps: int) -> dict[str, Any]:
    """Everything with a state, under its key in a checkpoint."""
    average = torch.optim.swa_utils.AveragedModel(
        objective,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(schedule.ema_decay),
        # Buffers too: batch norms then have the statistics that fit the averaged weights.
        use_buffers=True,
    )
    kind = torch.optim.AdamW if schedule.decoupled_decay else torch.optim.Adam
    optimiser = kind(
        objective.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    cycle: Any = None
    if schedule.plateau_patience:
        # By default it expects a value to minimise, which `_validation_row` gives.
        cycle = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimiser, factor=0.5, patience=schedule.plateau_patience
        )
    else:
        total = steps * schedule.epochs
        # With pct_start 0.2 and five steps in all, OneCycleLR divides by zero.
        rise = 0.4 if total == 5 else 0.2
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, schedule.learning_rate, total_steps=total, pct_start=rise
        )
    return {"network": objective, "average": average, "optimiser": optimiser, "cycle": cycle}


def logits_and_targets(network: nn.Module, data: Dataset, split: Split) -> tuple[Tensor, Tensor]:
    """Logits (samples, labels) and targets of one split, without augmentation."""
    network.eval()
    device = next(network.parameters()).device
    logits = []
    with torch.inference_mode():
        for chunk in _chunks(data.indices(split), 64):
            inputs, _ = _load_batch(data, chunk, [None] * len(chunk))
            logits.append(network(inputs.to(device)).float().cpu())
    return torch.cat(logits), torch.from_numpy(data.targets[data.indices(split)])


def _batch_loss(
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
        # Zhang et al. 2018; the batch is mixed with itself in reverse, which is random already.
        share = float(rng.beta(schedule.mixup, schedule.mixup))
        inputs = share * inputs + (1 - share) * inputs.flip(0)
        targets = share * targets + (1 - share) * targets.flip(0)
    # In the memory format of the weights, see `fit`.
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    return objective.loss(inputs, targets, schedule)


def _batches(
    data: Dataset, schedule: Schedule, rng: np.random.Generator, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of batches: as many samples as the split has, drawn by `sampling_power`."""
    train = data.indices("train")
    if schedule.sampling_power == 1.0:
        order = rng.permutation(train)
    else:
        chance = class_imbalance.sampling_probabilities(
            data.targets[train], len(data.labels), schedule.sampling_power
        )
        # With replacement: a sample of a rare label may come several times in an epoch.
        order = rng.choice(train, size=len(train), p=chance)
    load = _batch_loader(data, rng)
    # The next batch is loaded in a thread while the network trains on this one.
    # One thread alone, so that batches take their generators in order.
    with ThreadPoolExecutor(1) as executor:
        ready = None
        for chunk in _chunks(order, schedule.batch_size):
            following = executor.submit(load, chunk)
            if ready is not None:
                yield tuple(t.to(device) for t in ready.result())  # type: ignore[misc]
            ready = following
        if ready is not None:
            yield tuple(t.to(device) for t in ready.result())  # type: ignore[misc]


def _batch_loader(
    data: Dataset, rng: np.random.Generator
) -> Callable[[NDArray[np.int64]], tuple[Tensor, Tensor]]:
    # A generator per sample: augmentation then does not depend on how batches are loaded.
    seeds = np.random.default_rng(rng.integers(2**63))
    return lambda chunk: _load_batch(data, chunk, seeds.spawn(len(chunk)))


def _load_batch(data: Dataset, chunk: NDArray[np.int64], rngs: list[Any]) -> tuple[Tensor, Tensor]:
    samples = [data.load(int(i), rng) for i, rng in zip(chunk, rngs, strict=True)]
    # One channel: (batch, 1, rows, columns).
    inputs = torch.from_numpy(np.stack([s[0] for s in samples]))[:, None]
    return inputs, torch.from_numpy(np.stack([s[1] for s in samples]))


def _chunks(indices: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _save(path: Path, state: dict[str, Any]) -> None:
    with open_atomically(path) as file:
        torch.save(state, file)


def _restore_checkpoint(out: Path, parts: dict[str, Any]) -> tuple[int, float, int]:
    """The next epoch, the best validation so far, and the epochs since it; restores all states."""
    path = out / CHECKPOINT
    if not path.is_file():
        return _FRESH_START
    # A checkpoint is a pickle, which could run code if it were loaded in full.
    state = torch.load(path, weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    # Checkpoints of earlier versions hold neither the random states nor "since".
    for i, random_state in enumerate(state.get("random", ())):
        if i == 0:
            torch.set_rng_state(random_state)
        # The interrupted run may have had more GPUs than this machine.
        elif i <= torch.cuda.device_count():
            torch.cuda.set_rng_state(random_state, i - 1)
    return int(state["epoch"]), float(state["best"]), int(state.get("since", 0))


def _random_states() -> list[Tensor]:
    """Random states of the CPU and of every GPU; dropout draws from them."""
    return [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
