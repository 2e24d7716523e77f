"""How often the gate accepts radiographs and stops other images: `evaluate-gate`.

Radiographs are tested as they are, and some of them rotated and inverted as well. Other images come
from a folder, are drawn here (`DRAWINGS`), or are spectrograms of sounds. All images are
(height, width), 0..1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import audio, imaging
from xai_demo.audio import spectrogram
from xai_demo.catalog.hub_models import CNN14
from xai_demo.errors import TrainingError, UnreadableFileError
from xai_demo.imaging import gate
from xai_demo.records import LogMel
from xai_demo.synthesis import everyday

if TYPE_CHECKING:
    from collections.abc import Callable

    from xai_demo.records import Floats, Progress
    from xai_demo.settings import Settings

CAVEAT = (
    "The gate was fitted on radiographs of NIH ChestX-ray14, Kermany et al. and COVID-CXNet, so "
    "it may have been fitted on the ones measured here; xai_demo/training/input_checks.py has the "
    "rates for patients left out of the fit."
)
# Wanted shares: of radiographs accepted, and of all else stopped or warned about.
RADIOGRAPH_TARGET, OTHERS_TARGET = 0.99, 0.95
# Of every kind that is drawn here.
IMAGES_PER_KIND = 60
# Range of a spectrogram, from its loudest point to black.
_DECIBELS = 80.0
_WORDS = ("lung", "rib", "heart", "left", "right", "clear", "no", "acute", "finding", "normal")
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".dcm"}
_SOUND_SUFFIXES = {".wav", ".flac", ".ogg", ".mp3"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFolders:
    """Where the images to test are."""

    radiographs: Path
    others: Path | None = None  # other images, one folder per kind
    # For spectrograms; None: of synthetic sounds.
    sounds: Path | None = None
    # Radiographs of each folder; None: all.
    most: int | None = None
    # How many of these are also rotated and inverted.
    turned: int = 100


@dataclass(slots=True)
class VerdictTally:
    """How many inputs of one kind were tested, and how many verdicts were correct."""

    n: int = 0
    right: int = 0

    def count(self, is_right: bool) -> None:
        """Count one verdict."""
        self.n += 1
        self.right += is_right

    def to_json(self) -> dict[str, Any]:
        """Both numbers, and their ratio with its 95 % interval."""
        low, high = wilson_interval(self.right, self.n)
        return {
            "n": self.n,
            "right": self.right,
            "rate": {"value": round(self.right / self.n, 4), "low": low, "high": high},
        }


def evaluate_gate(
    folders: ImageFolders, *, settings: Settings, progress: Progress | None = None
) -> dict[str, Any]:
    """Rates of correct verdicts by folder and by kind, with 95 % intervals (Wilson 1927).

    A verdict is correct if a radiograph is accepted, a rotated or inverted one is recognised with
    the right correction, and anything else is not accepted. Raises TrainingError where there are no
    radiographs.
    """
    report = progress or (lambda done, doing: None)
    accepted: dict[str, VerdictTally] = {}
    turned: dict[str, VerdictTally] = {}
    others: dict[str, VerdictTally] = {}
    unread: list[str] = []
    by_folder = files_by_folder(folders.radiographs, "radiographs", folders.most)
    for number, (name, paths) in enumerate(by_folder.items()):
        report(0.8 * number / len(by_folder), f"radiographs in {name}")
        for i, path in enumerate(paths):
            image = read_pixels(path, settings, unread)
            if image is None:
                continue
            verdict = gate.classify_image(image[0], colour=image[1])
            accepted.setdefault(name, VerdictTally()).count(verdict.kind == "frontal")
            # Only the first of each folder: seven more verdicts each.
            for way, is_right in _orientation_verdicts(image[0]) if i < folders.turned else ():
                turned.setdefault(way, VerdictTally()).count(is_right)
    if not accepted:
        raise TrainingError(f"{folders.radiographs} contains no readable radiograph.")
    report(0.8, "other images")
    for kind, shown, colour in other_images(folders, settings, unread):
        stopped = gate.classify_image(shown, colour=colour).kind != "frontal"
        others.setdefault(kind, VerdictTally()).count(stopped)
    return _result(accepted, turned, others, unread)


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927).

    >>> wilson_interval(0, 20)
    (0.0, 0.1611)
    """
    # Unlike the normal approximation, this has a width even if all verdicts are right.
    z, share = 1.96, right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return round(float(max(middle - half, 0)), 4), round(float(min(middle + half, 1)), 4)


