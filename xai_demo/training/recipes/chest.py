"""Recipes of the chest X-ray models, and the evaluation that exposes COVID-19's shortcut.

Each recipe has the settings of the published system that it follows.

A three-class answer can be given away by where a radiograph comes from. `evaluate_covid` shows how
far that goes: beside the internal test (other patients of the collections trained on) stand an
external one (adults from NIH ChestX-ray14, none of them trained on), the network's answers with the
lungs masked, and a logistic regression trained on radiographs with masked lungs. Whatever the last
gets right, it gets right by borders, letters, exposure and scanner.
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

# Keys of `evaluate --json`: other programs read them, so they stay as first published.
EXTERNAL = "external: adults of NIH ChestX-ray14 (no COVID-19 among them)"
LUNGS_MASKED = "internal, the lungs blotted out"
BACKGROUND_CLASSIFIER = "internal, a linear classifier taught on pictures without lungs"
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
    parts = {LUNGS_MASKED: predict.evaluate_test_split(network, model, masked)}
    progress(0.6, "training a linear classifier on radiographs with masked lungs")
    # Its columns are the labels it has seen, so it needs all of them.
    if len(set(masked.targets[masked.indices("train")])) == len(model.labels):
        background = fit_background_classifier(masked)
        parts[BACKGROUND_CLASSIFIER] = predict.evaluate_predictions(model, masked, *background)
    progress(0.8, "running the network on radiographs from other hospitals")
    external = covid.external(data, model)
    if external is not None:
        parts[EXTERNAL] = predict.evaluate_test_split(network, model, external)
    figures = {name: _part_figures(part.result) for name, part in parts.items()}
    plots = {"without_lungs": parts[LUNGS_MASKED].predictions[""]}
    if EXTERNAL in parts:
        plots["external"] = parts[EXTERNAL].predictions[""]
    return Evaluation(
        result=evaluation.result | {"parts": figures},
        predictions={**evaluation.predictions, **plots},
    )


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


def _part_figures(result: dict[str, Any]) -> dict[str, Any]:
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
        "NIH ChestX-ray14 (Wang et al. 2017), split 70/15/15 by patient and stratified by finding; "
        "if the published test list lies beside the table, it is the test split. Labels were mined "
        "from radiologists' reports."
    ),
    citation=_WANG,
    patients="adults",
    meant_for="For frontal chest X-rays of adults; not for those of young children.",
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
        # Natural frequencies: rare findings are left to the focal loss.
        sampling_power=1.0,
        # No averaging: at decay 0, the average is always the latest weights.
        ema_decay=0.0,
        patience=10,
        decoupled_decay=False,
        plateau_patience=3,
        unfreeze_every=2,
        dropout=0.5,
        focal_gamma=2.0,
    ),
    failures=(
        "About one in ten of the labels, which were mined from reports, is wrong. Lateral "
        "radiographs, children and other scanners are outside the training data."
    ),
    # Independent labels have no single answer that could be uncertain.
    uncertain_share=0.0,
)
NIH14_RESNET18 = Recipe(
    model=dataclasses.replace(
        _NIH14,
        name="nih14-resnet18",
        title="Fourteen findings in adults' chest X-rays (small stand-in)",
        architecture="resnet18",
        licence="NIH Clinical Center, free use with credit, and CC-BY-4.0 (data), MIT (weights)",
        data=(
            "1,299 radiographs of NIH ChestX-ray14 (Wang et al. 2017), about one in ninety of "
            "that dataset, split 70/15/15 by patient and stratified by finding. The network "
            "started from one trained on children's pneumonia (Kermany et al. 2018). It is a "
            "stand-in for models trained on all 112,120 radiographs where those cannot be "
            "downloaded, and far weaker. Labels were mined from radiologists' reports."
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
        low_resolution_share=0.5,
        low_resolution_scale=160 / 224,
        ema_decay=0.98,
        dropout=0.3,
        label_weight_power=0.5,
        focal_gamma=1.0,
    ),
    failures=(
        "A stand-in trained on 915 radiographs: on a dozen findings it is wrong as often as right, "
        "and some findings occur only nine times in its training data. Its probabilities are those "
        "of a collection with few normal radiographs. Children, lateral radiographs and other "
        "scanners are outside the training data. Tubes and electrodes can attract the heatmap."
    ),
    uncertain_share=0.0,
    initial_model="pneumonia-resnet18",
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
    citation=f"{_COVID_CXNET}. {_KERMANY}. {_WANG}",
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
