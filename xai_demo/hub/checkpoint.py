"""A model is a directory: `config.json`, read here, and `model.safetensors`, verified here.

Checkpoints as tensors by name, and whether they are those of a network.

Published files whose tensors would fit another network as well: known by their bytes alone.

What a person may name on the Hub: `hf://owner/name[@revision][/file]`, taken apart.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from xai_demo.audio.spectrogram import mel_filters
from xai_demo.catalog import hub_models
from xai_demo.errors import CheckpointMismatchError, UnreadableFileError, UnsuitableError
from xai_demo.records import LogMel, Model, Raster

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def read_config(path: Path) -> Any:
    """The JSON value in a file; UnreadableFileError when there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise UnreadableFileError(f"{path} cannot be read: {said}; wanted: JSON.") from error


def read_model(directory: Path) -> Model:
    """What the directory's `config.json` says; UnreadableFileError when it says no whole model."""
    path = directory / CONFIG
    config = read_config(path)
    try:
        model = Model.from_config(config)
    except KeyError as error:
        raise UnreadableFileError(f"{path} does not say {error.args[0]!r}.") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise UnreadableFileError(f"{path} does not describe a model: {error}.") from error
    if not isinstance(config["labels"], list) or not 1 < len(set(model.labels)) == len(
        model.labels
    ):
        raise UnreadableFileError(f"{path} has labels {config['labels']!r}; wanted: two or more.")
    return model


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Digests:
    """The sha256 of files, worked out again only when a file has changed."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int, int], str] = {}
        self._lock = threading.Lock()

    def sha256(self, path: Path) -> str:
        """The sha256 of the file's bytes, in lower-case hexadecimal digits."""
        facts = path.stat()
        key = (str(path), facts.st_size, facts.st_mtime_ns, facts.st_ino)
        with self._lock:
            if key not in self._known:
                self._known[key] = sha256_of(path)
            return self._known[key]

    def verified(self, path: Path, *, sha256: str | None, size_bytes: int | None = None) -> str:
        """The file's sha256; CheckpointMismatchError where that or the size is not the wanted."""
        size = path.stat().st_size
        if size_bytes not in (None, size):
            raise CheckpointMismatchError(f"{path} has {size:,} bytes; wanted: {size_bytes:,}.")
        actual = self.sha256(path)
        if sha256 not in (None, actual):
            raise CheckpointMismatchError(
                f"{path} ({size:,} bytes) has sha256 {actual}; wanted: {sha256}."
            )
        return actual


_KERNELS = (
    "spectrogram_extractor.stft.conv_real.weight",
    "spectrogram_extractor.stft.conv_imag.weight",
)
_MEL = "logmel_extractor.melW"
_SAME_FILTERS = 1e-3  # of the highest: float32, and librosa's rounding of another day
_FRONT_END = (*_KERNELS, _MEL)  # PANNs' own, replaced by ours


