"""The float weights of an ONNX graph in a zip, however it was marked for quantisation.

Tools for accelerators put a QuantizeLinear and a DequantizeLinear behind every tensor of a graph
whose weights are still floats. Without these pairs it is the original network. Weights may be
external data, which must lie in the graph's own folder of the zip: nothing is read from the disk.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from xai_demo.errors import CheckpointMismatchError
from xai_demo.files import display_name

if TYPE_CHECKING:
    from torch import Tensor

# Of all files in the zip together, unpacked.
_MAX_BYTES = 500_000_000
_FLOAT_BYTES = 4
# Operators with weights, after which tensors are named.
_WEIGHTED = ("Conv", "Gemm")
_PARTS = ("weight", "bias")


def read_onnx_tensors(path: Path) -> dict[str, Tensor]:
    """The weights of each convolution and linear layer, as `<node>.weight` and `<node>.bias`.

    Raises CheckpointMismatchError where the file is not such a graph.
    """
    import torch
    from onnx import numpy_helper

    graph = read_float_graph(path).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    tensors = {}
    for node in graph.node:
        if node.op_type not in _WEIGHTED:
            continue
        for part, name in zip(_PARTS, node.input[1:], strict=False):
            if name not in weights:
                raise CheckpointMismatchError(
                    f"{display_name(path)} has no float weights for {node.name!r:.80}; expected a"
                    " graph whose weights are stored as float32."
                )
            # A copy, because torch cannot write to the bytes of the file.
            array = numpy_helper.to_array(weights[name]).copy()
            tensors[f"{node.name}.{part}"] = torch.from_numpy(array)
    return tensors


def read_float_graph(path: Path) -> Any:
    """The graph as an `onnx.ModelProto` with its weights inside and without quantisation.

    Raises CheckpointMismatchError.
    """
    import onnx

    name = display_name(path)
    files = _read_zip(path)
    graphs = [member for member in files if member.endswith(".onnx")]
    if len(graphs) != 1:
        raise CheckpointMismatchError(f"{name} has {len(graphs)} ONNX graphs; expected one.")
    try:
        model = onnx.load_model_from_string(files[graphs[0]])
    # The parser's own errors, which are not those of Python.
    except Exception as error:
        raise CheckpointMismatchError(
            f"{graphs[0]!r:.80} in {name} cannot be read; expected an ONNX graph."
        ) from error
    folder = PurePosixPath(graphs[0]).parent
    for tensor in model.graph.initializer:
        _embed(tensor, files, folder, name)
    _strip_quantisation(model.graph)
    return model


def _read_zip(path: Path) -> dict[str, bytes]:
    """The files in a zip by name, in memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            size = sum(member.file_size for member in members)
            if size > _MAX_BYTES:
                raise CheckpointMismatchError(
                    f"{display_name(path)} unpacks to {size:,} bytes; at most {_MAX_BYTES:,} are"
                    " read."
                )
            return {member.filename: archive.read(member) for member in members}
    # A password, and a method of compression that Python does not have.
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError) as error:
        raise CheckpointMismatchError(
            f"{display_name(path)} cannot be read ({type(error).__name__}); expected a complete zip"
            " with an ONNX graph."
        ) from error


def _embed(tensor: Any, files: Mapping[str, bytes], folder: PurePosixPath, name: str) -> None:
    """Put a tensor's external data into the tensor, from the graph's folder and no other place."""
    from onnx import TensorProto

    if tensor.data_location != TensorProto.EXTERNAL:
        return
    facts = {entry.key: entry.value for entry in tensor.external_data}
    location = PurePosixPath(facts.get("location", ""))
    # A colon or a backslash would be a drive or a folder on Windows.
    if location.is_absolute() or ".." in location.parts or set(str(location)) & set("\\:"):
        raise CheckpointMismatchError(
            f"{name} has a tensor whose data lie at {str(location)!r:.80}; expected a file in the"
            " folder of its graph."
        )
    data = files.get(str(folder / location))
    if data is None:
        raise CheckpointMismatchError(
            f"{name} has no file {str(location)!r:.80}, where a tensor's data should lie."
        )
    try:
        start = int(facts.get("offset", "0"))
        length = int(facts.get("length", str(len(data) - start)))
    except ValueError:
        start = length = -1
    if tensor.data_type == TensorProto.FLOAT and length != _FLOAT_BYTES * math.prod(tensor.dims):
        start = -1
    if not 0 <= start <= start + length <= len(data):
        raise CheckpointMismatchError(
            f"{name} has a tensor {tensor.name!r:.80} of {list(tensor.dims)} whose data do not fit"
            f" into {len(data):,} bytes."
        )
    tensor.raw_data = data[start : start + length]
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def _strip_quantisation(graph: Any) -> None:
    """Connect what lies before each QuantizeLinear with what lies behind its DequantizeLinear.

    Inputs that arrive quantised and outputs that leave so become floats too.
    """
    from onnx import TensorProto

    ends = {value.name: value for value in (*graph.input, *graph.output)}
    makers = {output: node.op_type for node in graph.node for output in node.output}
    origin: dict[str, str] = {}
    for node in graph.node:
        # Nodes are in topological order, so what lies before this one is resolved already.
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        before = node.input[0]
        is_end = before in ends or makers.get(before) == "QuantizeLinear"
        # Weights that are stored as integers have no float before them: they stay as they are.
        if node.op_type == "QuantizeLinear" or is_end:
            origin[node.output[0]] = origin.get(before, before)
    # An output of the graph keeps its name, so what it is made from takes that name.
    renames = {origin[name]: name for name in ends if name in origin}
    kept = [node for node in graph.node if not set(node.output) & set(origin)]
    for node in kept:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                before = origin.get(name, name)
                names[i] = renames.get(before, before)
    used = {name for node in kept for name in node.input}
    weights = [tensor for tensor in graph.initializer if tensor.name in used]
    for value in ends.values():
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.initializer.extend(weights)
