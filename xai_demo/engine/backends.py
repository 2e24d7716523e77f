"""What runs the features: torch or ONNX Runtime, on the device that `devices` decided for.

Networks filled with the tensors of a checkpoint.

What the engine hands out.

Where networks run and in which numbers: the one place that decides, for torch and ONNX Runtime.

CUDA where torch sees a GPU, else the CPU. On a Space with ZeroGPU the package `spaces` lends a GPU
for the length of a call: there torch alone works, since ONNX Runtime would have to begin anew in
every such call.

The process's memory: few places to keep freed memory in, and given back now and then.

glibc gives every thread its own arena of memory and seldom returns any. Where many threads answer
in turn, each arena keeps what its largest answer took. Elsewhere than on glibc nothing is done.
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


def torch_runner(features: nn.Module, precision: str = "float32") -> Runner:
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


def onnx_runner(source: Path | bytes, device: str = "cpu") -> Runner:
    """The features run by ONNX Runtime from a file or its bytes; on the CPU if CUDA will not do."""
    import torch

    session = _inference_session(source, device)
    where = "cuda" if CUDA in session.get_providers() else "cpu"
    name = session.get_inputs()[0].name

    def run(inputs: Floats) -> Tensor:
        (activations,) = session.run(None, {name: inputs})
        return torch.from_numpy(activations).to(where)

    return Runner(run=run, device=where)


def move_to_device(cut: Cut, where: str) -> Cut:
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


def missing_packages(*packages: str) -> tuple[str, ...]:
    """Those of the packages that are not installed."""
    return tuple(name for name in packages if find_spec(name) is None)


def _inference_session(source: Path | bytes, device: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # Its threads would otherwise go on spinning on the cores that the head then needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    wanted = onnx_providers(device)
    if wanted == [CPU]:
        return onnxruntime.InferenceSession(source, options, wanted)
    try:
        onnxruntime.preload_dlls()  # CUDA and cuDNN as torch brings them
        return onnxruntime.InferenceSession(source, options, wanted, enable_fallback=0)
    except Exception:  # each provider raises its own; the CPU is always there
        return onnxruntime.InferenceSession(source, options, [CPU])


def load_cut_network(model: Model, weights: Path, layer: str | None = None) -> networks.Cut:
    """The network of a model with the weights of a file, cut in two, ready to answer.

    Raises CheckpointMismatchError where the file does not hold exactly this network's tensors.
    """
    whole = networks.architecture(model).build(model)
    state = {
        networks.tensor_name(model, k): v
        for k, v in read_tensors(weights, model.preprocessing).items()
    }
    check_tensors(state, whole.state_dict(), weights.name)
    whole.load_state_dict(state, strict=False)  # checked; some files leave out batch counters
    whole.eval().requires_grad_(False)
    return networks.cut(model, whole, layer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A loaded network: the heavy `features` on some backend, the small `head` in torch."""

    model: Model
    features: Callable[[Floats], Tensor]  # (batch, 1, rows, columns) -> activations
    head: nn.Module
    layer: str
    in_use: ModelInUse
    whole: nn.Module | None = None  # features and head, differentiable; None on ONNX Runtime

    def probabilities(self, logits: Tensor) -> Floats:
        """(batch, labels) logits to calibrated probabilities."""
        scaled = logits.float() / self.model.temperature
        if self.model.activation == "softmax":
            result: Floats = scaled.softmax(dim=1).cpu().numpy()
        else:
            result = scaled.sigmoid().cpu().numpy()
        return rescale_to_operating_points(self.model, result)


CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What was decided."""

    device: str  # cpu or cuda
    precision: str = "float32"  # of the features' sums on a GPU: see `settings.PRECISIONS`
    is_lent: bool = False  # the GPU is there for the length of a call only

    @property
    def is_torch_only(self) -> bool:
        """Whether ONNX Runtime is to be left out unless somebody asks for it."""
        return self.is_lent or self.precision != "float32"


def choose_placement(settings: Settings) -> Placement:
    """Where this deployment's networks run."""
    is_lent = zerogpu_package() is not None  # before torch looks for a GPU
    where = available_device()
    precision = settings.precision if where == "cuda" else "float32"
    return Placement(device=where, precision=precision, is_lent=is_lent)


def available_device() -> str:
    """cuda where torch sees a GPU, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def zerogpu_package() -> Any | None:
    """The package that lends GPUs; None where it is not installed, or has none to lend."""
    if find_spec("spaces") is None:
        return None
    spaces: Any = importlib.import_module("spaces")
    return spaces if getattr(spaces.config.Config, "zero_gpu", False) else None


def onnx_providers(where: str) -> list[Any]:
    """ONNX Runtime's, the first preferred.

    CUDA is asked for only where torch sees a GPU: elsewhere asking prints errors.
    """
    import onnxruntime

    if where != "cuda" or CUDA not in onnxruntime.get_available_providers():
        return [CPU]
    return [(CUDA, {"use_tf32": "0"}), CPU]


_M_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
_N_ARENAS = 1
TRIM_EVERY = 1  # of so many answers one gives memory back; it takes about a millisecond


def limit_malloc_arenas() -> bool:
    """Have threads share their memory from now on; False where that cannot be had."""
    library = _glibc()
    return bool(library and library.mallopt(_M_ARENA_MAX, _N_ARENAS))


def memory_trimmer(
    every: int = TRIM_EVERY, trim: Callable[[], object] | None = None
) -> Callable[[], None]:
    """Something to call after each answer; each so-manieth time it gives freed memory back."""
    library = _glibc()
    give = trim or (lambda: library.malloc_trim(0) if library else None)
    count = itertools.count(1)

    def after() -> None:
        if next(count) % every == 0:
            give()

    return after


def resident_mb() -> float:
    """What of this process lies in memory now, in megabytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def thread_count() -> int:
    """How many threads this process has, those of libraries included (Linux)."""
    return len(os.listdir("/proc/self/task"))


def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if all(hasattr(library, n) for n in ("mallopt", "malloc_trim")) else None
