"""From torch to ONNX: made, and held against torch before anybody keeps it.

torch's exporter swaps a module's parameters while it looks at it, and warns through module-level
state. So whoever serves visitors has it work in a process of its own: `in_a_process`.

Exported networks on the disk: found only if they are whole and of the weights wanted.

Beside each file lies `<file>.json`, which says whose weights, cut after which layer, and the file's
own sha256. A file without it, or other than it says, is passed over and in the end written anew.
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

TOLERANCE = 1e-4  # relative error of an exported network against torch
_TIMEOUT_S = 900
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def missing_export_packages() -> tuple[str, ...]:
    """The packages that exporting needs and that are not installed."""
    return missing_packages(*_PACKAGES)


def input_size(model: Model) -> tuple[int, int | None]:
    """Rows and columns that the model's features take; columns None: any number."""
    spec = model.preprocessing
    return (spec.n_mels, spec.frames) if isinstance(spec, LogMel) else (spec.height, spec.width)


def onnx_bytes(model: Model, cut: Cut) -> bytes:
    """The features as an ONNX file. Raises UnsuitableError if they differ from torch.

    Not to be called while another thread uses the same network.
    """
    import torch

    example = _example_input(model)
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


def export_from_weights(model: Model, weights: Path, layer: str) -> bytes:
    """`onnx_bytes` of a weights file, in this process."""
    return onnx_bytes(model, load_cut_network(model, weights, layer))


def export_in_subprocess(model: Model, weights: Path, layer: str) -> bytes:
    """`onnx_bytes` of a weights file, in a process of its own that ends with this one."""
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
            data, said = process.communicate(json.dumps(request).encode(), timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            data, said = b"", f"it took more than {_TIMEOUT_S} s".encode()
        finally:
            process.kill()
            atexit.unregister(process.kill)
    if process.returncode or not data:
        lines = said.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise UnsuitableError(f"{model.name} could not be exported to ONNX: {lines[-1]}")
    return data


def serve_export_request() -> None:
    """The other end of `in_a_process`: a request on standard input, ONNX on standard output."""
    out = os.dup(1)
    os.dup2(2, 1)  # what a library prints is not part of the file
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


ONNX_FILE_NAME = "model.onnx"  # of an exported network that lies beside its weights


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportKey:
    """Which network an exported file has to be."""

    weights_sha256: str
    architecture: str
    layer: str
    rows: int
    columns: int | None  # None: any number


class ExportCache:
    """The exported networks of a cache directory, and those beside their weights."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests = Digests()

    def found(self, wanted: ExportKey, *, beside: Path) -> Path | None:
        """A whole exported file of the wanted network: in `beside`, else in the cache."""
        paths = (beside / ONNX_FILE_NAME, self._cached(wanted))
        return next((path for path in paths if self._whole(path, wanted)), None)

    def keep(self, wanted: ExportKey, data: bytes) -> bool:
        """Write the file into the cache; False where it cannot be written to."""
        try:
            write_export(self._cached(wanted), wanted, data)
        except OSError:
            return False
        return True

    def _cached(self, wanted: ExportKey) -> Path:
        return self._folder / f"{wanted.weights_sha256}-{wanted.layer}.onnx"

    def _whole(self, path: Path, wanted: ExportKey) -> bool:
        try:
            said = json.loads(_metadata_path(path).read_text(encoding="utf-8"))
            if not isinstance(said, dict) or said != asdict(wanted) | {"sha256": said["sha256"]}:
                return False
            return bool(self._digests.sha256(path) == said["sha256"])
        except (OSError, ValueError, KeyError):
            return False


def write_export(path: Path, wanted: ExportKey, data: bytes) -> Path:
    """Write an exported file and what it is, each whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    note = asdict(wanted) | {"sha256": hashlib.sha256(data).hexdigest()}
    write_atomically(path, data)
    write_atomically(_metadata_path(path), json.dumps(note, indent=2) + "\n")
    return path


def _metadata_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")
