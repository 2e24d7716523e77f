"""CheXVision's DenseNet-121: the findings' head is kept, the one of normal against abnormal not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from xai_demo.records import Model

_OTHER_HEAD = "binary_head."


def adapted(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All but the second head."""
    return {name: t for name, t in tensors.items() if not name.startswith(_OTHER_HEAD)}
