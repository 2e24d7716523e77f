"""How often the gate lets radiographs through and stops the rest: `evaluate-gate`.

Films are taken as they are, and some of them turned and inverted too. What is no film comes from a
folder, is drawn here (see `strangers`), or is the spectrogram of a sound.

Pictures that are no radiographs, made to try the gate on: (height, width), 0..1. Pure.
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
    "The gate was fitted on films of NIH ChestX-ray14, Kermany et al. and COVID-CXNet, so that "
    "rates on these are of films that it may have met; xai_demo/training/gate.py has those of "
    "persons left out of the fit."
)
RADIOGRAPH_TARGET, OTHERS_TARGET = 0.99, 0.95  # let through; stopped or warned of
IMAGES_PER_KIND = 60  # pictures of every kind that is made here
_PICTURES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".dcm"}
_SOUNDS = {".wav", ".flac", ".ogg", ".mp3"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFolders:
    """Which pictures to try."""

    films: Path
    others: Path | None = None  # a folder for each kind
    sounds: Path | None = None
    most: int | None = None  # films of each folder
    turned: int = 100  # of these


@dataclass(slots=True)
class _Tally:
    """How many of one kind were met, and of how many the gate said the right thing."""

    n: int = 0
    right: int = 0

    def count(self, is_right: bool) -> None:
        self.n += 1
        self.right += is_right

    def to_json(self) -> dict[str, Any]:
        low, high = wilson_interval(self.right, self.n)
        return {
            "n": self.n,
            "right": self.right,
            "rate": {"value": round(self.right / self.n, 4), "low": low, "high": high},
        }


def evaluate_gate(
    asked: ImageFolders, *, settings: Settings, progress: Progress | None = None
) -> dict[str, Any]:
    """Rates by folder and by kind, with 95 % intervals (Wilson 1927).

    Right is: a film as it is let through; one turned or inverted told how to correct, so that it
    is put right; anything else not let through. Raises TrainingError where there are no films.
    """
    tell = progress or (lambda done, doing: None)
    films: dict[str, _Tally] = {}
    turned: dict[str, _Tally] = {}
    others: dict[str, _Tally] = {}
    unread: list[str] = []
    folders = _files_by_folder(asked.films, "a radiograph", asked.most)
    for number, (name, paths) in enumerate(folders.items()):
        tell(0.8 * number / len(folders), f"films in {name}")
        for i, path in enumerate(paths):
            pixels = _read_pixels(path, settings, unread)
            if pixels is None:
                continue
            verdict = gate.looked_at(pixels[0], colour=pixels[1])
            films.setdefault(name, _Tally()).count(verdict.kind == "frontal")
            for way, is_right in _misoriented(pixels[0]) if i < asked.turned else ():
                turned.setdefault(way, _Tally()).count(is_right)
    if not films:
        raise TrainingError(f"{asked.films} holds no picture that can be read, wanted: films.")
    tell(0.8, "what is no film")
    for kind, shown, colour in _other_images(asked, settings, unread):
        stopped = gate.looked_at(shown, colour=colour).kind != "frontal"
        others.setdefault(kind, _Tally()).count(stopped)
    return _result(films, turned, others, unread)


def wilson_interval(right: int, n: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    z, share = 1.96, right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return round(float(max(middle - half, 0)), 4), round(float(min(middle + half, 1)), 4)


def table(result: dict[str, Any]) -> str:
    """The rates for a terminal, as Markdown."""
    lines = ["| what | pictures | right | 95 % |", "| --- | --- | --- | --- |"]
    for title, rows in (
        ("let through", result["films"]),
        ("told how to correct", result["turned"]),
        ("stopped", result["others"]),
    ):
        lines += [f"| {name}: {title} | {_cells(row)} |" for name, row in rows.items()]
    for name, row in result["together"].items():
        wanted = row.get("wanted")
        goal = f", wanted {wanted:.0%}" if wanted else ""
        lines.append(f"| **all {name}{goal}** | {_cells(row)} |")
    return "\n".join([*lines, *("\n" + note for note in result["notes"])])


def _result(
    films: dict[str, _Tally],
    turned: dict[str, _Tally],
    others: dict[str, _Tally],
    unread: Sequence[str],
) -> dict[str, Any]:
    together = {"films": _sum(films) | {"wanted": RADIOGRAPH_TARGET}}
    if turned:
        together["turned or inverted films"] = _sum(turned) | {"wanted": OTHERS_TARGET}
    together["others"] = _sum(others) | {"wanted": OTHERS_TARGET}
    notes = [CAVEAT]
    few = ", ".join(unread[:3]) + (", ..." if len(unread) > 3 else "")
    if unread:
        notes.append(f"{len(unread)} files could not be read, left out: {few}.")
    return {
        "films": {name: tally.to_json() for name, tally in films.items()},
        "turned": {name: tally.to_json() for name, tally in turned.items()},
        "others": {name: tally.to_json() for name, tally in others.items()},
        "together": together,
        "notes": notes,
    }


def _sum(tallies: dict[str, _Tally]) -> dict[str, Any]:
    total = _Tally(
        n=sum(t.n for t in tallies.values()), right=sum(t.right for t in tallies.values())
    )
    return total.to_json()


def _misoriented(upright: Floats) -> Iterator[tuple[str, bool]]:
    """The film in the seven wrong ways, and whether correcting it as told puts it right."""
    for inverted in (False, True):
        for quarters in range(4):
            if not (inverted or quarters):
                continue
            shown = np.rot90(1 - upright if inverted else upright, -quarters)
            verdict = gate.looked_at(np.ascontiguousarray(shown))
            told = (verdict.kind == "inverted", verdict.turn // 90)
            way = " and ".join(
                filter(None, (("turned" if quarters else ""), ("inverted" if inverted else "")))
            )
            seen = verdict.kind in ("rotated", "inverted")
            yield way, seen and told == (inverted, quarters)


def _other_images(
    asked: ImageFolders, settings: Settings, unread: list[str]
) -> Iterator[tuple[str, Floats, bool | None]]:
    """What is no film, by kind, and whether it is in colour; colour pictures are tried in grey too,
    as who photographs a page may have taken the colour away."""
    folders = _files_by_folder(asked.others, "another picture", None) if asked.others else {}
    for name, paths in folders.items():
        for path in paths:
            found = _read_pixels(path, settings, unread)
            if found is None:
                continue
            yield name, found[0], found[1]
            if found[1]:
                yield f"{name}, in grey", found[0], False
    for kind, make in DRAWINGS.items():
        for seed in range(IMAGES_PER_KIND):
            yield kind, make(np.random.default_rng(seed)), None
    yield from (("spectrograms", shown, None) for shown in _spectrograms(asked, settings, unread))


def _spectrograms(asked: ImageFolders, settings: Settings, unread: list[str]) -> Iterator[Floats]:
    """Of the sounds of a folder or, without one, of sounds made here."""
    spec = CNN14.preprocessing
    if not isinstance(spec, LogMel):
        raise TypeError(f"Cnn14 takes a {type(spec).__name__}, wanted: a LogMel.")
    if asked.sounds is None:
        for seed in range(IMAGES_PER_KIND):
            label = list(everyday.SOUNDS)[seed % len(everyday.SOUNDS)]
            yield spectrogram_image(everyday.everyday_sound(label, seed=seed).samples, spec)
        return
    _require_folder(asked.sounds, "a sound")
    for path in sorted(p for p in asked.sounds.rglob("*") if p.suffix.lower() in _SOUNDS):
        try:
            found = audio.read_audio(
                path, sample_rate_hz=spec.sample_rate_hz, max_duration_s=settings.max_duration_s
            )
        except UnreadableFileError:
            unread.append(path.name)
            continue
        yield spectrogram_image(spectrogram.repeated(found.samples, spec.n_fft), spec)


def _require_folder(root: Path, what: str) -> None:
    if not root.is_dir():
        raise TrainingError(f"{root} is no folder, wanted: one with {what} in it.")


def _files_by_folder(root: Path, what: str, most: int | None) -> dict[str, list[Path]]:
    """Pictures by the folder that they lie in, at most so many of each, in an order of chance."""
    _require_folder(root, what)
    found: dict[str, list[Path]] = {}
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in _PICTURES):
        found.setdefault(str(path.parent.relative_to(root)), []).append(path)
    rng = np.random.default_rng(0)
    return {
        root.name if name == "." else name: [paths[i] for i in rng.permutation(len(paths))[:most]]
        for name, paths in found.items()
    }


def _read_pixels(
    path: Path, settings: Settings, unread: list[str]
) -> tuple[Floats, bool | None] | None:
    try:
        found = imaging.read_image(path, max_pixels=settings.max_pixels)
    except UnreadableFileError:
        unread.append(path.name)
        return None
    return found.pixels, found.facts.get("colour")


def _cells(row: dict[str, Any]) -> str:
    rate = row["rate"]
    return (
        f"{row['n']} | {row['right']} ({rate['value']:.2%}) | {rate['low']:.2%}-{rate['high']:.2%}"
    )


_DECIBELS = 80.0  # of a spectrogram, from its loudest down to black
_WORDS = ("lung", "rib", "heart", "left", "right", "clear", "no", "acute", "finding", "normal")


def text_page(rng: np.random.Generator) -> Floats:
    """A page of black words on white, or of white on black."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (600, int(rng.integers(500, 850))), 255)
    draw, size = ImageDraw.Draw(picture), float(rng.uniform(9, 26))
    top = float(rng.uniform(10, 60))
    while top < picture.height - size:
        words = " ".join(rng.choice(_WORDS, int(rng.integers(3, 14))))
        draw.text(
            (float(rng.uniform(10, 60)), top), words, fill=int(rng.integers(0, 60)), font_size=size
        )
        top += size * float(rng.uniform(1.1, 2.2))
    shown = np.asarray(picture, np.float32) / np.float32(255)
    return shown if rng.random() < 0.7 else 1 - shown


