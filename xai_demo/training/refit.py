"""Refits the literals of the input checks to given data: the command `refit`.

It prints the coefficients as Python to paste, how far they are from the literals in `imaging.gate`
or `audio.quality`, and the rates of both. The new fit is measured in three folds, each patient or
file left out of one fit; the literals may have been fitted on the very data given.

The photographs and drawings, and the speech in 25 languages and the music, that the literals were
fitted on were not kept, so they cannot be reproduced to the digit. Such data are taken from
folders; without any, speech and music are simple imitations synthesised here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import audio
from xai_demo.audio import quality
from xai_demo.audio.quality import FEATURE_RATE_HZ, FEATURES, NON_BREATH_KINDS
from xai_demo.errors import TrainingError, UnreadableFileError
from xai_demo.imaging import gate
from xai_demo.synthesis import everyday
from xai_demo.training.datasets import assign_folds, breathing, radiographs
from xai_demo.training.gate_eval import (
    ImageFolders,
    VerdictTally,
    files_by_folder,
    other_images,
    rate_cells,
    read_pixels,
    require_folder,
)
from xai_demo.training.input_checks import CLASSES, GateFit, QualityFit, fit_gate, fit_quality

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xai_demo.records import Floats, Progress
    from xai_demo.settings import Settings

    Fit = Callable[[NDArray[np.intp]], GateFit | QualityFit]

# Number of sounds of every kind that is synthesised here.
SYNTHETIC_SOUNDS = 60
_FOLDS = 3
_MAX_DURATION_S = 600.0
_WINDOWS_PER_SOUND = 4
_SOUND_SUFFIXES = breathing.FOLDER_SUFFIXES


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundFolders:
    """Where the sounds for the quality check are; a kind without a folder is synthesised."""

    recordings: Path  # breathing, in a published layout
    speech: Path | None = None
    music: Path | None = None
    noise: Path | None = None  # everyday sounds
    most: int | None = None  # files of each kind; None: all


def refit_gate(
    folders: ImageFolders, *, settings: Settings, progress: Progress | None = None
) -> dict[str, Any]:
    """Fit the gate to radiographs and other images, and compare the fit with the literals.

    The source of a radiograph is the first folder below `folders.radiographs`. Raises
    TrainingError where a folder is missing or has too few readable images.
    """
    report = progress or (lambda done, doing: None)
    unread: list[str] = []
    rows: list[NDArray[np.float64]] = []
    kinds: list[str] = []
    groups: list[str] = []
    by_folder = files_by_folder(folders.radiographs, "radiographs", folders.most)
    for number, (name, paths) in enumerate(by_folder.items()):
        report(0.6 * number / len(by_folder), f"radiographs in {name}")
        for path in paths:
            image = read_pixels(path, settings, unread)
            if image is not None:
                rows.append(gate.features(gate.thumbnail(image[0])))
                kinds.append(f"radiographs of {Path(name).parts[0]}")
                groups.append(radiographs.patient_of(path))
    if not rows:
        raise TrainingError(f"{folders.radiographs} contains no readable radiograph.")
    sources = set(kinds)
    report(0.6, "other images")
    for kind, pixels, colour in other_images(folders, settings, unread):
        # The gate stops colour images before its model sees them.
        if not colour:
            rows.append(gate.features(gate.thumbnail(pixels)))
            kinds.append(kind)
            groups.append(f"other image {len(groups)}")
    report(0.8, "fitting")
    statistics = np.stack(rows)

    def fit(chosen: NDArray[np.intp]) -> GateFit:
        return fit_gate(statistics[chosen], [kinds[i] for i in chosen], radiograph_kinds=sources)

    fitted = fit(np.arange(len(rows)))
    shipped = GateFit(intercept=gate.INTERCEPT, weights=gate.WEIGHTS)
    held_out = _held_out_log_odds(fit, statistics, kinds, groups)
    return {
        "check": "gate",
        "n": {kind: kinds.count(kind) for kind in sorted(set(kinds))},
        "intercept": fitted.intercept,
        "weights": list(fitted.weights),
        "difference": coefficient_differences(
            np.array([fitted.intercept, *fitted.weights]),
            np.array([gate.INTERCEPT, *gate.WEIGHTS]),
            fitted.log_odds(statistics),
            shipped.log_odds(statistics),
        ),
        "refitted": _gate_rates(held_out, kinds, sources),
        "shipped": _gate_rates(shipped.log_odds(statistics), kinds, sources),
        "notes": fit_notes(unread),
    }


def refit_quality(folders: SoundFolders, *, progress: Progress | None = None) -> dict[str, Any]:
    """Fit the quality check to breathing and other sounds, and compare the fit with the literals.

    Raises TrainingError where a folder is missing or has no readable sound.
    """
    report = progress or (lambda done, doing: None)
    unread: list[str] = []
    rows: list[NDArray[np.float64]] = []
    kinds: list[str] = []
    groups: list[str] = []
    for number, kind in enumerate(CLASSES):
        report(0.2 * number, f"windows of {kind}")
        for group, samples in _sounds(kind, folders, unread):
            for window in _windows(samples):
                rows.append(quality.features(window))
                kinds.append(kind)
                groups.append(group)
    report(0.8, "fitting")
    statistics = np.stack(rows) if rows else np.zeros((0, len(FEATURES)))

    def fit(chosen: NDArray[np.intp]) -> QualityFit:
        return fit_quality(statistics[chosen], [kinds[i] for i in chosen])

    fitted = fit(np.arange(len(rows)))
    shipped = QualityFit(intercepts=quality.INTERCEPTS, coefficients=quality.COEFFICIENTS)
    held_out = _held_out_log_odds(fit, statistics, kinds, groups)
    return {
        "check": "quality",
        "n": {kind: kinds.count(kind) for kind in CLASSES},
        "intercepts": list(fitted.intercepts),
        "coefficients": {name: list(row) for name, row in fitted.coefficients.items()},
        "difference": coefficient_differences(
            np.ravel([fitted.intercepts, *(fitted.coefficients[n] for n in FEATURES)]),
            np.ravel([quality.INTERCEPTS, *(quality.COEFFICIENTS[n] for n in FEATURES)]),
            fitted.log_odds(statistics),
            shipped.log_odds(statistics),
        ),
        "refitted": _quality_rates(held_out, kinds),
        "shipped": _quality_rates(shipped.log_odds(statistics), kinds),
        "notes": fit_notes(unread),
    }


def table(result: dict[str, Any]) -> str:
    """The coefficients as Python to paste, and the rates as a Markdown table."""
    names = dict.fromkeys((*result["shipped"], *result["refitted"]))
    lines = ["| verdict | fit | n | correct | 95 % |", "| --- | --- | --- | --- | --- |"]
    for name in names:
        for fit, title in (("shipped", "literals"), ("refitted", "refitted, held out")):
            lines.append(f"| {name} | {title} | {rate_cells(result[fit][name])} |")
    difference = result["difference"]
    summary = (
        f"Refitted on {sum(result['n'].values())} examples: "
        f"{', '.join(f'{count} {kind}' for kind, count in result['n'].items())}. Correlation with "
        f"the literals: {difference['correlation']:.3f} of the coefficients (largest difference "
        f"{difference['largest']:.3g}), {difference['log_odds_correlation']:.3f} of the log-odds."
    )
    return "\n".join([_literals(result), "", summary, "", *lines, "", *result["notes"]])


def _literals(result: dict[str, Any]) -> str:
    """The coefficients as they stand in `imaging.gate` or `audio.quality`."""
    if result["check"] != "quality":
        lines, line = [], "   "
        for weight in result["weights"]:
            if len(line) + len(f" {weight},") > 99:
                lines.append(line)
                line = "   "
            line += f" {weight},"
        rows = "\n".join([*lines, line])
        return f"INTERCEPT = {result['intercept']}\nWEIGHTS = (\n{rows}\n)  # fmt: skip"
    rows = "\n".join(f'    "{n}": {tuple(row)},' for n, row in result["coefficients"].items())
    return (
        f"INTERCEPTS = {tuple(result['intercepts'])}\n"
        f"COEFFICIENTS: dict[str, tuple[float, ...]] = {{\n{rows}\n}}"
    )


def _held_out_log_odds(
    fit: Fit, statistics: NDArray[np.float64], kinds: Sequence[str], groups: Sequence[str]
) -> NDArray[np.float64]:
    """Log-odds of every example by the fit of the folds that its group is not in."""
    numbers = np.unique(kinds, return_inverse=True)[1].astype(np.int64)
    fold_of = assign_folds(groups, numbers, _FOLDS, seed="refit")
    parts = [np.flatnonzero(fold_of == fold) for fold in range(_FOLDS)]
    log_odds = [
        fit(np.flatnonzero(fold_of != fold)).log_odds(statistics[part])
        for fold, part in enumerate(parts)
    ]
    # The parts follow one another fold by fold; back into the order of the examples.
    order = np.argsort(np.concatenate(parts))
    result: NDArray[np.float64] = np.concatenate(log_odds)[order]
    return result


def coefficient_differences(
    fitted: NDArray[np.float64],
    shipped: NDArray[np.float64],
    fitted_log_odds: NDArray[np.float64],
    shipped_log_odds: NDArray[np.float64],
) -> dict[str, float]:
    """How far two sets of coefficients are apart, and the log-odds that they give."""
    log_odds = np.corrcoef(fitted_log_odds.ravel(), shipped_log_odds.ravel())[0, 1]
    return {
        "correlation": round(float(np.corrcoef(fitted, shipped)[0, 1]), 4),
        "largest": round(float(np.abs(fitted - shipped).max()), 4),
        "log_odds_correlation": round(float(log_odds), 4),
    }


def _gate_rates(
    log_odds: NDArray[np.float64], kinds: Sequence[str], sources: Collection[str]
) -> dict[str, Any]:
    """Rates of correct verdicts, from the log-odds of every image in its eight orientations."""
    tallies: dict[str, VerdictTally] = {}
    for odds, kind in zip(log_odds, kinds, strict=True):
        variant = gate.most_likely_variant(odds)
        if kind not in sources:
            tallies.setdefault(f"{kind} stopped", VerdictTally()).count(variant != 0)
            continue
        tallies.setdefault(f"{kind} accepted", VerdictTally()).count(variant == 0)
        for wrong in range(1, 8):
            # A rotated or inverted radiograph has the orientations of the upright one in another
            # order, in which the upright one comes at `wrong`.
            is_inverted, quarters = divmod(wrong, 4)
            order = [4 * (i ^ is_inverted) + (q - quarters) % 4 for i in (0, 1) for q in range(4)]
            name = f"{kind}, rotated or inverted, recognised"
            is_right = gate.most_likely_variant(odds[order]) == wrong
            tallies.setdefault(name, VerdictTally()).count(is_right)
    return {name: tally.to_json() for name, tally in tallies.items()}


def _quality_rates(log_odds: NDArray[np.float64], kinds: Sequence[str]) -> dict[str, Any]:
    """Rates of correct verdicts on windows: no alarm for breath, an alarm for all others."""
    tallies: dict[str, VerdictTally] = {}
    for row, kind in zip(log_odds, kinds, strict=True):
        breath = 1 / (1 + np.exp(row).sum())
        is_alarm = bool(1 - breath >= quality.MIN_NON_BREATH_PROBABILITY)
        if kind == "breath":
            tallies.setdefault("windows of breath accepted", VerdictTally()).count(not is_alarm)
            continue
        tallies.setdefault(f"windows of {kind} detected", VerdictTally()).count(is_alarm)
        is_named = is_alarm and NON_BREATH_KINDS[int(row.argmax())] == kind
        tallies.setdefault(f"windows of {kind} named", VerdictTally()).count(is_named)
    return {name: tally.to_json() for name, tally in tallies.items()}


def fit_notes(unread: Sequence[str]) -> list[str]:
    """What the report of a refit says below its tables."""
    notes = [
        "The literals may have been fitted on some of these data, and on others that were not "
        "kept: they cannot be reproduced to the digit."
    ]
    if unread:
        few = ", ".join(unread[:3]) + (", ..." if len(unread) > 3 else "")
        notes.append(f"{len(unread)} files could not be read and are left out: {few}.")
    return notes


def _sounds(
    kind: str, folders: SoundFolders, unread: list[str]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Every sound of a kind at the check's sample rate, with the patient or source it is of."""
    if kind == "breath":
        # Poor recordings may hold speech or other sounds, which their labels do not say.
        takes = [t for t in breathing.read(folders.recordings).takes if t.quality != "poor"]
        for take in _shuffle(takes, folders.most):
            yield from _read(take.path, take.patient, unread, take.start_s, take.end_s)
        return
    folder: Path | None = getattr(folders, kind)
    if folder is None:
        for seed in range(SYNTHETIC_SOUNDS):
            yield f"{kind} {seed}", _synthetic_sound(kind, seed)
        return
    require_folder(folder, f"sounds of {kind}")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _SOUND_SUFFIXES)
    for path in _shuffle(paths, folders.most):
        # ESC-10 names several clips of one source alike: <fold>-<clip>-<take>.
        yield from _read(path, f"{kind} {path.stem.rpartition('-')[0] or path.stem}", unread)


