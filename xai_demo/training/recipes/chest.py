"""Recipes of the chest X-ray models, and the evaluation that exposes COVID-19's shortcut.

Each recipe has the settings of the published system that it follows.

A three-class answer can be given away by where a radiograph comes from. `evaluate_covid` shows how
far that goes: beside the internal test (other patients of the collections trained on) stand each
collection by itself, an external test (adults from NIH ChestX-ray14, none of them trained on), the
network's answers with the lungs masked, and a logistic regression trained on radiographs with
masked lungs. Whatever the last gets right, it gets right by borders, letters, exposure and scanner.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.errors import TrainingError
from xai_demo.records import Model, Raster
from xai_demo.training import predict
from xai_demo.training.datasets import covid, kermany
from xai_demo.training.recipe import Evaluation, Recipe, Schedule
from xai_demo.training.recipes import nih14

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Progress
    from xai_demo.training.datasets import Dataset, Split
    from xai_demo.training.metrics import Array, Labels

# Keys of `evaluate --json`: other programs read them, so they stay as first published.
EXTERNAL = "external: adults of NIH ChestX-ray14 (no COVID-19 among them)"
LUNGS_MASKED = "internal, the lungs blotted out"
BACKGROUND_CLASSIFIER = "internal, a linear classifier taught on pictures without lungs"
# Each collection of the internal test by itself, by how the groups of its films begin.
COLLECTIONS = {
    "internal, COVID-CXNet alone": covid.SOURCES[covid.COVID_CXNET],
    "internal, the COVID-19 Radiography Database alone": covid.SOURCES[covid.RADIOGRAPHY],
    "internal, children alone (Kermany)": "kermany:",
}
# Side in pixels of the thumbnails that the linear classifier takes. In so few, little more than
# layout and exposure is left.
_SIDE = 32
# C of the logistic regression.
_INVERSE_PENALTY = 0.01


def evaluate_covid(
    network: nn.Module,
    model: Model,
    data: Path,
    patients: frozenset[str] | None,
    progress: Progress,
) -> Evaluation:
    """The internal figures, with the other three as `parts`.

    `patients` are those that the network was trained on; None: not known.
    """
    progress(0.0, "reading the dataset")
    whole, masked = (covid.read(data, model, masked=m).held_out(patients) for m in (False, True))
    if not len(whole.indices("test")):
        raise TrainingError(
            f"{data} holds no radiograph of a patient that {model.name} was not trained on."
        )
    progress(0.4, "running the network")
    evaluation = predict.evaluate_test_split(network, model, whole)
    parts = _collections(network, model, whole)
    parts |= {LUNGS_MASKED: predict.evaluate_test_split(network, model, masked)}
    progress(0.6, "training a linear classifier on radiographs with masked lungs")
    # Its columns are the labels it has seen, so it needs all of them.
    if len(set(masked.targets[masked.indices("train")])) == len(model.labels):
        background = fit_background_classifier(masked)
        parts[BACKGROUND_CLASSIFIER] = predict.evaluate_predictions(model, masked, *background)
    progress(0.8, "running the network on radiographs from other hospitals")
    external = covid.external(data, model)
    if external is not None:
        parts[EXTERNAL] = predict.evaluate_test_split(network, model, external)
    figures = {name: predict.part_figures(part.result) for name, part in parts.items()}
    plots = {"without_lungs": parts[LUNGS_MASKED].predictions[""]}
    if EXTERNAL in parts:
        plots["external"] = parts[EXTERNAL].predictions[""]
    return Evaluation(
        # Those of `whole`, and on how many radiographs no lung field was found.
        result=evaluation.result | {"parts": figures, "notes": list(masked.notes)},
        predictions={**evaluation.predictions, **plots},
    )


def _collections(network: nn.Module, model: Model, whole: Dataset) -> dict[str, Evaluation]:
    """The evaluation of each collection by itself, if the test split has several adults' ones."""
    test = whole.indices("test")
    of = {
        name: [i for i in test if whole.groups[i].startswith(beginning)]
        for name, beginning in COLLECTIONS.items()
    }
    # Without a second source of COVID-19, each collection is a class of its own.
    if not of["internal, the COVID-19 Radiography Database alone"]:
        return {}
    return {
        name: predict.evaluate_test_split(network, model, whole.subset(indices))
        for name, indices in of.items()
        if indices
    }


def fit_background_classifier(data: Dataset) -> tuple[Array, Labels]:
    """Fit a linear classifier to thumbnails; its probabilities and targets for the test split."""
    from sklearn.linear_model import LogisticRegression

    train, test = _thumbnails(data, "train"), _thumbnails(data, "test")
    # Masked pixels never vary; the offset keeps them from dividing by zero.
    mean, deviation = train.mean(axis=0), train.std(axis=0) + 1e-3
    # Balanced, so that no class wins by its size alone.
    model = LogisticRegression(C=_INVERSE_PENALTY, max_iter=300, class_weight="balanced")
    model.fit((train - mean) / deviation, data.targets[data.indices("train")])
    probabilities: Array = model.predict_proba((test - mean) / deviation)
    return probabilities, data.targets[data.indices("test")]


