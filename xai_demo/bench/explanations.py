"""What an explanation costs: cut networks, the plain forward pass and pytorch-grad-cam.

Everything is measured side by side in one process, interleaved, and told as ratios to the plain
torch forward pass of the same network. Weights are untrained: they do not change what an
operation costs.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import explainers, networks
from xai_demo.catalog.hub_models import CNN14
from xai_demo.engine import export_features, on_onnx, on_torch
from xai_demo.records import LogMel, Model, Raster

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Floats, Progress
    from xai_demo.settings import Settings

LABELS = tuple(f"label {i}" for i in range(14))
ROUNDS = 15
_REST_S = 0.05  # lets the threads of the runtime before stop spinning
_FILM = Raster(height=224, width=224, mean=0.5, std=0.25)
# What pytorch-grad-cam is told to explain, which is where the network is cut.
_LAYERS = {
    "resnet18": "layer4",
    "resnet50": "layer4",
    "resnet101": "layer4",
    "densenet121": "features.norm5",
    "efficientnet-lite0": "bn2",
    "simplecnn": "conv_block3",
    "cnn6": "conv_block4",
    "cnn14": "conv_block6.conv2",
}


def run(
    settings: Settings, *, rounds: int = ROUNDS, progress: Progress | None = None
) -> dict[str, Any]:
    """Ratios for every architecture that the table in the README shows; see `table`."""
    import torch

    tell = progress or (lambda done, doing: None)
    rows = {}
    for i, name in enumerate(_LAYERS):
        tell(i / len(_LAYERS), name)
        rows[name] = _row(name, rounds)
    return {
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "explainer": explainers.DEFAULT,
        "versions": {"torch": torch.__version__, "onnxruntime": version("onnxruntime-gpu")},
        "architectures": rows,
    }


def table(result: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    columns = {
        "forward_ms": "forward, torch (ms)",
        "whole_1": "pytorch-grad-cam, 1 class",
        "whole_14": "pytorch-grad-cam, 14 classes",
        "torch_0": "cut, torch, answer alone",
        "torch_1": "cut, torch, 1 class",
        "torch_14": "cut, torch, 14 classes",
        "onnx_0": "cut, ONNX, answer alone",
        "onnx_1": "cut, ONNX, 1 class",
        "onnx_14": "cut, ONNX, 14 classes",
        "difference_torch": "largest difference, torch",
        "difference_onnx": "largest difference, ONNX",
    }
    lines = [
        "| network | " + " | ".join(columns.values()) + " |",
        "| --- " * (len(columns) + 1) + "|",
    ]
    for name, row in result["architectures"].items():
        cells = [_cell(key, row[key]) for key in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append(
        f"\n{result['explainer']}, {result['threads']} threads, median of {result['rounds']} "
        "interleaved rounds, pytorch-grad-cam's 14 classes once; ratios to the plain torch forward "
        "pass. Differences are the largest over 14 classes."
    )
    return "\n".join(lines)


def _cell(key: str, value: float) -> str:
    if key == "forward_ms":
        return f"{value:.0f}"
    return f"{value:.1e}" if key.startswith("difference") else f"{value:.2f}x"


def _row(name: str, rounds: int) -> dict[str, float]:
    import torch

    model = _model(name)
    torch.manual_seed(0)
    whole = networks.architecture(model).whole(model).eval().requires_grad_(False)
    cut = networks.cut(model, whole)
    shape = (1, 1, 64, 1001) if isinstance(model.preprocessing, LogMel) else (1, 1, 224, 224)
    inputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        onnx = on_onnx(export_features(model, cut, Path(folder) / "model.onnx"))
    explain = explainers.EXPLAINERS[explainers.DEFAULT].heat
    on = {"torch": on_torch(cut.features), "onnx": onnx}
    plain = torch.from_numpy(inputs)

    def forward() -> Any:
        with torch.inference_mode():
            return whole(plain)

    def explained(backend: str, n: int) -> Callable[[], Floats]:
        def once() -> Floats:
            activations = on[backend](inputs)
            with torch.inference_mode():
                logits = np.asarray(cut.head(activations).cpu())
            if not n:
                return logits
            subject = explainers.Subject(
                inputs=inputs,
                activations=activations,
                head=cut.head,
                forward=lambda x: np.asarray(cut.head(on[backend](x))),
                network=None,
                background=0.0,
                maps=lambda activations: networks.maps(model, activations),
            )
            return explain(subject, range(n))

        return once

    library = _library(name, whole, plain)
    ways: dict[str, Callable[[], Any]] = {"forward": forward, "whole_1": lambda: library(1)}
    for backend in on:
        ways |= {f"{backend}_{n}": explained(backend, n) for n in (0, 1, 14)}
    seconds = _timed(ways, rounds)
    start = time.perf_counter()
    reference = library(14)
    seconds["whole_14"] = time.perf_counter() - start
    result = _ratios(seconds)
    for backend in on:
        heat = explained(backend, 14)()[0]
        result[f"difference_{backend}"] = max(
            float(np.abs(_scaled(mine, theirs.shape) - theirs).max())
            for mine, theirs in zip(heat, reference, strict=True)
        )
    return result


def _scaled(heat: Floats, shape: tuple[int, ...]) -> Floats:
    from xai_demo.analysis import heatmap as maps

    return maps.scaled(maps.resized(maps.scaled(heat), *shape))


def _timed(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:  # nobody always goes first
            way = ways[name]
            time.sleep(_REST_S)
            start = time.perf_counter()
            way()
            if i:  # the first round warms up
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in taken.items()}


def _ratios(seconds: dict[str, float]) -> dict[str, float]:
    forward = seconds.pop("forward")
    return {"forward_ms": 1000 * forward} | {k: v / forward for k, v in seconds.items()}


def _library(name: str, whole: nn.Module, inputs: Any) -> Callable[[int], Floats]:
    """pytorch-grad-cam on the whole network, as its README shows it, for so many classes."""
    from pytorch_grad_cam import GradCAMPlusPlus
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layer = whole.get_submodule(_LAYERS[name])
    turn = (lambda x: x.transpose(2, 3)) if name.startswith("cnn") else None  # time before mel

    def heat(n: int) -> Floats:
        whole.requires_grad_(True)
        with GradCAMPlusPlus(whole, [layer], turn) as camera:
            found = [
                camera(input_tensor=inputs, targets=[ClassifierOutputTarget(k)])[0]
                for k in range(n)
            ]
        whole.requires_grad_(False)
        return np.stack(found)

    return heat


def _model(name: str) -> Model:
    sound = name.startswith("cnn")
    return Model(
        name=name,
        title=name,
        task="audioset" if sound else "chest_xray",
        architecture=name,
        labels=LABELS,
        preprocessing=CNN14.preprocessing if sound else _FILM,
        activation="sigmoid",
        licence="",
        data="",
        citation="",
    )
