"""How far each explainer can be believed, measured where the truth is known: `evaluate-explainers`.

Three questions: does hiding the heat change the answer, does the heat depend on the weights, and
does it lie where the finding is.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo import explainers, networks
from xai_demo.analysis.inference import LEAST_PASSES
from xai_demo.engine import Engine
from xai_demo.errors import TrainingError, UnknownNameError, UnsuitableError
from xai_demo.files import write_atomically
from xai_demo.hub import Hub
from xai_demo.records import LogMel
from xai_demo.training import model_card
from xai_demo.training.datasets import nih
from xai_demo.training.evaluate import persons
from xai_demo.training.explainer_eval import ground_truth, trials
from xai_demo.training.explainer_eval.ground_truth import REAL, AnnotatedFile, HeldOutPatients
from xai_demo.training.explainer_eval.pointing import (
    BAND_CELLS,
    HOT,
    TIME_CELLS,
    Tally,
)
from xai_demo.training.explainer_eval.trials import PointingResults, Run, evaluate_pointing
from xai_demo.training.explainer_report import card_section, table
from xai_demo.training.recipes import recipe_of

if TYPE_CHECKING:
    from xai_demo.engine import Network
    from xai_demo.records import Model, Progress
    from xai_demo.settings import Settings
    from xai_demo.training.datasets import Dataset

MOST = 24  # samples, and made sounds of each kind; of annotated files `_MORE` times as many
PASSES = LEAST_PASSES  # that a slow explainer may spend on one window
FILE = model_card.TRUST_FILE


def evaluate_explainers(
    name: str,
    *,
    settings: Settings,
    data: Path,
    most: int = MOST,
    only: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """One row per explainer that fits: faithfulness, dependence on the weights, pointing, cost.

    Over at most `most` test samples, one a person, whose label the network got right; abnormal ones
    where the model has a normal label. Intervals are 95 % bootstraps by person.
    """
    tell = progress or (lambda done, doing: None)
    if not data.is_dir():
        raise TrainingError(f"{data} is no directory, wanted: a data set in its published layout.")
    if most < 1:
        raise TrainingError(f"--most is {most}, wanted: at least one sample.")
    hub = Hub(settings)
    kind = networks.architecture(hub.model(name)).kind
    names = tuple(dict.fromkeys(only)) or explainers.fitting(kind)
    for each in names:
        explainers.suited(each, kind)
    tell(0.0, "waking the network")
    run = Run(_network(hub, name), names, most, PASSES)
    tell(0.01, "reading the data")
    known = _GroundTruthData.at(data, run, persons(settings.weights_dir / name))
    rows = _masking_rows(run, known, tell)
    pointed = _pointing_results(run, known, settings, tell)
    if not rows and not pointed.tried:
        raise TrainingError(
            " ".join([f"{data} holds nothing that {name} can be put to the test on.", *run.notes])
        )
    return _result(run, rows, pointed)


def _network(hub: Hub, name: str) -> Network:
    """In torch, for gradients; forward passes by ONNX Runtime where the demo exports to it."""
    engine = Engine(hub)
    network = engine.network(name, backend="torch")
    if not hub.settings.background_export:
        return network
    try:
        quick = engine.network(name, backend="onnx")
    except UnsuitableError:  # it cannot be exported here
        return network
    if quick.in_use.device != network.in_use.device:
        return network
    return dataclasses.replace(network, features=quick.features)


@dataclass(frozen=True, slots=True, kw_only=True)
class _GroundTruthData:
    """What the data holds, by layout."""

    samples: Dataset | None
    sounds: tuple[Any, ...]  # SPRSound's takes
    pictures: tuple[nih.BoxedRadiograph, ...]
    unseen: HeldOutPatients

    @classmethod
    def at(cls, data: Path, run: Run, learnt_from: frozenset[str] | None) -> _GroundTruthData:
        model = run.model
        is_sound = isinstance(model.preprocessing, LogMel)
        corpus = ground_truth.read_sprsound(data) if model.task == "stethoscope" else None
        path = None if is_sound else nih.find_box_list(data)
        listed = nih.read_boxes(path, data) if path else None
        samples = _read_test_samples(
            data, run, needed=not (corpus or listed or ground_truth.has_mixtures(model))
        )
        if samples is not None and learnt_from is not None and model.task == "chest_xray":
            samples = samples.apart_from(learnt_from)
        run.notes.extend(listed.notes if listed else ())
        run.notes.extend(corpus.notes if corpus and samples is None else ())
        splits: dict[str, str] = {}
        for group, split in zip(samples.groups, samples.splits, strict=True) if samples else ():
            splits[group] = split
            splits.setdefault(ground_truth.patient_number(group), split)
        return cls(
            samples=samples,
            sounds=corpus.takes if corpus else (),
            pictures=listed.pictures if listed else (),
            unseen=HeldOutPatients(splits=splits, seed="sprsound"),
        )

    def cases(self, run: Run, settings: Settings) -> Iterator[AnnotatedFile]:
        """Every file of known truth, the annotated ones first."""
        model = run.model
        if model.task == "chest_xray":
            splits = self.unseen.splits
            apart = [p for p in self.pictures if splits.get(p.patient, "test") == "test"]
            left = len(self.pictures) - len(apart)
            if left:
                run.notes.append(f"{left} pictures with boxes are of persons trained or tuned on.")
            yield from ground_truth.boxed_radiographs(apart, model, settings)
        if model.task == "stethoscope":
            yield from ground_truth.annotated_recordings(self.sounds, model, self.unseen)
            yield from ground_truth.lung_mixtures(self.sounds, model, self.unseen, run.most)
        if model.task == "audioset":
            yield from ground_truth.everyday_mixtures(model, max(1, run.most // 2))


def _read_test_samples(data: Path, run: Run, *, needed: bool) -> Dataset | None:
    """The test samples of the model's recipe; None where there is no recipe or no such data."""
    try:
        found = recipe_of(run.model.name).read(data, run.model)
    except (TrainingError, UnknownNameError) as error:
        if needed:
            raise
        run.notes.append(f"No test samples to hide parts of: {error}")
        return None
    run.notes.extend(found.notes)
    return found