def read_tensors(path: Path, spec: LogMel | Raster | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name: safetensors, or a pickle of nothing but tensors.

    Known wrappings are taken off: `{"model": ...}`, `{"state_dict": ...}`,
    `{"model_state_dict": ...}`, a `backbone.` before every name, and the front end that PANNs
    store, which has to be that of `spec` where one is given: nothing else in such a file says for
    which sample rate it was trained. Raises CheckpointMismatchError.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format raises its own
        raise CheckpointMismatchError(
            f"{path.name} cannot be read as tensors ({type(error).__name__}), "
            "wanted: a whole safetensors file or a pickle of nothing but tensors."
        ) from error
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        raise CheckpointMismatchError(
            f"{path.name} holds something else than tensors by name, wanted: a state dictionary."
        )
    named = {k.removeprefix("backbone."): v for k, v in state.items()}
    if isinstance(spec, LogMel):
        _check_front_end(named, spec, path.name)
    return {
        k: v.float() if v.is_floating_point() else v
        for k, v in named.items()
        if k not in _FRONT_END
    }


def _check_front_end(named: Mapping[str, Tensor], spec: LogMel, file_name: str) -> None:
    """That the front end a file stores is the one its network will be given."""
    import numpy as np

    rows = spec.n_fft // 2 + 1
    kernels = (rows, 1, spec.n_fft)
    wanted = dict.fromkeys(_KERNELS, kernels) | {_MEL: (rows, spec.n_mels)}
    for name, shape in wanted.items():
        if name in named and tuple(named[name].shape) != shape:
            raise CheckpointMismatchError(
                f"{file_name} has {name} {tuple(named[name].shape)}, wanted: {shape}, for sounds "
                f"of {spec.sample_rate_hz} samples a second in frames of {spec.n_fft}."
            )
    if _MEL not in named:
        return
    stored, ours = named[_MEL].float().numpy(), mel_filters(spec).T
    off = float(np.abs(stored - ours).max() / ours.max())
    if off > _SAME_FILTERS:
        row, band = np.unravel_index(np.abs(stored - ours).argmax(), ours.shape)
        raise CheckpointMismatchError(
            f"{file_name} has {_MEL} {tuple(stored.shape)} with {stored[row, band]:.3g} at "
            f"({row}, {band}), wanted: {ours[row, band]:.3g}, for {spec.sample_rate_hz} samples a "
            f"second and bands from {spec.f_min_hz:g} to {spec.f_max_hz:g} Hz."
        )


def check(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], file_name: str) -> None:
    """That a file holds exactly a network's tensors; else CheckpointMismatchError names one."""
    surplus = [name for name in state if name not in wanted]
    for name, tensor in wanted.items():
        if name not in state:
            if name.endswith("num_batches_tracked"):
                continue
            instead = f"; it has {surplus[0]} {tuple(state[surplus[0]].shape)}" if surplus else ""
            raise CheckpointMismatchError(
                f"{file_name} has no tensor {name}, wanted: {name} {tuple(tensor.shape)}{instead}."
            )
        if state[name].shape != tensor.shape:
            raise CheckpointMismatchError(
                f"{file_name} has {name} {tuple(state[name].shape)}, wanted: {tuple(tensor.shape)}."
            )
    if surplus:
        raise CheckpointMismatchError(
            f"{file_name} has a tensor {surplus[0]} {tuple(state[surplus[0]].shape)}, "
            "wanted: none of that name."
        )


def recognised_architecture(model: Model, sha256: str) -> Model:
    """The model that the file of this sha256 is known to be for; `model` where none is known."""
    known = hub_models.RECOGNISED.get(sha256)
    return known if known is not None and known.task == model.task else model


SUFFIXES = (".safetensors", ".pth")
WANTED = (
    f"wanted: a model directory ({CONFIG} and {WEIGHTS}), a .safetensors or .pth file, or"
    " hf://owner/name[@revision][/file]"
)
_URI = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^@/]+))?(/(?P<file>[^@]+))?")
_MOST_BYTES = 200  # of file and revision, which together name the lock file


@dataclass(frozen=True, slots=True, kw_only=True)
class OnHub:
    """A repository, or one file of it, at a branch, a tag or a commit."""

    repo_id: str
    filename: str | None  # None: the model directory
    revision: str

    @property
    def weights(self) -> str:
        """The name of the weights file."""
        return self.filename or WEIGHTS

    @property
    def is_pickle(self) -> bool:
        """Whether the weights are in a format that could hold more than tensors."""
        return not self.weights.endswith(".safetensors")


def parse_uri(uri: str) -> OnHub | None:
    """What the address names; None where it is no such address.

    Raises UnsuitableError where it names what cannot be on the Hub, or what this machine could not
    keep under that name.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        return None
    named = OnHub(
        repo_id=match["repo"], filename=match["file"], revision=match["revision"] or "main"
    )
    path = PurePosixPath(named.weights)
    length = len(f"{named.weights}@{named.revision}".encode())
    if (
        not is_repo_id(named.repo_id)
        # An absolute one, or one that climbs, would be a file of this machine.
        or path.is_absolute()
        or ".." in (*path.parts, named.revision)
        or not named.weights.endswith(SUFFIXES)
        or not uri.isprintable()
        or length > _MOST_BYTES
    ):
        raise UnsuitableError(f"The weights are {_shown(uri)!r}; {WANTED}.")
    return named


def is_repo_id(repo_id: str) -> bool:
    """Whether a repository of the Hub could be called that, its owner included."""
    from huggingface_hub import utils

    client: Any = utils  # its names are there, but not for a type checker
    try:
        client.validate_repo_id(repo_id)
    except client.HFValidationError:
        return False
    return repo_id.count("/") == 1


def _shown(uri: str) -> str:
    return uri if len(uri) <= _MOST_BYTES else f"{uri[:_MOST_BYTES]}…"
