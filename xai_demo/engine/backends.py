"""How networks run: the device, torch or ONNX Runtime, loading, and giving memory back.

`load_cut_network` fills a network with the tensors of a checkpoint, `torch_runner` and
`onnx_runner` run its features, and `Network` is what the engine hands out.

`choose_placement` decides where: CUDA if torch sees a GPU, otherwise the CPU. On a Space with
ZeroGPU the package `spaces` lends a GPU for the length of a call; there only torch is used, because
ONNX Runtime would have to start a new session in every call.

glibc gives every thread its own arena of memory and seldom returns any of it to the system. With
many threads, each arena keeps what its largest task needed: `limit_malloc_arenas` and
`memory_trimmer` prevent that, and do nothing where there is no glibc.
"""

from __future__ import annotations

import ctypes
import importlib
import itertools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import networks
from xai_demo.decision import rescale_to_operating_points
from xai_demo.hub.checkpoint import check_tensors, read_tensors
from xai_demo.records import Model, ModelInUse

if TYPE_CHECKING:
    from torch import Tensor, nn

    from xai_demo.networks import Cut
    from xai_demo.records import Floats
    from xai_demo.settings import Settings

BACKENDS = ("auto", "torch", "onnx")
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_M_ARENA_MAX = -8  # of malloc.h
_N_ARENAS = 1
# In analyses; trimming takes about a millisecond.
TRIM_EVERY = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The device of a deployment's networks, and the precision they compute in."""

    device: str  # cpu or cuda
    # Of the features on a GPU: one of `settings.PRECISIONS`.
    precision: str = "float32"
    # The GPU is available only during a call.
    is_lent: bool = False

    @property
    def is_torch_only(self) -> bool:
        """Whether ONNX Runtime is used only on request."""
        return self.is_lent or self.precision != "float32"


def choose_placement(settings: Settings) -> Placement:
    """The device and precision for these settings on this machine."""
    # Before torch looks for a GPU: `spaces` has to be imported first.
    is_lent = zerogpu_package() is not None
    device = available_device()
    precision = settings.precision if device == "cuda" else "float32"
    return Placement(device=device, precision=precision, is_lent=is_lent)


def available_device() -> str:
    """`cuda` if torch sees a GPU, otherwise `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def zerogpu_package() -> Any | None:
    """The package `spaces` if it lends GPUs here; None if it is not installed or has none."""
    if find_spec("spaces") is None:
        return None
    spaces: Any = importlib.import_module("spaces")
    return spaces if getattr(spaces.config.Config, "zero_gpu", False) else None


def missing_packages(*packages: str) -> tuple[str, ...]:
    """Those of the packages that are not installed."""
    return tuple(name for name in packages if find_spec(name) is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runner:
    """Runs the features: (batch, 1, rows, columns) -> activations, without gradients.

    The activations are an ordinary tensor on `device`, so the head can be differentiated.
    """

    run: Callable[[Floats], Tensor]
    device: str  # cpu or cuda

    def __call__(self, inputs: Floats) -> Tensor:
        """The activations of a batch of inputs."""
        import torch

        # A tensor made in inference mode could not be differentiated later: hence no_grad.
        with torch.inference_mode(False), torch.no_grad():
            return self.run(np.ascontiguousarray(inputs, dtype=np.float32))


def torch_runner(features: nn.Module, precision: str = "float32") -> Runner:
    """Runs the features in torch, on the device of their parameters.

    `precision` names a torch type. With a half one, autocast uses it wherever that is safe; the
    activations are float32 in any case.
    """
    import torch

    device = next((p.device for p in features.parameters()), torch.device("cpu"))
    is_half = precision != "float32"

    def run(inputs: Floats) -> Tensor:
        with torch.autocast(device.type, dtype=getattr(torch, precision), enabled=is_half):
            activations: Tensor = features(torch.from_numpy(inputs).to(device))
        return activations.float()

    return Runner(run=run, device=device.type)


def onnx_runner(source: Path | bytes, device: str = "cpu") -> Runner:
    """Runs the features in ONNX Runtime, from a file or its bytes; on the CPU if CUDA fails."""
    import torch

    session = _inference_session(source, device)
    actual_device = "cuda" if CUDA in session.get_providers() else "cpu"
    name = session.get_inputs()[0].name

    def run(inputs: Floats) -> Tensor:
        (activations,) = session.run(None, {name: inputs})
        return torch.from_numpy(activations).to(actual_device)

    return Runner(run=run, device=actual_device)


def _inference_session(source: Path | bytes, device: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Its threads would otherwise keep spinning on the cores that the head needs next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    requested = onnx_providers(device)
    if requested == [CPU]:
        return onnxruntime.InferenceSession(source, options, requested)
    # Every provider raises exceptions of its own; the CPU is always available.
    try:
        # CUDA and cuDNN from torch's packages.
        onnxruntime.preload_dlls()
        return onnxruntime.InferenceSession(source, options, requested, enable_fallback=0)
    except Exception:
        return onnxruntime.InferenceSession(source, options, [CPU])


def onnx_providers(device: str) -> list[Any]:
    """ONNX Runtime's execution providers for a device, in order of preference."""
    import onnxruntime

    # Only if torch sees a GPU: without one, requesting CUDA prints errors.
    if device != "cuda" or CUDA not in onnxruntime.get_available_providers():
        return [CPU]
    return [(CUDA, {"use_tf32": "0"}), CPU]


