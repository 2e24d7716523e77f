"""Recipes of the fourteen findings of NIH ChestX-ray14, and their evaluation.

`NIH14_RESNET50` has the settings of the published system that it follows; `NIH14_LITE0` is the
stand-in that comes with the demo. Beside the internal test (NIH's other patients) stand adults
whose films radiologists read as normal: whatever is found on those is a false alarm.
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
from xai_demo.training.datasets import nih, radiography
from xai_demo.training.recipe import Evaluation, Recipe, Schedule

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.records import Progress

# Keys of `evaluate --json`.
NORMAL_ADULTS = "adults read as normal by radiologists (COVID-19 Radiography Database)"
NO_FINDING = "NIH ChestX-ray14, no finding in the report"
# For the bundled network, on the validation split: at most so many of the films without findings
# are given one, and at least so many of the findings present are listed. Both leave a margin to one
# film in ten and to one half, which other films may need.
MAX_FALSE_ALARMS, MIN_LISTED = 0.08, 0.55


def evaluate_findings(
    network: nn.Module,
    model: Model,
    data: Path,
    patients: frozenset[str] | None,
    progress: Progress,
) -> Evaluation:
    """The figures on NIH's patients, with those of films without findings as `parts`.

    `patients` are those that the network was trained on; None: not known.
    """
    progress(0.0, "reading the dataset")
    whole = nih.read(data, model).held_out(patients)
    is_normal = np.array([group.startswith(radiography.PREFIX) for group in whole.groups])
    internal = whole.subset(np.flatnonzero(~is_normal))
    if not len(internal.indices("test")):
        raise TrainingError(
            f"{data} holds no radiograph of a patient that {model.name} was not trained on."
        )
    progress(0.3, "running the network")
    evaluation = predict.evaluate_test_split(network, model, internal)
    is_empty = ~whole.targets.any(axis=1)
    parts: dict[str, Any] = {}
    for name, chosen in ((NORMAL_ADULTS, is_normal), (NO_FINDING, is_empty & ~is_normal)):
        part = whole.subset(np.flatnonzero(chosen))
        if len(part.indices("test")):
            result = predict.evaluate_test_split(network, model, part).result
            parts[name] = predict.part_figures(result)
    return dataclasses.replace(evaluation, result=evaluation.result | {"parts": parts})


WANG = (
    "Wang, X. et al. (2017). ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks. "
    "Proc. CVPR, 3462-3471"
)
RADIOGRAPHY = (
    "Chowdhury, M. E. H. et al. (2020). Can AI Help in Screening Viral and COVID-19 Pneumonia? "
    "IEEE Access 8, 132665-132676. Rahman, T. et al. (2021). Exploring the effect of image "
    "enhancement techniques on COVID-19 detection using chest X-ray images. Comput. Biol. Med. "
    "132, 104319"
)
# The input of EfficientNet-Lite's ImageNet weights: (pixel - 127) / 128.
LITE_RASTER = Raster(height=224, width=224, mean=127 / 255, std=128 / 255)

_NIH14 = Model(
    name="nih14-resnet50",
    title="Fourteen findings in adults' chest X-rays",
    task="chest_xray",
    architecture="resnet50",
    labels=NIH_FINDINGS,
    preprocessing=Raster(height=224, width=224, mean=0.482, std=0.236),
    activation="sigmoid",
    licence="NIH Clinical Center, free use with credit (data), MIT (weights)",
    data=(
        "NIH ChestX-ray14 (Wang et al. 2017), split 70/15/15 by patient and stratified by finding; "
        "if the published test list lies beside the table, it is the test split. Labels were mined "
        "from radiologists' reports."
    ),
    citation=WANG,
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
    evaluate=evaluate_findings,
)
NIH14_LITE0 = Recipe(
    model=dataclasses.replace(
        _NIH14,
        name="nih14-efficientnet-lite0",
        title="Fourteen findings in adults' chest X-rays (small stand-in)",
        architecture="efficientnet-lite0",
        preprocessing=LITE_RASTER,
        licence=(
            "NIH Clinical Center, free use with credit, and research use with credit (data), MIT "
            "(weights)"
        ),
        data=(
            "1,299 radiographs of NIH ChestX-ray14 (Wang et al. 2017), about one in ninety of "
            "that dataset, split 70/15/15 by patient and stratified by finding, and 4,656 adults' "
            "radiographs that radiologists read as normal (COVID-19 Radiography Database), as "
            "films without findings, split 70/15/15 by blocks of neighbours and near duplicates. "
            "The network started from ImageNet weights. It is a stand-in for models trained on all "
            "112,120 radiographs where those cannot be downloaded, and weaker. NIH's labels were "
            "mined from radiologists' reports."
        ),
        citation=f"{WANG}. {RADIOGRAPHY}",
    ),
    read=nih.read,
    schedule=Schedule(
        epochs=5,
        batch_size=32,
        learning_rate=1e-3,
        weight_decay=0.05,
        mixup=0.0,
        label_smoothing=0.02,
        sampling_power=0.5,
        low_resolution_share=0.6,
        low_resolution_scale=160 / 224,
        ema_decay=0.99,
        dropout=0.2,
        label_weight_power=0.25,
    ),
    failures=(
        "A stand-in trained on few radiographs: it misses about half of the findings, and some "
        "occur only nine times in its training data. Its operating points are chosen for few false "
        "alarms on films that radiologists read as normal; on films whose report merely names no "
        "finding it lists more. The normal films come from one collection and the findings from "
        "another, in other file formats, so a part of what separates them may be the files. "
        "Children, lateral radiographs and other scanners are outside the training data. Tubes and "
        "electrodes can attract the heatmap."
    ),
    uncertain_share=0.0,
    is_from_imagenet=True,
    max_false_alarms=MAX_FALSE_ALARMS,
    min_listed=MIN_LISTED,
    evaluate=evaluate_findings,
)
