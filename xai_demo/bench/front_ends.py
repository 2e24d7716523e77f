"""How fast our spectrogram front ends are, beside the original ones, on the same sound.

PANNs' original is `torchlibrosa`, two convolutions with the Fourier basis; AST's is transformers'
ASTFeatureExtractor, a loop over frames.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.audio import spectrogram
from xai_demo.catalog.hub_models import AST, CNN14
from xai_demo.errors import RequestError
from xai_demo.records import LogMel

if TYPE_CHECKING:
    from xai_demo.records import Floats, Model, Progress

SECONDS = 10
ROUNDS = 15
# Bands further below the loudest one of their frame hold mostly the rounding of 32-bit floats:
# there torchlibrosa itself is up to 2e-4 dB away from a computation in 64 bits.
ENERGY_DB = 40.0


def run(*, rounds: int = ROUNDS, progress: Progress | None = None) -> dict[str, Any]:
    """Milliseconds for ten seconds of sound, the ratio, and the largest difference in decibels.

    Raises RequestError where torchlibrosa, which nothing else needs, is not installed.
    """
    if find_spec("torchlibrosa") is None:
        raise RequestError(
            "The package torchlibrosa is not installed; it is one of the development packages:"
            ' `pip install -e ".[dev]"`.'
        )
    report = progress or (lambda done, doing: None)
    rows = {}
    for i, (model, original) in enumerate(((CNN14, _torchlibrosa), (AST, _ast_feature_extractor))):
        report(i / 2, model.name)
        rows[model.name] = _row(model, original, rounds)
    return {"seconds": SECONDS, "rounds": rounds, "front_ends": rows}


def table(result: dict[str, Any]) -> str:
    """The figures as a Markdown table."""
    lines = [
        "| front end of | original (ms) | here (ms) | faster | largest difference (dB) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in result["front_ends"].items():
        lines.append(
            f"| {name} ({row['original']}) | {row['original_ms']:.1f} | {row['here_ms']:.1f} | "
            f"{row['faster']:.1f}x | {row['difference_db']:.1e} |"
        )
    lines.append(
        f"\n{result['seconds']} s of sound, median of {result['rounds']} interleaved rounds; "
        f"difference in bands less than {ENERGY_DB:g} dB below the loudest of their frame."
    )
    return "\n".join(lines)


def sound(sample_rate_hz: int) -> Floats:
    """Ten seconds of a chirp, a chord and noise, with energy in every band and at many levels."""
    t = np.arange(SECONDS * sample_rate_hz) / sample_rate_hz
    chirp = np.sin(2 * np.pi * (100 + 200 * t) * t) * np.linspace(0.05, 0.5, len(t))
    chord = sum(np.sin(2 * np.pi * hz * t) for hz in (220, 277.2, 329.6)) * 0.05
    noise = np.random.default_rng(0).normal(0, 0.01, len(t))
    samples: Floats = (chirp + chord + noise).astype(np.float32)
    return samples


def difference_db(ours: Floats, original: Floats) -> float:
    """The largest difference of two spectrograms in dB, (mel, frames), where there is energy.

    >>> original = np.array([[0.0], [-41.0]])
    >>> difference_db(original + [[0.5], [9.0]], original)
    0.5
    """
    # Relative to the loudest band of each frame.
    has_energy = original > original.max(axis=0) - ENERGY_DB
    return float(np.abs(ours - original)[has_energy].max())


def _row(model: Model, original: _Original, rounds: int) -> dict[str, Any]:
    spec = model.preprocessing
    if not isinstance(spec, LogMel):
        raise TypeError(f"{model.name} takes {spec}, not a log-mel spectrogram")
    samples = sound(spec.sample_rate_hz)
    name, theirs = original(spec, samples)
    milliseconds: dict[str, list[float]] = {"original": [], "here": []}
    variants: dict[str, Callable[[], Floats]] = {
        "original": theirs,
        "here": lambda: spectrogram.log_mel(samples, spec),
    }
    for i in range(rounds + 1):
        # Take turns at being first.
        for variant in sorted(variants, reverse=i % 2 == 0):
            start = time.perf_counter()
            variants[variant]()
            # The first round warms up.
            if i:
                milliseconds[variant].append(1000 * (time.perf_counter() - start))
    original_ms, here_ms = (statistics.median(milliseconds[k]) for k in ("original", "here"))
    return {
        "original": name,
        "original_ms": original_ms,
        "here_ms": here_ms,
        "faster": original_ms / here_ms,
        "difference_db": difference_db(variants["here"](), theirs()),
    }


def _torchlibrosa(spec: LogMel, samples: Floats) -> tuple[str, Callable[[], Floats]]:
    import torch
    from torchlibrosa.stft import LogmelFilterBank, Spectrogram

    power = Spectrogram(
        n_fft=spec.n_fft, hop_length=spec.hop_length, win_length=spec.win_length
    ).eval()
    mel = LogmelFilterBank(
        sr=spec.sample_rate_hz,
        n_fft=spec.n_fft,
        n_mels=spec.n_mels,
        fmin=spec.f_min_hz,
        fmax=spec.f_max_hz,
        # PANNs do not clip the levels far below the loudest one.
        top_db=None,
    ).eval()
    # Prepared once: only the front end is timed.
    waveform = torch.from_numpy(samples)[None]

    def run_once() -> Floats:
        with torch.inference_mode():
            decibels: Floats = mel(power(waveform))[0, 0].T.numpy()
        return decibels

    return "torchlibrosa", run_once


def _ast_feature_extractor(spec: LogMel, samples: Floats) -> tuple[str, Callable[[], Floats]]:
    from transformers import ASTFeatureExtractor

    # Without its normalisation, which belongs to the model and not to the front end.
    extract = ASTFeatureExtractor(do_normalize=False, max_length=spectrogram.window_frames(spec))

    def run_once() -> Floats:
        features = extract(samples, sampling_rate=spec.sample_rate_hz)["input_values"][0]
        # Kaldi's features are natural logarithms of power.
        decibels: Floats = features.T * np.float32(10 / np.log(10))
        return decibels

    return "ASTFeatureExtractor", run_once


# The name of a front end and a function that runs it once on the given samples.
_Original = Callable[[LogMel, "Floats"], tuple[str, Callable[[], "Floats"]]]
