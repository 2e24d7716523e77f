"""Model directories, checkpoint files and hf:// addresses: read, checked and verified.

A model is a directory with `config.json`, which describes it, and `model.safetensors`, whose sha256
the description names. A bare checkpoint holds tensors by name, which must be those of the network.
A few published files would fit two networks; those are recognised by their sha256.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import threading
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from xai_demo.audio.front_ends import mel_filters
from xai_demo.catalog import hub_models
from xai_demo.errors import CheckpointMismatchError, UnreadableFileError, UnsuitableError
from xai_demo.files import display_name
from xai_demo.records import LogMel, Model, Raster

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def read_config(path: Path) -> Any:
    """The JSON value in a file; raises UnreadableFileError."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UnreadableFileError(
            f"{_short_name(path)} cannot be read: {reason}; expected JSON."
        ) from error


def _short_name(path: Path) -> str:
    """The file and its folder: the folders above are the server's own affair."""
    return f"{display_name(path.parent)}/{display_name(path)}"


def read_model(directory: Path) -> Model:
    """The model that the directory's `config.json` describes; raises UnreadableFileError."""
    path = directory / CONFIG
    config = read_config(path)
    try:
        model = Model.from_config(config)
    except KeyError as error:
        raise UnreadableFileError(f"{_short_name(path)} has no {error.args[0]!r}.") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise UnreadableFileError(
            f"{_short_name(path)} does not describe a model: {_truncate(str(error), 80)}."
        ) from error
    # A string would have become a tuple of its letters.
    if not isinstance(config["labels"], list) or not 1 < len(set(model.labels)) == len(
        model.labels
    ):
        raise UnreadableFileError(
            f"{_short_name(path)} has the labels {_truncate(repr(config['labels']), 80)};"
            " expected at least two different ones."
        )
    return model


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Digests:
    """The sha256 of files, computed again only when a file has changed.

    A change is one of path, size, modification time or inode.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int, int], str] = {}
        self._lock = threading.Lock()

    def sha256(self, path: Path) -> str:
        """The sha256 of the file's bytes, in lower-case hexadecimal digits."""
        # Hashing 327 MB takes a second, and every analysis asks for verified weights.
        facts = path.stat()
        key = (str(path), facts.st_size, facts.st_mtime_ns, facts.st_ino)
        # Held while hashing, so that two threads do not read the same large file.
        with self._lock:
            if key not in self._known:
                self._known[key] = sha256_of(path)
            return self._known[key]

    def verify(self, path: Path, *, sha256: str | None, size_bytes: int | None = None) -> str:
        """The file's sha256; CheckpointMismatchError where it or the size is not the expected."""
        size = path.stat().st_size
        if size_bytes not in (None, size):
            raise CheckpointMismatchError(f"{path} has {size:,} bytes; expected {size_bytes:,}.")
        actual = self.sha256(path)
        if sha256 not in (None, actual):
            raise CheckpointMismatchError(
                f"{path} ({size:,} bytes) has sha256 {actual}; expected {sha256}."
            )
        return actual


_KERNELS = (
    "spectrogram_extractor.stft.conv_real.weight",
    "spectrogram_extractor.stft.conv_imag.weight",
)
_MEL = "logmel_extractor.melW"
# Relative to the highest value: the files hold float32, made by another version of librosa.
_MEL_TOLERANCE = 1e-3
# PANNs store their front end as tensors; `audio.front_ends` computes it instead.
_FRONT_END = (*_KERNELS, _MEL)


def read_tensors(path: Path, spec: LogMel | Raster | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, from safetensors or a pickle that holds only tensors.

    Known wrappers are removed: `{"model": ...}`, `{"state_dict": ...}`, `{"model_state_dict": ...}`
    and a `backbone.` before names. So is the front end that PANNs store, which must be that of
    `spec` where one is given: nothing else in such a file tells the sample rate it was trained for.
    Floating-point tensors become float32. Raises CheckpointMismatchError.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            # weights_only: any other object in a pickle could run code.
            state = torch.load(path, map_location="cpu", weights_only=True)
    # Each format raises its own errors.
    except Exception as error:
        raise CheckpointMismatchError(
            f"{path.name} cannot be read as tensors ({type(error).__name__}); expected a complete"
            " safetensors file, or a pickle that holds only tensors."
        ) from error
    # One after the other, because wrappers may be nested.
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()
    ):
        raise CheckpointMismatchError(
            f"{path.name} does not hold tensors by name; expected a state dictionary."
        )
    named = {k.removeprefix("backbone."): v for k, v in state.items()}
    if isinstance(spec, LogMel):
        _check_front_end(named, spec, path.name)
    return {
        # Some weights are stored as float16, and the networks compute in float32.
        k: v.float() if v.is_floating_point() else v
        for k, v in named.items()
        if k not in _FRONT_END
    }


