"""What an explanation costs: the plain forward pass, our cut networks and pytorch-grad-cam.

All are measured in one process, interleaved, and reported as ratios to the plain torch forward pass
of the same network. Weights are untrained, which does not change what an operation costs.
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
from xai_demo.audio.spectrogram import frame_count
from xai_demo.catalog.hub_models import CNN14, EFFICIENTAT_MN10, YAMNET
from xai_demo.engine.backends import onnx_runner, torch_runner
from xai_demo.engine.onnx_export import export_features
from xai_demo.networks import efficientat, yamnet
from xai_demo.records import LogMel, Model, Raster

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Floats, Progress
    from xai_demo.settings import Settings

# As many as NIH ChestX-ray14 has.
LABELS = tuple(f"label {i}" for i in range(14))
ROUNDS = 15
# The threads of one runtime keep spinning for a while, which would slow down the next one.
_REST_S = 0.05
_RADIOGRAPH = Raster(height=224, width=224, mean=0.5, std=0.25)
# The layer that pytorch-grad-cam explains, after which our networks are cut.
_LAYERS = {
    "resnet18": "layer4",
    "resnet50": "layer4",
    "resnet101": "layer4",
    "densenet121": "features.norm5",
    "efficientnet-lite0": "bn2",
    "efficientnet-lite1": "bn2",
    "efficientnet-lite2": "bn2",
    "simplecnn": "conv_block3",
    "cnn6": "conv_block4",
    "cnn14": "conv_block6.conv2",
    "efficientat-mn10": efficientat.LAST_LAYER,
    "yamnet": yamnet.LAST_LAYER,
}
# The front ends of the networks for sounds; all others get a radiograph.
_SOUNDS = {
    "cnn6": CNN14,
    "cnn14": CNN14,
    "efficientat-mn10": EFFICIENTAT_MN10,
    "yamnet": YAMNET,
}
_SECONDS = 10


def run(
    settings: Settings, *, rounds: int = ROUNDS, progress: Progress | None = None
) -> dict[str, Any]:
    """Forward pass in milliseconds, ratios to it, and differences, for every architecture."""
    import torch

    report = progress or (lambda done, doing: None)
    rows = {}
    for i, name in enumerate(_LAYERS):
        report(i / len(_LAYERS), name)
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
    whole = networks.architecture(model).build(model).eval().requires_grad_(False)
    cut = networks.cut(model, whole)
    spec, shape = model.preprocessing, (1, 1, 224, 224)
    if isinstance(spec, LogMel):
        shape = (1, 1, spec.n_mels, frame_count(_SECONDS * spec.sample_rate_hz, spec))
    inputs = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        onnx = onnx_runner(export_features(model, cut, Path(folder) / "model.onnx"))
    explain = explainers.EXPLAINERS[explainers.DEFAULT].explain
    runners = {"torch": torch_runner(cut.features), "onnx": onnx}
    tensor = torch.from_numpy(inputs)

    def forward() -> Any:
        with torch.inference_mode():
            return whole(tensor)

    def explanation(backend: str, n: int) -> Callable[[], Floats]:
        """Predict and explain `n` classes; with 0, predict only."""

        def run_once() -> Floats:
            activations = runners[backend](inputs)
            with torch.inference_mode():
                logits = np.asarray(cut.head(activations).cpu())
            if not n:
                return logits
            subject = explainers.Subject(
                inputs=inputs,
                activations=activations,
                head=cut.head,
                forward=lambda x: np.asarray(cut.head(runners[backend](x))),
                network=None,
                background=0.0,
                feature_maps=lambda activations: networks.feature_maps(model, activations),
            )
            return explain(subject, range(n))

        return run_once

    library = _pytorch_grad_cam(name, whole, tensor)
    variants: dict[str, Callable[[], Any]] = {"forward": forward, "whole_1": lambda: library(1)}
    for backend in runners:
        variants |= {f"{backend}_{n}": explanation(backend, n) for n in (0, 1, 14)}
    seconds = _median_seconds(variants, rounds)
    # Once only, because it takes as long as some fifty forward passes.
    start = time.perf_counter()
    reference = library(14)
    seconds["whole_14"] = time.perf_counter() - start
    result = _ratios(seconds)
    for backend in runners:
        heatmaps = explanation(backend, 14)()[0]
        result[f"difference_{backend}"] = max(
            float(np.abs(_resize_normalised(ours, theirs.shape) - theirs).max())
            for ours, theirs in zip(heatmaps, reference, strict=True)
        )
    return result


def _resize_normalised(attribution: Floats, shape: tuple[int, ...]) -> Floats:
    """As pytorch-grad-cam does it: to 0..1 before and after the resizing."""
    from xai_demo.analysis.heatmap import normalise, resize

    return normalise(resize(normalise(attribution), *shape))


def _median_seconds(variants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """The median duration of each variant; they take turns at being first."""
    durations: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for i in range(rounds + 1):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            variant = variants[name]
            time.sleep(_REST_S)
            start = time.perf_counter()
            variant()
            # The first round warms up.
            if i:
                durations[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in durations.items()}


def _ratios(seconds: dict[str, float]) -> dict[str, float]:
    # The plain forward pass is the unit, and no ratio to itself.
    forward = seconds.pop("forward")
    return {"forward_ms": 1000 * forward} | {k: v / forward for k, v in seconds.items()}


def _pytorch_grad_cam(name: str, whole: nn.Module, inputs: Any) -> Callable[[int], Floats]:
    """pytorch-grad-cam on the whole network, used as in its README; takes a number of classes."""
    from pytorch_grad_cam import GradCAMPlusPlus
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layer = whole.get_submodule(_LAYERS[name])
    # PANNs' feature maps are (time, mel), but their input is (mel, time).
    reshape = (lambda x: x.transpose(2, 3)) if name.startswith("cnn") else None

    def explain(n: int) -> Floats:
        whole.requires_grad_(True)
        with GradCAMPlusPlus(whole, [layer], reshape) as cam:
            # One class a call, as the library explains one target for each input.
            heatmaps = [
                cam(input_tensor=inputs, targets=[ClassifierOutputTarget(k)])[0] for k in range(n)
            ]
        # The other variants must not compute gradients of the weights.
        whole.requires_grad_(False)
        return np.stack(heatmaps)

    return explain


def _model(name: str) -> Model:
    sound = _SOUNDS.get(name)
    return Model(
        name=name,
        title=name,
        task="audioset" if sound else "chest_xray",
        architecture=name,
        labels=LABELS,
        preprocessing=sound.preprocessing if sound else _RADIOGRAPH,
        activation="sigmoid",
        licence="",
        data="",
        citation="",
    )
