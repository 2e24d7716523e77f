"""How trustworthy each explainer is, measured where the truth is known: `evaluate-explainers`.

Three questions are asked of every heatmap: does masking its hottest regions change the prediction,
does it depend on the network's weights, and does it point at the finding?
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo import explainers, networks
from xai_demo.analysis.inference import MIN_PASSES
from xai_demo.engine import Engine
from xai_demo.errors import TrainingError, UnknownNameError, UnsuitableError
from xai_demo.files import write_atomically
from xai_demo.hub import Hub
from xai_demo.records import LogMel
from xai_demo.training import model_card
from xai_demo.training.datasets import nih
from xai_demo.training.evaluate import training_patients
from xai_demo.training.explainer_eval import ground_truth, trials
from xai_demo.training.explainer_eval.ground_truth import REAL, AnnotatedFile, HeldOutPatients
from xai_demo.training.explainer_eval.pointing import (
    BAND_CELLS,
    HOT,
    TIME_CELLS,
    Tally,
)
from xai_demo.training.explainer_eval.trials import PointingResults, Run, evaluate_pointing
from xai_demo.training.explainer_report import card_section
from xai_demo.training.recipes import recipe_of

if TYPE_CHECKING:
    from xai_demo.engine.backends import Network
    from xai_demo.records import Model, Progress
    from xai_demo.settings import Settings
    from xai_demo.training.datasets import Dataset

# Test samples, and mixtures of each kind; annotated files are several times as many.
MOST = 24
# Forward passes that a slow explainer may spend on one window: the least that the demo allows.
PASSES = MIN_PASSES
FILE = model_card.EXPLAINERS_FILE


def evaluate_explainers(
    name: str,
    *,
    settings: Settings,
    data: Path,
    most: int = MOST,
    only: Sequence[str] = (),
    progress: Progress | None = None,
) -> dict[str, Any]:
    """One row per suitable explainer: faithfulness, dependence on the weights, pointing and cost.

    They are measured on at most `most` test samples, one per patient, that the network classifies
    correctly; normal samples are left out. Intervals are 95 % bootstraps by patient. `only` limits
    the explainers. Raises TrainingError where the data or `most` will not do.
    """
    report = progress or (lambda done, doing: None)
    if not data.is_dir():
        raise TrainingError(
            f"{data} is not a directory; a dataset in its published layout is needed."
        )
    if most < 1:
        raise TrainingError(f"--most is {most}; at least one sample is needed.")
    hub = Hub(settings)
    kind = networks.architecture(hub.model(name)).kind
    names = tuple(dict.fromkeys(only)) or explainers.fitting_names(kind)
    # Names that do not fit are refused before the network is loaded.
    for each in names:
        explainers.explainer_for(each, kind)
    report(0.0, "loading the network")
    run = Run(_network(hub, name), names, most, PASSES)
    report(0.01, "reading the data")
    truth = _GroundTruthData.read(data, run, training_patients(settings.weights_dir / name))
    rows = _masking_rows(run, truth, report)
    pointing = _pointing_results(run, truth, settings, report)
    if not rows and not pointing.files:
        raise TrainingError(
            " ".join([f"{data} contains nothing that {name} can be tested on.", *run.notes])
        )
    return _result(run, rows, pointing)


def _network(hub: Hub, name: str) -> Network:
    """The network in torch, for gradients; its forward passes in ONNX Runtime where possible."""
    engine = Engine(hub)
    network = engine.network(name, backend="torch")
    # Where the deployment has switched exports off, none is made here either.
    if not hub.settings.background_export:
        return network
    try:
        exported = engine.network(name, backend="onnx")
    except UnsuitableError:
        # It cannot be exported here.
        return network
    # The head in torch could not take activations from another device.
    if exported.in_use.device != network.in_use.device:
        return network
    return dataclasses.replace(network, features=exported.features)


@dataclass(frozen=True, slots=True, kw_only=True)
class _GroundTruthData:
    """What the data contains, by layout."""

    samples: Dataset | None
    takes: tuple[Any, ...]  # of SPRSound
    radiographs: tuple[nih.BoxedRadiograph, ...]  # of NIH
    held_out: HeldOutPatients

    @classmethod
    def read(cls, data: Path, run: Run, trained_on: frozenset[str] | None) -> _GroundTruthData:
        """Read what `data` contains; `trained_on` are the patients in persons.json, if known."""
        model = run.model
        is_sound = isinstance(model.preprocessing, LogMel)
        corpus = ground_truth.read_sprsound(data) if model.task == "stethoscope" else None
        path = None if is_sound else nih.find_box_list(data)
        boxes = nih.read_boxes(path, data) if path else None
        # Where there is other ground truth, missing samples are a note and no error.
        samples = _read_test_samples(
            data, run, needed=not (corpus or boxes or ground_truth.has_mixtures(model))
        )
        if samples is not None and trained_on is not None and model.task == "chest_xray":
            # A split by label depends on what else is in the folder; the list of patients does not.
            samples = samples.with_training_groups(trained_on)
        run.notes.extend(boxes.notes if boxes else ())
        # The notes on the samples include those on the corpus.
        run.notes.extend(corpus.notes if corpus and samples is None else ())
        splits: dict[str, str] = {}
        for group, split in zip(samples.groups, samples.splits, strict=True) if samples else ():
            # By the number as well, as the boxes of NIH name patients.
            splits[group] = split
            splits.setdefault(ground_truth.patient_number(group), split)
        return cls(
            samples=samples,
            takes=corpus.takes if corpus else (),
            radiographs=boxes.radiographs if boxes else (),
            held_out=HeldOutPatients(splits=splits, seed="sprsound"),
        )

    def files(self, run: Run, settings: Settings) -> Iterator[AnnotatedFile]:
        """Every file with ground truth, the annotated ones first."""
        model = run.model
        if model.task == "chest_xray":
            splits = self.held_out.splits
            test = [r for r in self.radiographs if splits.get(r.patient, "test") == "test"]
            omitted = len(self.radiographs) - len(test)
            if omitted:
                run.notes.append(
                    f"{omitted} radiographs with boxes, of patients trained or tuned on, left out."
                )
            yield from ground_truth.boxed_radiographs(test, model, settings)
        if model.task == "stethoscope":
            yield from ground_truth.annotated_recordings(self.takes, model, self.held_out)
            yield from ground_truth.lung_mixtures(self.takes, model, self.held_out, run.most)
        if model.task == "audioset":
            yield from ground_truth.everyday_mixtures(model, max(1, run.most // 2))


def _read_test_samples(data: Path, run: Run, *, needed: bool) -> Dataset | None:
    """The test samples of the model's recipe; None where there is no recipe or no such data."""
    try:
        samples = recipe_of(run.model.name).read(data, run.model)
    except (TrainingError, UnknownNameError) as error:
        if needed:
            raise
        run.notes.append(f"No test samples to mask: {error}")
        return None
    run.notes.extend(samples.notes)
    return samples


