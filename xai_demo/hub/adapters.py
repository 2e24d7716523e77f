"""Convert checkpoints of other projects into model directories; one adapter a format.

PANNs store `{"model": tensors}` with a front end, which `hub.checkpoint.read_tensors` removes.
EfficientAT stores tensors alone, in a pickle.
CheXVision's DenseNet-121 has a second head, normal or abnormal, which is dropped.
torchxrayvision's ResNet-50 has eighteen outputs, of which NIH's fourteen findings are kept: the
other four were trained on other data sets, and two of them on none (Cohen et al. 2022).
transformers published AST before its version 5 renamed the layers.
YAMNet is an ONNX graph in a zip, whose tensors are named after its nodes.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from xai_demo import networks
from xai_demo.errors import CheckpointMismatchError, UnreadableFileError
from xai_demo.hub.checkpoint import (
    CONFIG,
    WEIGHTS,
    check_tensors,
    read_model,
    read_tensors,
    sha256_of,
)
from xai_demo.hub.onnx_weights import read_onnx_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from xai_demo.hub.checkpoint import Digests
    from xai_demo.records import Model

Adapter = Callable[["Model", Mapping[str, "Tensor"]], dict[str, "Tensor"]]


def adapt_unchanged(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """PANNs' and EfficientAT's tensors, whose names are ours too."""
    return dict(tensors)


_BINARY_HEAD_PREFIX = "binary_head."


def adapt_chexvision(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CheXVision's tensors without the second head."""
    return {name: t for name, t in tensors.items() if not name.startswith(_BINARY_HEAD_PREFIX)}


# In the order of torchxrayvision's `default_pathologies`.
TORCHXRAYVISION_OUTPUTS = (
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
_CLASSIFIER = ("fc.weight", "fc.bias")


def adapt_torchxrayvision(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchxrayvision's tensors, with the rows of the last layer that give the model's labels.

    Raises CheckpointMismatchError where that layer does not have eighteen outputs.
    """
    for name in _CLASSIFIER:
        outputs = len(tensors[name]) if name in tensors else 0
        if outputs != len(TORCHXRAYVISION_OUTPUTS):
            raise CheckpointMismatchError(
                f"The checkpoint of {model.name} has {name} for {outputs} outputs; expected"
                f" {len(TORCHXRAYVISION_OUTPUTS)}."
            )
    rows = [TORCHXRAYVISION_OUTPUTS.index(label) for label in model.labels]
    return dict(tensors) | {name: tensors[name][rows] for name in _CLASSIFIER}


def adapt_transformers_ast(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """AST's tensors under the names that transformers gives their layers since version 5."""
    return {networks.tensor_name(model, name): tensor for name, tensor in tensors.items()}


# Nodes of the published graph, and what their layers are called here.
_YAMNET_NODES = (
    (r"^/model/layer1/fused/conv/Conv\.", "layer1."),
    (r"^/model/(layer\d+)/(depthwise|pointwise)_conv/conv/Conv\.", r"\1.\2."),
    (r"^/model/classifier/Gemm\.", "classifier."),
)


def adapt_yamnet(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """YAMNet's tensors under the names of our layers."""
    adapted = {}
    for name, tensor in tensors.items():
        for pattern, replacement in _YAMNET_NODES:
            name = re.sub(pattern, replacement, name)
        adapted[name] = tensor
    return adapted


ADAPTERS: dict[str, Adapter] = {
    "panns": adapt_unchanged,
    "efficientat": adapt_unchanged,
    "transformers-ast": adapt_transformers_ast,
    "torchxrayvision": adapt_torchxrayvision,
    "chexvision": adapt_chexvision,
    "yamnet": adapt_yamnet,
}
# Formats that `read_tensors` does not know: (file) -> tensors by name.
READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {"yamnet": read_onnx_tensors}
# Part of the directory's name: raise it when an adapter changes, so that all are converted again.
VERSION = 1


def adapted_directory(cache_dir: Path, name: str, adapter: str, sha256: str) -> Path:
    """Where the model directory belongs that is made from the file of this sha256."""
    # Everything that a conversion depends on, so that a change of any makes a new directory.
    return cache_dir / "models" / name / f"{sha256}-{adapter}-{VERSION}"


def is_intact(directory: Path, digests: Digests) -> bool:
    """Whether a model directory is complete, and its weights are those that were written."""
    if not (directory / CONFIG).is_file():
        return False
    try:
        digests.verify(directory / WEIGHTS, sha256=read_model(directory).sha256)
    except (CheckpointMismatchError, UnreadableFileError, OSError):
        return False
    return True


def adapt_checkpoint(model: Model, adapter: str, checkpoint: Path, directory: Path) -> None:
    """Convert another project's checkpoint into a model directory, completely or not at all.

    Raises CheckpointMismatchError where the file does not hold this network's tensors, and OSError
    where the directory cannot be written.
    """
    import torch
    from safetensors.torch import save_file

    reader = READERS.get(adapter)
    published = reader(checkpoint) if reader else read_tensors(checkpoint, model.preprocessing)
    tensors = ADAPTERS[adapter](model, published)
    # Names and shapes are enough here, and the meta device allocates no memory for them.
    with torch.device("meta"):
        expected = networks.architecture(model).build(model).state_dict()
    check_tensors(tensors, expected, checkpoint.name)
    directory.parent.mkdir(parents=True, exist_ok=True)
    # A rename within one file system is atomic, so nobody sees half a directory.
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".") as temporary:
        weights = Path(temporary) / "model" / WEIGHTS
        weights.parent.mkdir()
        # safetensors refuses tensors that are not contiguous in memory.
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, weights)
        config = dataclasses.replace(model, sha256=sha256_of(weights)).to_config()
        text = json.dumps(config, indent=2) + "\n"
        (weights.parent / CONFIG).write_text(text, encoding="utf-8")
        # A damaged one, which `rename` would not replace.
        if directory.exists():
            shutil.rmtree(directory)
        weights.parent.rename(directory)
