"""PANNs' own checkpoints: `{"model": tensors}`, with a front end that is not needed.

The names of the body are the authors' here too; the tensors of the spectrogram go when they are
read (`hub.tensors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from xai_demo.records import Model


def adapted(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As they are."""
    return dict(tensors)
