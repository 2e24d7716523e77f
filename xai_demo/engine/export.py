"""From torch to ONNX: made, and held against torch before anybody keeps it.

torch's exporter swaps a module's parameters while it looks at it, and warns through module-level
state. So whoever serves visitors has it work in a process of its own: `in_a_process`.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import xai_demo
from xai_demo.audio.spectrogram import window_frames
from xai_demo.engine.backends import absent, on_onnx, on_torch
from xai_demo.engine.tensors import filled
from xai_demo.errors import UnsuitableError, XaiDemoError
from xai_demo.records import LogMel, Model

if TYPE_CHECKING:
    from xai_demo.networks import Cut
    from xai_demo.records import Floats

TOLERANCE = 1e-4  # relative error of an exported network against torch
_LONGEST_S = 900
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def missing() -> tuple[str, ...]:
    """The packages that exporting needs and that are not installed."""
    return absent(*_PACKAGES)


def input_size(model: Model) -> tuple[int, int | None]:
    """Rows and columns that the model's features take; columns None: any number."""
    spec = model.preprocessing
    return (spec.n_mels, spec.frames) if isinstance(spec, LogMel) else (spec.height, spec.width)


def onnx_bytes(model: Model, cut: Cut) -> bytes:
    """The features as an ONNX file. Raises UnsuitableError if they differ from torch.

    Not to be called while another thread uses the same network.
    """
    import torch

    example = _example(model)
    dimensions = {0: "batch"} | ({3: "time"} if input_size(model)[1] is None else {})
    with warnings.catch_warnings(record=True):  # torch warns of its own deprecations
        program = torch.onnx.export(
            cut.features,
            (torch.from_numpy(example),),
            input_names=["input"],
            output_names=["activations"],
            dynamic_shapes=(dimensions,),
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise UnsuitableError(f"torch exported no {model.name}, wanted: an ONNX program.")
    data: bytes = program.model_proto.SerializeToString()
    smaller = example[:1, ..., : example.shape[3] * 3 // 4]
    for inputs in (example, smaller if 3 in dimensions else example[:1]):
        error = _relative_error(data, cut, inputs)
        if not error <= TOLERANCE:
            raise UnsuitableError(
                f"The exported {model.name} differs from torch by {error:.1e}, "
                f"wanted: at most {TOLERANCE:.0e}."
            )
    return data


def export_features(model: Model, cut: Cut, path: Path) -> Path:
    """Write the features as ONNX; nothing is left behind if they differ from torch."""
    data = onnx_bytes(model, cut)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def from_weights(model: Model, weights: Path, layer: str) -> bytes:
    """`onnx_bytes` of a weights file, in this process."""
    return onnx_bytes(model, filled(model, weights, layer))


def in_a_process(model: Model, weights: Path, layer: str) -> bytes:
    """`onnx_bytes` of a weights file, in a process of its own that ends with this one."""
    root = str(Path(xai_demo.__file__).resolve().parent.parent)
    program = (
        f"import sys; sys.path.insert(0, {root!r}); "
        "from xai_demo.engine.export import answer; answer()"
    )
    request = {"model": model.to_config(), "weights": str(weights.resolve()), "layer": layer}
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603 - this interpreter and this package
        [sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe
    ) as process:
        atexit.register(process.kill)
        try:
            data, said = process.communicate(json.dumps(request).encode(), timeout=_LONGEST_S)
        except subprocess.TimeoutExpired:
            data, said = b"", f"it took more than {_LONGEST_S} s".encode()
        finally:
            process.kill()
            atexit.unregister(process.kill)
    if process.returncode or not data:
        lines = said.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise UnsuitableError(f"{model.name} could not be exported to ONNX: {lines[-1]}")
    return data


def answer() -> None:
    """The other end of `in_a_process`: a request on standard input, ONNX on standard output."""
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints is not part of the file
    request = json.load(sys.stdin)
    try:
        model = Model.from_config(request["model"])
        data = from_weights(model, Path(request["weights"]), request["layer"])
    except XaiDemoError as error:
        sys.exit(str(error))
    with os.fdopen(out, "wb") as stream:
        stream.write(data)


def _example(model: Model) -> Floats:
    spec = model.preprocessing
    rows, columns = input_size(model)
    if columns is None and isinstance(spec, LogMel):
        columns = window_frames(spec)
    shape = (2, 1, rows, columns or 1)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _relative_error(data: bytes, cut: Cut, inputs: Floats) -> float:
    expected = on_torch(cut.features)(inputs)
    return float((on_onnx(data)(inputs) - expected).norm() / expected.norm().clamp(min=1e-12))
