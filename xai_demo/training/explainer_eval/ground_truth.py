"""Files of which it is known where the finding is: annotated, drawn on, or made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from xai_demo import audio, imaging
from xai_demo.errors import UnsuitableError
from xai_demo.imaging import preprocess
from xai_demo.records import LogMel, Model, Radiograph, Raster, Recording
from xai_demo.synthesis import (
    EVERYDAY_LABELS,
    LUNG_KINDS,
    everyday_mixture,
    lung,
    lung_mixture,
)
from xai_demo.training.datasets import breathing, nih, split_groups
from xai_demo.training.datasets import sprsound as layout_sprsound
from xai_demo.training.explainer_eval.pointing import (
    Boxes,
    TimeFrequencyEvents,
    TimeSpans,
    Truth,
)

if TYPE_CHECKING:
    from xai_demo.analysis.faithfulness import Mask
    from xai_demo.examples import Synthesised
    from xai_demo.records import Floats
    from xai_demo.settings import Settings
    from xai_demo.training.datasets.breathing import Take


class _HasPatient(Protocol):
    @property
    def patient(self) -> str: ...


_File = TypeVar("_OfOne", bound=_HasPatient)

SNRS_DB = (-5, 0, 5, 10, 15)
REAL = "real"  # the part of what was recorded; that of what was made is its ratio: "10"
_LONGEST_S = 60.0
_CRACKLES, _WHEEZES = (breathing.CRACKLE, breathing.BOTH), (breathing.WHEEZE, breathing.BOTH)
_KINDS = {  # the annotated kinds that a label of a network means
    "crackle": _CRACKLES,
    "wheeze": _WHEEZES,
    "both": (breathing.CRACKLE, breathing.WHEEZE, breathing.BOTH),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedFile:
    """One file, whose it is, and where each of its labels is."""

    source: Recording | Radiograph
    group: str
    part: str
    truths: Mapping[str, Truth]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutPatients:
    """Persons that the network was neither trained nor tuned on."""

    splits: Mapping[str, str]  # by person, as the recipe split them
    seed: str  # for persons that the recipe does not know

    def __contains__(self, person: str) -> bool:
        own = patient_number(person)
        split = self.splits.get(person) or self.splits.get(own)
        return (split or split_groups([own], seed=self.seed)[0]) == "test"


def annotated_recordings(
    takes: Sequence[Take], model: Model, unseen: HeldOutPatients
) -> Iterator[AnnotatedFile]:
    """Recordings with adventitious sounds, one a person before anybody's second."""
    for take in _round_robin([t for t in takes if t.patient in unseen and _truths(t, model)]):
        source = audio.read_audio(
            take.path, sample_rate_hz=_sound_spec(model).sample_rate_hz, max_duration_s=_LONGEST_S
        )
        yield AnnotatedFile(
            source=source, group=take.patient, part=REAL, truths=_truths(take, model)
        )


def read_sprsound(data: Path) -> breathing.Corpus | None:
    """SPRSound in or below a folder, if it is there."""
    return layout_sprsound.read(data) if layout_sprsound.has_layout(data) else None


def lung_mixtures(
    takes: Sequence[Take], model: Model, unseen: HeldOutPatients, most: int
) -> Iterator[AnnotatedFile]:
    """Crackles and wheezes in breathing: real and normal where it is there, else synthesised."""
    normal = [t for t in takes if t.patient in unseen and _is_normal(t)]
    kinds = [kind for kind in LUNG_KINDS if kind in model.labels]
    for number, (group, breath) in enumerate(_backgrounds(normal, most)):
        for kind in kinds:
            for snr_db in SNRS_DB:
                try:
                    made = lung_mixture(breath, kind=kind, snr_db=snr_db, seed=number)
                except UnsuitableError:  # too short, or silent under an event: the next one
                    continue
                yield _mixture_file(made, group, snr_db, model)


def everyday_mixtures(model: Model, most: int) -> Iterator[AnnotatedFile]:
    """Everyday sounds that come and go, in the noise of a room."""
    for label in EVERYDAY_LABELS:
        if label not in model.labels:
            continue
        for seed in range(most):
            for snr_db in SNRS_DB:
                made = everyday_mixture(label, snr_db=snr_db, seed=seed)
                yield _mixture_file(made, f"{label} {seed}", snr_db, model)