def load_cut_network(model: Model, weights: Path, layer: str | None = None) -> Cut:
    """The network of a model with the weights of a file, cut in two, in evaluation mode.

    Raises CheckpointMismatchError unless the file holds exactly this network's tensors.
    """
    whole = networks.architecture(model).build(model)
    state = {
        networks.tensor_name(model, k): v
        for k, v in read_tensors(weights, model.preprocessing).items()
    }
    check_tensors(state, whole.state_dict(), weights.name)
    # Not strict, because some files leave out batch normalisation's counters; all else is checked.
    whole.load_state_dict(state, strict=False)
    whole.eval().requires_grad_(False)
    return networks.cut(model, whole, layer)


def move_to_device(cut: Cut, device: str) -> Cut:
    """Move the cut network to a device, or to the CPU if the GPU has no room for it."""
    import torch

    if device == "cuda":
        # A GPU must predict what a CPU does: TF32 would cost three of seven digits.
        torch.backends.cudnn.allow_tf32 = False
    try:
        for part in (cut.features, cut.head):
            part.to(device)
    except RuntimeError:
        for part in (cut.features, cut.head):
            part.to("cpu")
    return cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A loaded network: the large `features` on some backend, the small `head` in torch."""

    model: Model
    # (batch, 1, rows, columns) -> activations.
    features: Callable[[Floats], Tensor]
    head: nn.Module
    layer: str
    in_use: ModelInUse
    # Features and head, differentiable; None on ONNX Runtime.
    whole: nn.Module | None = None

    def probabilities(self, logits: Tensor) -> Floats:
        """The calibrated probabilities of logits, both (batch, labels)."""
        scaled = logits.float() / self.model.temperature
        if self.model.activation == "softmax":
            result: Floats = scaled.softmax(dim=1).cpu().numpy()
        else:
            result = scaled.sigmoid().cpu().numpy()
        return rescale_to_operating_points(self.model, result)


def limit_malloc_arenas() -> bool:
    """Make threads share one arena of memory from now on; False if that is not possible."""
    library = _glibc()
    return bool(library and library.mallopt(_M_ARENA_MAX, _N_ARENAS))


def memory_trimmer(
    every: int = TRIM_EVERY, trim: Callable[[], object] | None = None
) -> Callable[[], None]:
    """A function to call after each analysis; every so many calls it returns freed memory."""
    library = _glibc()
    trim_memory = trim or (lambda: library.malloc_trim(0) if library else None)
    count = itertools.count(1)

    def after_analysis() -> None:
        if next(count) % every == 0:
            trim_memory()

    return after_analysis


def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    # musl, for example, has no malloc_trim.
    return library if all(hasattr(library, n) for n in ("mallopt", "malloc_trim")) else None


def resident_mb() -> float:
    """The memory that this process occupies, in megabytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def thread_count() -> int:
    """The number of threads of this process, including those of libraries (Linux)."""
    return len(os.listdir("/proc/self/task"))
