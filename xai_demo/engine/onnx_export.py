"""Export to ONNX, each export verified against torch, and the cache of exported files.

torch's exporter swaps a module's parameters while it traces, and changes global warning state. A
server therefore exports in a process of its own: `export_in_subprocess`.

Beside each exported file lies `<file>.json`, which names the weights, the layer after which the
network was cut and the file's own sha256. A file that does not match is ignored, and replaced by
the next export.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import subprocess
import sys
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import xai_demo
from xai_demo.audio.spectrogram import window_frames
from xai_demo.engine.backends import load_cut_network, missing_packages, onnx_runner, torch_runner
from xai_demo.errors import UnsuitableError, XaiDemoError
from xai_demo.files import write_atomically
from xai_demo.hub.checkpoint import Digests
from xai_demo.records import LogMel, Model

if TYPE_CHECKING:
    from xai_demo.networks import Cut
    from xai_demo.records import Floats

# Of an exported network beside its weights.
ONNX_FILE_NAME = "model.onnx"
# The largest relative error of an exported network against torch.
TOLERANCE = 1e-4
_TIMEOUT_S = 900
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def missing_export_packages() -> tuple[str, ...]:
    """The packages that an export needs and that are not installed."""
    return missing_packages(*_PACKAGES)


def input_size(model: Model) -> tuple[int, int | None]:
    """Rows and columns of the network's input; columns are None if any number will do."""
    spec = model.preprocessing
    return (spec.n_mels, spec.frames) if isinstance(spec, LogMel) else (spec.height, spec.width)


def onnx_bytes(model: Model, cut: Cut) -> bytes:
    """The features as an ONNX file; raises UnsuitableError if they differ from torch.

    No other thread may use the same network meanwhile.
    """
    import torch

    example = _example_input(model)
    dimensions = {0: "batch"} | ({3: "time"} if input_size(model)[1] is None else {})
    # torch warns of its own deprecations, which a user can do nothing about.
    with warnings.catch_warnings(record=True):
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
        raise UnsuitableError(f"torch could not export {model.name} to ONNX.")
    data: bytes = program.model_proto.SerializeToString()
    # A second size shows whether the batch and the time are really dynamic.
    smaller = example[:1, ..., : example.shape[3] * 3 // 4]
    for inputs in (example, smaller if 3 in dimensions else example[:1]):
        error = _relative_error(data, cut, inputs)
        # Written this way round so that NaN fails.
        if not error <= TOLERANCE:
            raise UnsuitableError(
                f"The exported {model.name} differs from torch by {error:.1e}; "
                f"at most {TOLERANCE:.0e} is allowed."
            )
    return data


def export_features(model: Model, cut: Cut, path: Path) -> Path:
    """Write the features as an ONNX file; writes nothing if they differ from torch."""
    data = onnx_bytes(model, cut)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def export_from_weights(model: Model, weights: Path, layer: str) -> bytes:
    """`onnx_bytes` of a weights file, in this process."""
    return onnx_bytes(model, load_cut_network(model, weights, layer))


def export_in_subprocess(model: Model, weights: Path, layer: str) -> bytes:
    """`onnx_bytes` of a weights file, in a subprocess that does not outlive this process."""
    root = str(Path(xai_demo.__file__).resolve().parent.parent)
    program = (
        f"import sys; sys.path.insert(0, {root!r}); "
        "from xai_demo.engine.onnx_export import serve_export_request; serve_export_request()"
    )
    request = {"model": model.to_config(), "weights": str(weights.resolve()), "layer": layer}
    pipe = subprocess.PIPE
    with subprocess.Popen(  # noqa: S603 - this interpreter and this package
        [sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe
    ) as process:
        atexit.register(process.kill)
        try:
            data, message = process.communicate(json.dumps(request).encode(), timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            data, message = b"", f"it took more than {_TIMEOUT_S} s".encode()
        finally:
            process.kill()
            atexit.unregister(process.kill)
    if process.returncode or not data:
        lines = message.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise UnsuitableError(f"{model.name} could not be exported to ONNX: {lines[-1]}")
    return data


def serve_export_request() -> None:
    """The subprocess of `export_in_subprocess`: a request on stdin, ONNX on stdout."""
    # What a library prints to stdout must not end up in the file: only `out` still leads there.
    out = os.dup(1)
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    try:
        model = Model.from_config(request["model"])
        data = export_from_weights(model, Path(request["weights"]), request["layer"])
    except XaiDemoError as error:
        sys.exit(str(error))
    with os.fdopen(out, "wb") as stream:
        stream.write(data)


def _example_input(model: Model) -> Floats:
    spec = model.preprocessing
    rows, columns = input_size(model)
    if columns is None and isinstance(spec, LogMel):
        columns = window_frames(spec)
    shape = (2, 1, rows, columns or 1)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _relative_error(data: bytes, cut: Cut, inputs: Floats) -> float:
    expected = torch_runner(cut.features)(inputs)
    return float((onnx_runner(data)(inputs) - expected).norm() / expected.norm().clamp(min=1e-12))


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportKey:
    """Which network an exported file contains."""

    weights_sha256: str
    architecture: str
    layer: str
    rows: int
    columns: int | None  # None: any number


class ExportCache:
    """The exported networks in a cache folder, and those beside their weights."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests = Digests()

    def find(self, key: ExportKey, *, beside: Path) -> Path | None:
        """A valid exported file of the network: in the folder `beside`, otherwise in the cache."""
        paths = (beside / ONNX_FILE_NAME, self._path_of(key))
        return next((path for path in paths if self._is_valid(path, key)), None)

    def store(self, key: ExportKey, data: bytes) -> bool:
        """Write an exported file to the cache; False if that is not possible."""
        try:
            write_export(self._path_of(key), key, data)
        except OSError:
            return False
        return True

    def _path_of(self, key: ExportKey) -> Path:
        return self._folder / f"{key.weights_sha256}-{key.layer}.onnx"

    def _is_valid(self, path: Path, key: ExportKey) -> bool:
        try:
            metadata = json.loads(_metadata_path(path).read_text(encoding="utf-8"))
            if not isinstance(metadata, dict):
                return False
            if metadata != asdict(key) | {"sha256": metadata["sha256"]}:
                return False
            return bool(self._digests.sha256(path) == metadata["sha256"])
        except (OSError, ValueError, KeyError):
            return False


def write_export(path: Path, key: ExportKey, data: bytes) -> Path:
    """Write an exported file and its metadata, each completely or not at all; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = asdict(key) | {"sha256": hashlib.sha256(data).hexdigest()}
    write_atomically(path, data)
    write_atomically(_metadata_path(path), json.dumps(metadata, indent=2) + "\n")
    return path


def _metadata_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
