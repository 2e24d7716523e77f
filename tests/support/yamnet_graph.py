"""A graph of the published form, with made-up weights: quantisation marked, weights outside of it.

Built by hand from the description of the network (MobileNetV1), not from our modules.
"""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FOLDER = "job_optimized_onnx"
# Channels and stride of each separable layer, Howard et al. 2017, table 1.
LAYERS = (
    [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    + 5 * [(512, 1)]
    + [(1024, 2), (1024, 1)]
)


class _Graph:
    """Nodes and weights so far; every tensor goes through a pair of quantising nodes."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.weights: list[Any] = [
            numpy_helper.from_array(np.float32(0.02), "scale"),
            numpy_helper.from_array(np.uint8(128), "zero"),
        ]
        self.data = b""

    def quantise(self, name: str) -> str:
        self.nodes += [
            helper.make_node("QuantizeLinear", [name, "scale", "zero"], [f"{name}_q"]),
            helper.make_node("DequantizeLinear", [f"{name}_q", "scale", "zero"], [f"{name}_dq"]),
        ]
        return f"{name}_dq"

    def weight(self, name: str, *shape: int, fan_in: int) -> str:
        """A tensor whose bytes lie in the file beside the graph."""
        values = self.rng.normal(size=shape, scale=(2 / fan_in) ** 0.5).astype(np.float32)
        tensor = numpy_helper.from_array(values, name)
        content = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        facts = {"location": "model.data", "offset": len(self.data), "length": len(content)}
        for key, value in facts.items():
            tensor.external_data.add(key=key, value=str(value))
        self.data += content
        self.weights.append(tensor)
        return name

    def convolution(
        self, name: str, x: str, channels: tuple[int, int], size: int, stride: int, groups: int = 1
    ) -> str:
        n_in, n_out = channels
        fan_in = n_in // groups * size**2
        # The scale of quantised weights would round all of them to a few values.
        kernel = self.quantise(
            self.weight(f"{name}.w", n_out, n_in // groups, size, size, fan_in=fan_in)
        )
        bias = f"{name}.b"
        small = (0.1 * self.rng.normal(size=n_out)).astype(np.float32)
        self.weights.append(numpy_helper.from_array(small, bias))
        pads = [0, 0, 1, 1] if stride == 2 else 4 * [size // 2]
        self.nodes += [
            helper.make_node(
                "Conv",
                [x, kernel, bias],
                [f"{name}.y"],
                name=name,
                group=groups,
                kernel_shape=[size, size],
                pads=pads,
                strides=[stride, stride],
            ),
            helper.make_node("Relu", [f"{name}.y"], [f"{name}.relu"]),
        ]
        return self.quantise(f"{name}.relu")


def graph_and_data(n_labels: int, seed: int = 0) -> tuple[Any, bytes]:
    """The graph as an `onnx.ModelProto`, and the content of its `model.data`."""
    graph = _Graph(seed)
    graph.nodes.append(helper.make_node("DequantizeLinear", ["audio", "scale", "zero"], ["first"]))
    x = graph.convolution("/model/layer1/fused/conv/Conv", "first", (1, 32), 3, 2)
    n_in = 32
    for number, (n_out, stride) in enumerate(LAYERS, start=2):
        layer = f"/model/layer{number}"
        x = graph.convolution(
            f"{layer}/depthwise_conv/conv/Conv", x, (n_in, n_in), 3, stride, groups=n_in
        )
        x = graph.convolution(f"{layer}/pointwise_conv/conv/Conv", x, (n_in, n_out), 1, 1)
        n_in = n_out
    graph.nodes.append(helper.make_node("GlobalAveragePool", [x], ["mean"]))
    graph.weights.append(numpy_helper.from_array(np.array([1, 1024]), "shape"))
    graph.nodes.append(helper.make_node("Reshape", [graph.quantise("mean"), "shape"], ["flat"]))
    kernel = graph.quantise(graph.weight("classifier.w", n_labels, 1024, fan_in=1024))
    graph.weights.append(numpy_helper.from_array(np.zeros(n_labels, np.float32), "classifier.b"))
    graph.nodes += [
        helper.make_node(
            "Gemm",
            [graph.quantise("flat"), kernel, "classifier.b"],
            ["scores"],
            name="/model/classifier/Gemm",
            transB=1,
        ),
        helper.make_node("QuantizeLinear", ["scores", "scale", "zero"], ["class_scores"]),
    ]
    ends = (
        helper.make_tensor_value_info("audio", TensorProto.UINT8, [1, 1, "time", 64]),
        helper.make_tensor_value_info("class_scores", TensorProto.UINT8, [1, n_labels]),
    )
    made = helper.make_graph(graph.nodes, "yamnet", ends[:1], ends[1:], graph.weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model, graph.data


def zip_bytes(model: Any, data: bytes, *, data_file: str = f"{FOLDER}/model.data") -> bytes:
    """The zip of a graph and its data."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(zipfile.ZipInfo(f"{FOLDER}/model.onnx"), model.SerializeToString())
        archive.writestr(zipfile.ZipInfo(data_file), data)
    return content.getvalue()


def parse(content: bytes) -> Any:
    """A copy of a graph."""
    return onnx.load_model_from_string(content)
