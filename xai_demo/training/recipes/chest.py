"""How the chest X-ray models are trained, each with the settings of the system it lives on.

How much of a three-class answer the picture's source gives away: `judged` of the COVID-3 models.

Beside the internal test (unseen persons of the collections learnt from) stand the external one
(adults of NIH, of whom no picture was learnt from), the network asked with the lungs blotted out,
and a logistic regression that was taught on pictures without lungs: what it gets right, it gets
right by frame, letters, exposure and scanner.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo.catalog.hub_models import NIH_FINDINGS
from xai_demo.errors import TrainingError
from xai_demo.records import Model, Raster
from xai_demo.training import predict
from xai_demo.training.datasets import covid, kermany, nih
from xai_demo.training.recipe import Evaluation, Recipe, Schedule

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Progress
    from xai_demo.training.datasets import Dataset, Split
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
    evaluation = predict.answered(network, model, whole)
    parts = {HIDDEN: predict.answered(network, model, bare)}
    progress(0.6, "teaching a linear classifier on pictures without lungs")
    if len(set(bare.targets[bare.indices("train")])) == len(model.labels):
        parts[TAUGHT] = predict.evaluation(model, bare, *taught(bare))
    progress(0.8, "asking about other hospitals")
    abroad = covid.external(data, model)
    if abroad is not None:
        parts[EXTERNAL] = predict.answered(network, model, abroad)
    result = evaluation.result | {"parts": {name: _part(p.result) for name, p in parts.items()}}
    named = {
        "external": parts[EXTERNAL].answers[""] if EXTERNAL in parts else None,
        "without_lungs": parts[HIDDEN].answers[""],
    }
    answers = {**evaluation.answers} | {k: v for k, v in named.items() if v is not None}
    return Evaluation(result=result, answers=answers)


def taught(data: Dataset) -> tuple[Array, Labels]:
    """A linear classifier of small copies: its probabilities for the test part, and the targets."""
    from sklearn.linear_model import LogisticRegression

    train, test = _small(data, "train"), _small(data, "test")
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-3
    model = LogisticRegression(C=_STRENGTH, max_iter=300, class_weight="balanced")
    model.fit((train - mean) / deviation, data.targets[data.indices("train")])
    probabilities: Array = model.predict_proba((test - mean) / deviation)
    return probabilities, data.targets[data.indices("test")]


def _small(data: Dataset, split: Split) -> Array:
    import cv2

    rows = [
        cv2.resize(data.load(int(i), None)[0], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        for i in data.indices(split)
    ]
    return np.stack(rows).reshape(len(rows), -1).astype(np.float64)


def _apart(data: Dataset, learnt_from: frozenset[str] | None) -> Dataset:
    return data if learnt_from is None else data.apart_from(learnt_from)


def _part(result: dict[str, Any]) -> dict[str, Any]:
    return {name: result[name] for name in ("n", "groups", "metrics", "per_class", "confusion")}


_KERMANY = (
    "Kermany, D., Zhang, K., Goldbaum, M. (2018). Labeled Optical Coherence Tomography (OCT) and "
    "Chest X-Ray Images for Classification. Mendeley Data, doi:10.17632/rscbjbr9sj.2"
)
_WANG = (
    "Wang, X. et al. (2017). ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks. "
    "Proc. CVPR, 3462-3471"
)
_COVID_CXNET = (
    "Haghanifar, A. et al. (2022). COVID-CXNet: Detecting COVID-19 in frontal chest X-ray images "
    "using deep learning. Multimed. Tools Appl. 81, 30615-30645"
)
_GREY = Raster(height=224, width=224, mean=0.482, std=0.236)

_NIH14 = Model(
    name="nih14-resnet50",
    title="Fourteen findings in adults' chest X-rays",
    task="chest_xray",
    architecture="resnet50",
    labels=NIH_FINDINGS,
    preprocessing=_GREY,
    activation="sigmoid",
    licence="NIH Clinical Center, free use with credit (data), MIT (weights)",
    data=(
        "NIH ChestX-ray14 (Wang et al. 2017), split 70/15/15 by patient, stratified by finding; "
        "the published test list is the test part where it lies beside the table. Labels were "
        "mined from radiologists' reports."
    ),
    citation=_WANG,
)
NIH14_RESNET50 = Recipe(
    model=_NIH14,
    read=nih.read,
    schedule=Schedule(
        epochs=50,
        batch_size=32,
        learning_rate=1e-4,
        weight_decay=1e-4,
        mixup=0.0,
        label_smoothing=0.0,
        sampling_power=1.0,
        averaging=0.0,
        patience=10,
        decoupled=False,
        plateau=3,
        thaw_every=2,
        dropout=0.5,
        focal=2.0,
    ),
    failures=(
        "Labels mined from reports are wrong in about one of ten. Lateral films, children and "
        "other scanners are outside of what it has seen."
    ),
    uncertainty=0.0,
)
NIH14_RESNET18 = Recipe(
    model=dataclasses.replace(
        _NIH14,
        name="nih14-resnet18",
        title="Fourteen findings in adults' chest X-rays (small stand-in)",
        architecture="resnet18",
        licence="NIH Clinical Center, free use with credit, and CC-BY-4.0 (data), MIT (weights)",
        data=(
            "1,299 pictures of NIH ChestX-ray14 (Wang et al. 2017), one in ninety of it, split "
            "70/15/15 by patient, stratified by finding; started from a network that learnt "
            "children's pneumonia (Kermany et al. 2018). A stand-in for models trained on all "
            "112,120 pictures, for where those cannot be fetched; it is far weaker. Labels were "
            "mined from radiologists' reports."
        ),
        citation=f"{_WANG}. {_KERMANY}",
    ),
    read=nih.read,
    schedule=Schedule(
        epochs=12,
        batch_size=32,
        learning_rate=6e-4,
        weight_decay=0.05,
        mixup=0.2,
        label_smoothing=0.02,
        sampling_power=0.6,
        small_until=0.5,
        small_scale=160 / 224,
        averaging=0.98,
        dropout=0.3,
        weighted=0.5,
        focal=1.0,
    ),
    failures=(
        "A stand-in that learnt from 915 pictures: of a dozen findings it is wrong as often as "
        "right, and it has seen some findings nine times. Its probabilities are those of a "
        "collection with few normal pictures. Children, lateral films and other scanners are "
        "outside of what it has seen; tubes and electrodes can attract the heat."
    ),
    uncertainty=0.0,
    start="pneumonia-resnet18",
)

PNEUMONIA3_RESNET18 = Recipe(
    model=Model(
        name="pneumonia3-resnet18",
        title="Bacterial and viral pneumonia in children's chest X-rays",
        task="chest_xray",
        architecture="resnet18",
        labels=(kermany.NORMAL, kermany.BACTERIAL, kermany.VIRAL),
        normal_label=kermany.NORMAL,
        preprocessing=_GREY,
        activation="softmax",
        licence="CC-BY-4.0 (data), MIT (weights)",
        data=(
            "Paediatric chest X-rays of one centre in Guangzhou, ages one to five (Kermany et al. "
            "2018), the kind of pneumonia by their file names, split 70/15/15 by person, whatever "
            "the published folders say."
        ),
        citation=_KERMANY,
    ),
    read=kermany.read,
    schedule=Schedule(
        epochs=4,
        batch_size=32,
        learning_rate=6e-4,
        weight_decay=0.05,
        mixup=0.1,
        label_smoothing=0.05,
        sampling_power=0.7,
        small_until=0.5,
        small_scale=160 / 224,
        averaging=0.99,
    ),
    failures=(
        "Bacterial and viral pneumonia look alike: radiologists do not tell them apart surely by "
        "the film alone, nor does this network. Children of one hospital only: adults, other "
        "scanners and lateral films are outside of what it has seen."
    ),
    uncertainty=0.03,
    start="pneumonia-resnet18",
)

_COVID3 = Model(
    name="covid3-simplecnn",
    title="COVID-19, pneumonia or normal: a network of three convolutions",
    task="chest_xray",
    architecture="simplecnn",
    labels=(covid.COVID, covid.PNEUMONIA, covid.NORMAL),
    normal_label=covid.NORMAL,
    preprocessing=Raster(height=64, width=64, mean=0.5, std=0.25),
    activation="softmax",
    licence="CC-BY-4.0 (data), MIT (weights)",
    data=(
        "COVID-19: COVID-CXNet (Haghanifar et al. 2022), adults of many hospitals; pneumonia and "
        "normal: children of one centre (Kermany et al. 2018), as many with as without pneumonia; "
        "split 70/15/15 by person. External test: adults of NIH ChestX-ray14 (Wang et al. 2017) "
        "with Pneumonia alone or No Finding, none of them learnt from."
    ),
    citation=f"{_COVID_CXNET}. {_KERMANY}. {_WANG}",
    caveat=(
        "This network finds no COVID-19: it shows a shortcut. Its three classes come from "
        "different hospitals and ages, and it tells those apart: nearly all adults of another "
        "hospital, none of whom is known to have COVID-19, it calls COVID-19."
    ),
)
_COVID3_FAILURES = (
    "The three classes come from different hospitals, scanners and ages, and the network can tell "
    "these apart instead of the disease: pictures without lungs are enough for much of its score, "
    "and adults of another hospital it calls COVID-19 or worse (see the figures). It shows how "
    "such a shortcut looks; it finds no COVID-19."
)
COVID3_SIMPLECNN = Recipe(
    model=_COVID3,
    read=covid.read,
    schedule=Schedule(
        epochs=40,
        batch_size=32,
        learning_rate=3e-3,
        weight_decay=0.01,
        mixup=0.0,
        label_smoothing=0.02,
        sampling_power=1.0,
        averaging=0.99,
        dropout=0.4,
        weighted=1.0,
    ),
    failures=_COVID3_FAILURES,
    uncertainty=0.03,
    judge=judged,
)
COVID3_RESNET50 = Recipe(
    model=dataclasses.replace(
        _COVID3,
        name="covid3-resnet50",
        title="COVID-19, pneumonia or normal",
        architecture="resnet50",
        preprocessing=Raster(height=160, width=160, mean=0.5, std=0.25),
    ),
    read=covid.read,
    schedule=Schedule(
        epochs=16,
        batch_size=32,
        learning_rate=1.5e-3,
        weight_decay=0.05,
        mixup=0.0,
        label_smoothing=0.05,
        sampling_power=1.0,
        small_until=0.75,
        small_scale=0.5,
        averaging=0.99,
        weighted=1.0,
    ),
    failures=_COVID3_FAILURES,
    uncertainty=0.03,
    judge=judged,
)
