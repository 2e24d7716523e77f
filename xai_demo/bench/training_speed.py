"""How many samples a second training takes: by memory layout, by precision, with and without both.

One optimiser step after the other on made-up inputs, the variants in turns, the medians compared.
The first variant is PyTorch's default; the last is what `training.trainer` uses.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

import torch

from xai_demo import networks
from xai_demo.training.losses import has_bfloat16, objective_for
from xai_demo.training.recipes import recipe_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.records import Progress

ROUNDS = 5
RECIPES = ("nih14-efficientnet-lite0", "pneumonia-resnet18")
VARIANTS = {
    "float32": (torch.contiguous_format, False),
    "float32, channels last": (torch.channels_last, False),
    "bfloat16": (torch.contiguous_format, True),
    "bfloat16, channels last": (torch.channels_last, True),
}
_SIDE, _BATCH = 224, 16


def run(*, rounds: int = ROUNDS, progress: Progress | None = None) -> dict[str, Any]:
    """Samples a second of each recipe's network in each variant, at 224 x 224 pixels."""
    report = progress or (lambda _done, _doing: None)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    result: dict[str, Any] = {
        "rounds": rounds,
        "batch": _BATCH,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "has_bfloat16": has_bfloat16(device),
        "recipes": {},
    }
    for number, name in enumerate(RECIPES):
        report(number / len(RECIPES), f"Training {name}")
        result["recipes"][name] = _measure(name, rounds, device)
    return result


def _measure(name: str, rounds: int, device: torch.device) -> dict[str, float]:
    recipe = recipe_of(name)
    torch.manual_seed(0)
    network = networks.architecture(recipe.model).build(recipe.model)
    objective = objective_for(network, recipe).to(device).train()
    targets = torch.eye(len(recipe.model.labels))[
        torch.arange(_BATCH) % len(recipe.model.labels)
    ].to(device)
    inputs = torch.randn(_BATCH, 1, _SIDE, _SIDE, device=device)
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    # Once more than counted: the first step of each variant prepares its kernels.
    for turn in range(rounds + 1):
        for variant, (layout, is_bfloat16) in VARIANTS.items():
            objective.to(memory_format=layout)  # type: ignore[call-overload]
            began = time.perf_counter()
            _step(objective.network, inputs.contiguous(memory_format=layout), targets, is_bfloat16)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:
                seconds[variant].append(time.perf_counter() - began)
    return {variant: _BATCH / statistics.median(each) for variant, each in seconds.items()}


def _step(network: nn.Module, inputs: Tensor, targets: Tensor, is_bfloat16: bool) -> None:
    """One forward and one backward pass, and a step that is too small to change anything."""
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=is_bfloat16):
        logits = network(inputs)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(logits.float(), targets)
    loss.backward()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=1e-12)
            parameter.grad = None


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown, with the gain over the default."""
    hardware = "has" if result["has_bfloat16"] else "does not have"
    lines = [
        f"Training steps of {result['batch']} samples at {_SIDE} x {_SIDE} pixels, medians of "
        f"{result['rounds']}, on {result['device']} with {result['threads']} threads, which "
        f"{hardware} bfloat16 in hardware. Samples a second, and the gain over the first:",
        "",
        "| network | " + " | ".join(VARIANTS) + " |",
        "| --- " * (len(VARIANTS) + 1) + "|",
    ]
    for name, rates in result["recipes"].items():
        first = next(iter(rates.values()))
        cells = " | ".join(f"{rate:.1f} ({rate / first:.2f}x)" for rate in rates.values())
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines)
