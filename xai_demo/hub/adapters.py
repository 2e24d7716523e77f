"""Foreign checkpoints, turned once into this project's model directory; one file a format.

PANNs' own checkpoints: `{"model": tensors}`, with a front end that is not needed.

The names of the body are the authors' here too; the tensors of the spectrogram go when they are
read (`hub.tensors`).

CheXVision's DenseNet-121: the findings' head is kept, the one of normal against abnormal not.

torchxrayvision's ResNet-50: eighteen outputs, of which the first fourteen are NIH's findings.

The order of the outputs is that of torchxrayvision's `default_pathologies`; the four others were
learnt from other data sets, two of them from none (Cohen et al. 2022).

AST as transformers published it, before version 5 named its layers anew.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from xai_demo import networks
from xai_demo.errors import CheckpointMismatchError
from xai_demo.hub.checkpoint import CONFIG, WEIGHTS, check, read_tensors, sha256_of

if TYPE_CHECKING:
    from torch import Tensor

    from xai_demo.records import Model

Adapter = Callable[["Model", Mapping[str, "Tensor"]], dict[str, "Tensor"]]


def adapt_panns(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As they are."""
    return dict(tensors)


_OTHER_HEAD = "binary_head."


def adapt_chexvision(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All but the second head."""
    return {name: t for name, t in tensors.items() if not name.startswith(_OTHER_HEAD)}


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


def adapt_torchxrayvision(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
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


def adapt_transformers_ast(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each under the name that its layer has now."""
    return {networks.tensor_name(model, name): tensor for name, tensor in tensors.items()}


ADAPTERS: dict[str, Adapter] = {
    "panns": adapt_panns,
    "transformers-ast": adapt_transformers_ast,
    "torchxrayvision": adapt_torchxrayvision,
    "chexvision": adapt_chexvision,
}
VERSION = 1  # of what the adapters make; another one makes every directory anew


def adapt_checkpoint(model: Model, adapter: str, checkpoint: Path, directory: Path) -> None:
    """Write the model directory of a foreign checkpoint, whole or not at all.

    Raises CheckpointMismatchError where the file does not hold this network's tensors, OSError
    where the directory cannot be written.
    """
    import torch
    from safetensors.torch import save_file

    tensors = ADAPTERS[adapter](model, read_tensors(checkpoint, model.preprocessing))
    with torch.device("meta"):
        wanted = networks.architecture(model).whole(model).state_dict()
    check(tensors, wanted, checkpoint.name)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".") as made:
        weights = Path(made) / "made" / WEIGHTS
        weights.parent.mkdir()
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, weights)
        described = dataclasses.replace(model, sha256=sha256_of(weights))
        text = json.dumps(described.to_config(), indent=2) + "\n"
        (weights.parent / CONFIG).write_text(text, encoding="utf-8")
        if directory.exists():  # one that was found to be broken
            shutil.rmtree(directory)
        weights.parent.rename(directory)
