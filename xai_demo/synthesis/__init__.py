"""Synthesised sounds and radiographs with known content: the page's examples, and test mixtures.

`BUILDERS` makes the examples. The mixtures put events of known time and band into a background, to
measure whether a heatmap finds them. Their signal-to-noise ratio compares the power of the event
with that of the background over the event's own interval, all frequencies together. The same seed
puts the same events in the same places at every ratio.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from xai_demo.errors import UnsuitableError
from xai_demo.examples import EXAMPLES, Example, GroundTruth, Phantom, SynthesisedSound
from xai_demo.synthesis import everyday, lung
from xai_demo.synthesis.everyday import everyday_sound
from xai_demo.synthesis.lung import Crackles, Wheeze, lung_sound
from xai_demo.synthesis.thorax import Opacity, thorax_phantom

if TYPE_CHECKING:
    from xai_demo.records import Floats

TRUTH_FILE = "truth.json"


def _wheezes(frequency_hz: float) -> tuple[Wheeze, ...]:
    """One wheeze in each expiration of `Breathing()`, at pitches near the given one."""
    return tuple(
        Wheeze(start_s=1.0 + 1.5 * breath, duration_s=0.55, frequency_hz=frequency_hz * pitch)
        for breath, pitch in enumerate((1.0, 1.04, 0.97, 1.02, 0.98))
    )


def _crackles(snr_db: float, per_second: float) -> tuple[Crackles, ...]:
    """One burst of coarse crackles in each inspiration of `Breathing()`."""
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


# The seeds are fixed: the files in `xai_demo/examples` are exactly what these functions make.
BUILDERS: dict[str, Callable[[], SynthesisedSound | Phantom]] = {
    "breathing": partial(lung_sound, seed=1),
    "wheeze": partial(lung_sound, seed=2, events=_wheezes(460)),
    "crackles": partial(lung_sound, seed=5, events=_crackles(16, 12)),
    "crackles-and-wheeze": partial(lung_sound, seed=4, events=_crackles(9, 14) + _wheezes(400)),
    "clear-film": partial(thorax_phantom, seed=11),
    "one-opacity": partial(
        thorax_phantom,
        seed=12,
        opacities=(
            Opacity(label="Right lower lung", x=0.28, y=0.64, radius_x=0.19, radius_y=0.19),
        ),
    ),
    "two-opacities": partial(
        thorax_phantom,
        seed=13,
        opacities=(
            Opacity(label="Right upper lung", x=0.32, y=0.41, radius_x=0.17, radius_y=0.17),
            Opacity(label="Left lower lung", x=0.76, y=0.65, radius_x=0.17, radius_y=0.23),
        ),
    ),
    "dog": partial(everyday_sound, "Dog", seed=21),
    "rain": partial(everyday_sound, "Rain", seed=22),
    "clock": partial(everyday_sound, "Tick-tock", seed=23),
    "helicopter": partial(everyday_sound, "Helicopter", seed=24),
}


def ground_truths() -> dict[str, object]:
    """The content of `truth.json`: for each example, its file and everything that it contains."""
    return {name: _example_record(example, BUILDERS[name]()) for name, example in EXAMPLES.items()}


def write_examples(directory: Path) -> None:
    """Write all examples, as 16-bit FLAC and 8-bit grey PNG, and one `truth.json`."""
    import soundfile
    from PIL import Image

    directory.mkdir(parents=True, exist_ok=True)
    truth = {}
    for name, example in EXAMPLES.items():
        content = BUILDERS[name]()
        path = directory / example.file
        if isinstance(content, SynthesisedSound):
            soundfile.write(path, content.samples, content.sample_rate_hz, subtype="PCM_16")
        else:
            Image.fromarray(content.pixels).save(path, optimize=True)
        truth[name] = _example_record(example, content)
    text = json.dumps(truth, indent=1, ensure_ascii=False)
    (directory / TRUTH_FILE).write_text(text + "\n", encoding="utf-8")


def _example_record(example: Example, content: SynthesisedSound | Phantom) -> dict[str, object]:
    return {
        "task": example.task,
        "file": example.file,
        "expectation": example.expectation,
        "truth": [dataclasses.asdict(truth) for truth in content.truth],
    }


LUNG_KINDS: tuple[Literal["crackle", "wheeze"], ...] = ("crackle", "wheeze")
# Intermittent sounds: one without a pause has no time that a heatmap could find.
EVERYDAY_LABELS = ("Tick-tock", "Dog", "Crowing, cock-a-doodle-doo")
# About one event a breath.
_EVENT_PERIOD_S = 2.0
# The shortest and the longest.
_EVENT_LENGTHS_S = (0.4, 0.7)
# The noise of a room, falling towards high frequencies: hertz, decibels.
_ROOM = ((0, 100, 600, 2500, 8000, 16000), (-6, 0, -4, -10, -22, -36))


def lung_mixture(
    background: Floats, *, kind: Literal["crackle", "wheeze"], snr_db: float, seed: int
) -> SynthesisedSound:
    """Events of one kind in a recording of breathing, (time,) at `lung.SAMPLE_RATE_HZ`.

    Raises UnsuitableError if the background is shorter than one event, or silent where one is put.
    """
    rng = np.random.default_rng(seed)
    rate, count = lung.SAMPLE_RATE_HZ, len(background)
    # At least one event, also in a recording shorter than the period.
    number = max(1, int(count / rate / _EVENT_PERIOD_S))
    slot = count // number
    if slot < _EVENT_LENGTHS_S[1] * rate:
        raise UnsuitableError(
            f"The background lasts {count / rate:.2f} s; "
            f"at least {_EVENT_LENGTHS_S[1]:g} s is needed."
        )
    sound = np.asarray(background, np.float64)
    truth = []
    # One event in each slot, at a random position: events never overlap.
    for first in range(0, number * slot, slot):
        wave, (low_hz, high_hz) = _event(rng, kind)
        start = first + int(rng.integers(slot - len(wave) + 1))
        # The event by itself, because the ratio is taken over its own interval.
        alone = np.zeros(count)
        alone[start : start + len(wave)] = wave
        sound = lung.mix_at_snr(sound, alone, snr_db)
        truth.append(
            GroundTruth(
                label=kind,
                start_s=start / rate,
                end_s=(start + len(wave)) / rate,
                low_hz=low_hz,
                high_hz=high_hz,
            )
        )
    return SynthesisedSound(samples=_normalise_peak(sound), sample_rate_hz=rate, truth=tuple(truth))


def everyday_mixture(label: str, *, snr_db: float, seed: int) -> SynthesisedSound:
    """One of `EVERYDAY_LABELS` in the noise of a room, rotated in time by a random shift."""
    clean = everyday.everyday_sound(label, seed=seed)
    rng = np.random.default_rng(seed)
    rate, count = clean.sample_rate_hz, len(clean.samples)
    # Otherwise every sound would have its events at the same times.
    shift = int(rng.integers(count))
    sound = np.roll(clean.samples.astype(np.float64), shift)
    truth = tuple(part for t in clean.truth for part in _shift(t, shift / rate, count / rate))
    during = np.zeros(count, bool)
    for t in truth:
        during[round(t.start_s * rate) : round(t.end_s * rate)] = True
    noise = lung.coloured_noise(rng, count, rate, *_ROOM)
    # Only the intervals of the events count: these sounds have long pauses.
    power = np.mean(sound[during] ** 2) / np.mean(noise[during] ** 2)
    mixed = sound + noise * np.sqrt(power / 10 ** (snr_db / 10))
    return SynthesisedSound(samples=_normalise_peak(mixed), sample_rate_hz=rate, truth=truth)


def _event(
    rng: np.random.Generator, kind: Literal["crackle", "wheeze"]
) -> tuple[np.ndarray, tuple[float, float]]:
    duration_s = float(rng.uniform(*_EVENT_LENGTHS_S))
    if kind == "wheeze":
        # Pitch is perceived on a logarithmic scale.
        pitch_hz = float(np.exp(rng.uniform(np.log(200), np.log(600))))
        return lung.wheeze(
            rng,
            lung.Wheeze(start_s=0, duration_s=duration_s, frequency_hz=pitch_hz, harmonics=2),
        )
    event = lung.Crackles(
        start_s=0,
        duration_s=duration_s,
        kind="fine" if rng.random() < 0.5 else "coarse",
        per_second=float(rng.uniform(12, 25)),
    )
    pitch_hz = lung.CRACKLES[event.kind][1]
    return lung.crackle_burst(rng, event), (0.5 * pitch_hz, 1.5 * pitch_hz)


def _shift(truth: GroundTruth, by_s: float, total_s: float) -> list[GroundTruth]:
    """The interval moved by `by_s`, in two parts if it wraps around the end."""
    # `np.roll` wraps around the end in the same way.
    start_s = (truth.start_s + by_s) % total_s
    end_s = start_s + truth.end_s - truth.start_s
    spans = [(start_s, min(end_s, total_s))]
    if end_s > total_s:
        spans.append((0.0, end_s - total_s))
    return [
        GroundTruth(
            label=truth.label, start_s=a, end_s=b, low_hz=truth.low_hz, high_hz=truth.high_hz
        )
        for a, b in spans
    ]


def _normalise_peak(sound: np.ndarray) -> Floats:
    # Only downwards: a quiet recording stays quiet.
    normalised: Floats = (sound * min(1.0, 0.95 / np.abs(sound).max())).astype(np.float32)
    return normalised