def _thumbnails(data: Dataset, split: Split) -> Array:
    """Small copies of the radiographs of a split, (samples, pixels)."""
    import cv2

    rows = [
        # INTER_AREA averages all pixels, so that fine texture does not alias.
        cv2.resize(data.load(int(i), None)[0], (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
        for i in data.indices(split)
    ]
    return np.stack(rows).reshape(len(rows), -1).astype(np.float64)


_KERMANY = (
    "Kermany, D., Zhang, K., Goldbaum, M. (2018). Labeled Optical Coherence Tomography (OCT) and "
    "Chest X-Ray Images for Classification. Mendeley Data, doi:10.17632/rscbjbr9sj.2"
)
_CXNET = (
    "Haghanifar, A. et al. (2022). COVID-CXNet: Detecting COVID-19 in frontal chest X-ray images "
    "using deep learning. Multimed. Tools Appl. 81, 30615-30645"
)
_GREY = Raster(height=224, width=224, mean=0.482, std=0.236)

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
            "Chest X-rays of children aged one to five at one centre in Guangzhou (Kermany et al. "
            "2018), with the kind of pneumonia from their file names, split 70/15/15 by patient "
            "regardless of the published folders."
        ),
        citation=_KERMANY,
        patients="children",
        meant_for=(
            "For frontal chest X-rays of children aged one to five; not for adults, many of whose "
            "normal radiographs it calls pneumonia."
        ),
    ),
    read=kermany.read,
    schedule=Schedule(
        # It starts from a network of the same radiographs.
        epochs=4,
        batch_size=32,
        learning_rate=6e-4,
        weight_decay=0.05,
        mixup=0.1,
        label_smoothing=0.05,
        sampling_power=0.7,
        low_resolution_share=0.5,
        low_resolution_scale=160 / 224,
        ema_decay=0.99,
    ),
    failures=(
        "Bacterial and viral pneumonia look alike: radiologists cannot reliably distinguish them "
        "by the radiograph alone, nor can this network. The training data cover children at one "
        "hospital only, not adults, other scanners or lateral radiographs."
    ),
    uncertain_share=0.03,
    initial_model="pneumonia-resnet18",
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
        "COVID-19: adults at many hospitals (COVID-CXNet, Haghanifar et al. 2022). Pneumonia and "
        "normal: children at one centre (Kermany et al. 2018), as many with pneumonia as without. "
        "Split 70/15/15 by patient. External test: adults from NIH ChestX-ray14 (Wang et al. 2017) "
        "with Pneumonia alone or No Finding, none of them used for training."
    ),
    citation=f"{_CXNET}. {_KERMANY}. {nih14.WANG}",
    caveat=(
        "This network does not detect COVID-19: it demonstrates a shortcut. Its three classes come "
        "from different hospitals and age groups, and it distinguishes those instead: it calls "
        "nearly all adults of another hospital COVID-19, though none of them is known to have it."
    ),
    patients="any",
    meant_for="For showing what a shortcut looks like; not for telling who has COVID-19.",
)
_COVID3_FAILURES = (
    "The three classes come from different hospitals, scanners and age groups, and the network can "
    "distinguish these instead of the disease: radiographs with masked lungs are enough for much "
    "of its score, and it calls nearly all adults of another hospital COVID-19 (see the "
    "evaluation). It demonstrates what such a shortcut looks like; it does not detect COVID-19."
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
        ema_decay=0.99,
        dropout=0.4,
        # Weighted cross-entropy, as in the published system, instead of resampling.
        label_weight_power=1.0,
    ),
    failures=_COVID3_FAILURES,
    uncertain_share=0.03,
    evaluate=evaluate_covid,
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
        low_resolution_share=0.75,
        low_resolution_scale=0.5,
        ema_decay=0.99,
        label_weight_power=1.0,
    ),
    failures=_COVID3_FAILURES,
    uncertain_share=0.03,
    evaluate=evaluate_covid,
)

COVID3_LITE0 = Recipe(
    model=dataclasses.replace(
        _COVID3,
        name="covid3-efficientnet-lite0",
        title="COVID-19, pneumonia or normal",
        architecture="efficientnet-lite0",
        preprocessing=nih14.LITE_RASTER,
        licence="CC-BY-4.0, and research use with credit (data), MIT (weights)",
        data=(
            "COVID-19: adults at many hospitals (COVID-CXNet, Haghanifar et al. 2022) and mostly "
            "Spanish ones (COVID-19 Radiography Database). Normal: adults read as normal by "
            "radiologists (the same database; one hospital in the United States) and children at "
            "one centre (Kermany et al. 2018). Pneumonia: children at that centre, as many as "
            "normal ones. Split 70/15/15 by patient, the database by blocks of neighbours and near "
            "duplicates. The network started from ImageNet weights. External test: adults from NIH "
            "ChestX-ray14 (Wang et al. 2017) with Pneumonia alone or No Finding, none of them used "
            "for training."
        ),
        citation=f"{_CXNET}. {nih14.RADIOGRAPHY}. {_KERMANY}. {nih14.WANG}",
        caveat=(
            "This network tells collections of radiographs apart as well as diseases: COVID-19 "
            "comes from other hospitals than normal films, and every pneumonia that it was trained "
            "on is a child's. It demonstrates a shortcut; it does not detect COVID-19."
        ),
        patients="any",
    ),
    read=covid.read,
    schedule=Schedule(
        epochs=4,
        batch_size=32,
        learning_rate=1e-3,
        weight_decay=0.05,
        mixup=0.0,
        label_smoothing=0.05,
        sampling_power=0.5,
        low_resolution_share=0.75,
        low_resolution_scale=128 / 224,
        ema_decay=0.99,
        dropout=0.2,
    ),
    failures=(
        "COVID-19 and normal films come from different hospitals, and every pneumonia that the "
        "network was trained on is a child's. So it still tells collections apart: a linear "
        "classifier that sees no lung is right on most of the same test, and of adults at another "
        "hospital it calls hardly any pneumonia by its name and one normal film in ten COVID-19. "
        "With normal adults in the training data it no longer takes every adult for COVID-19. How "
        "many films of a source of COVID-19 it recognises that it was not trained on is what "
        "`python -m xai_demo ablate covid3-efficientnet-lite0 --data DIR --table sources` measures."
    ),
    uncertain_share=0.03,
    is_from_imagenet=True,
    evaluate=evaluate_covid,
)