def table(result: dict[str, Any]) -> str:
    """The rates for a terminal, as Markdown."""
    lines = ["| images | n | correct | 95 % |", "| --- | --- | --- | --- |"]
    for title, rows in (
        ("accepted", result["films"]),
        ("recognised and corrected", result["turned"]),
        ("stopped", result["others"]),
    ):
        lines += [f"| {name}: {title} | {rate_cells(row)} |" for name, row in rows.items()]
    for name, row in result["together"].items():
        target = row.get("wanted")
        goal = f", target {target:.0%}" if target else ""
        lines.append(f"| **all {name}{goal}** | {rate_cells(row)} |")
    return "\n".join([*lines, *("\n" + note for note in result["notes"])])


def _result(
    accepted: dict[str, VerdictTally],
    turned: dict[str, VerdictTally],
    others: dict[str, VerdictTally],
    unread: Sequence[str],
) -> dict[str, Any]:
    together = {"films": _sum(accepted) | {"wanted": RADIOGRAPH_TARGET}}
    # An empty tally has no rate: it would divide by zero.
    if turned:
        together["turned or inverted films"] = _sum(turned) | {"wanted": OTHERS_TARGET}
    together["others"] = _sum(others) | {"wanted": OTHERS_TARGET}
    notes = [CAVEAT]
    few = ", ".join(unread[:3]) + (", ..." if len(unread) > 3 else "")
    if unread:
        notes.append(f"{len(unread)} files could not be read and are left out: {few}.")
    return {
        "films": {name: tally.to_json() for name, tally in accepted.items()},
        "turned": {name: tally.to_json() for name, tally in turned.items()},
        "others": {name: tally.to_json() for name, tally in others.items()},
        "together": together,
        "notes": notes,
    }


def _sum(tallies: dict[str, VerdictTally]) -> dict[str, Any]:
    total = VerdictTally(
        n=sum(t.n for t in tallies.values()), right=sum(t.right for t in tallies.values())
    )
    return total.to_json()


def _orientation_verdicts(upright: Floats) -> Iterator[tuple[str, bool]]:
    """The seven rotated and inverted versions, and whether each is recognised as what it is."""
    for inverted in (False, True):
        for quarters in range(4):
            if not (inverted or quarters):
                continue
            # Rotated to the right, so that the verdict's turn to the left undoes it.
            shown = np.rot90(1 - upright if inverted else upright, -quarters)
            verdict = gate.classify_image(np.ascontiguousarray(shown))
            correction = (verdict.kind == "inverted", verdict.turn // 90)
            way = " and ".join(
                filter(None, (("turned" if quarters else ""), ("inverted" if inverted else "")))
            )
            is_recognised = verdict.kind in ("rotated", "inverted")
            yield way, is_recognised and correction == (inverted, quarters)


def other_images(
    folders: ImageFolders, settings: Settings, unread: list[str]
) -> Iterator[tuple[str, Floats, bool | None]]:
    """Images that are not radiographs, each with its kind and whether it is in colour, if known.

    `unread` gets the names of files that cannot be read.
    """
    by_folder = files_by_folder(folders.others, "other images", None) if folders.others else {}
    for name, paths in by_folder.items():
        for path in paths:
            image = read_pixels(path, settings, unread)
            if image is None:
                continue
            pixels, colour = image
            yield name, pixels, colour
            # A photograph may have lost its colour before it reaches the demo.
            if colour:
                yield f"{name}, in grey", pixels, False
    # Seeded by number, so that every run tests the same drawings.
    for kind, make in DRAWINGS.items():
        for seed in range(IMAGES_PER_KIND):
            yield kind, make(np.random.default_rng(seed)), None
    yield from (
        ("spectrograms", shown, None) for shown in _spectrograms(folders.sounds, settings, unread)
    )


def _spectrograms(sounds: Path | None, settings: Settings, unread: list[str]) -> Iterator[Floats]:
    """Spectrograms of the sounds in a folder or, without one, of synthetic sounds."""
    spec = CNN14.preprocessing
    if not isinstance(spec, LogMel):
        raise TypeError(f"Cnn14's preprocessing is a {type(spec).__name__}, not a LogMel.")
    if sounds is None:
        for seed in range(IMAGES_PER_KIND):
            label = list(everyday.SOUNDS)[seed % len(everyday.SOUNDS)]
            yield spectrogram_image(everyday.everyday_sound(label, seed=seed).samples, spec)
        return
    require_folder(sounds, "sounds")
    for path in sorted(p for p in sounds.rglob("*") if p.suffix.lower() in _SOUND_SUFFIXES):
        try:
            recording = audio.read_audio(
                path, sample_rate_hz=spec.sample_rate_hz, max_duration_s=settings.max_duration_s
            )
        except UnreadableFileError:
            unread.append(path.name)
            continue
        # A sound shorter than one frame is repeated, as the demo repeats short recordings.
        yield spectrogram_image(spectrogram.repeat_to_length(recording.samples, spec.n_fft), spec)


def require_folder(root: Path, what: str) -> None:
    """Raise TrainingError where there is no such folder."""
    if not root.is_dir():
        raise TrainingError(f"{root} is not a folder; a folder of {what} is needed.")


def files_by_folder(root: Path, what: str, most: int | None) -> dict[str, list[Path]]:
    """Images by the folder they lie in, at most `most` of each, in a fixed random order."""
    require_folder(root, what)
    paths_in: dict[str, list[Path]] = {}
    # Sorted before the shuffle, because the file system decides the order of rglob.
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in _IMAGE_SUFFIXES):
        paths_in.setdefault(str(path.parent.relative_to(root)), []).append(path)
    rng = np.random.default_rng(0)
    return {
        root.name if name == "." else name: [paths[i] for i in rng.permutation(len(paths))[:most]]
        for name, paths in paths_in.items()
    }


