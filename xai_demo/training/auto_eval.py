"""What the default answer to a radiograph is worth: `evaluate auto`.

Each film is read, screened and answered as a visitor's is, without an age being stated: the picture
decides which network answers. Measured are films of patients of whom neither the guess of the age
nor the network that answers has seen any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.analysis import Analyser, choices, inputs
from xai_demo.analysis.inference import run_network
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.decision import decide, decided_label_index, operating_points
from xai_demo.errors import TrainingError
from xai_demo.records import AUTO_MODEL
from xai_demo.training import metrics
from xai_demo.training.age_fit import CHILDREN, NIH_ADULTS, NORMAL_ADULTS, Film, list_films
from xai_demo.training.evaluate import training_patients

if TYPE_CHECKING:
    from xai_demo.records import Floats, Model, Progress, Radiograph
    from xai_demo.settings import Settings

_REQUEST = AnalysisRequest(task="chest_xray", model=AUTO_MODEL)
# A share of adults' films, and the accuracy and AUROC of the children's network when asked alone.
_WANTED = {"called_abnormal": "<= 0.10", "accuracy": ">= 0.959", "auroc": ">= 0.992"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one film was read as, and what was said of it."""

    patient: str
    is_sick: bool
    read_as: str  # "adult", "child"; "" where nobody knows
    is_stopped: bool  # by the gate: the answer is withheld
    findings: int  # how many abnormal labels were found
    score: float  # of being abnormal, 0..1; 0.5 is the operating point


