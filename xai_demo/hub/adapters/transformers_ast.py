"""AST as transformers published it, before version 5 named its layers anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from xai_demo import networks

if TYPE_CHECKING:
    from torch import Tensor

    from xai_demo.records import Model


def adapted(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each under the name that its layer has now."""
    return {networks.tensor_name(model, name): tensor for name, tensor in tensors.items()}