def read_pixels(
    path: Path, settings: Settings, unread: list[str]
) -> tuple[Floats, bool | None] | None:
    """An image and whether it is in colour, if known; None if it cannot be read.

    The name of an unreadable file is added to `unread`.
    """
    try:
        radiograph = imaging.read_image(path, max_pixels=settings.max_pixels)
    except UnreadableFileError:
        unread.append(path.name)
        return None
    return radiograph.pixels, radiograph.facts.get("colour")


def rate_cells(row: dict[str, Any]) -> str:
    """The table cells of one tally: number, correct ones, interval."""
    rate = row["rate"]
    return (
        f"{row['n']} | {row['right']} ({rate['value']:.2%}) | {rate['low']:.2%}-{rate['high']:.2%}"
    )


def text_page(rng: np.random.Generator) -> Floats:
    """A page of dark words on white, or of light words on black."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (600, int(rng.integers(500, 850))), 255)
    draw, size = ImageDraw.Draw(picture), float(rng.uniform(9, 26))
    top = float(rng.uniform(10, 60))
    while top < picture.height - size:
        words = " ".join(rng.choice(_WORDS, int(rng.integers(3, 14))))
        # Given a size alone, Pillow draws with its built-in font: no font file is needed.
        draw.text(
            (float(rng.uniform(10, 60)), top), words, fill=int(rng.integers(0, 60)), font_size=size
        )
        top += size * float(rng.uniform(1.1, 2.2))
    shown = np.asarray(picture, np.float32) / np.float32(255)
    return shown if rng.random() < 0.7 else 1 - shown


def chart(rng: np.random.Generator) -> Floats:
    """A chart with axes, bars and a line."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (640, 480), int(rng.integers(220, 256)))
    draw = ImageDraw.Draw(picture)
    draw.line((60, 30, 60, 430, 610, 430), fill=20, width=2)
    count = int(rng.integers(4, 12))
    width = 540 / count
    for i, height in enumerate(rng.uniform(20, 380, count)):
        left = 65 + i * width
        draw.rectangle(
            (left, 430 - height, left + 0.7 * width, 429), fill=int(rng.integers(40, 190))
        )
    points = [(60 + 11 * i, 430 - y) for i, y in enumerate(rng.uniform(40, 380, 50))]
    draw.line(points, fill=0, width=int(rng.integers(1, 4)))
    return np.asarray(picture, np.float32) / np.float32(255)


def noise(rng: np.random.Generator) -> Floats:
    """Random grain, fine to coarse."""
    from PIL import Image

    # From 4 cells a side, which become soft blobs, to one cell for each pixel.
    side = int(rng.choice((4, 8, 16, 64, 256)))
    grain = (255 * rng.random((side, side))).astype(np.uint8)
    smooth = Image.fromarray(grain).resize((256, 256), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float32) / np.float32(255)


def gradient(rng: np.random.Generator) -> Floats:
    """A linear or radial gradient from dark to light."""
    y, x = np.mgrid[-1:1:200j, -1:1:240j]
    angle = rng.uniform(0, 2 * np.pi)
    straight = np.cos(angle) * x + np.sin(angle) * y
    shown = straight if rng.random() < 0.5 else np.hypot(x - rng.uniform(-1, 1), y)
    spread = float(np.ptp(shown))
    return np.asarray((shown - shown.min()) / spread, np.float32)


def spectrogram_image(samples: Floats, spec: LogMel) -> Floats:
    """A spectrogram as the page draws it: high frequencies at the top, 0..1."""
    decibels = spectrogram.log_mel(samples, spec)
    shown = np.clip((decibels - decibels.max()) / _DECIBELS + 1, 0, 1)
    # The lowest band is row 0, which an image has at the top.
    return np.ascontiguousarray(shown[::-1], np.float32)


DRAWINGS: dict[str, Callable[[np.random.Generator], Floats]] = {
    "text pages": text_page,
    "charts": chart,
    "noise": noise,
    "gradients": gradient,
}
