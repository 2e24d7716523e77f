"""Fits the network of `imaging.lungs` and measures it; the command is `refit lungs`.

There are no drawn outlines. The network learns from films whose lungs are clear enough for
`training.lung_outlines`, and from thorax phantoms, all changed at random by `training.lung_films`:
where that hides a lung, its outline stays. One patient in seven is left out and measured on.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import cv2
import numpy as np
import torch
from torch import nn

from xai_demo.errors import TrainingError
from xai_demo.files import write_atomically
from xai_demo.imaging import lungs
from xai_demo.imaging.gate import thumbnail
from xai_demo.synthesis import thorax
from xai_demo.training import gate_eval, lung_films
from xai_demo.training.datasets import radiographs, split_groups
from xai_demo.training.lung_outlines import SIDE, outline_lungs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xai_demo.records import Floats, Progress
    from xai_demo.settings import Settings

    Mask: TypeAlias = NDArray[np.bool_]

STEPS, BATCH, _LEARNING_RATE = 700, 32, 3e-3
# The share of images without lungs, and of phantoms among the films.
_WITHOUT, _PHANTOMS = 0.1, 60


class LungNetwork(nn.Module):
    """The network of `imaging.lungs` for training, with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        for name, (channels, out, stride) in lungs.LAYERS.items():
            convolution = nn.Conv2d(channels, out, 3, stride, 1, bias=name == "out")
            # The last layer's answers are logits.
            rest = () if name == "out" else (nn.BatchNorm2d(out), nn.ReLU(inplace=True))
            self.add_module(name, nn.Sequential(convolution, *rest))

    def forward(self, films: torch.Tensor) -> torch.Tensor:
        """Films, (batch, 1, 128, 128), 0 to 1 -> logits, (batch, 2, 64, 64)."""
        layers = dict(self.named_children())
        side = torch.linspace(-1, 1, films.shape[-1])
        down, right = torch.meshgrid(side, side, indexing="ij")
        places = torch.stack([down, right]).expand(len(films), -1, -1, -1)
        planes = torch.cat([2 * films - 1, places], dim=1)
        fine = layers["fine"](layers["stem"](planes))
        medium = layers["medium"](layers["down1"](fine))
        coarse = layers["coarse"](layers["down2"](medium))
        deep = layers["down3"](coarse)
        deep = layers["deep3"](layers["deep2"](layers["deep1"](deep)) + deep) + deep
        for name, skipped in (("up1", coarse), ("up2", medium), ("up3", fine)):
            doubled = nn.functional.interpolate(deep, scale_factor=2.0, mode="nearest")
            deep = layers[name](torch.cat([doubled, skipped], dim=1))
        logits: torch.Tensor = layers["out"](deep)
        return logits


@dataclass(slots=True)
class _Films:
    """Thumbnails, with outlines where there are any."""

    images: list[Floats] = field(default_factory=list)  # each (128, 128)
    outlines: list[Mask | None] = field(default_factory=list)  # each (2, 128, 128)
    folders: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)

    def add(self, image: Floats, outline: Mask | None, folder: str, group: str) -> None:
        """Add one film."""
        self.images.append(image)
        self.outlines.append(outline)
        self.folders.append(folder)
        self.groups.append(group)


