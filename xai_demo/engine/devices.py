"""Where networks run and in which numbers: the one place that decides, for torch and ONNX Runtime.

CUDA where torch sees a GPU, else the CPU. On a Space with ZeroGPU the package `spaces` lends a GPU
for the length of a call: there torch alone works, since ONNX Runtime would have to begin anew in
every such call.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xai_demo.settings import Settings

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What was decided."""

    device: str  # cpu or cuda
    precision: str = "float32"  # of the features' sums on a GPU: see `settings.PRECISIONS`
    lent: bool = False  # the GPU is there for the length of a call only

    @property
    def torch_alone(self) -> bool:
        """Whether ONNX Runtime is to be left out unless somebody asks for it."""
        return self.lent or self.precision != "float32"


def place(settings: Settings) -> Place:
    """Where this deployment's networks run."""
    lent = lender() is not None  # before torch looks for a GPU
    where = device()
    precision = settings.precision if where == "cuda" else "float32"
    return Place(device=where, precision=precision, lent=lent)


def device() -> str:
    """cuda where torch sees a GPU, else cpu."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def lender() -> Any | None:
    """The package that lends GPUs; None where it is not installed, or has none to lend."""
    if find_spec("spaces") is None:
        return None
    spaces: Any = importlib.import_module("spaces")
    return spaces if getattr(spaces.config.Config, "zero_gpu", False) else None


def providers(where: str) -> list[Any]:
    """ONNX Runtime's, the first preferred.

    CUDA is asked for only where torch sees a GPU: elsewhere asking prints errors.
    """
    import onnxruntime

    if where != "cuda" or CUDA not in onnxruntime.get_available_providers():
        return [CPU]
    return [(CUDA, {"use_tf32": "0"}), CPU]
