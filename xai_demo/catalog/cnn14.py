"""PANNs Cnn14: 527 everyday sounds, trained on AudioSet by Kong et al. 2020."""

import dataclasses

from xai_demo.catalog.labels import labels
from xai_demo.records import LogMel, Model, PublishedAnswer

CNN14 = Model(
    name="cnn14",
    title="PANNs Cnn14 (527 everyday sounds)",
    task="audioset",
    architecture="cnn14",
    labels=labels("audioset"),
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
        min_s=0.31,  # 9,920 samples: less leaves no frame after five halvings
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
)

FRAMEWISE = dataclasses.replace(  # the same, asked about every moment; its surest one counts
    CNN14,
    name="cnn14-framewise",
    title="PANNs Cnn14, frame by frame (527 everyday sounds)",
    architecture="cnn14-decisionlevelmax",
    data=CNN14.data.replace("0.431", "0.385"),
)
# Of files whose tensors have the names and the shapes of Cnn14's, nothing but the bytes tells which
# network they are for. The authors' `Cnn14_DecisionLevelMax_mAP=0.385.pth`, Zenodo record 3987831:
RECOGNISED = {"dd3b4043a87d4ec13df8082c0fcfee3fb5084151808e47e060987a95eabdd142": FRAMEWISE}

PUBLISHED = PublishedAnswer(
    clip="R9_ZSCveAHg_7s.wav",
    where="resources/ of https://github.com/qiuqiangkong/audioset_tagging_cnn, MIT licence",
    sha256="59429c7174a3707575581d0b4181b1e2a420bda5d1de8d5195cf0b1e07d8bdfd",
    url=(
        "https://raw.githubusercontent.com/qiuqiangkong/audioset_tagging_cnn/master/resources/"
        "R9_ZSCveAHg_7s.wav"
    ),
    probabilities={  # the authors' README
        "Speech": 0.893,
        "Telephone bell ringing": 0.754,
        "Inside, small room": 0.235,
        "Telephone": 0.183,
        "Music": 0.092,
    },
    tolerance=0.01,
)
