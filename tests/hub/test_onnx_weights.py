"""Weights out of ONNX graphs: quantisation stripped, external data from the graph's folder only."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.support.yamnet_graph import FOLDER, zip_bytes
from xai_demo.errors import CheckpointMismatchError
from xai_demo.hub import onnx_weights
from xai_demo.hub.onnx_weights import read_float_graph, read_onnx_tensors

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def a_graph(**external: str) -> Any:
    """One linear layer, y = x W, whose weights lie where `external` says, marked as quantised."""
    weight = numpy_helper.from_array(WEIGHT, "w")
    if external:
        weight.ClearField("raw_data")
        weight.data_location = TensorProto.EXTERNAL
        for key, value in external.items():
            weight.external_data.add(key=key, value=value)
    constants = [
        numpy_helper.from_array(np.float32(1), "scale"),
        numpy_helper.from_array(np.uint8(0), "zero"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "scale", "zero"], ["w_q"]),
        helper.make_node("DequantizeLinear", ["w_q", "scale", "zero"], ["w_dq"]),
        helper.make_node("Gemm", ["x", "w_dq"], ["y"], name="linear"),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
        for name, size in (("x", 2), ("y", 3))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight, *constants])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def a_file(tmp_path: Path, model: Any, data: bytes = b"", **where: str) -> Path:
    path = tmp_path / "net.onnx.zip"
    path.write_bytes(zip_bytes(model, data, **where))
    return path


PLACE = {"location": "model.data", "offset": "4", "length": "24"}


def test_weights_come_from_the_file_beside_the_graph(tmp_path: Path) -> None:
    path = a_file(tmp_path, a_graph(**PLACE), b"skip" + WEIGHT.tobytes())
    assert {name: t.tolist() for name, t in read_onnx_tensors(path).items()} == {
        "linear.weight": WEIGHT.tolist()
    }
    graph = read_float_graph(path).graph
    assert [node.op_type for node in graph.node] == ["Gemm"]
    assert list(graph.node[0].input) == ["x", "w"]
    assert [tensor.name for tensor in graph.initializer] == ["w"]


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "a/../../secret", "C:\\secret", "..", "\\\\host\\x"]
)
def test_data_outside_of_the_folder_are_refused_and_not_opened(
    tmp_path: Path, location: str
) -> None:
    (tmp_path / "secret").write_bytes(b"skip" + WEIGHT.tobytes())
    model = a_graph(**(PLACE | {"location": location}))
    # Not even where the zip has a file of that name.
    path = a_file(tmp_path, model, b"skip" + WEIGHT.tobytes(), data_file="secret")
    with pytest.raises(CheckpointMismatchError, match="expected a file in the folder of its graph"):
        read_onnx_tensors(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"location": "other.data"}, "has no file 'other.data'"),
        ({"location": ""}, "has no file"),
        ({"offset": "8"}, "do not fit into 28 bytes"),
        ({"offset": "-4"}, "do not fit into 28 bytes"),
        ({"length": "20"}, "do not fit into 28 bytes"),
        ({"length": "many"}, "do not fit into 28 bytes"),
    ],
)
def test_data_that_are_missing_or_of_another_length_are_refused(
    tmp_path: Path, changes: dict[str, str], sentence: str
) -> None:
    path = a_file(tmp_path, a_graph(**(PLACE | changes)), b"skip" + WEIGHT.tobytes())
    with pytest.raises(CheckpointMismatchError, match=sentence):
        read_onnx_tensors(path)


def test_weights_that_are_integers_are_refused(tmp_path: Path) -> None:
    model = a_graph()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHT.astype(np.uint8), "w_q"))
    del model.graph.node[0]
    with pytest.raises(CheckpointMismatchError, match="no float weights for 'linear'"):
        read_onnx_tensors(a_file(tmp_path, model))


def test_a_file_of_another_kind_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.onnx.zip"
    path.write_bytes(b"no zip")
    with pytest.raises(CheckpointMismatchError, match="expected a complete zip with an ONNX graph"):
        read_float_graph(path)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"{FOLDER}/model.onnx", b"\xff\xff no graph")
    path.write_bytes(content.getvalue())
    with pytest.raises(CheckpointMismatchError, match="expected an ONNX graph"):
        read_float_graph(path)
    path.write_bytes(zip_bytes(a_graph(), b"", data_file="second.onnx"))
    with pytest.raises(CheckpointMismatchError, match="2 ONNX graphs; expected one"):
        read_float_graph(path)
    monkeypatch.setattr(onnx_weights, "_MAX_BYTES", 1000)
    path.write_bytes(zip_bytes(a_graph(), bytes(1000)))
    with pytest.raises(CheckpointMismatchError, match="at most 1,000 are read"):
        read_float_graph(path)
