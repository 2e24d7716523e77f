"""Recipes of the two lung sound models: the same data, two networks."""

from __future__ import annotations

import dataclasses

from xai_demo.records import LogMel, Model
from xai_demo.training import lung
from xai_demo.training.lung import evaluation
from xai_demo.training.lung.samples import SOURCES
from xai_demo.training.recipe import Recipe, Schedule

_MODEL = Model(
    name="lung-resnet18",
    title="Crackles and wheezes in lung sounds",
    task="stethoscope",
    architecture="resnet18-lung",
    # In the order of `breathing.LABELS`: the readers give indices into it.
    labels=("normal", "crackle", "wheeze", "both"),
    normal_label="normal",
    preprocessing=LogMel(
        sample_rate_hz=8000,
        n_fft=512,
        # 32 ms, every 10 ms.
        win_length=256,
        hop_length=80,
        n_mels=64,
        f_min_hz=50,
        f_max_hz=2000,
        window_s=2.0,
        # Half a window: what an edge cuts is in the middle of the next one.
        window_hop_s=1.0,
        min_s=2.0,
        top_db=75,
        standardise=True,
        band_hz=(100.0, 1800.0),
        denoise=True,
    ),
    activation="softmax",
    # Of all explainers, none points at annotated events significantly better.
    usual_explainer="HiResCAM",
    licence="GPL-3.0, CC-BY-4.0 and research use (data), MIT (weights)",
    data=(
        "SPRSound: annotated breath sounds of children at one hospital in Shanghai (Zhang et al. "
        "2022), split 70/15/15 by patient. ICBHI 2017: single breaths recorded by two teams in "
        "Portugal and Greece (Rocha et al. 2019), with the official split. Fraiwan: chest "
        "recordings of adults at one hospital in Jordan (Fraiwan et al. 2021), all of them used, "
        "for the last layer only. Crackles and wheezes are also synthesised into normal recordings "
        "of these datasets. Rhonchi, wheeze and stridor count as wheeze, fine and coarse crackle "
        "as crackle."
    ),
    citation=(
        "Zhang, Q. et al. (2022). SPRSound: Open-Source SJTU Paediatric Respiratory Sound "
        "Database. IEEE Trans. Biomed. Circuits Syst. 16(5), 867-881. Rocha, B. M. et al. (2019). "
        "An open access database for the evaluation of respiratory sound classification "
        "algorithms. Physiol. Meas. 40, 035001. Fraiwan, M. et al. (2021). A dataset of lung "
        "sounds recorded from the chest wall using an electronic stethoscope. Data in Brief 35, "
        "106913"
    ),
    patients="any",
    meant_for=(
        "For lung sounds of children and adults, recorded on the chest with an electronic "
        "stethoscope; not for speech, coughs or heart sounds."
    ),
)
_FAILURES = (
    "Most of the training data are of children at one hospital, recorded with one make of "
    "stethoscope. Speech, crying, hair and rubbing of the stethoscope can pass for crackles or "
    "wheezes. Stridor and rhonchi are called wheeze. Sounds with both crackle and wheeze are rare "
    "(six in the test split), so their figures say little. On single breaths from ICBHI, whose "
    "labels are noisy, the network is clearly worse, worst where a child cries or talks between "
    "breaths. With another stethoscope on a training manikin, most fine crackles are missed, and "
    "a tone of its electronics passes for a wheeze."
)
_POINTING = (
    " How well its heatmaps point at events was measured on eight children, one of whom "
    "contributed half of the recordings; it is likely worse for others."
)
_SCHEDULE = Schedule(
    epochs=22,
    batch_size=64,
    learning_rate=1.5e-3,
    weight_decay=0.05,
    mixup=0.2,
    label_smoothing=0.05,
    sampling_power=0.5,
    ema_decay=0.996,
)

RESNET18 = Recipe(
    model=_MODEL,
    read=lung.read,
    schedule=_SCHEDULE,
    failures=_FAILURES + _POINTING,
    uncertain_share=0.05,
    n_sources=len(SOURCES),
    evaluate=evaluation.evaluate_lung_model,
)
EFFICIENTNET_LITE0 = Recipe(
    model=dataclasses.replace(
        _MODEL,
        name="lung-efficientnet-lite0",
        title="Crackles and wheezes in lung sounds, small network",
        architecture="efficientnet-lite0-lung",
    ),
    read=lung.read,
    schedule=dataclasses.replace(_SCHEDULE, epochs=24),
    failures=_FAILURES,
    uncertain_share=0.05,
    n_sources=len(SOURCES),
    evaluate=evaluation.evaluate_lung_model,
)