def evaluate_auto(
    data: Path,
    *,
    settings: Settings,
    most: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Answer the unseen films of `data`: normal adults, and the children of Kermany's test split.

    `most` are the films of each collection, drawn at random; None: all. Raises TrainingError where
    there are none of either.
    """
    report = progress or (lambda done, doing: None)
    analyser = Analyser(settings)
    adult, child = (choices.fitting_model(analyser.hub, who) for who in ("adult", "child"))
    seen = training_patients(settings.weights_dir / adult) or frozenset()
    films = _draw([film for film in list_films(data) if _is_test(film, seen)], most)
    if not films:
        raise TrainingError(
            f"{data} holds no unseen film of normal adults or of children; expected are NIH's, the "
            "COVID-19 Radiography Database's or Kermany's."
        )
    answers: dict[str, list[Answer]] = {}
    for number, film in enumerate(films):
        report(number / len(films), f"film {number + 1} of {len(films)}")
        answers.setdefault(film.kind, []).append(_answer(analyser, film))
    return {
        "model": AUTO_MODEL,
        "data": data.name,
        "networks": {"adult": adult, "child": child},
        "n": len(films),
        "adults": {
            kind: _figures(answers[kind], _adult_figures)
            for kind in (NORMAL_ADULTS, NIH_ADULTS)
            if kind in answers
        },
        "children": _figures(answers.get(CHILDREN, []), _child_figures),
        "wanted": _WANTED,
    }


def table(result: dict[str, Any]) -> str:
    """The figures as a Markdown table, the wanted ones beside the measured."""
    networks = result["networks"]
    lines = [
        f"Adults are answered by {networks['adult']}, children by {networks['child']}.",
        "",
        "| films | n | patients | figure | measured (95 %) | wanted |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for kind, part in {**result["adults"], CHILDREN: result["children"]}.items():
        for name, row in part.get("metrics", {}).items():
            lines.append(
                f"| {kind} | {part['n']} | {part['groups']} | {name} | "
                f"{metrics.interval_text(row)} | {result['wanted'].get(name, '')} |"
            )
    return "\n".join(lines)


def _is_test(film: Film, seen: frozenset[str]) -> bool:
    """Whether a film counts: of a normal adult or a test child, unseen by fit and network."""
    if film.is_fitted or film.patient in seen:
        return False
    return film.is_test if film.kind == CHILDREN else film.is_normal


def _draw(films: Sequence[Film], most: int | None) -> list[Film]:
    """At most so many films of each kind, the same ones every time."""
    order = np.random.default_rng(0).permutation(len(films))
    kept: dict[str, list[Film]] = {}
    for film in (films[i] for i in order):
        kept.setdefault(film.kind, []).append(film)
    return [film for same in kept.values() for film in same[:most]]


def _answer(analyser: Analyser, film: Film) -> Answer:
    source = analyser.read(_REQUEST, film.path)
    content: Any = source.content
    network = analyser.engine.network(
        str(choices.after_reading(_REQUEST, content, analyser.hub).model), backend="torch"
    )
    prepared = inputs.prepare(network.model, content)
    outputs = run_network(network, prepared.inputs)
    probabilities = prepared.file_probabilities(network.model, outputs.probabilities)
    count, score = _abnormality(network.model, probabilities)
    return Answer(
        patient=film.patient,
        is_sick=not film.is_normal,
        read_as=_read_as(content),
        is_stopped=bool(prepared.doubt or prepared.blank),
        findings=count,
        score=score,
    )


def _read_as(content: Radiograph) -> str:
    return str(content.facts.get("age", {}).get("value") or "")


def _abnormality(model: Model, probabilities: Floats) -> tuple[int, float]:
    """How many abnormal labels are found, and a score of being abnormal, 0.5 where the first is."""
    points = operating_points(model)
    odds = {
        label: float(p) / max(points.get(label, 0.5), 1e-6)
        for label, p in zip(model.labels, probabilities, strict=True)
    }
    normal = odds.pop(model.normal_label, 1.0) if model.normal_label else 1.0
    worst = max(odds.values())
    score = worst / (worst + normal) if worst else 0.0
    if model.activation == "sigmoid":
        return len(decide(model, probabilities).findings), score
    label = model.labels[decided_label_index(model, probabilities)]
    return int(label != model.normal_label), score


def _figures(
    answers: Sequence[Answer], figures: Callable[[_Columns, metrics.Array], dict[str, float]]
) -> dict[str, Any]:
    """The figures of one kind of film with their intervals over patients; {} for no film."""
    if not answers:
        return {}
    columns = _Columns(answers)
    groups = [answer.patient for answer in answers]
    measured = metrics.with_intervals(lambda weights: figures(columns, weights), groups)
    return {"n": len(answers), "groups": len(set(groups)), "metrics": metrics.as_json(measured)}


class _Columns:
    """Answers by column: arrays, (answers,)."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.read_as = np.array([answer.read_as for answer in answers])
        self.sick = np.array([answer.is_sick for answer in answers])
        self.stopped = np.array([answer.is_stopped for answer in answers])
        self.findings = np.array([answer.findings for answer in answers])
        self.score = np.array([answer.score for answer in answers])


def _adult_figures(columns: _Columns, weights: metrics.Array) -> dict[str, float]:
    abnormal = (columns.findings > 0) & ~columns.stopped
    return {
        "read_as_adult": _share(columns.read_as == "adult", weights),
        "called_abnormal": _share(abnormal, weights),
        "findings_per_film": float(weights @ columns.findings / weights.sum()),
        "no_answer": _share(columns.stopped, weights),
    }


def _child_figures(columns: _Columns, weights: metrics.Array) -> dict[str, float]:
    found = columns.findings > 0
    return {
        "read_as_child": _share(columns.read_as == "child", weights),
        "accuracy": _share(found == columns.sick, weights),
        "auroc": metrics.auroc(columns.score, columns.sick, weights),
        "sensitivity": _share(found, weights * columns.sick),
        "specificity": _share(~found, weights * ~columns.sick),
        "no_answer": _share(columns.stopped, weights),
    }


def _share(chosen: Any, weights: metrics.Array) -> float:
    total = float(weights.sum())
    return float(weights @ chosen) / total if total else float("nan")
