"""The models whose weights are downloaded: their records and the answers published for them.

Everyday sounds, 527 labels of AudioSet: CED-tiny (Dinkel et al. 2024), EfficientAT's mn10 (Schmid
et al. 2023), AST (Gong et al. 2021) and PANNs Cnn14 (Kong et al. 2020); 521 of them: YAMNet (Plakal
and Ellis 2019), out of a wheel of the Python package index.

Chest X-rays, the fourteen findings of NIH ChestX-ray14: torchxrayvision's ResNet-50 (Cohen et al.
2022), of whose eighteen outputs NIH's fourteen are kept, and CheXVision's DenseNet-121.
"""

import dataclasses
import math
from importlib.resources import files

from xai_demo.catalog.sources import PublishedAnswer
from xai_demo.records import LogMel, Model, Raster


def read_labels(name: str) -> tuple[str, ...]:
    """The labels in `labels/<name>.txt`, one a line, in the order of the network's outputs."""
    return tuple(
        files("xai_demo.catalog")
        .joinpath("labels", f"{name}.txt")
        .read_text(encoding="utf-8")
        .splitlines()
    )


CNN14 = Model(
    name="cnn14",
    title="PANNs Cnn14 (527 everyday sounds)",
    task="audioset",
    architecture="cnn14",
    labels=read_labels("audioset"),
    preprocessing=LogMel(
        sample_rate_hz=32_000,
        n_fft=1024,
        win_length=1024,
        hop_length=320,
        n_mels=64,
        f_min_hz=50.0,
        f_max_hz=14_000.0,
        window_s=10.0,
        window_hop_s=5.0,
        # 9,920 samples: after five poolings a shorter input has no frame left.
        min_s=0.31,
    ),
    activation="sigmoid",
    licence="MIT (code); Apache-2.0 or CC BY 4.0 (weights, attribute PANNs)",
    data=(
        "AudioSet: 1.9 million 10-second clips from YouTube, the published split; published mean"
        " average precision on its evaluation part 0.431 (without an interval; not measured here)"
    ),
    citation=(
        "Kong, Cao, Iqbal, Wang, Wang, Plumbley (2020): PANNs: Large-Scale Pretrained Audio Neural"
        " Networks for Audio Pattern Recognition. IEEE/ACM TASLP 28, 2880-2894. arXiv:1912.10211"
    ),
    meant_for="For everyday sounds of any kind; not for lung or heart sounds.",
)

# Cnn14_DecisionLevelMax: predicts every frame and takes the maximum over them.
CNN14_FRAMEWISE = dataclasses.replace(
    CNN14,
    name="cnn14-framewise",
    title="PANNs Cnn14, frame by frame (527 everyday sounds)",
    architecture="cnn14-decisionlevelmax",
    data=CNN14.data.replace("0.431", "0.385"),
)
# Its tensors have the names and shapes of Cnn14's, so only the hash of a file can tell the two
# apart. This is the authors' `Cnn14_DecisionLevelMax_mAP=0.385.pth`, Zenodo record 3987831.
MODELS_BY_SHA256 = {
    "dd3b4043a87d4ec13df8082c0fcfee3fb5084151808e47e060987a95eabdd142": CNN14_FRAMEWISE
}

CNN14_PUBLISHED = PublishedAnswer(
    clip="R9_ZSCveAHg_7s.wav",
    source="resources/ of https://github.com/qiuqiangkong/audioset_tagging_cnn, MIT licence",
    sha256="59429c7174a3707575581d0b4181b1e2a420bda5d1de8d5195cf0b1e07d8bdfd",
    url=(
        "https://raw.githubusercontent.com/qiuqiangkong/audioset_tagging_cnn/master/resources/"
        "R9_ZSCveAHg_7s.wav"
    ),
    # From the authors' README.
    probabilities={
        "Speech": 0.893,
        "Telephone bell ringing": 0.754,
        "Inside, small room": 0.235,
        "Telephone": 0.183,
        "Music": 0.092,
    },
    tolerance=0.01,
)

# Published means and deviations are in units of the natural logarithm.
_DECIBELS = 10 / math.log(10)

