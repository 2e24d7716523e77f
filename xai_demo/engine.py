"""Networks in memory: cut in two, on torch or ONNX Runtime, a bounded number of them."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import networks
from xai_demo.errors import (
    CheckpointMismatchError,
    UnknownNameError,
    UnsuitableError,
)
from xai_demo.records import LogMel, Model, ModelInUse, Progress

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.hub import Hub, Located
    from xai_demo.records import Floats

BACKENDS = ("auto", "torch", "onnx")
TOLERANCE = 1e-4  # relative error of an exported network against torch
_FRONT_END = ("spectrogram_extractor.", "logmel_extractor.")  # PANNs' own, replaced by ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A loaded network: the heavy `features` on some backend, the small `head` in torch."""

    model: Model
    features: Callable[[Floats], Tensor]  # (batch, 1, rows, columns) -> activations
    head: nn.Module
    layer: str
    in_use: ModelInUse

    def probabilities(self, logits: Tensor) -> Floats:
        """(batch, labels) logits to calibrated probabilities."""
        scaled = logits.float() / self.model.temperature
        if self.model.activation == "softmax":
            result: Floats = scaled.softmax(dim=1).cpu().numpy()
        else:
            result = scaled.sigmoid().cpu().numpy()
        return result


class Engine:
    """Loads networks when they are first asked for, and lets the least recently used go."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._loaded: OrderedDict[tuple[str, str], Network] = OrderedDict()
        self._lock = threading.Lock()

    def network(
        self,
        name: str,
        *,
        backend: str = "auto",
        weights: str | None = None,
        progress: Progress | None = None,
    ) -> Network:
        """The network of a model, ready to answer. Raises UnknownNameError and WeightsError."""
        if backend not in BACKENDS:
            raise UnknownNameError("backend", backend, BACKENDS)
        if weights is not None:
            model, located = self._hub.located_weights(
                weights, like=self._hub.model(name), progress=progress
            )
        else:
            model, located = self._hub.model(name), self._hub.located(name, progress=progress)
        with self._lock:  # one load at a time: two visitors who ask for the same network share it
            exported = self._exported(located.path, located.sha256)
            kind = "torch" if backend == "auto" and not exported.is_file() else backend
            kind = "onnx" if kind == "auto" else kind
            key = (f"{located.sha256} {model.architecture} {model.name}", kind)
            if key not in self._loaded:
                self._loaded[key] = self._load(model, located, kind)
            self._loaded.move_to_end(key)
            while len(self._loaded) > self._hub.settings.max_models:
                self._loaded.popitem(last=False)
            return self._loaded[key]

    def export(self, name: str, out: Path | None = None) -> Path:
        """Write the features as `model.onnx`, beside the weights or into `out`; checked."""
        model, located = self._hub.model(name), self._hub.located(name)
        path = (out or located.path.parent) / "model.onnx"
        return export_features(model, self._cut(model, located), path)

    def _exported(self, weights: Path, sha256: str) -> Path:
        beside = weights.parent / "model.onnx"
        cached = self._hub.settings.cache_dir / "onnx" / f"{sha256}.onnx"
        return beside if beside.is_file() else cached

    def _cut(self, model: Model, located: Located) -> networks.Cut:
        whole = networks.architecture(model).whole(model)
        _fill(whole, read_tensors(located.path), located.path.name)
        whole.eval().requires_grad_(False)
        return networks.cut(model, whole)

    def _load(self, model: Model, located: Located, kind: str) -> Network:
        cut = self._cut(model, located)
        features, device = on_torch(cut.features), "cpu"
        if kind == "onnx":
            exported = self._exported(located.path, located.sha256)
            if not exported.is_file():
                export_features(model, cut, exported)
            features = on_onnx(exported)
        in_use = ModelInUse(
            name=model.name,
            architecture=model.architecture,
            source=located.source,
            repo_id=located.repo_id,
            revision=located.revision,
            sha256=located.sha256,
            backend=kind,
            device=device,
        )
        return Network(
            model=model, features=features, head=cut.head, layer=cut.layer, in_use=in_use
        )


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name: safetensors, or a pickle of nothing but tensors.

    Known wrappings are taken off: `{"model": ...}`, `{"state_dict": ...}`,
    `{"model_state_dict": ...}`, a `backbone.` before every name, and the front end that PANNs
    store. Raises CheckpointMismatchError.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format raises its own
        raise CheckpointMismatchError(
            f"{path.name} cannot be read as tensors ({type(error).__name__}), "
            "wanted: a whole safetensors file or a pickle of nothing but tensors."
        ) from error
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointMismatchError(f"{path.name} holds something else than tensors by name.")
    named = {k.removeprefix("backbone."): v for k, v in state.items()}
    return {
        k: v.float() if v.is_floating_point() else v
        for k, v in named.items()
        if not k.startswith(_FRONT_END)
    }


def _fill(whole: nn.Module, state: dict[str, Tensor], file_name: str) -> None:
    wanted = whole.state_dict()
    for name, tensor in wanted.items():
        if name not in state:
            if name.endswith("num_batches_tracked"):
                continue
            raise CheckpointMismatchError(
                f"{file_name} has no tensor {name}, wanted: {name} {tuple(tensor.shape)}."
            )
        if state[name].shape != tensor.shape:
            raise CheckpointMismatchError(
                f"{file_name} has {name} {tuple(state[name].shape)}, wanted: {tuple(tensor.shape)}."
            )
    surplus = [name for name in state if name not in wanted]
    if surplus:
        raise CheckpointMismatchError(
            f"{file_name} has a tensor {surplus[0]} {tuple(state[surplus[0]].shape)}, "
            "wanted: none of that name."
        )
    whole.load_state_dict(state, strict=False)


def on_torch(features: nn.Module) -> Callable[[Floats], Tensor]:
    """The features run by torch, without gradients."""
    import torch

    def run(inputs: Floats) -> Tensor:
        with torch.inference_mode():
            activations: Tensor = features(torch.from_numpy(np.ascontiguousarray(inputs)))
        return activations.clone()

    return run


def on_onnx(path: Path) -> Callable[[Floats], Tensor]:
    """The features run by ONNX Runtime."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(inputs: Floats) -> Tensor:
        (activations,) = session.run(None, {name: np.ascontiguousarray(inputs)})
        return torch.from_numpy(activations)

    return run


def export_features(model: Model, cut: networks.Cut, path: Path) -> Path:
    """Write the features as ONNX, held against torch; nothing is left behind if they differ."""
    import torch

    spec = model.preprocessing
    if isinstance(spec, LogMel):
        columns = round(spec.window_s * spec.sample_rate_hz / spec.hop_length) + 1
        shape = (2, 1, spec.n_mels, columns)
    else:
        shape = (2, 1, spec.height, spec.width)
    example = torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.onnx")
    dimensions = {0: "batch"} | ({3: "time"} if isinstance(spec, LogMel) else {})
    try:
        torch.onnx.export(
            cut.features,
            (example,),
            part,
            input_names=["input"],
            output_names=["activations"],
            dynamic_shapes=(dimensions,),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        expected = on_torch(cut.features)(example.numpy())
        error = (on_onnx(part)(example.numpy()) - expected).norm() / expected.norm()
        if not float(error) <= TOLERANCE:
            raise UnsuitableError(
                f"The exported {model.name} differs from torch by {float(error):.1e}, "
                f"wanted: at most {TOLERANCE:.0e}."
            )
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return path