def boxed_radiographs(
    pictures: Sequence[nih.BoxedRadiograph], model: Model, settings: Settings
) -> Iterator[AnnotatedFile]:
    """Radiographs with boxes for labels of the model, one a person before anybody's second."""
    spec = model.preprocessing
    if not isinstance(spec, Raster):
        raise UnsuitableError(f"{model.name} takes sounds, wanted: a model that takes pictures.")
    for picture in _round_robin([p for p in pictures if _model_findings(p, model)]):
        film = imaging.read_image(picture.path, max_pixels=settings.max_pixels)
        truths = {
            finding: Boxes(
                masks=tuple(
                    _mask(box, film.pixels.shape, spec)
                    for box in picture.boxes
                    if box.finding == finding
                )
            )
            for finding in _model_findings(picture, model)
        }
        yield AnnotatedFile(source=film, group=picture.patient, part=REAL, truths=truths)


def patient_number(person: str) -> str:
    """A person's own number, without the site and leading zeros: "nih:00013118" -> "13118"."""
    own = person.rpartition(":")[2]
    return str(int(own)) if own.isdecimal() else own


def has_mixtures(model: Model) -> bool:
    """Whether there are synthesised sounds for labels of this model."""
    wanted = {"stethoscope": LUNG_KINDS, "audioset": EVERYDAY_LABELS}.get(model.task, ())
    return any(label in model.labels for label in wanted)


def _truths(take: Take, model: Model) -> dict[str, Truth]:
    kinds = {event.kind for event in take.annotated}
    crackles, wheezes = kinds & set(_CRACKLES), kinds & set(_WHEEZES)
    there = {"crackle": crackles, "wheeze": wheezes, "both": crackles and wheezes}
    judged = tuple((e.start_s, e.end_s) for e in take.annotated)
    return {
        label: TimeSpans(
            spans=tuple((e.start_s, e.end_s) for e in take.annotated if e.kind in _KINDS[label]),
            judged=judged,
        )
        for label, found in there.items()
        if found and label in model.labels
    }


def _is_normal(take: Take) -> bool:
    return (
        take.kind == breathing.NORMAL
        and not take.quality
        and all(event.kind == breathing.NORMAL for event in take.annotated)
    )


def _backgrounds(normal: Sequence[Take], most: int) -> Iterator[tuple[str, Floats]]:
    if not normal:
        for seed in range(most):
            breath = lung.lung_sound(seed=1000 + seed)
            yield f"synthesised {seed}", breath.samples
    for take in _round_robin(normal)[:most]:
        recording = audio.read_audio(
            take.path, sample_rate_hz=lung.SAMPLE_RATE_HZ, max_duration_s=_LONGEST_S
        )
        yield take.patient, recording.samples


def _mixture_file(made: Synthesised, group: str, snr_db: int, model: Model) -> AnnotatedFile:
    rate = _sound_spec(model).sample_rate_hz
    samples = made.samples
    if made.sample_rate_hz != rate:
        import soxr

        samples = soxr.resample(samples, made.sample_rate_hz, rate).astype(np.float32)
    truth = TimeFrequencyEvents(
        events=tuple((t.start_s, t.end_s, t.low_hz, t.high_hz) for t in made.truth)
    )
    return AnnotatedFile(
        source=Recording(samples=samples, sample_rate_hz=rate, facts={}),
        group=group,
        part=str(snr_db),
        truths={made.truth[0].label: truth},
    )


def _model_findings(picture: nih.BoxedRadiograph, model: Model) -> list[str]:
    return sorted({box.finding for box in picture.boxes} & set(model.labels))


def _mask(box: nih.Box, shape: tuple[int, ...], spec: Raster) -> Mask:
    """The box as it lies on what the network sees: framed as the picture is."""
    drawn = np.zeros(shape, np.float32)
    rows, columns = shape
    top, left = round(box.y * rows), round(box.x * columns)
    bottom = max(round((box.y + box.height) * rows), top + 1)
    right = max(round((box.x + box.width) * columns), left + 1)
    drawn[max(top, 0) : bottom, max(left, 0) : right] = 1
    mask: Mask = preprocess.framed(drawn, spec) >= 0.5
    return mask


def _sound_spec(model: Model) -> LogMel:
    spec = model.preprocessing
    if not isinstance(spec, LogMel):
        raise UnsuitableError(f"{model.name} takes pictures, wanted: a model that takes sounds.")
    return spec


def _round_robin(files: Sequence[_File]) -> list[_File]:
    """Everybody's first, then everybody's second, in an order that chance chose once."""
    order = np.random.default_rng(0).permutation(len(files))
    seen: dict[str, int] = {}
    ranked = []
    for i in order:
        person = files[i].patient
        seen[person] = seen.get(person, -1) + 1
        ranked.append((seen[person], files[i]))
    return [file for _, file in sorted(ranked, key=lambda pair: pair[0])]
