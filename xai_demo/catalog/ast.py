"""AST: 527 everyday sounds, a transformer trained on AudioSet by Gong et al. 2021."""

import math

from xai_demo.catalog.labels import labels
from xai_demo.records import LogMel, Model, PublishedAnswer

_DECIBELS = 10 / math.log(10)  # in one unit of the natural logarithm, in which it was published

AST = Model(
    name="ast",
    title="AST (527 everyday sounds, transformer)",
    task="audioset",
    architecture="ast",
    labels=labels("audioset"),
    preprocessing=LogMel(
        sample_rate_hz=16_000,
        n_fft=512,
        win_length=400,
        hop_length=160,
        n_mels=128,
        f_min_hz=20.0,
        f_max_hz=8_000.0,
        window_s=10.0,  # the length of AudioSet's clips: 998 frames
        window_hop_s=5.0,
        min_s=0.2,  # 18 frames: at least one whole patch
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
)

PUBLISHED = PublishedAnswer(
    clip="sample_audio.flac",
    where="https://huggingface.co/datasets/nielsr/audio-spectogram-transformer-checkpoint",
    probabilities={  # the logits that transformers' own test wants, through the sigmoid
        label: 1 / (1 + math.exp(-logit))
        for label, logit in zip(AST.labels[:3], (-0.8760, -7.0042, -8.6602), strict=True)
    },
    tolerance=0.01,
)
