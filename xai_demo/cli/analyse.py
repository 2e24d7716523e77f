"""What `analyse` can be asked on the command line."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo import explainers
from xai_demo.analysis.explain import compare_with_noise
from xai_demo.analysis.request import DEFAULT_SNR_DB, AnalysisRequest, noise_choice
from xai_demo.audio.filters import SignalPath
from xai_demo.audio.noise import KINDS
from xai_demo.engine.backends import BACKENDS
from xai_demo.hub import Hub
from xai_demo.records import GATE_MODES, LogMel

if TYPE_CHECKING:
    from xai_demo.analysis import Analyser
    from xai_demo.records import Analysis, Progress

_MODELS_OWN: Any = object()  # the default of --band, where None is `off`


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
        default=_MODELS_OWN,
        metavar="LOW-HIGH|off",
        help="band-pass in hertz; default: the model's",
    )
    command.add_argument("--denoise", choices=("on", "off"), help="default: the model's")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="write report, pictures and sounds"
    )
    command.add_argument(
        "--film",
        choices=GATE_MODES,
        default=GATE_MODES[0],
        help="a radiograph that seems inverted or turned: doubt it, put it right, or take it as is",
    )
    command.add_argument(
        "--no-uncertainty", action="store_true", help="do not vary a radiograph and ask again"
    )
    command.add_argument(
        "--noise", choices=KINDS, help="lay noise over the sound, and say what that does"
    )
    command.add_argument(
        "--snr",
        type=float,
        metavar="DB",
        help=f"how far below the sound; default: {DEFAULT_SNR_DB:g}",
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


def signal_path(arguments: argparse.Namespace, hub: Hub) -> SignalPath | None:
    """The chosen steps, the others as the model has them; None where neither was chosen."""
    if arguments.band is _MODELS_OWN and arguments.denoise is None:
        return None
    spec = hub.model(arguments.model).preprocessing
    own = SignalPath(band_hz=None, denoise=False)
    if isinstance(spec, LogMel):
        own = SignalPath(band_hz=spec.band_hz, denoise=spec.denoise)
    return SignalPath(
        band_hz=own.band_hz if arguments.band is _MODELS_OWN else arguments.band,
        denoise=own.denoise if arguments.denoise is None else arguments.denoise == "on",
    )


def analysis_request(arguments: argparse.Namespace, hub: Hub) -> AnalysisRequest:
    """The request that the arguments of `analyse` make; raises RequestError."""
    return AnalysisRequest(
        task=hub.entry(arguments.model).task,
        model=arguments.model,
        explainer=arguments.explainer,
        target=arguments.target,
        layer=arguments.layer,
        backend=arguments.backend,
        weights=arguments.weights,
        signal_path=signal_path(arguments, hub),
        cycles=arguments.cycles,
        film=arguments.film,
        noise=noise_choice(arguments.noise, arguments.snr),
        faithfulness=not arguments.no_faithfulness,
        uncertainty=not arguments.no_uncertainty,
    )


def analyse_file(
    arguments: argparse.Namespace, analyser: Analyser, progress: Progress | None
) -> tuple[Analysis, dict[str, Any]]:
    """Analyse the file; returns what is added to its report as well, each with its `sentence`."""
    request = analysis_request(arguments, analyser.hub)
    if request.noise is None:
        return analyser.analyse(request, arguments.file, progress=progress), {}
    comparison = compare_with_noise(analyser.analyse, request, arguments.file, progress=progress)
    return comparison.noisy, {"noise": comparison.to_json()}
