"""How fast the front ends are beside their originals, measured side by side on the same sound.

The original of PANNs' is `torchlibrosa`, two convolutions with the Fourier basis; that of AST's is
transformers' ASTFeatureExtractor, a loop over frames.
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
# Bands further below the loudest of their frame hold the rounding of 32-bit floats beside sound:
# torchlibrosa's own numbers are up to 2e-4 dB away from those in 64 bits there.
ENERGY_DB = 40.0


def run(*, rounds: int = ROUNDS, progress: Progress | None = None) -> dict[str, Any]:
    """Milliseconds for ten seconds of sound, the ratio, and the largest difference in decibels.

    Raises RequestError where torchlibrosa, which only this comparison needs, is not installed.
    """
    if find_spec("torchlibrosa") is None:
        raise RequestError(
            "The package torchlibrosa is not installed, wanted: the dev packages, "
            '`pip install -e ".[dev]"`.'
        )
    tell = progress or (lambda done, doing: None)
    rows = {}
    for i, (model, original) in enumerate(((CNN14, _torchlibrosa), (AST, _extractor))):
        tell(i / 2, model.name)
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
    """Ten seconds of a chirp, a chord and noise: energy in every band, at many levels."""
    t = np.arange(SECONDS * sample_rate_hz) / sample_rate_hz
    chirp = np.sin(2 * np.pi * (100 + 200 * t) * t) * np.linspace(0.05, 0.5, len(t))
    chord = sum(np.sin(2 * np.pi * hz * t) for hz in (220, 277.2, 329.6)) * 0.05
    noise = np.random.default_rng(0).normal(0, 0.01, len(t))
    samples: Floats = (chirp + chord + noise).astype(np.float32)
    return samples


def difference_db(ours: Floats, original: Floats) -> float:
    """The largest difference of two spectrograms, (mel, frames), wherever there is energy."""
    heard = original > original.max(axis=0) - ENERGY_DB
    return float(np.abs(ours - original)[heard].max())


def _row(model: Model, original: _Original, rounds: int) -> dict[str, Any]:
    spec = model.preprocessing
    if not isinstance(spec, LogMel):
        raise TypeError(f"{model.name} is prepared by {spec}, wanted: a LogMel")
    samples = sound(spec.sample_rate_hz)
    name, theirs = original(spec, samples)
    taken: dict[str, list[float]] = {"original": [], "here": []}
    ways: dict[str, Callable[[], Floats]] = {
        "original": theirs,
        "here": lambda: spectrogram.log_mel(samples, spec),
    }
    for i in range(rounds + 1):
        for way in sorted(ways, reverse=i % 2 == 0):  # nobody always goes first
            start = time.perf_counter()
            ways[way]()
            if i:  # the first round warms up
                taken[way].append(1000 * (time.perf_counter() - start))
    original_ms, here_ms = (statistics.median(taken[way]) for way in ("original", "here"))
    return {
        "original": name,
        "original_ms": original_ms,
        "here_ms": here_ms,
        "faster": original_ms / here_ms,
        "difference_db": difference_db(ways["here"](), theirs()),
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
        top_db=None,
    ).eval()
    waveform = torch.from_numpy(samples)[None]

    def once() -> Floats:
        with torch.inference_mode():
            decibels: Floats = mel(power(waveform))[0, 0].T.numpy()
        return decibels

    return "torchlibrosa", once


def _extractor(spec: LogMel, samples: Floats) -> tuple[str, Callable[[], Floats]]:
    from transformers import ASTFeatureExtractor

    extract = ASTFeatureExtractor(do_normalize=False, max_length=spectrogram.window_frames(spec))

    def once() -> Floats:
        features = extract(samples, sampling_rate=spec.sample_rate_hz)["input_values"][0]
        decibels: Floats = features.T * np.float32(10 / np.log(10))
        return decibels

    return "ASTFeatureExtractor", once


_Original = Callable[[LogMel, "Floats"], tuple[str, Callable[[], "Floats"]]]