AST = Model(
    name="ast",
    title="AST (527 everyday sounds, transformer)",
    task="audioset",
    architecture="ast",
    labels=read_labels("audioset"),
    preprocessing=LogMel(
        sample_rate_hz=16_000,
        n_fft=512,
        win_length=400,
        hop_length=160,
        n_mels=128,
        f_min_hz=20.0,
        f_max_hz=8_000.0,
        # The length of AudioSet's clips: 998 frames.
        window_s=10.0,
        window_hop_s=5.0,
        # 18 frames: at least one complete patch.
        min_s=0.2,
        front_end="kaldi",
        frames=1024,
        mean_db=-4.2677393 * _DECIBELS,
        deviation_db=2 * 4.5689974 * _DECIBELS,
    ),
    activation="sigmoid",
    licence="BSD-3-Clause",
    data=(
        "AudioSet: 2 million 10-second clips from YouTube, the published split; published mean"
        " average precision on its evaluation part 0.459 (without an interval; not measured here)"
    ),
    citation=(
        "Gong, Chung, Glass (2021): AST: Audio Spectrogram Transformer. Interspeech 2021, 571-575."
        " arXiv:2104.01778"
    ),
    meant_for=CNN14.meant_for,
)

AST_PUBLISHED = PublishedAnswer(
    clip="sample_audio.flac",
    source="https://huggingface.co/datasets/nielsr/audio-spectogram-transformer-checkpoint",
    # The logits that transformers' own test expects, through the sigmoid.
    probabilities={
        label: 1 / (1 + math.exp(-logit))
        for label, logit in zip(AST.labels[:3], (-0.8760, -7.0042, -8.6602), strict=True)
    },
    tolerance=0.01,
)

CED_TINY = Model(
    name="ced-tiny",
    title="CED-tiny (527 everyday sounds, small transformer)",
    task="audioset",
    architecture="ced-tiny",
    labels=read_labels("audioset"),
    preprocessing=LogMel(
        sample_rate_hz=16_000,
        n_fft=512,
        win_length=512,
        hop_length=160,
        n_mels=64,
        f_min_hz=0.0,
        f_max_hz=8_000.0,
        # 1,001 frames: 4 x 62 patches.
        window_s=10.0,
        window_hop_s=5.0,
        # 17 frames: at least one complete patch.
        min_s=0.16,
        top_db=120.0,
        front_end="htk",
    ),
    activation="sigmoid",
    licence="Apache-2.0",
    data=(
        "AudioSet: 2 million 10-second clips from YouTube, the published split, learnt from the"
        " answers of larger networks; published mean average precision on its evaluation part"
        " 0.481 (without an interval; not measured here)"
    ),
    citation=(
        "Dinkel, Wang, Yan, Zhang, Wang (2024): CED: Consistent Ensemble Distillation for Audio"
        " Tagging. ICASSP 2024. arXiv:2308.11957"
    ),
    meant_for=CNN14.meant_for,
)

EFFICIENTAT_MN10 = Model(
    name="efficientat-mn10",
    title="EfficientAT mn10 (527 everyday sounds, MobileNetV3)",
    task="audioset",
    architecture="efficientat-mn10",
    labels=read_labels("audioset"),
    preprocessing=LogMel(
        sample_rate_hz=32_000,
        n_fft=1024,
        win_length=800,
        hop_length=320,
        n_mels=128,
        f_min_hz=0.0,
        f_max_hz=15_000.0,
        window_s=10.0,
        window_hop_s=5.0,
        # 32 frames: one cell of the map.
        min_s=0.32,
        front_end="efficientat",
        mean_db=-4.5 * _DECIBELS,
        deviation_db=5 * _DECIBELS,
    ),
    activation="sigmoid",
    licence="MIT",
    data=(
        "ImageNet first, then AudioSet: 2 million 10-second clips from YouTube, the published"
        " split, learnt from the answers of transformers; published mean average precision on its"
        " evaluation part 0.471 (without an interval; not measured here)"
    ),
    citation=(
        "Schmid, Koutini, Widmer (2023): Efficient Large-Scale Audio Tagging via"
        " Transformer-to-CNN Knowledge Distillation. ICASSP 2023. arXiv:2211.04772"
    ),
    meant_for=CNN14.meant_for,
)

EFFICIENTAT_MN10_PUBLISHED = PublishedAnswer(
    clip="metro_station-paris.wav",
    source="resources/ of https://github.com/fschmid56/EfficientAT, MIT licence",
    # From the authors' README of 2022 to 2023.
    probabilities={
        "Train": 0.811,
        "Rail transport": 0.649,
        "Railroad car, train wagon": 0.630,
        "Subway, metro, underground": 0.552,
        "Vehicle": 0.328,
        "Clickety-clack": 0.179,
        "Speech": 0.061,
        "Outside, urban or manmade": 0.029,
        "Music": 0.026,
        "Train wheels squealing": 0.021,
    },
    # Theirs were computed in half precision on a GPU, after another resampler.
    tolerance=0.02,
)

