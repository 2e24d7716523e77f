"""What runs the features: torch or ONNX Runtime, on the device that `devices` decided for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.engine.devices import CPU, CUDA, providers

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.networks import Cut
    from xai_demo.records import Floats

BACKENDS = ("auto", "torch", "onnx")


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """The features, ready to run: (batch, 1, rows, columns) -> activations, without gradients.

    The activations are an ordinary tensor on `device`: what follows may be differentiated.
    """

    run: Callable[[Floats], Tensor]
    device: str  # cpu or cuda

    def __call__(self, inputs: Floats) -> Tensor:
        """Activations of a batch of inputs."""
        import torch

        with torch.inference_mode(False), torch.no_grad():
            return self.run(np.ascontiguousarray(inputs, dtype=np.float32))


def on_torch(features: nn.Module, precision: str = "float32") -> Runner:
    """The features run by torch, where their parameters are.

    `precision` is a torch type: with a half one, autocast runs what it holds to be safe in it; the
    activations are float32 in any case.
    """
    import torch

    device = next((p.device for p in features.parameters()), torch.device("cpu"))
    half = precision != "float32"

    def run(inputs: Floats) -> Tensor:
        with torch.autocast(device.type, dtype=getattr(torch, precision), enabled=half):
            activations: Tensor = features(torch.from_numpy(inputs).to(device))
        return activations.float()

    return Runner(run=run, device=device.type)


def on_onnx(source: Path | bytes, device: str = "cpu") -> Runner:
    """The features run by ONNX Runtime from a file or its bytes; on the CPU if CUDA will not do."""
    import torch

    session = _session(source, device)
    where = "cuda" if CUDA in session.get_providers() else "cpu"
    name = session.get_inputs()[0].name

    def run(inputs: Floats) -> Tensor:
        (activations,) = session.run(None, {name: inputs})
        return torch.from_numpy(activations).to(where)

    return Runner(run=run, device=where)


def placed(cut: Cut, where: str) -> Cut:
    """The cut network on that device; on the CPU where the GPU has no room for it."""
    import torch

    if where == "cuda":
        # A GPU answers as a CPU does: TF32 would cost three of seven digits.
        torch.backends.cudnn.allow_tf32 = False
    try:
        for part in (cut.features, cut.head):
            part.to(where)
    except RuntimeError:
        for part in (cut.features, cut.head):
            part.to("cpu")
    return cut


def absent(*packages: str) -> tuple[str, ...]:
    """Those of the packages that are not installed."""
    return tuple(name for name in packages if find_spec(name) is None)


def _session(source: Path | bytes, device: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Its threads would otherwise go on spinning on the cores that the head then needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    wanted = providers(device)
    if wanted == [CPU]:
        return onnxruntime.InferenceSession(source, options, wanted)
    try:
        onnxruntime.preload_dlls()  # CUDA and cuDNN as torch brings them
        return onnxruntime.InferenceSession(source, options, wanted, enable_fallback=0)
    except Exception:  # each provider raises its own; the CPU is always there
        return onnxruntime.InferenceSession(source, options, [CPU])
