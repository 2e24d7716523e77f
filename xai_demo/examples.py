"""The examples on the page: synthesised files whose content and its position are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xai_demo.errors import UnknownNameError
from xai_demo.records import Task

if TYPE_CHECKING:
    from xai_demo.records import Floats, Pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class GroundTruth:
    """An interval of a sound in which a label is present, and the band that holds its energy."""

    label: str
    start_s: float
    end_s: float
    low_hz: float
    high_hz: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A region of an image, in fractions of its width and height from the upper left corner."""

    label: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthesisedSound:
    """A synthesised sound and what it contains."""

    samples: Floats  # (time,), -1..1
    sample_rate_hz: int
    truth: tuple[GroundTruth, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantom:
    """A synthesised radiograph and what it contains."""

    pixels: Pixels  # (height, width) grey
    truth: tuple[Box, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A file that comes with the demo; `synthesis.BUILDERS` makes it."""

    task: Task
    file: str
    title: str
    # What was synthesised, never what a network predicts.
    expectation: str


_DIRECTORY = Path(__file__).resolve().parent / "examples"

# In the order of the page's cards; the benches use the first of a task.
EXAMPLES: dict[str, Example] = {
    # `synthesis.lung.Breathing`: the first inspiration is at 0.3 s, and a breath lasts 1.5 s.
    "breathing": Example(
        task="stethoscope",
        file="breathing.flac",
        title="Breathing",
        expectation="Breath noise and heart sounds only, synthesised",
    ),
    "wheeze": Example(
        task="stethoscope",
        file="wheeze.flac",
        title="Wheeze",
        expectation="Five wheezes of 0.55 s from 1.0 s on, one in each expiration, synthesised",
    ),
    "crackles": Example(
        task="stethoscope",
        file="crackles.flac",
        title="Crackles",
        expectation="Coarse crackles at 350 Hz from 0.3 s on, in each inspiration, synthesised",
    ),
    "crackles-and-wheeze": Example(
        task="stethoscope",
        file="crackles_and_wheeze.flac",
        title="Crackles and wheeze",
        expectation="Crackles in each inspiration, a wheeze in each expiration, synthesised",
    ),
    # As if facing the patient: the right lung is on the left of the image.
    "clear-film": Example(
        task="chest_xray",
        file="clear.png",
        title="Clear lungs",
        expectation="A phantom without opacities, synthesised",
    ),
    "one-opacity": Example(
        task="chest_xray",
        file="one_opacity.png",
        title="One opacity",
        expectation="An opacity in the right lower lung (on the left of the image), synthesised",
    ),
    "two-opacities": Example(
        task="chest_xray",
        file="two_opacities.png",
        title="Two opacities",
        expectation="Opacities in the right upper and left lower lung, synthesised",
    ),
    # The times are those in `synthesis.everyday`.
    "dog": Example(
        task="audioset",
        file="dog.flac",
        title="Dog",
        expectation="Six barks at 0.35, 0.85, 2.1, 2.5, 2.95 and 4.1 s, synthesised",
    ),
    "rain": Example(
        task="audioset",
        file="rain.flac",
        title="Rain",
        expectation="Steady rain with single drops throughout, synthesised",
    ),
    "clock": Example(
        task="audioset",
        file="clock.flac",
        title="Clock",
        expectation="Five ticks, one a second from 0.45 s on, synthesised",
    ),
    "helicopter": Example(
        task="audioset",
        file="helicopter.flac",
        title="Helicopter",
        expectation="Eleven rotor beats a second throughout, synthesised",
    ),
}


def example_path(name: str) -> Path:
    """The path of an example's file; raises UnknownNameError if there is no such example."""
    # Only names of the table are joined to the directory, so no path leads out of it.
    if name not in EXAMPLES:
        raise UnknownNameError("example", name, EXAMPLES)
    return _DIRECTORY / EXAMPLES[name].file