def _masking_rows(
    run: Run, truth: _GroundTruthData, report: Progress
) -> dict[str, trials.ExplainerFigures]:
    """Faithfulness of every explainer; {} where there are no samples."""
    if truth.samples is None:
        return {}
    samples = trials.select_samples(run.network, truth.samples, run.most)
    if not samples:
        run.notes.append(f"{run.model.name} classifies no test sample correctly.")
        return {}
    # The same random network for every explainer and sample.
    random = trials.randomise_weights(run.network)
    rows = {}
    for i, name in enumerate(run.names):
        part = samples[: run.slow_samples] if run.is_slow(name) else samples

        def report_samples(done: float, i: int = i, name: str = name) -> None:
            report(0.05 + 0.5 * (i + done) / len(run.names), f"{name}: masking regions")

        rows[name] = trials.explainer_figures(
            name, run.network, random, part, run.passes, report_samples
        )
    return rows


def _pointing_results(
    run: Run, truth: _GroundTruthData, settings: Settings, report: Progress
) -> PointingResults:
    """Where the heatmaps point, on every file with ground truth that is classified correctly."""
    results = PointingResults()
    for number, file in enumerate(truth.files(run, settings)):
        what = "annotated" if file.part == REAL else f"mixture, {file.part} dB"
        # How many files there are is not known beforehand, so progress only approaches 1.
        report(1 - 0.45 * 0.995**number, f"file {number + 1} with ground truth ({what})")
        # Analysing a file takes long, so only while some explainer still needs one.
        if any(run.quota(n, file.part) > results.count(n, file.part) for n in run.names):
            evaluate_pointing(run, results, file)
    return results