def _masking_rows(
    run: Run, known: _GroundTruthData, tell: Progress
) -> dict[str, trials.ExplainerFigures]:
    """The trial of every explainer, where there are samples for one."""
    if known.samples is None:
        return {}
    asked = trials.select_samples(run.network, known.samples, run.most)
    if not asked:
        run.notes.append(f"No test sample that {run.model.name} gets right.")
        return {}
    random = trials.randomise_weights(run.network)
    rows = {}
    for i, name in enumerate(run.names):
        part = asked[: run.few] if run.is_slow(name) else asked

        def told(done: float, i: int = i, name: str = name) -> None:
            tell(0.05 + 0.5 * (i + done) / len(run.names), f"{name}: hiding parts")

        rows[name] = trials.explainer_figures(name, run.network, random, part, run.passes, told)
    return rows


def _pointing_results(
    run: Run, known: _GroundTruthData, settings: Settings, tell: Progress
) -> PointingResults:
    """Ask where the heat lies on every file of known truth that the network gets right."""
    pointed = PointingResults()
    for number, case in enumerate(known.cases(run, settings)):
        what = "annotated" if case.part == REAL else f"made, {case.part} dB"
        tell(1 - 0.45 * 0.995**number, f"file {number + 1} of known truth ({what})")
        if any(run.quota(n, case.part) > pointed.count(n, case.part) for n in run.names):
            evaluate_pointing(run, pointed, case)
    return pointed


def _result(
    run: Run, rows: dict[str, trials.ExplainerFigures], pointed: PointingResults
) -> dict[str, Any]:
    model, made = run.model, [str(snr) for snr in ground_truth.SNRS_DB]
    made = [snr for snr in made if any(part == snr for part, _ in pointed.tried)]
    real = any(part == REAL for part, _ in pointed.tried)
    explained, per_label, synthesised = {}, {}, {}
    for name in run.names:
        row = dict(rows[name].figures) if name in rows else {}
        row |= pointed.together(name, REAL).to_json()
        row["cost_ms"] = rows[name].cost_ms if name in rows else pointed.cost_ms(name)
        explained[name] = row
        per_label[name] = {
            label: pointed.together(name, REAL, label).to_json() for label in pointed.labels(REAL)
        }
        synthesised[name] = {snr: _tally_to_json(pointed.together(name, snr)) for snr in made}
    return {
        "model": model.name,
        "sha256": model.sha256,
        "data": model.data,
        "n": max((r.n for r in rows.values()), default=0),
        "passes": run.passes,
        "explainers": explained,
        "counts": {
            name: {
                "trial": rows[name].n if name in rows else 0,
                "pointing": len(pointed.together(name, REAL).rows),
                "persons": len(set(pointed.together(name, REAL).groups)),
            }
            for name in run.names
        },
        "truth": _truth(model) if real else None,
        "per_label": per_label if real else {},
        "synthesised": synthesised if made else {},
        "answered": {
            part: {
                label: {"files": n, "right": pointed.right[part, label]}
                for (of, label), n in pointed.tried.items()
                if of == part
            }
            for part in ([REAL] if real else []) + made
        },
        "tolerance": _tolerance(pointed) if made else {},
        "iou_threshold": HOT,
        "notes": run.notes,
    }


def _tally_to_json(tally: Tally) -> dict[str, Any]:
    return {"n": len(tally.rows), "persons": len(set(tally.groups)), **tally.to_json()}


def _tolerance(pointed: PointingResults) -> dict[str, float]:
    seconds, rows = pointed.cell or (0.0, 0.0)
    return {"time_s": round(TIME_CELLS * seconds, 3), "mel_bands": round(BAND_CELLS * rows, 2)}


def _truth(model: Model) -> str:
    if model.task == "chest_xray":
        return "boxes that radiologists drew (NIH's BBox_List_2017.csv)"
    return "annotated events of whole recordings (SPRSound)"


def write(directory: Path, result: dict[str, Any]) -> tuple[Path, ...]:
    """The figures as `explainers.json` and `explainers.md` in a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = {
        FILE: json.dumps(result, indent=2, allow_nan=False) + "\n",
        "explainers.md": f"# {result['model']}\n\n" + "\n".join(card_section(result)) + "\n",
    }
    for name, text in texts.items():
        write_atomically(directory / name, text)
    return tuple(directory / name for name in texts)
