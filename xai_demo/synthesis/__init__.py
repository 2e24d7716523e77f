"""Sounds and films made by the project: what they hold is known, because it was put there."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

from xai_demo.errors import UnknownNameError
from xai_demo.examples import Example, Phantom, Synthesised
from xai_demo.synthesis.everyday import everyday_sound
from xai_demo.synthesis.lung import Crackles, Wheeze, lung_sound
from xai_demo.synthesis.thorax import Opacity, thorax

_DIRECTORY = Path(__file__).resolve().parent.parent / "examples"
TRUTH_FILE = "truth.json"


def _wheezes(frequency_hz: float) -> tuple[Wheeze, ...]:
    """One in every breath out of `Breathing()`, at pitches near the given one."""
    return tuple(
        Wheeze(start_s=1.0 + 1.5 * breath, duration_s=0.55, frequency_hz=frequency_hz * pitch)
        for breath, pitch in enumerate((1.0, 1.04, 0.97, 1.02, 0.98))
    )


def _crackles(snr_db: float, per_second: float) -> tuple[Crackles, ...]:
    """One burst of coarse ones in every breath in of `Breathing()`."""
    return tuple(
        Crackles(
            start_s=round(0.3 + 1.5 * breath, 1),
            duration_s=0.6,
            kind="coarse",
            per_second=per_second,
            snr_db=snr_db,
        )
        for breath in range(6)
    )


EXAMPLES: dict[str, Example] = {
    "breathing": Example(
        task="stethoscope",
        file="breathing.flac",
        title="Breathing",
        expectation="Breath noise and heart only, synthesised",
        build=partial(lung_sound, seed=1),
    ),
    "wheeze": Example(
        task="stethoscope",
        file="wheeze.flac",
        title="Wheeze",
        expectation="Five wheezes of 0.55 s from 1.0 s on, one in every breath out, synthesised",
        build=partial(lung_sound, seed=2, events=_wheezes(460)),
    ),
    "crackles": Example(
        task="stethoscope",
        file="crackles.flac",
        title="Crackles",
        expectation="Coarse crackles from 0.3 s on, in every breath in, 350 Hz, synthesised",
        build=partial(lung_sound, seed=5, events=_crackles(16, 12)),
    ),
    "crackles-and-wheeze": Example(
        task="stethoscope",
        file="crackles_and_wheeze.flac",
        title="Crackles and wheeze",
        expectation="Crackles in every breath in, a wheeze in every breath out, synthesised",
        build=partial(lung_sound, seed=4, events=_crackles(9, 14) + _wheezes(400)),
    ),
    "clear-film": Example(
        task="chest_xray",
        file="clear.png",
        title="Clear lungs",
        expectation="A phantom without opacities, synthesised",
        build=partial(thorax, seed=11),
    ),
    "one-opacity": Example(
        task="chest_xray",
        file="one_opacity.png",
        title="One opacity",
        expectation="A cloudy patch in the right lower lung (left in the picture), synthesised",
        build=partial(
            thorax,
            seed=12,
            opacities=(
                Opacity(label="Right lower lung", x=0.28, y=0.64, radius_x=0.19, radius_y=0.19),
            ),
        ),
    ),
    "two-opacities": Example(
        task="chest_xray",
        file="two_opacities.png",
        title="Two opacities",
        expectation="Cloudy patches in the right upper and the left lower lung, synthesised",
        build=partial(
            thorax,
            seed=13,
            opacities=(
                Opacity(label="Right upper lung", x=0.32, y=0.41, radius_x=0.17, radius_y=0.17),
                Opacity(label="Left lower lung", x=0.76, y=0.65, radius_x=0.17, radius_y=0.23),
            ),
        ),
    ),
    "dog": Example(
        task="audioset",
        file="dog.flac",
        title="Dog",
        expectation="Six barks at 0.35, 0.85, 2.1, 2.5, 2.95 and 4.1 s, synthesised",
        build=partial(everyday_sound, "Dog", seed=21),
    ),
    "rooster": Example(
        task="audioset",
        file="rooster.flac",
        title="Rooster",
        expectation="One crow at 1.2-2.9 s, synthesised",
        build=partial(everyday_sound, "Crowing, cock-a-doodle-doo", seed=22),
    ),
    "clock": Example(
        task="audioset",
        file="clock.flac",
        title="Clock",
        expectation="Five ticks, one a second from 0.45 s on, synthesised",
        build=partial(everyday_sound, "Tick-tock", seed=23),
    ),
    "helicopter": Example(
        task="audioset",
        file="helicopter.flac",
        title="Helicopter",
        expectation="Eleven rotor beats a second all along, synthesised",
        build=partial(everyday_sound, "Helicopter", seed=24),
    ),
}


def example_path(name: str) -> Path:
    """The file of an example, as it ships with the package."""
    if name not in EXAMPLES:
        raise UnknownNameError("example", name, EXAMPLES)
    return _DIRECTORY / EXAMPLES[name].file


def truths() -> dict[str, object]:
    """What `truth.json` holds: by example, its file and everything that was put in."""
    return {name: _facts(example, example.build()) for name, example in EXAMPLES.items()}


def write_examples(directory: Path) -> None:
    """Make all examples anew: FLAC (16 bit), PNG (8 bit grey) and one `truth.json`."""
    import soundfile
    from PIL import Image

    directory.mkdir(parents=True, exist_ok=True)
    facts = {}
    for name, example in EXAMPLES.items():
        made = example.build()
        path = directory / example.file
        if isinstance(made, Synthesised):
            soundfile.write(path, made.samples, made.sample_rate_hz, subtype="PCM_16")
        else:
            Image.fromarray(made.pixels).save(path, optimize=True)
        facts[name] = _facts(example, made)
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    (directory / TRUTH_FILE).write_text(text + "\n", encoding="utf-8")


def _facts(example: Example, made: Synthesised | Phantom) -> dict[str, object]:
    return {
        "task": example.task,
        "file": example.file,
        "expectation": example.expectation,
        "truth": [dataclasses.asdict(truth) for truth in made.truth],
    }
