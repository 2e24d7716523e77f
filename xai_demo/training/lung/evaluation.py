"""How lung models are evaluated: by annotated event, and by whole recording as the demo hears it.

Of every site those patients are asked about whom the model did not learn from; where it learnt
from all of them, all are asked about and the notes say so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xai_demo import audio, networks
from xai_demo.analysis import inputs
from xai_demo.analysis.inference import evidence_over_time
from xai_demo.decision import over_windows, points
from xai_demo.errors import TrainingError, UnreadableFileError
from xai_demo.training import metrics
from xai_demo.training.calibration import softmax
from xai_demo.training.datasets import breathing
from xai_demo.training.datasets.breathing import (
    BOTH,
    Corpus,
    Ledger,
    Take,
)
from xai_demo.training.lung import assign_splits, sound_spec
from xai_demo.training.lung import metrics as lung_events
from xai_demo.training.lung import metrics as lung_scores
from xai_demo.training.lung.samples import LungDataset
from xai_demo.training.lung.windows import read_spectrograms
from xai_demo.training.recipe import Answers, Evaluation

if TYPE_CHECKING:
    from xai_demo.records import Floats, Model, Progress, Recording
    from xai_demo.training.lung.metrics import Predictions
    from xai_demo.training.metrics import Array

SITES = {  # in the order in which a mixture's figures come to stand at the top
    "sprsound": "SPRSound",
    "icbhi": "ICBHI 2017",
    "folders": "Folders named after labels",
    "fraiwan": "Fraiwan",
}
POOR = "poor quality"
_LONGEST_S = 600.0
_BATCH = 64


def evaluate_lung_model(
    network: torch.nn.Module,
    model: Model,
    data: Path,
    learnt_from: frozenset[str] | None,
    progress: Progress,
) -> Evaluation:
    """See the module; `learnt_from` None: as a network would that learnt from this very data."""
    sound_spec(model)
    progress(0.0, "reading the data")
    corpus = breathing.read(data)
    takes, notes, known = held_out_takes(corpus, learnt_from)
    asked = _Evaluator(network, model)
    levels: dict[str, dict[str, Predictions]] = {}
    extra: dict[str, dict[str, Any]] = {}
    for number, site in enumerate(s for s in SITES if any(t.site == s for t in takes)):
        part = [t for t in takes if t.site == site]
        start = number / len(SITES)

        def told(done: float, doing: str, start: float = start) -> None:
            progress(0.9 * (start + done / len(SITES)), doing)

        levels[site] = {}
        if any(take.annotated for take in part):
            levels[site]["events"] = asked.events(part, told)
        found = asked.recordings(part, told, notes)
        if found is not None:
            levels[site]["recordings"] = found[0]
            extra[site] = found[1]
    if not any(levels.values()):
        raise TrainingError(
            f"{data} holds no sound with a label to evaluate {model.name} on, wanted: annotated "
            f"events, or recordings with a label. {' '.join(notes)}".rstrip()
        )
    progress(0.9, "bootstrap by person")
    is_official = "icbhi" not in known and _has_official_icbhi(takes)
    evaluation = _evaluation(model, levels, extra, notes, has_official_icbhi=is_official)
    return dataclasses.replace(evaluation, result=evaluation.result | {"no_test": known})


def held_out_takes(
    corpus: Corpus, learnt_from: frozenset[str] | None
) -> tuple[list[Take], list[str], list[str]]:
    """The takes to ask about, what is to be said of the others, and the sites known to the last."""
    takes, notes = list(corpus.takes), list(corpus.notes)
    all_known: list[str] = []
    if learnt_from is None:
        pairs = zip(takes, assign_splits(takes), strict=True)
        learnt_from = frozenset(t.patient for t, s in pairs if s != "test" and t.site != "folders")
        learnt_from |= {t.patient for t in takes if t.site == "fraiwan"}
    chosen: list[Take] = []
    for site, name in SITES.items():
        part = [t for t in takes if t.site == site]
        apart = [t for t in part if t.patient not in learnt_from]
        known = {t.patient for t in part} & learnt_from
        if part and not apart:
            all_known.append(site)
            how = ", of Fraiwan by its last layer only: see `cross-validate`"
            notes.append(
                f"{name}: the model learnt from all of these {len(known)} patients"
                f"{how if site == 'fraiwan' else ''}; its figures here are no test."
            )
        elif known:
            notes.append(f"{name}: {len(known)} patients that the model learnt from are left out.")
        chosen += apart or part
    return chosen, notes, all_known


@dataclasses.dataclass(frozen=True, slots=True)
class _Evaluator:
    """A network with the model it is, asked about sounds."""

    network: torch.nn.Module
    model: Model

    def events(self, takes: Sequence[Take], progress: Progress) -> Predictions:
        """Every annotated event or cycle by itself, all around it blotted out."""
        spec = sound_spec(self.model)
        annotated = [take for take in takes if take.annotated]
        sounds = read_spectrograms(annotated, spec, lambda done, doing: progress(0.4 * done, doing))
        lessons = LungDataset(sounds, ["test"] * len(sounds), spec)
        progress(0.4, "asking about events")
        rows = [
            self.whole(np.stack(lessons.parts(place))[:, None], partial(over_windows, self.model))
            for place in lessons.places
        ]
        return self._judged(
            np.stack(rows),
            [place.kind for place in lessons.places],
            [sounds[place.recording].take.patient for place in lessons.places],
        )

    def recordings(
        self, takes: Sequence[Take], progress: Progress, notes: list[str]
    ) -> tuple[Predictions, dict[str, Any]] | None:
        """Every recording with a label; of SPRSound its record level too, and the timeline."""
        ledger = Ledger(SITES[takes[0].site])
        rows, kinds, patients, counts = [], [], [], []
        agreed: list[tuple[str, lung_events.Agreement]] = []
        for number, take in enumerate(takes):
            kind = recording_kind(take)
            if kind is None:
                continue
            progress(0.5 + 0.5 * number / len(takes), f"recording {number + 1} of {len(takes)}")
            try:
                made = inputs.prepare(self.model, _read_take(take, self.model))
            except UnreadableFileError as error:
                ledger.add("recordings that hold nothing to analyse, left out", str(error))
                continue
            windows, evidence = self.answers(made.inputs)
            rows.append(
                np.asarray(made.overall(self.model, windows.astype(np.float32)), np.float64)
            )
            if take.site == "sprsound" and take.annotated:
                agreed.append((take.patient, self._agreement(take, made, windows, evidence)))
            counts.append(len(made.inputs))
            kinds.append(kind)
            patients.append(take.patient)
        notes.extend(ledger.notes())
        if not rows:
            return None
        table, targets = np.stack(rows), np.array(kinds)
        rated = targets <= BOTH
        if not rated.any():
            return None
        groups = np.array(patients)
        pooled = float(np.median(counts)) > 1
        of_site = record_level(self.model, table, targets, tuple(patients))
        by_time = {}
        if agreed:
            whose, agreements = zip(*agreed, strict=True)
            by_time = {"timeline": lung_events.agreement_as_json(agreements, whose)}
        return (
            self._judged(
                table[rated], targets[rated].tolist(), groups[rated].tolist(), pooled=pooled
            ),
            {"record_level": of_site} | by_time if takes[0].site == "sprsound" else {},
        )

    def _agreement(
        self, take: Take, made: Any, windows: Array, evidence: Floats
    ) -> lung_events.Agreement:
        events = made.events(self.model, windows.astype(np.float32), None, evidence)
        duration_s = len(made.samples) / made.sample_rate_hz
        return lung_events.agreement(events, take.annotated, duration_s=duration_s)

    def whole(self, windows: Any, pooled: Any) -> Array:
        """One row of probabilities from those of some windows, (windows, 1, mel, frames)."""
        result: Array = np.asarray(pooled(self.answers(windows)[0]), np.float64)
        return result

    def answers(self, windows: Any) -> tuple[Array, Floats]:
        """Probabilities of every window by itself, (windows, labels), and the evidence in time."""
        cut = networks.cut(self.model, self.network.eval())
        device = next(self.network.parameters()).device
        logits, evidence = [], []
        for start in range(0, len(windows), _BATCH):
            part: Floats = np.ascontiguousarray(windows[start : start + _BATCH])
            with torch.inference_mode():
                maps = cut.features(torch.from_numpy(part).to(device))
                logits.append(cut.head(maps).float().cpu().numpy())
            evidence.append(evidence_over_time(cut.head, maps))
        rows = softmax(np.concatenate(logits).astype(np.float64) / self.model.temperature)
        return rows, np.concatenate(evidence)

    def _judged(
        self, rows: Array, kinds: list[int], patients: list[str], *, pooled: bool = False
    ) -> Predictions:
        return lung_scores.decide(
            rows, np.array(kinds), tuple(patients), points=_points(self.model, pooled=pooled)
        )


def recording_kind(take: Take) -> int | None:
    """The class of a recording, by its label or by its cycles; 4 where its quality is poor."""
    if take.quality == "poor":
        return BOTH + 1
    if take.kind is not None or take.site != "icbhi":
        return take.kind
    kinds = {event.kind for event in take.annotated}
    return breathing.kind_of(
        crackles=bool(kinds & {breathing.CRACKLE, BOTH}),
        wheezes=bool(kinds & {breathing.WHEEZE, BOTH}),
    )


def record_level(
    model: Model, rows: Array, targets: metrics.Labels, patients: tuple[str, ...]
) -> dict[str, Any]:
    """SPRSound's own scores of recordings: three classes, and five.

    Poor quality is a class of both. The model never answers it, so each such recording is wrong.
    """
    decided = (rows / _points(model, pooled=True)).argmax(axis=1)

    def scored(weights: Array) -> dict[str, float]:
        five = metrics.confusion(targets, decided, weights, BOTH + 2)
        edges = [0, 1, BOTH + 1]
        three = np.add.reduceat(np.add.reduceat(five, edges, axis=0), edges, axis=1)
        return {
            f"{name}_{count}": value
            for count, counts in (("3", three), ("5", five))
            for name, value in lung_scores.challenge_scores(counts).items()
        }

    return {
        "n": len(targets),
        POOR.replace(" ", "_"): int((targets > BOTH).sum()),
        "metrics": metrics.as_json(metrics.with_intervals(scored, patients)),
    }


def _points(model: Model, *, pooled: bool) -> Array:
    of = points(model, pooled=pooled)
    return np.array([max(of.get(label, 0.5), 1e-6) for label in model.labels])


def _read_take(take: Take, model: Model) -> Recording:
    rate = sound_spec(model).sample_rate_hz
    read = audio.read_audio(take.path, sample_rate_hz=rate, max_duration_s=_LONGEST_S)
    if take.start_s is None and take.end_s is None:
        return read
    end = None if take.end_s is None else round(take.end_s * rate)
    return dataclasses.replace(read, samples=read.samples[round((take.start_s or 0) * rate) : end])


def _evaluation(
    model: Model,
    levels: dict[str, dict[str, Predictions]],
    extra: dict[str, dict[str, Any]],
    notes: list[str],
    *,
    has_official_icbhi: bool,
) -> Evaluation:
    # The ICBHI score is defined on the cycles of the official test split, and nowhere else.
    official = {("icbhi", "events")} if has_official_icbhi else set()
    sites = {
        site: {
            level: lung_scores.as_json(answers, is_icbhi_test=(site, level) in official)
            for level, answers in found.items()
        }
        for site, found in levels.items()
    }
    for site, more in extra.items():
        sites[site]["recordings"] |= more
    level, top = next(_headline_levels(levels))
    if len(sites) > 1:
        others = ", ".join(SITES[s] for s in sites if s != top)
        notes.append(
            f"The figures at the top are of {SITES[top]}, those of {others} below `sites`."
        )
    result = {
        "model": model.name,
        "data": " + ".join(sorted(sites)),
        "split": "test",
        "level": level,
        "site": top,
        **sites[top][level],
        "threshold": dict(model.operating_points),
        "recordings": sites[top].get("recordings"),
        "sites": sites,
        "notes": notes,
    }
    answers = {"": levels[top][level]} | {
        f"{site}/{each}": found for site, row in levels.items() for each, found in row.items()
    }
    return Evaluation(
        result=result,
        answers={
            folder: Answers(probabilities=a.probabilities, targets=a.targets, decided=a.decided)
            for folder, a in answers.items()
        },
    )


def _has_official_icbhi(takes: Sequence[Take]) -> bool:
    """Whether all takes of ICBHI belong to its official test split."""
    return all(take.official_split == "test" for take in takes if take.site == "icbhi")


def _headline_levels(levels: dict[str, dict[str, Predictions]]) -> Iterator[tuple[str, str]]:
    """Level and site: events before recordings, the sites in their order."""
    for level in ("events", "recordings"):
        yield from ((level, site) for site in SITES if level in levels.get(site, {}))