YAMNET = Model(
    name="yamnet",
    title="YAMNet (521 everyday sounds)",
    task="audioset",
    architecture="yamnet",
    labels=read_labels("yamnet"),
    preprocessing=LogMel(
        sample_rate_hz=16_000,
        n_fft=512,
        win_length=400,
        hop_length=160,
        n_mels=64,
        f_min_hz=125.0,
        f_max_hz=7_500.0,
        # 96 frames, the patch that it was trained on, and half a patch.
        window_s=0.975,
        window_hop_s=0.48,
        min_s=0.975,
        front_end="yamnet",
        # Published as the natural logarithm of a magnitude.
        deviation_db=2 * _DECIBELS,
    ),
    # The patches of 10 s, the length of AudioSet's clips.
    averaged_windows=20,
    activation="sigmoid",
    licence="Apache-2.0",
    data=(
        "AudioSet: 2 million 10-second clips from YouTube, the published split; published balanced"
        " mean average precision on its evaluation part 0.306 (without an interval; not measured"
        " here)"
    ),
    citation=(
        "Plakal, Ellis (2019): YAMNet. github.com/tensorflow/models/tree/master/research/audioset"
        "/yamnet. Data: Gemmeke et al. (2017): Audio Set. ICASSP 2017, 776-780"
    ),
    meant_for=(
        "For everyday sounds of any kind, the names of 521 of them; not for lung or heart sounds."
    ),
)

# The labels of NIH ChestX-ray14 (Wang et al. 2017), in their usual order.
NIH_FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)

_FOR_ADULTS = "For frontal chest X-rays of adults; not for those of young children."

RESNET50 = Model(
    name="nih14-resnet50",
    title="ResNet-50 (14 findings, five data sets)",
    task="chest_xray",
    architecture="resnet50",
    labels=NIH_FINDINGS,
    # torchxrayvision's inputs go from -1024 to 1024.
    preprocessing=Raster(height=512, width=512, mean=0.5, std=1 / 2048, crop="centre"),
    activation="sigmoid",
    # torchxrayvision 1.x, `model_urls["resnet50-res512-all"]["op_threshs"]`.
    rescaled_at={
        "Atelectasis": 0.51570356,
        "Consolidation": 0.50444704,
        "Infiltration": 0.53787947,
        "Pneumothorax": 0.50723547,
        "Edema": 0.5025118,
        "Emphysema": 0.5035252,
        "Fibrosis": 0.5038076,
        "Effusion": 0.51862943,
        "Pneumonia": 0.5078151,
        "Pleural_Thickening": 0.50724894,
        "Cardiomegaly": 0.5056339,
        "Nodule": 0.510706,
        "Mass": 0.5053923,
        "Hernia": 0.5020846,
    },
    operating_points=dict.fromkeys(NIH_FINDINGS, 0.5),
    licence="Apache-2.0",
    data=(
        "PadChest, NIH ChestX-ray14, RSNA, SIIM and VinDr-CXR, mostly adults; published mean AUROC"
        " on a fifth of NIH 0.811 (without an interval; not measured here)"
    ),
    citation=(
        "Cohen, Viviano, Bertin, Morrison, Torabian, Guarrera, Lungren, Chaudhari, Brooks,"
        " Hashir, Bertrand (2022): TorchXRayVision: A library of chest X-ray datasets and models."
        " MIDL 2022. arXiv:2111.00595"
    ),
    patients="adults",
    meant_for=_FOR_ADULTS,
)

DENSENET121 = Model(
    name="nih14-densenet121",
    title="DenseNet-121 (14 findings, NIH)",
    task="chest_xray",
    architecture="densenet121-chexvision",
    labels=NIH_FINDINGS,
    preprocessing=Raster(height=320, width=320, mean=0.0, std=1.0, contrast_limit=2.0),
    activation="sigmoid",
    operating_points=dict.fromkeys(NIH_FINDINGS, 0.5),
    licence="MIT",
    data=(
        "NIH ChestX-ray14: 112,120 frontal radiographs of 30,805 patients at one hospital;"
        " published macro AUROC on its validation part 0.846 (without an interval; not measured"
        " here)"
    ),
    citation=(
        "arudaev/chexvision: CheXVision, large-scale chest X-ray pathology detection."
        " Data: Wang et al. (2017): ChestX-ray8. CVPR 2017, 2097-2106"
    ),
    patients="adults",
    meant_for=_FOR_ADULTS,
)