def _check_front_end(named: Mapping[str, Tensor], spec: LogMel, file_name: str) -> None:
    """Raises CheckpointMismatchError where the stored front end is not the one of `spec`."""
    import numpy as np

    # torchlibrosa computes the Fourier transform by convolution: one kernel for each frequency.
    rows = spec.n_fft // 2 + 1
    kernels = (rows, 1, spec.n_fft)
    expected_shapes = dict.fromkeys(_KERNELS, kernels) | {_MEL: (rows, spec.n_mels)}
    for name, shape in expected_shapes.items():
        if name in named and tuple(named[name].shape) != shape:
            raise CheckpointMismatchError(
                f"{file_name} has {name} {tuple(named[name].shape)}; expected {shape}, for sounds"
                f" at {spec.sample_rate_hz} Hz in frames of {spec.n_fft} samples."
            )
    # The filters tell the sample rate and the band, which the shapes alone do not.
    if _MEL not in named:
        return
    stored, ours = named[_MEL].float().numpy(), mel_filters(spec).T
    deviation = float(np.abs(stored - ours).max() / ours.max())
    if deviation > _MEL_TOLERANCE:
        row, band = np.unravel_index(np.abs(stored - ours).argmax(), ours.shape)
        raise CheckpointMismatchError(
            f"{file_name} has {_MEL} {tuple(stored.shape)} with {stored[row, band]:.3g} at"
            f" ({row}, {band}); expected {ours[row, band]:.3g}, for sounds at {spec.sample_rate_hz}"
            f" Hz and bands from {spec.f_min_hz:g} to {spec.f_max_hz:g} Hz."
        )


def check_tensors(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], file_name: str
) -> None:
    """Raises CheckpointMismatchError, naming one tensor, unless a file fits a network exactly."""
    # A missing tensor is often a renamed one, so its message names a surplus one as well.
    surplus = [name for name in state if name not in expected]
    for name, tensor in expected.items():
        if name not in state:
            # Batch normalisation's counter, which old versions of PyTorch did not store.
            if name.endswith("num_batches_tracked"):
                continue
            instead = f"; it has {surplus[0]} {tuple(state[surplus[0]].shape)}" if surplus else ""
            raise CheckpointMismatchError(
                f"{file_name} has no tensor {name} {tuple(tensor.shape)}{instead}."
            )
        if state[name].shape != tensor.shape:
            raise CheckpointMismatchError(
                f"{file_name} has {name} {tuple(state[name].shape)}; expected"
                f" {tuple(tensor.shape)}."
            )
    if surplus:
        raise CheckpointMismatchError(
            f"{file_name} has a tensor {surplus[0]} {tuple(state[surplus[0]].shape)}, which the"
            " network does not have."
        )


def recognise_model(model: Model, sha256: str) -> Model:
    """The model that the file of this sha256 was published for; `model` for unknown files."""
    known = hub_models.MODELS_BY_SHA256.get(sha256)
    return known if known is not None and known.task == model.task else model


def check_task(model: Model, like: Model, uri: str) -> Model:
    """The model, if it is for the same task as `like`; else UnsuitableError."""
    if model.task != like.task:
        raise UnsuitableError(f"The weights {uri!r} are for {model.task!r}, not {like.task!r}.")
    return model


def without_calibration(like: Model) -> Model:
    """The same network for other weights: metrics and calibration belong to the weights."""
    return dataclasses.replace(
        like,
        sha256=None,
        metrics={},
        temperature=1.0,
        operating_points={},
        uncertain_below=None,
        uncertain_margin=None,
    )


SUFFIXES = (".safetensors", ".pth")
ACCEPTED_WEIGHTS = (
    f"expected a model directory ({CONFIG} and {WEIGHTS}), a .safetensors or .pth file, or"
    " hf://owner/name[@revision][/file]"
)
# No part may contain an "@", which would make the revision ambiguous.
_URI = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^@/]+))?(/(?P<file>[^@]+))?")
# File and revision together name the lock file, and a file name may have 255 bytes.
_MAX_NAME_BYTES = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class HubAddress:
    """A repository on the Hub, or one file of it, at a branch, a tag or a commit."""

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


def parse_uri(uri: str) -> HubAddress | None:
    """The parts of `hf://owner/name[@revision][/file]`; None for anything else, such as a path.

    Raises UnsuitableError for an address of that form that cannot exist on the Hub, or whose name
    this machine could not store.

    >>> parse_uri("hf://owner/name@v2/net.pth")
    HubAddress(repo_id='owner/name', filename='net.pth', revision='v2')
    >>> parse_uri("weights/mine") is None
    True
    """
    match = _URI.fullmatch(uri)
    if match is None:
        return None
    address = HubAddress(
        repo_id=match["repo"], filename=match["file"], revision=match["revision"] or "main"
    )
    path = PurePosixPath(address.weights)
    length = len(f"{address.weights}@{address.revision}".encode())
    if (
        not is_repo_id(address.repo_id)
        # An absolute path, or one with "..", would name a file outside of the cache.
        or path.is_absolute()
        or ".." in (*path.parts, address.revision)
        or not address.weights.endswith(SUFFIXES)
        or not uri.isprintable()
        or length > _MAX_NAME_BYTES
    ):
        raise UnsuitableError(f"The weights {_truncate(uri)!r} cannot be used; {ACCEPTED_WEIGHTS}.")
    return address


def is_repo_id(repo_id: str) -> bool:
    """Whether a repository on the Hub could have this name, its owner included.

    >>> is_repo_id("owner/name"), is_repo_id("name")
    (True, False)
    """
    from huggingface_hub import utils

    # `utils` exports its names lazily, which a type checker does not see.
    client: Any = utils
    try:
        # It accepts names without an owner too, which the Hub keeps for old models of its own.
        client.validate_repo_id(repo_id)
    except client.HFValidationError:
        return False
    return repo_id.count("/") == 1


def _truncate(text: str, limit: int = _MAX_NAME_BYTES) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"
