"""Foreign checkpoints, turned once into this project's model directory; one file a format."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from xai_demo import networks
from xai_demo.hub.adapters import chexvision, panns, torchxrayvision, transformers_ast
from xai_demo.hub.bundle import CONFIG, WEIGHTS, sha256_of
from xai_demo.hub.tensors import check, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from xai_demo.records import Model

Adapter = Callable[["Model", Mapping[str, "Tensor"]], dict[str, "Tensor"]]

ADAPTERS: dict[str, Adapter] = {
    "panns": panns.adapted,
    "transformers-ast": transformers_ast.adapted,
    "torchxrayvision": torchxrayvision.adapted,
    "chexvision": chexvision.adapted,
}
VERSION = 1  # of what the adapters make; another one makes every directory anew


def turned(model: Model, adapter: str, checkpoint: Path, directory: Path) -> None:
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
