"""Files with ground truth of where the finding is: annotated, boxed, or mixed from parts."""

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
    from xai_demo.examples import SynthesisedSound
    from xai_demo.records import Floats
    from xai_demo.settings import Settings
    from xai_demo.training.datasets.breathing import Take


class _HasPatient(Protocol):
    @property
    def patient(self) -> str: ...


_File = TypeVar("_File", bound=_HasPatient)

# From events below the level of the breathing to events well above it.
SNRS_DB = (-5, 0, 5, 10, 15)
# The part of annotated files; a mixture's part is its ratio, such as "10".
REAL = "real"
_MAX_DURATION_S = 60.0
_CRACKLES, _WHEEZES = (breathing.CRACKLE, breathing.BOTH), (breathing.WHEEZE, breathing.BOTH)
# The annotated classes that a label of a network covers.
_KINDS = {
    "crackle": _CRACKLES,
    "wheeze": _WHEEZES,
    "both": (breathing.CRACKLE, breathing.WHEEZE, breathing.BOTH),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotatedFile:
    """One file, its patient, and where each of its labels is."""

    source: Recording | Radiograph
    group: str
    part: str
    truths: Mapping[str, Truth]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOutPatients:
    """The patients that the network was neither trained nor tuned on."""

    # By patient, as the recipe splits them.
    splits: Mapping[str, str]
    # For patients that the recipe does not know.
    seed: str

    def __contains__(self, patient: str) -> bool:
        number = patient_number(patient)
        split = self.splits.get(patient) or self.splits.get(number)
        # A patient whom the recipe has not read goes where its hash would have put them.
        return (split or split_groups([number], seed=self.seed)[0]) == "test"


def annotated_recordings(
    takes: Sequence[Take], model: Model, held_out: HeldOutPatients
) -> Iterator[AnnotatedFile]:
    """Recordings with adventitious sounds; one of every patient comes before a second of any."""
    for take in _round_robin([t for t in takes if t.patient in held_out and _truths(t, model)]):
        source = audio.read_audio(
            take.path,
            sample_rate_hz=_sound_spec(model).sample_rate_hz,
            max_duration_s=_MAX_DURATION_S,
        )
        yield AnnotatedFile(
            source=source, group=take.patient, part=REAL, truths=_truths(take, model)
        )


def read_sprsound(data: Path) -> breathing.Corpus | None:
    """SPRSound in or below a folder; None where it is not there."""
    return layout_sprsound.read(data) if layout_sprsound.has_layout(data) else None


def lung_mixtures(
    takes: Sequence[Take], model: Model, held_out: HeldOutPatients, most: int
) -> Iterator[AnnotatedFile]:
    """Synthetic crackles and wheezes in normal breathing, real where available, else synthetic."""
    normal = [t for t in takes if t.patient in held_out and _is_normal(t)]
    kinds = [kind for kind in LUNG_KINDS if kind in model.labels]
    for number, (group, breath) in enumerate(_backgrounds(normal, most)):
        for kind in kinds:
            for snr_db in SNRS_DB:
                try:
                    # One seed for all ratios: events keep their places, so only the ratio differs.
                    mixture = lung_mixture(breath, kind=kind, snr_db=snr_db, seed=number)
                except UnsuitableError:
                    # The breathing is too short, or silent where the event would be.
                    continue
                yield _mixture_file(mixture, group, snr_db, model)


def everyday_mixtures(model: Model, most: int) -> Iterator[AnnotatedFile]:
    """Everyday sounds that start and stop, in the noise of a room."""
    for label in EVERYDAY_LABELS:
        if label not in model.labels:
            continue
        for seed in range(most):
            for snr_db in SNRS_DB:
                mixture = everyday_mixture(label, snr_db=snr_db, seed=seed)
                yield _mixture_file(mixture, f"{label} {seed}", snr_db, model)


def boxed_radiographs(
    radiographs: Sequence[nih.BoxedRadiograph], model: Model, settings: Settings
) -> Iterator[AnnotatedFile]:
    """Radiographs with boxes for labels of the model; one of every patient comes before a second.

    Raises UnsuitableError for a model of sounds.
    """
    spec = model.preprocessing
    if not isinstance(spec, Raster):
        raise UnsuitableError(
            f"{model.name} analyses sounds; a model that analyses radiographs is needed."
        )
    for boxed in _round_robin([r for r in radiographs if _model_findings(r, model)]):
        radiograph = imaging.read_image(boxed.path, max_pixels=settings.max_pixels)
        truths = {
            finding: Boxes(
                masks=tuple(
                    _mask(box, radiograph.pixels.shape, spec)
                    for box in boxed.boxes
                    if box.finding == finding
                )
            )
            for finding in _model_findings(boxed, model)
        }
        yield AnnotatedFile(source=radiograph, group=boxed.patient, part=REAL, truths=truths)


def patient_number(patient: str) -> str:
    """A patient's number without the site and leading zeros.

    >>> patient_number("nih:00013118")
    '13118'
    """
    number = patient.rpartition(":")[2]
    return str(int(number)) if number.isdecimal() else number


def has_mixtures(model: Model) -> bool:
    """Whether there are mixtures for any label of this model."""
    kinds = {"stethoscope": LUNG_KINDS, "audioset": EVERYDAY_LABELS}.get(model.task, ())
    return any(label in model.labels for label in kinds)


def _truths(take: Take, model: Model) -> dict[str, Truth]:
    """Where each label of the model sounds in a recording, by label."""
    kinds = {event.kind for event in take.annotations}
    crackles, wheezes = kinds & set(_CRACKLES), kinds & set(_WHEEZES)
    present = {"crackle": crackles, "wheeze": wheezes, "both": crackles and wheezes}
    labelled = tuple((e.start_s, e.end_s) for e in take.annotations)
    return {
        label: TimeSpans(
            spans=tuple((e.start_s, e.end_s) for e in take.annotations if e.kind in _KINDS[label]),
            labelled=labelled,
        )
        for label, is_present in present.items()
        if is_present and label in model.labels
    }


def _is_normal(take: Take) -> bool:
    return (
        take.kind == breathing.NORMAL
        and not take.quality
        and all(event.kind == breathing.NORMAL for event in take.annotations)
    )


def _backgrounds(normal: Sequence[Take], most: int) -> Iterator[tuple[str, Floats]]:
    """At most `most` stretches of normal breathing, each with its patient."""
    if not normal:
        for seed in range(most):
            breath = lung.lung_sound(seed=1000 + seed)
            yield f"synthesised {seed}", breath.samples
    for take in _round_robin(normal)[:most]:
        recording = audio.read_audio(
            take.path, sample_rate_hz=lung.SAMPLE_RATE_HZ, max_duration_s=_MAX_DURATION_S
        )
        yield take.patient, recording.samples


def _mixture_file(
    mixture: SynthesisedSound, group: str, snr_db: int, model: Model
) -> AnnotatedFile:
    rate = _sound_spec(model).sample_rate_hz
    samples = mixture.samples
    if mixture.sample_rate_hz != rate:
        import soxr

        # Mixtures have the rate of the synthesis, not that of the model.
        samples = soxr.resample(samples, mixture.sample_rate_hz, rate).astype(np.float32)
    truth = TimeFrequencyEvents(
        events=tuple((t.start_s, t.end_s, t.low_hz, t.high_hz) for t in mixture.truth)
    )
    return AnnotatedFile(
        source=Recording(samples=samples, sample_rate_hz=rate, facts={}),
        group=group,
        part=str(snr_db),
        # All events of a mixture are of one kind.
        truths={mixture.truth[0].label: truth},
    )


def _model_findings(boxed: nih.BoxedRadiograph, model: Model) -> list[str]:
    return sorted({box.finding for box in boxed.boxes} & set(model.labels))


def _mask(box: nih.Box, shape: tuple[int, ...], spec: Raster) -> Mask:
    """The box on the network's input, cropped and scaled as the radiograph is."""
    drawn = np.zeros(shape, np.float32)
    rows, columns = shape
    top, left = round(box.y * rows), round(box.x * columns)
    # At least a pixel high and wide, so that a narrow box does not vanish.
    bottom = max(round((box.y + box.height) * rows), top + 1)
    right = max(round((box.x + box.width) * columns), left + 1)
    drawn[max(top, 0) : bottom, max(left, 0) : right] = 1
    # Resizing blurs the edge: a pixel half covered is inside.
    mask: Mask = preprocess.resize_for_network(drawn, spec) >= 0.5
    return mask


def _sound_spec(model: Model) -> LogMel:
    spec = model.preprocessing
    if not isinstance(spec, LogMel):
        raise UnsuitableError(
            f"{model.name} analyses radiographs; a model that analyses sounds is needed."
        )
    return spec


def _round_robin(files: Sequence[_File]) -> list[_File]:
    """The first file of every patient, then the second of each, in a fixed random order."""
    order = np.random.default_rng(0).permutation(len(files))
    rank: dict[str, int] = {}
    ranked = []
    for i in order:
        patient = files[i].patient
        rank[patient] = rank.get(patient, -1) + 1
        ranked.append((rank[patient], files[i]))
    # A stable sort, which keeps the random order within each round.
    return [file for _, file in sorted(ranked, key=lambda pair: pair[0])]
