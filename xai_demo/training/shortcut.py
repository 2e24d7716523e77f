"""How much of a three-class answer the picture's source gives away: `judged` of the COVID-3 models.

Beside the internal test (unseen persons of the collections learnt from) stand the external one
(adults of NIH, of whom no picture was learnt from), the network asked with the lungs blotted out,
and a logistic regression that was taught on pictures without lungs: what it gets right, it gets
right by frame, letters, exposure and scanner.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.errors import TrainingError
from xai_demo.training import asked, covid, judging
from xai_demo.training.schedule import Evaluation

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Model, Progress
    from xai_demo.training.dataset import DataSet, Split
    from xai_demo.training.metrics import Array, Labels

EXTERNAL = "external: adults of NIH ChestX-ray14 (no COVID-19 among them)"
HIDDEN = "internal, the lungs blotted out"
TAUGHT = "internal, a linear classifier taught on pictures without lungs"
_SIDE = 32  # of the pictures that the linear classifier is taught on
_STRENGTH = 0.01


def judged(
    network: nn.Module,
    model: Model,
    data: Path,
    learnt_from: frozenset[str] | None,
    progress: Progress,
) -> Evaluation:
    """The internal figures, with the others as `parts`."""
    progress(0.0, "reading the data")
    whole, bare = (_apart(covid.read(data, model, masked=m), learnt_from) for m in (False, True))
    if not len(whole.indices("test")):
        raise TrainingError(
            f"{data} holds no picture that {model.name} has not learnt from, wanted: some."
        )
    progress(0.4, "asking the network")
    evaluation = asked.answered(network, model, whole)
    parts = {HIDDEN: asked.answered(network, model, bare)}
    progress(0.6, "teaching a linear classifier on pictures without lungs")
    if len(set(bare.targets[bare.indices("train")])) == len(model.labels):
        parts[TAUGHT] = judging.evaluation(model, bare, *taught(bare))
    progress(0.8, "asking about other hospitals")
    abroad = covid.external(data, model)
    if abroad is not None:
        parts[EXTERNAL] = asked.answered(network, model, abroad)
    result = evaluation.result | {"parts": {name: _part(p.result) for name, p in parts.items()}}
    named = {
        "external": parts[EXTERNAL].answers[""] if EXTERNAL in parts else None,
        "without_lungs": parts[HIDDEN].answers[""],
    }
    answers = {**evaluation.answers} | {k: v for k, v in named.items() if v is not None}
    return Evaluation(result=result, answers=answers)


def taught(data: DataSet) -> tuple[Array, Labels]:
    """A linear classifier of small copies: its probabilities for the test part, and the targets."""
    from sklearn.linear_model import LogisticRegression

    train, test = _small(data, "train"), _small(data, "test")
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-3
    model = LogisticRegression(C=_STRENGTH, max_iter=300, class_weight="balanced")
    model.fit((train - mean) / deviation, data.targets[data.indices("train")])
    probabilities: Array = model.predict_proba((test - mean) / deviation)
    return probabilities, data.targets[data.indices("test")]


def _small(data: DataSet, split: Split) -> Array:
    import cv2

    rows = [
        cv2.resize(data.load(int(i), None)[0], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        for i in data.indices(split)
    ]
    return np.stack(rows).reshape(len(rows), -1).astype(np.float64)


def _apart(data: DataSet, learnt_from: frozenset[str] | None) -> DataSet:
    return data if learnt_from is None else data.apart_from(learnt_from)


def _part(result: dict[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("n", "groups", "metrics", "per_class", "confusion")}