def refit_lungs(
    folders: gate_eval.ImageFolders,
    *,
    settings: Settings,
    out: Path | None = None,
    steps: int = STEPS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fit the network, write its weights to `out`, and measure it on patients left out.

    Without `out`, only the weights in use are measured. Raises TrainingError where the folder is
    missing or has too few films with clear lungs.
    """
    report = progress or (lambda done, doing: None)
    films, unread = _read(folders, settings, report, all_patients=out is not None)
    held_out = [i for i, group in enumerate(films.groups) if _is_left_out(group)]
    fitted = [i for i in range(len(films.groups)) if i not in set(held_out)]
    clear = [i for i in fitted if films.outlines[i] is not None]
    if out is not None and len(clear) < 2:
        raise TrainingError(
            f"{folders.radiographs} has {len(clear)} films with clear lungs; at least 2 are needed."
        )
    images = [thumbnail(pixels) for _, pixels, _ in gate_eval.other_images(folders, settings, [])]
    counts = {"films": len(fitted), "with clear lungs": len(clear)} if out else {}
    if out is not None:
        samples = [_sample(films.images[i], films.outlines[i]) for i in clear]
        samples += [_phantom(seed) for seed in range(_PHANTOMS)]
        torch.manual_seed(0)
        network = LungNetwork()
        _train(network, samples, images[::2], steps, report)
        write_atomically(out, packed_weights(network))
    report(0.95, "measuring")
    layers = lungs.read_weights(out or lungs.WEIGHTS_FILE)
    return {
        "check": "lungs",
        "n": counts,
        "groups": len({films.groups[i] for i in held_out}),
        "rows": _measure(films, held_out, images[1::2], layers),
        "notes": [f"{len(unread)} files could not be read and are left out."] if unread else [],
    }


def _read(
    folders: gate_eval.ImageFolders, settings: Settings, report: Progress, *, all_patients: bool
) -> tuple[_Films, list[str]]:
    """The films with outlines, and the names of the files that cannot be read."""
    films, unread = _Films(), list[str]()
    by_folder = gate_eval.files_by_folder(folders.radiographs, "radiographs", folders.most)
    for number, (name, paths) in enumerate(by_folder.items()):
        report(0.4 * number / len(by_folder), f"clear lungs in {name}")
        for path in paths:
            group = radiographs.patient_of(path)
            if not (all_patients or _is_left_out(group)):
                continue
            image = gate_eval.read_pixels(path, settings, unread)
            if image is not None:
                small = thumbnail(image[0])
                films.add(small, outline_lungs(small), Path(name).parts[0], group)
    return films, unread


def _is_left_out(patient: str) -> bool:
    """Whether a patient is measured on, and not fitted on."""
    return split_groups([patient], seed="lung fields") == ("test",)


def _sample(image: Floats, outline: Mask | None) -> tuple[Floats, Floats]:
    """A film and its lungs as `lung_films` takes them."""
    if outline is None:
        raise ValueError("the film has no outline")
    return image, np.moveaxis(outline.astype(np.float32), 0, 2)


def _phantom(seed: int) -> tuple[Floats, Floats]:
    """A thorax phantom, in two of three cases with up to three opacities."""
    rng = np.random.default_rng(seed)
    opacities = tuple(
        thorax.Opacity(
            label="opacity",
            x=float(rng.choice([0.3, 0.7]) + rng.uniform(-0.05, 0.05)),
            y=float(rng.uniform(0.35, 0.65)),
            radius_x=float(rng.uniform(0.05, 0.16)),
            radius_y=float(rng.uniform(0.05, 0.22)),
        )
        for _ in range(rng.integers(0, 4) if seed % 3 else 0)
    )
    pixels = thorax.thorax_phantom(seed=seed, opacities=opacities).pixels
    return _sample(thumbnail(np.asarray(pixels / 255, np.float32)), thorax.lung_masks(SIDE))


def _train(
    network: LungNetwork,
    samples: Sequence[tuple[Floats, Floats]],
    others: Sequence[Floats],
    steps: int,
    report: Progress,
) -> None:
    rng = np.random.default_rng(0)
    network.train()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _LEARNING_RATE, total_steps=steps, pct_start=0.15
    )
    films = [film for film, _ in samples]
    for step in range(steps):
        report(0.4 + 0.55 * step / steps, f"step {step} of {steps}")
        images, targets = _batch(samples, films, others, rng)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images.contiguous(memory_format=torch.channels_last))
        loss = _loss(logits.float(), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()


def _batch(
    samples: Sequence[tuple[Floats, Floats]],
    films: Sequence[Floats],
    others: Sequence[Floats],
    rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images, (batch, 1, 128, 128), and the share of each point that is lung, at 64 a side."""
    images, targets = [], []
    for _ in range(BATCH):
        if rng.random() < _WITHOUT:
            image = lung_films.without_lungs(films, others, rng)
            target: Floats = np.zeros((lungs.GRID, lungs.GRID, 2), np.float32)
        else:
            image, planes = lung_films.vary(*samples[int(rng.integers(len(samples)))], rng)
            small = cv2.resize(planes, 2 * (lungs.GRID,), interpolation=cv2.INTER_AREA)
            target = np.asarray(small, np.float32)
        images.append(image[None])
        targets.append(np.moveaxis(target, 2, 0))
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(targets))


def _loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy, and half of what Dice's coefficient lacks to 1."""
    probabilities = torch.sigmoid(logits)
    shared = (probabilities * targets).sum((2, 3))
    # The offset counts two empty masks as equal.
    dice = (2 * shared + 20) / (probabilities.sum((2, 3)) + targets.sum((2, 3)) + 20)
    cross_entropy = nn.functional.binary_cross_entropy_with_logits(logits, targets)
    return cross_entropy + 0.5 * (1 - dice.mean())


