"""What `analyse` can be asked on the command line."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo import explainers
from xai_demo.analysis.explain import disturbed
from xai_demo.audio.filters import SignalPath
from xai_demo.audio.noise import KINDS, Noise
from xai_demo.errors import RequestError
from xai_demo.hub import Hub
from xai_demo.records import FILMS, LogMel

if TYPE_CHECKING:
    from xai_demo.analysis import Analyser
    from xai_demo.records import Analysis, Progress

BACKENDS = ("auto", "torch", "onnx")
SNR_DB = 10.0  # of noise, where nobody says

_UNASKED: Any = object()  # None is a band that was switched off


def add_analyse(command: argparse.ArgumentParser) -> None:
    """The arguments of `analyse`."""
    command.add_argument("model", metavar="MODEL", help="a name that `models` lists")
    command.add_argument("file", metavar="FILE", help="a sound or a radiograph")
    command.add_argument(
        "--explainer", metavar="NAME", help=f"default: the model's own, else {explainers.DEFAULT}"
    )
    command.add_argument("--target", metavar="LABEL", help="default: the most probable")
    command.add_argument("--layer", metavar="NAME", help="one of those that `models --json` lists")
    command.add_argument("--backend", choices=BACKENDS, default="auto")
    command.add_argument("--weights", metavar="PATH_OR_HF_URI", help="in place of the model's own")
    command.add_argument(
        "--cycles", type=Path, metavar="FILE.txt", help="ICBHI annotation: answer breath by breath"
    )
    command.add_argument(
        "--band",
        type=_band,
        default=_UNASKED,
        metavar="LOW-HIGH|off",
        help="band-pass in hertz; default: the model's",
    )
    command.add_argument("--denoise", choices=("on", "off"), help="default: the model's")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="write report, pictures and sounds"
    )
    command.add_argument(
        "--film",
        choices=FILMS,
        default=FILMS[0],
        help="a radiograph that seems inverted or turned: doubt it, put it right, or take it as is",
    )
    command.add_argument(
        "--no-uncertainty", action="store_true", help="do not vary a radiograph and ask again"
    )
    command.add_argument(
        "--noise", choices=KINDS, help="lay noise over the sound, and say what that does"
    )
    command.add_argument(
        "--snr", type=float, metavar="DB", help=f"how far below the sound; default: {SNR_DB:g}"
    )
    command.add_argument(
        "--no-faithfulness", action="store_true", help="do not hide the heat and ask again"
    )
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def _band(text: str) -> tuple[float, float] | None:
    """A band-pass as typed: "100-1800", or "off"."""
    if text == "off":
        return None
    low, dash, high = text.partition("-")
    try:
        band = float(low), float(high)
    except ValueError:
        band = math.nan, math.nan
    if not (dash and 0 <= band[0] < band[1] < math.inf):
        raise argparse.ArgumentTypeError(f"{text!r} is no band; wanted: hertz as 100-1800, or off")
    return band


def noise(arguments: argparse.Namespace) -> Noise | None:
    """The noise asked for; RequestError where only its ratio was."""
    if arguments.noise is None:
        if arguments.snr is not None:
            raise RequestError(
                f"--snr {arguments.snr:g} came without --noise; wanted: --noise with one of "
                f"{', '.join(KINDS)}."
            )
        return None
    return Noise(kind=arguments.noise, snr_db=SNR_DB if arguments.snr is None else arguments.snr)


def signal_path(arguments: argparse.Namespace, hub: Hub) -> SignalPath | None:
    """What was asked for, the rest as the model has it; None: nothing was."""
    if arguments.band is _UNASKED and arguments.denoise is None:
        return None
    spec = hub.model(arguments.model).preprocessing
    own = SignalPath(band_hz=None, denoise=False)
    if isinstance(spec, LogMel):
        own = SignalPath(band_hz=spec.band_hz, denoise=spec.denoise)
    return SignalPath(
        band_hz=own.band_hz if arguments.band is _UNASKED else arguments.band,
        denoise=own.denoise if arguments.denoise is None else arguments.denoise == "on",
    )


def answer(
    arguments: argparse.Namespace, analyser: Analyser, progress: Progress | None
) -> tuple[Analysis, dict[str, Any]]:
    """The answer to what was asked; and what joins its report, each with its `sentence`."""
    task = analyser.hub.entry(arguments.model).task
    hiss = noise(arguments)
    options: dict[str, Any] = {
        "model": arguments.model,
        "explainer": arguments.explainer,
        "target": arguments.target,
        "layer": arguments.layer,
        "backend": arguments.backend,
        "weights": arguments.weights,
        "signal_path": signal_path(arguments, analyser.hub),
        "cycles": arguments.cycles,
        "film": arguments.film,
        "faithfulness": not arguments.no_faithfulness,
        "uncertainty": not arguments.no_uncertainty,
        "progress": progress,
    }
    if hiss is None:
        return analyser.analyse(task, arguments.file, **options), {}
    both = disturbed(analyser.analyse, task, arguments.file, hiss, **options)
    return both.noisy, {"noise": both.to_json()}