def _shuffle(files: Sequence[Any], most: int | None) -> list[Any]:
    return [files[i] for i in np.random.default_rng(0).permutation(len(files))[:most]]


def _read(
    path: Path,
    group: str,
    unread: list[str],
    start_s: float | None = None,
    end_s: float | None = None,
) -> Iterator[tuple[str, Floats]]:
    try:
        recording = audio.read_audio(
            path, sample_rate_hz=FEATURE_RATE_HZ, max_duration_s=_MAX_DURATION_S
        )
    except UnreadableFileError:
        unread.append(path.name)
        return
    start = round((start_s or 0) * FEATURE_RATE_HZ)
    end = None if end_s is None else round(end_s * FEATURE_RATE_HZ)
    yield group, recording.samples[start:end]


def _windows(samples: Floats) -> Iterator[Floats]:
    """Up to four windows of a sound that are not silent, cut as the check cuts them."""
    count = round(quality.WINDOW_S * FEATURE_RATE_HZ)
    length = min(count, len(samples))
    # Less than a second is too short for the check.
    if length < FEATURE_RATE_HZ:
        return
    number = min(-(-len(samples) // length), _WINDOWS_PER_SOUND)
    for start in np.linspace(0, len(samples) - length, number).astype(int):
        window = samples[start : start + length]
        if quality.silent_share(window, FEATURE_RATE_HZ) <= 0.5:
            yield np.resize(window, count)


def _synthetic_sound(kind: str, seed: int) -> Floats:
    """Five to ten seconds of imitated speech, music, or one of the everyday sounds."""
    rng = np.random.default_rng(seed)
    if kind == "speech":
        return _speech(rng)
    if kind == "music":
        return _music(rng)
    import soxr

    label = list(everyday.SOUNDS)[seed % len(everyday.SOUNDS)]
    sound = everyday.everyday_sound(label, seed=seed)
    resampled: Floats = soxr.resample(sound.samples, sound.sample_rate_hz, FEATURE_RATE_HZ)
    return resampled


def _speech(rng: np.random.Generator) -> Floats:
    """Syllables of a pulse train through two formants, with consonants and pauses, for 8 s."""
    from scipy.signal import lfilter

    pitch_hz = float(rng.uniform(90, 260))
    parts: list[NDArray[np.float64]] = []
    while sum(len(part) for part in parts) < 8 * FEATURE_RATE_HZ:
        count = round(rng.uniform(0.12, 0.3) * FEATURE_RATE_HZ)
        at = np.arange(count) / count
        phase = np.cumsum(pitch_hz * rng.uniform(0.85, 1.2) * (1.08 - 0.16 * at)) / FEATURE_RATE_HZ
        voice = np.diff(np.floor(phase), prepend=0) + 0.01 * rng.standard_normal(count)
        for formant_hz in (rng.uniform(300, 800), rng.uniform(900, 1700)):
            # A resonator of two poles, 90 Hz wide.
            radius = np.exp(-np.pi * 90 / FEATURE_RATE_HZ)
            angle = 2 * np.pi * formant_hz / FEATURE_RATE_HZ
            voice = lfilter([1], [1, -2 * radius * np.cos(angle), radius**2], voice)
        parts.append(voice / np.abs(voice).max() * np.sin(np.pi * at) ** 0.6)
        parts.append(0.08 * rng.standard_normal(round(rng.uniform(0.03, 0.1) * FEATURE_RATE_HZ)))
        if rng.random() < 0.15:
            parts.append(np.zeros(round(rng.uniform(0.2, 0.5) * FEATURE_RATE_HZ)))
    sound = np.concatenate(parts)
    speech: Floats = (0.5 * sound + 1e-3 * rng.standard_normal(len(sound))).astype(np.float32)
    return speech


def _music(rng: np.random.Generator) -> Floats:
    """Decaying notes with harmonics in chords, at two to four beats a second, for 8 s."""
    time_s = np.arange(8 * FEATURE_RATE_HZ) / FEATURE_RATE_HZ
    sound = 1e-3 * rng.standard_normal(len(time_s))
    beat_s, decay = float(rng.uniform(0.25, 0.5)), float(rng.uniform(0.5, 4))
    brightness = float(rng.uniform(0.3, 0.8))
    for start_s in np.arange(0, 8, beat_s):
        root = float(rng.integers(-24, 0))
        for key in (root, root + rng.integers(3, 5), root + 7, root + rng.integers(9, 25)):
            pitch_hz = 440 * 2 ** (key / 12)
            at = (time_s >= start_s) & (time_s < start_s + beat_s)
            since_s = time_s[at] - start_s
            # Up to 1.9 kHz: higher harmonics would fold back at half the sample rate.
            for harmonic in range(1, 1 + min(6, int(1900 / pitch_hz))):
                wave = brightness**harmonic * np.sin(2 * np.pi * pitch_hz * harmonic * since_s)
                sound[at] += wave * np.exp(-decay * since_s) * np.minimum(since_s / 0.005, 1)
    music: Floats = (0.8 * sound / np.abs(sound).max()).astype(np.float32)
    return music