def packed_weights(network: LungNetwork) -> bytes:
    """The file that `imaging.lungs` reads: kernels of 8 bits, normalisation folded into them."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, layer in network.named_children():
        state = {key: value.detach().double().numpy() for key, value in layer.state_dict().items()}
        kernels = state["0.weight"]
        biases = state.get("0.bias", np.zeros(len(kernels)))
        if "1.weight" in state:
            gain = state["1.weight"] / np.sqrt(state["1.running_var"] + 1e-5)
            kernels = kernels * gain[:, None, None, None]
            biases = state["1.bias"] - gain * state["1.running_mean"]
        scales = np.abs(kernels).max(axis=(1, 2, 3)) / 127 + 1e-12
        levels = np.rint(kernels / scales[:, None, None, None])
        arrays |= {
            f"{name}.kernels": levels.astype(np.int8),
            f"{name}.scales": scales.astype(np.float32),
            f"{name}.biases": biases.astype(np.float32),
        }
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _measure(
    films: _Films, held_out: Sequence[int], others: Sequence[Floats], layers: lungs.Layers
) -> dict[str, dict[str, Any]]:
    """Figures by source: how many, how many found, and the Dice coefficients of the field."""
    rows: dict[str, dict[str, list[float]]] = {}

    def note(row: str, figure: str, value: float) -> None:
        rows.setdefault(row, {}).setdefault(figure, []).append(value)

    for i in held_out:
        image, outline, row = films.images[i], films.outlines[i], films.folders[i]
        field = lungs.find_lungs(image, layers)
        note(row, "found", field.is_found)
        if outline is not None:
            note(row, "dice", _dice(field.mask, np.logical_or(*outline)))
        for figure, value in _stability(image, field, layers).items():
            note(row, figure, value)
        for wrong in (np.rot90(image), np.rot90(image, 2), 1 - image):
            turned = lungs.find_lungs(np.ascontiguousarray(wrong), layers)
            note("films turned or inverted", "found", turned.is_found)
    for image in others:
        note("drawings and spectrograms", "found", lungs.find_lungs(image, layers).is_found)
    # Seeds that were not fitted on.
    for seed in range(_PHANTOMS, 2 * _PHANTOMS):
        image, planes = _phantom(seed)
        field = lungs.find_lungs(image, layers)
        note("thorax phantoms", "found", field.is_found)
        note("thorax phantoms", "dice", _dice(field.mask, planes.max(axis=2) >= 0.5))
    return {
        row: {"n": len(figures["found"])}
        | {name: round(float(np.mean(values)), 4) for name, values in figures.items()}
        for row, figures in rows.items()
    }


def _stability(image: Floats, field: lungs.LungField, layers: lungs.Layers) -> dict[str, float]:
    """Dice coefficients of the field and that of a shifted, a mirrored and two other exposures."""
    if not field.is_found:
        return {}
    step = round(0.04 * SIDE)
    shifted = np.roll(lungs.find_lungs(np.roll(image, step, (0, 1)), layers).mask, -step, (0, 1))
    mirrored = lungs.find_lungs(np.ascontiguousarray(image[:, ::-1]), layers).mask[:, ::-1]
    exposed = [lungs.find_lungs(image**gamma, layers).mask for gamma in (0.7, 1.4)]
    return {
        "shifted": _dice(field.mask, shifted),
        "mirrored": _dice(field.mask, mirrored),
        "exposed": min(_dice(field.mask, mask) for mask in exposed),
    }


def _dice(one: Mask, other: Mask) -> float:
    """Dice's coefficient of two masks of one shape; 1 where both are empty."""
    total = int(one.sum() + other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


def table(result: dict[str, Any]) -> str:
    """The figures for a terminal, as Markdown."""
    figures = ("found", "dice", "shifted", "mirrored", "exposed")
    fitted = ", ".join(f"{count} {name}" for name, count in result["n"].items())
    lines = [
        f"Fitted on {fitted}." if fitted else "The weights in use, which may know these patients.",
        f"Measured on {result['groups']} patients left out of a fit. Dice: with the outlines of "
        "clear lungs; then of the field with that of the film shifted, mirrored and exposed "
        "otherwise.",
        "",
        "| images | n | " + " | ".join(figures) + " |",
        "| --- " * (2 + len(figures)) + "|",
    ]
    for name, row in result["rows"].items():
        cells = (f"{row[figure]:.3f}" if figure in row else "" for figure in figures)
        lines.append(f"| {name} | {row['n']} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, *result["notes"]])
