"""Evaluation of lung models: by annotated event, and by whole recording as the demo analyses it.

Of every site, only patients that the model was not trained on are used. Where it was trained on all
of them, all are used and the notes say that the figures are not a test.
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
from xai_demo.analysis.inference import column_evidence
from xai_demo.decision import operating_points, pool_windows
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
from xai_demo.training.lung import metrics as lung_metrics
from xai_demo.training.lung.samples import LungDataset
from xai_demo.training.lung.windows import read_spectrograms
from xai_demo.training.recipe import Evaluation, SamplePredictions

if TYPE_CHECKING:
    from xai_demo.records import Floats, Model, Progress, Recording
    from xai_demo.training.lung.metrics import Predictions
    from xai_demo.training.metrics import Array

# Of several sites, the figures of the first in this order are the headline.
SITES = {
    "sprsound": "SPRSound",
    "icbhi": "ICBHI 2017",
    "manikin": "Manikin",
    "folders": "Folders named after labels",
    "fraiwan": "Fraiwan",
}
POOR = "poor quality"
_MAX_DURATION_S = 600.0
_BATCH = 64


def evaluate_lung_model(
    network: torch.nn.Module,
    model: Model,
    data: Path,
    trained_on: frozenset[str] | None,
    progress: Progress,
) -> Evaluation:
    """Evaluate a lung model on all annotated sounds below `data`.

    `trained_on` are the patients the model was trained or tuned on; None means that they are those
    of the training and validation splits of this very data. Raises TrainingError where there is
    nothing to evaluate on.
    """
    # Refuses a model of radiographs before anything is read.
    sound_spec(model)
    progress(0.0, "reading the data")
    corpus = breathing.read(data)
    takes, notes, known = held_out_takes(corpus, trained_on)
    evaluator = _Evaluator(network, model)
    levels: dict[str, dict[str, Predictions]] = {}
    extra: dict[tuple[str, str], dict[str, Any]] = {}
    for number, site in enumerate(s for s in SITES if any(t.site == s for t in takes)):
        part = [t for t in takes if t.site == site]
        start = number / len(SITES)

        # `start` is bound now: a closure would see that of the last site.
        def report(done: float, doing: str, start: float = start) -> None:
            progress(0.9 * (start + done / len(SITES)), doing)

        levels[site] = {}
        if any(take.annotations for take in part):
            levels[site]["events"], extra[site, "events"] = evaluator.events(part, report)
        result = evaluator.recordings(part, report, notes)
        if result is not None:
            levels[site]["recordings"], extra[site, "recordings"] = result
    if not any(levels.values()):
        raise TrainingError(
            f"{data} contains nothing to evaluate {model.name} on; annotated events or recordings "
            f"with a label are needed. {' '.join(notes)}".rstrip()
        )
    progress(0.9, "bootstrap by patient")
    is_official = "icbhi" not in known and _has_official_icbhi(takes)
    evaluation = _evaluation(model, levels, extra, notes, has_official_icbhi=is_official)
    return dataclasses.replace(evaluation, result=evaluation.result | {"no_test": known})


def held_out_takes(
    corpus: Corpus, trained_on: frozenset[str] | None
) -> tuple[list[Take], list[str], list[str]]:
    """The takes to evaluate on, notes on the others, and the sites without a held-out patient."""
    takes, notes = list(corpus.takes), list(corpus.notes)
    all_known: list[str] = []
    if trained_on is None:
        pairs = zip(takes, assign_splits(takes), strict=True)
        # Without a list of patients, a model is taken not to know the user's own sounds.
        trained_on = frozenset(t.patient for t, s in pairs if s != "test" and t.site != "folders")
        # The last layer is trained on all of Fraiwan.
        trained_on |= {t.patient for t in takes if t.site == "fraiwan"}
    chosen: list[Take] = []
    for site, name in SITES.items():
        part = [t for t in takes if t.site == site]
        held_out = [t for t in part if t.patient not in trained_on]
        known = {t.patient for t in part} & trained_on
        if part and not held_out:
            all_known.append(site)
            how = " (its last layer only: see `cross-validate`)" if site == "fraiwan" else ""
            notes.append(
                f"{name}: the model was trained on all of these {len(known)} patients{how}, so "
                "these figures are not a test."
            )
        elif known:
            notes.append(
                f"{name}: {len(known)} patients that the model was trained on are left out."
            )
        chosen += held_out or part
    return chosen, notes, all_known


@dataclasses.dataclass(frozen=True, slots=True)
class _Evaluator:
    """A network with the record of its model, applied to sounds."""

    network: torch.nn.Module
    model: Model

    def events(
        self, takes: Sequence[Take], progress: Progress
    ) -> tuple[Predictions, dict[str, Any]]:
        """Predictions for every annotated event or cycle alone, with all around it masked.

        Where several stethoscopes were used, also the figures of each.
        """
        spec = sound_spec(self.model)
        annotated = [take for take in takes if take.annotations]
        recordings = read_spectrograms(
            annotated, spec, lambda done, doing: progress(0.4 * done, doing)
        )
        # All of it is test data: `held_out_takes` has chosen.
        dataset = LungDataset(recordings, ["test"] * len(recordings), spec)
        progress(0.4, "predicting events")
        rows = [
            self.predict_segment(
                np.stack(dataset.segment_windows(segment))[:, None],
                partial(pool_windows, self.model),
            )
            for segment in dataset.segments
        ]
        owners = [recordings[segment.recording].take for segment in dataset.segments]
        predictions = self._predictions(
            np.stack(rows),
            [segment.kind for segment in dataset.segments],
            [take.patient for take in owners],
        )
        devices = [take.device for take in owners]
        several = len(set(devices)) > 1
        by_device = lung_metrics.abnormal_by_device(predictions, devices) if several else {}
        return predictions, {"by_device": by_device} if several else {}

    def recordings(
        self, takes: Sequence[Take], progress: Progress, notes: list[str]
    ) -> tuple[Predictions, dict[str, Any]] | None:
        """Predictions for every labelled recording; None where there is none.

        For SPRSound, also the challenge's record-level scores and those of the timeline; for a site
        that names its sounds more finely than the classes do, the share found of each.
        """
        ledger = Ledger(SITES[takes[0].site])
        rows, kinds, patients, counts, details = [], [], [], [], []
        agreements: list[tuple[str, lung_metrics.Agreement]] = []
        for number, take in enumerate(takes):
            kind = recording_kind(take)
            if kind is None:
                continue
            progress(0.5 + 0.5 * number / len(takes), f"recording {number + 1} of {len(takes)}")
            try:
                prepared = inputs.prepare(self.model, _read_take(take, self.model))
            except UnreadableFileError as error:
                ledger.add("recordings with nothing to analyse, left out", str(error))
                continue
            windows, evidence = self.predict_windows(prepared.inputs)
            rows.append(
                np.asarray(
                    prepared.file_probabilities(self.model, windows.astype(np.float32)), np.float64
                )
            )
            # Only SPRSound says when an event sounds; ICBHI's cycles are whole breaths.
            if take.site == "sprsound" and take.annotations:
                agreements.append(
                    (take.patient, self._agreement(take, prepared, windows, evidence))
                )
            counts.append(len(prepared.inputs))
            kinds.append(kind)
            details.append(take.detail)
            patients.append(take.patient)
        notes.extend(ledger.notes())
        if not rows:
            return None
        probabilities, targets = np.stack(rows), np.array(kinds)
        # Poor quality is no class of a model: only `record_level` counts it.
        rated = targets <= BOTH
        if not rated.any():
            return None
        groups = np.array(patients)
        # The operating points of recordings, if a typical one has several windows.
        pooled = float(np.median(counts)) > 1
        record_scores = record_level(self.model, probabilities, targets, tuple(patients))
        by_time = {}
        if agreements:
            owners, rows_by_time = zip(*agreements, strict=True)
            by_time = {"timeline": lung_metrics.agreement_as_json(rows_by_time, owners)}
        predictions = self._predictions(
            probabilities[rated], targets[rated].tolist(), groups[rated].tolist(), pooled=pooled
        )
        more = {"record_level": record_scores} | by_time if takes[0].site == "sprsound" else {}
        if any(details):
            by_detail = lung_metrics.found_by_detail(predictions, np.array(details)[rated].tolist())
            more = more | {"by_detail": by_detail}
        return predictions, more

    def _agreement(
        self, take: Take, prepared: Any, windows: Array, evidence: Floats
    ) -> lung_metrics.Agreement:
        events = prepared.events(self.model, windows.astype(np.float32), None, evidence)
        duration_s = len(prepared.samples) / prepared.sample_rate_hz
        return lung_metrics.agreement(events, take.annotations, duration_s=duration_s)

    def predict_segment(self, windows: Any, pool: Any) -> Array:
        """The pooled probabilities of some windows: (windows, 1, mel, frames) -> (labels,)."""
        result: Array = np.asarray(pool(self.predict_windows(windows)[0]), np.float64)
        return result

    def predict_windows(self, windows: Any) -> tuple[Array, Floats]:
        """Probabilities of every window, (windows, labels), and the evidence over time."""
        # Cut in two, because the evidence is computed from the maps in between.
        cut = networks.cut(self.model, self.network.eval())
        device = next(self.network.parameters()).device
        logits, evidence = [], []
        for start in range(0, len(windows), _BATCH):
            # Windows of a recording are computed when sliced: no more than a batch is held.
            part: Floats = np.ascontiguousarray(windows[start : start + _BATCH])
            with torch.inference_mode():
                maps = cut.features(torch.from_numpy(part).to(device))
                logits.append(cut.head(maps).float().cpu().numpy())
            evidence.append(column_evidence(cut.head, maps))
        rows = softmax(np.concatenate(logits).astype(np.float64) / self.model.temperature)
        return rows, np.concatenate(evidence)

    def _predictions(
        self, rows: Array, kinds: list[int], patients: list[str], *, pooled: bool = False
    ) -> Predictions:
        return lung_metrics.decide(
            rows, np.array(kinds), tuple(patients), points=_points(self.model, pooled=pooled)
        )


def recording_kind(take: Take) -> int | None:
    """The class of a recording by its label or its cycles; 4 where its quality is poor."""
    if take.quality == "poor":
        return BOTH + 1
    # ICBHI labels cycles alone, every other site whole recordings.
    if take.kind is not None or take.site != "icbhi":
        return take.kind
    kinds = {event.kind for event in take.annotations}
    return breathing.kind_of(
        crackles=bool(kinds & {breathing.CRACKLE, BOTH}),
        wheezes=bool(kinds & {breathing.WHEEZE, BOTH}),
    )


def record_level(
    model: Model, rows: Array, targets: metrics.Labels, patients: tuple[str, ...]
) -> dict[str, Any]:
    """The record-level scores of the SPRSound challenge, for three classes and for five.

    Both include poor quality as a class. A model never predicts it, so it gets each such recording
    wrong.
    """
    decided = (rows / _points(model, pooled=True)).argmax(axis=1)

    def weighted_scores(weights: Array) -> dict[str, float]:
        five = metrics.confusion(targets, decided, weights, BOTH + 2)
        # Normal, all abnormal classes together, poor quality.
        edges = [0, 1, BOTH + 1]
        three = np.add.reduceat(np.add.reduceat(five, edges, axis=0), edges, axis=1)
        return {
            f"{name}_{count}": value
            for count, counts in (("3", three), ("5", five))
            for name, value in lung_metrics.challenge_scores(counts).items()
        }

    return {
        "n": len(targets),
        POOR.replace(" ", "_"): int((targets > BOTH).sum()),
        "metrics": metrics.as_json(metrics.with_intervals(weighted_scores, patients)),
    }


def _points(model: Model, *, pooled: bool) -> Array:
    by_label = operating_points(model, pooled=pooled)
    # A point of zero would divide by zero.
    return np.array([max(by_label.get(label, 0.5), 1e-6) for label in model.labels])


def _read_take(take: Take, model: Model) -> Recording:
    rate = sound_spec(model).sample_rate_hz
    recording = audio.read_audio(take.path, sample_rate_hz=rate, max_duration_s=_MAX_DURATION_S)
    if take.start_s is None and take.end_s is None:
        return recording
    end = None if take.end_s is None else round(take.end_s * rate)
    start = round((take.start_s or 0) * rate)
    return dataclasses.replace(recording, samples=recording.samples[start:end])


def _evaluation(
    model: Model,
    levels: dict[str, dict[str, Predictions]],
    extra: dict[tuple[str, str], dict[str, Any]],
    notes: list[str],
    *,
    has_official_icbhi: bool,
) -> Evaluation:
    # The ICBHI score is defined on the cycles of the official test split, and nowhere else.
    official = {("icbhi", "events")} if has_official_icbhi else set()
    sites = {
        site: {
            level: lung_metrics.as_json(predictions, is_icbhi_test=(site, level) in official)
            for level, predictions in by_level.items()
        }
        for site, by_level in levels.items()
    }
    for (site, level), more in extra.items():
        sites[site][level] |= more
    level, top = next(_headline_levels(levels))
    if len(sites) > 1:
        others = ", ".join(SITES[s] for s in sites if s != top)
        notes.append(
            f"The figures at the top are for {SITES[top]}; those for {others} are under `sites`."
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
    # The plots of the headline lie at the top, all others in folders.
    by_folder = {"": levels[top][level]} | {
        f"{site}/{name}": predictions
        for site, by_level in levels.items()
        for name, predictions in by_level.items()
    }
    return Evaluation(
        result=result,
        predictions={
            folder: SamplePredictions(
                probabilities=each.probabilities, targets=each.targets, decisions=each.decided
            )
            for folder, each in by_folder.items()
        },
    )


def _has_official_icbhi(takes: Sequence[Take]) -> bool:
    """Whether all takes of ICBHI belong to its official test split."""
    return all(take.official_split == "test" for take in takes if take.site == "icbhi")


def _headline_levels(levels: dict[str, dict[str, Predictions]]) -> Iterator[tuple[str, str]]:
    """Level and site, the headline first: events before recordings, sites in their order."""
    for level in ("events", "recordings"):
        yield from ((level, site) for site in SITES if level in levels.get(site, {}))
