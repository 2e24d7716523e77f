"""What `analyse` can be asked on the command line."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from xai_demo import explainers
from xai_demo.filtering import SignalPath
from xai_demo.hub import Hub
from xai_demo.records import LogMel

BACKENDS = ("auto", "torch", "onnx")

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
