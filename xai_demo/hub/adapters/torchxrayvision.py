"""torchxrayvision's ResNet-50: eighteen outputs, of which the first fourteen are NIH's findings.

The order of the outputs is that of torchxrayvision's `default_pathologies`; the four others were
learnt from other data sets, two of them from none (Cohen et al. 2022).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from xai_demo.errors import CheckpointMismatchError

if TYPE_CHECKING:
    from torch import Tensor

    from xai_demo.records import Model

OUTPUTS = (
    "Atelectasis",
    "Consolidation",
    "Infiltration",
    "Pneumothorax",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Effusion",
    "Pneumonia",
    "Pleural_Thickening",
    "Cardiomegaly",
    "Nodule",
    "Mass",
    "Hernia",
    "Lung Lesion",
    "Fracture",
    "Lung Opacity",
    "Enlarged Cardiomediastinum",
)
_LAST = ("fc.weight", "fc.bias")


def adapted(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The last layer gives the model's labels, in their order; raises CheckpointMismatchError."""
    for name in _LAST:
        outputs = len(tensors[name]) if name in tensors else 0
        if outputs != len(OUTPUTS):
            raise CheckpointMismatchError(
                f"The checkpoint of {model.name} has {name} for {outputs} outputs; wanted:"
                f" {len(OUTPUTS)}."
            )
    rows = [OUTPUTS.index(label) for label in model.labels]
    return dict(tensors) | {name: tensors[name][rows] for name in _LAST}
