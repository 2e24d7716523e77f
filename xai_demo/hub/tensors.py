"""Checkpoints as tensors by name, and whether they are those of a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.audio.spectrogram import mel_filters
from xai_demo.errors import CheckpointMismatchError
from xai_demo.records import LogMel, Raster

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

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