def _result(
    run: Run, rows: dict[str, trials.ExplainerFigures], pointing: PointingResults
) -> dict[str, Any]:
    model = run.model
    parts = {part for part, _ in pointing.files}
    snrs = [str(snr) for snr in ground_truth.SNRS_DB if str(snr) in parts]
    has_annotated = REAL in parts
    explainer_rows, per_label, synthesised = {}, {}, {}
    for name in run.names:
        row = dict(rows[name].figures) if name in rows else {}
        row |= pointing.tally(name, REAL).to_json()
        row["cost_ms"] = rows[name].cost_ms if name in rows else pointing.cost_ms(name)
        explainer_rows[name] = row
        per_label[name] = {
            label: pointing.tally(name, REAL, label).to_json() for label in pointing.labels(REAL)
        }
        synthesised[name] = {snr: _tally_to_json(pointing.tally(name, snr)) for snr in snrs}
    return {
        "model": model.name,
        "sha256": model.sha256,
        "data": model.data,
        "n": max((r.n for r in rows.values()), default=0),
        "passes": run.passes,
        "explainers": explainer_rows,
        "counts": {
            name: {
                "trial": rows[name].n if name in rows else 0,
                "pointing": len(pointing.tally(name, REAL).rows),
                # A key of the shipped files, which `explainer_report` reads.
                "persons": len(set(pointing.tally(name, REAL).groups)),
            }
            for name in run.names
        },
        "truth": _truth(model) if has_annotated else None,
        "per_label": per_label if has_annotated else {},
        "synthesised": synthesised if snrs else {},
        "answered": {
            part: {
                label: {"files": n, "right": pointing.correct[part, label]}
                for (of, label), n in pointing.files.items()
                if of == part
            }
            for part in ([REAL] if has_annotated else []) + snrs
        },
        "tolerance": _tolerance(pointing) if snrs else {},
        "iou_threshold": HOT,
        "notes": run.notes,
    }


def _tally_to_json(tally: Tally) -> dict[str, Any]:
    """A tally with the numbers of its files and patients."""
    return {"n": len(tally.rows), "persons": len(set(tally.groups)), **tally.to_json()}


def _tolerance(pointing: PointingResults) -> dict[str, float]:
    """The tolerance of the mixtures' ground truth."""
    seconds, rows = pointing.cell_size or (0.0, 0.0)
    return {"time_s": round(TIME_CELLS * seconds, 3), "mel_bands": round(BAND_CELLS * rows, 2)}


def _truth(model: Model) -> str:
    """What the annotated files are compared with, for the report."""
    if model.task == "chest_xray":
        return "boxes that radiologists drew (NIH's BBox_List_2017.csv)"
    return "annotated events of whole recordings (SPRSound)"


def write(directory: Path, result: dict[str, Any]) -> tuple[Path, ...]:
    """Write the figures as `explainers.json` and `explainers.md`; return the paths."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = {
        # NaN is no valid JSON: rather an error than a file that other programs cannot read.
        FILE: json.dumps(result, indent=2, allow_nan=False) + "\n",
        "explainers.md": f"# {result['model']}\n\n" + "\n".join(card_section(result)) + "\n",
    }
    for name, text in texts.items():
        write_atomically(directory / name, text)
    return tuple(directory / name for name in texts)