def chart(rng: np.random.Generator) -> Floats:
    """Axes with bars and a line."""
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
    """Grain, fine to coarse."""
    from PIL import Image

    side = int(rng.choice((4, 8, 16, 64, 256)))
    grain = (255 * rng.random((side, side))).astype(np.uint8)
    smooth = Image.fromarray(grain).resize((256, 256), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float32) / np.float32(255)


def gradient(rng: np.random.Generator) -> Floats:
    """From dark to light, straight or round."""
    y, x = np.mgrid[-1:1:200j, -1:1:240j]
    angle = rng.uniform(0, 2 * np.pi)
    straight = np.cos(angle) * x + np.sin(angle) * y
    shown = straight if rng.random() < 0.5 else np.hypot(x - rng.uniform(-1, 1), y)
    spread = float(np.ptp(shown))
    return np.asarray((shown - shown.min()) / spread, np.float32)


def spectrogram_image(samples: Floats, spec: LogMel) -> Floats:
    """As the page draws it: high frequencies at the top, 0..1."""
    decibels = spectrogram.log_mel(samples, spec)
    shown = np.clip((decibels - decibels.max()) / _DECIBELS + 1, 0, 1)
    return np.ascontiguousarray(shown[::-1], np.float32)


DRAWINGS: dict[str, Callable[[np.random.Generator], Floats]] = {
    "text pages": text_page,
    "charts": chart,
    "noise": noise,
    "gradients": gradient,
}
