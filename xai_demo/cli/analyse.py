"""The command `analyse`: its arguments, and the one request that they make."""

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
from xai_demo.records import AGES, AUTO_MODEL, GATE_MODES, TASKS, LogMel

if TYPE_CHECKING:
    from xai_demo.analysis import Analyser
    from xai_demo.records import Analysis, Progress

# The default of --band. None cannot be: it is what `off` stands for.
_MODELS_OWN: Any = object()


def add_analyse(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `analyse`."""
    command.add_argument(
        "model",
        metavar="MODEL",
        help="a name listed by `models`; a task: its best model that is installed; `auto`: for a "
        "radiograph, the network that fits the patient",
    )
    command.add_argument("file", metavar="FILE", help="a recording or a radiograph")
    command.add_argument(
        "--explainer", metavar="NAME", help=f"default: the model's own, else {explainers.DEFAULT}"
    )
    command.add_argument(
        "--target", metavar="LABEL", help="label to explain; default: the most probable"
    )
    command.add_argument("--layer", metavar="NAME", help="a layer listed by `models --json`")
    command.add_argument("--backend", choices=BACKENDS, default="auto")
    command.add_argument(
        "--weights", metavar="PATH_OR_HF_URI", help="use these instead of the model's own"
    )
    command.add_argument(
        "--cycles",
        type=Path,
        metavar="FILE.txt",
        help="ICBHI annotation: one answer for each breathing cycle",
    )
    command.add_argument(
        "--band",
        type=_band,
        default=_MODELS_OWN,
        metavar="LOW-HIGH|off",
        help="band-pass in Hz; default: the model's",
    )
    command.add_argument(
        "--denoise", choices=("on", "off"), help="wavelet denoising; default: the model's"
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="write the report, pictures and sounds here"
    )
    command.add_argument(
        "--noise", choices=KINDS, help="add noise to the sound and compare the answers"
    )
    command.add_argument(
        "--snr",
        type=float,
        metavar="DB",
        help=f"signal-to-noise ratio; default: {DEFAULT_SNR_DB:g}",
    )
    command.add_argument(
        "--no-faithfulness", action="store_true", help="skip the faithfulness test"
    )
    command.add_argument("--json", action="store_true", help="print only JSON")
    _add_radiograph_options(command)


def _add_radiograph_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--film",
        choices=GATE_MODES,
        default=GATE_MODES[0],
        help="if a radiograph seems inverted or rotated: give no answer, correct it or use it",
    )
    command.add_argument(
        "--age",
        choices=AGES,
        default=AGES[0],
        help="whose radiograph it is; auto: what the file says, else a guess from the picture",
    )
    command.add_argument(
        "--no-uncertainty", action="store_true", help="skip test-time augmentation of a radiograph"
    )


def _band(text: str) -> tuple[float, float] | None:
    """Parse a band-pass such as "100-1800"; None for "off"."""
    if text == "off":
        return None
    low, dash, high = text.partition("-")
    try:
        band = float(low), float(high)
    except ValueError:
        band = math.nan, math.nan
    # Every comparison with NaN is false, so that is refused as well.
    if not (dash and 0 <= band[0] < band[1] < math.inf):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a band; give LOW-HIGH in Hz, such as 100-1800, or off"
        )
    return band


def signal_path(arguments: argparse.Namespace, hub: Hub) -> SignalPath | None:
    """The steps that were chosen, completed with the model's own; None if none was chosen."""
    # Without a choice, the analysis takes the model's own steps.
    if arguments.band is _MODELS_OWN and arguments.denoise is None:
        return None
    # Models of images have no signal path; the request refuses one for their task.
    own = SignalPath(band_hz=None, denoise=False)
    name = hub.default_model(arguments.model) if arguments.model in TASKS else arguments.model
    spec = None if name == AUTO_MODEL else hub.model(name).preprocessing
    if isinstance(spec, LogMel):
        own = SignalPath(band_hz=spec.band_hz, denoise=spec.denoise)
    return SignalPath(
        band_hz=own.band_hz if arguments.band is _MODELS_OWN else arguments.band,
        denoise=own.denoise if arguments.denoise is None else arguments.denoise == "on",
    )


def analysis_request(arguments: argparse.Namespace, hub: Hub) -> AnalysisRequest:
    """Build the request from the arguments; raises RequestError."""
    task, model = arguments.model, None
    if arguments.model not in TASKS:
        # An unknown model is reported here, before the file is read.
        model = arguments.model
        task = "chest_xray" if model == AUTO_MODEL else hub.entry(model).task
    return AnalysisRequest(
        task=task,
        model=model,
        explainer=arguments.explainer,
        target=arguments.target,
        layer=arguments.layer,
        backend=arguments.backend,
        weights=arguments.weights,
        signal_path=signal_path(arguments, hub),
        cycles=arguments.cycles,
        film=arguments.film,
        age=arguments.age,
        noise=noise_choice(arguments.noise, arguments.snr),
        faithfulness=not arguments.no_faithfulness,
        uncertainty=not arguments.no_uncertainty,
    )


def analyse_file(
    arguments: argparse.Namespace, analyser: Analyser, progress: Progress | None
) -> tuple[Analysis, dict[str, Any]]:
    """Analyse the file; also returns additions to its report, each with a `sentence` to print."""
    request = analysis_request(arguments, analyser.hub)
    if request.noise is None:
        return analyser.analyse(request, arguments.file, progress=progress), {}
    # The file is analysed twice; of the clean answer only the comparison is kept.
    comparison = compare_with_noise(analyser.analyse, request, arguments.file, progress=progress)
    return comparison.noisy, {"noise": comparison.to_json()}
