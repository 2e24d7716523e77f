"""The table of training recipes: for each model its data, its schedule and the card's texts."""

from __future__ import annotations

from xai_demo.errors import UnknownNameError
from xai_demo.records import LogMel, Model, Raster
from xai_demo.training.datasets import esc10, kermany
from xai_demo.training.recipe import Recipe, Schedule
from xai_demo.training.recipes import chest, lung, nih14

RECIPES = {
    "pneumonia-resnet18": Recipe(
        model=Model(
            name="pneumonia-resnet18",
            title="Pneumonia in children's chest X-rays",
            task="chest_xray",
            architecture="resnet18",
            labels=("Normal", "Pneumonia"),
            normal_label="Normal",
            preprocessing=Raster(height=224, width=224, mean=0.482, std=0.236),
            activation="softmax",
            licence="CC-BY-4.0 (data), MIT (weights)",
            data=(
                "Chest X-rays of children aged one to five at one centre in Guangzhou "
                "(Kermany et al. 2018), split 70/15/15 by patient regardless of the published "
                "folders."
            ),
            citation=(
                "Kermany, D., Zhang, K., Goldbaum, M. (2018). Labeled Optical Coherence Tomography "
                "(OCT) and Chest X-Ray Images for Classification. Mendeley Data, "
                "doi:10.17632/rscbjbr9sj.2"
            ),
            patients="children",
            meant_for=(
                "For frontal chest X-rays of children aged one to five; not for adults, many of "
                "whose normal radiographs it calls pneumonia."
            ),
        ),
        read=kermany.read,
        schedule=Schedule(
            epochs=16,
            batch_size=32,
            learning_rate=1.5e-3,
            weight_decay=0.05,
            mixup=0.1,
            label_smoothing=0.05,
            sampling_power=0.5,
            low_resolution_share=0.5,
            # 160 pixels: half the work, and a multiple of the network's stride of 32.
            low_resolution_scale=160 / 224,
            ema_decay=0.995,
        ),
        failures=(
            "The training data cover children at one hospital only, not adults, other scanners, "
            "lateral radiographs or photographs of radiographs. The network answers Normal or "
            "Pneumonia to any image, even of a cat. Tubes, electrodes and side markers can attract "
            "the heatmap."
        ),
        uncertain_share=0.03,
    ),
    "pneumonia3-resnet18": chest.PNEUMONIA3_RESNET18,
    "nih14-efficientnet-lite0": nih14.NIH14_LITE0,
    "nih14-resnet50": nih14.NIH14_RESNET50,
    "covid3-efficientnet-lite0": chest.COVID3_LITE0,
    "covid3-simplecnn": chest.COVID3_SIMPLECNN,
    "covid3-resnet50": chest.COVID3_RESNET50,
    "lung-resnet18": lung.RESNET18,
    "lung-efficientnet-lite0": lung.EFFICIENTNET_LITE0,
    "everyday-cnn6": Recipe(
        model=Model(
            name="everyday-cnn6",
            title="Ten everyday sounds (small stand-in for Cnn14)",
            task="audioset",
            architecture="cnn6-half",
            labels=tuple(esc10.AUDIOSET_NAMES.values()),
            # Cnn14's front end (PANNs, Kong et al. 2020), with windows half as long.
            preprocessing=LogMel(
                sample_rate_hz=32000,
                n_fft=1024,
                win_length=1024,
                hop_length=320,
                n_mels=64,
                f_min_hz=50,
                f_max_hz=14000,
                window_s=5.0,
                window_hop_s=2.5,
                min_s=1.0,
            ),
            activation="softmax",
            licence="CC-BY-3.0 (data), MIT (weights)",
            data=(
                "ESC-10, by its published folds: trained on folds 1 and 2 and half of the sources "
                "of fold 3, tuned on the other half, tested on all remaining folds."
            ),
            citation=(
                "Piczak, K. J. (2015). ESC: Dataset for Environmental Sound Classification. "
                "Proc. 23rd ACM Multimedia, 1015-1018, doi:10.1145/2733373.2806390"
            ),
            meant_for=(
                "For the ten everyday sounds that it knows; not for others, which it takes for one "
                "of them."
            ),
        ),
        read=esc10.read,
        # They keep clips of one source recording together, which a random split would not.
        published_folds=esc10.folds,
        schedule=Schedule(
            epochs=120,
            batch_size=20,
            learning_rate=2e-3,
            weight_decay=0.02,
            mixup=0.2,
            label_smoothing=0.05,
            # ESC-10 has equally many clips of every label.
            sampling_power=1.0,
            ema_decay=0.99,
        ),
        failures=(
            "The network knows ten sounds and calls everything one of them: its answers to speech "
            "and music are wrong, or at best uncertain. 320 clips are few."
        ),
        uncertain_share=0.05,
    ),
}


def recipe_of(name: str) -> Recipe:
    """The recipe of that name; raises UnknownNameError."""
    if name not in RECIPES:
        raise UnknownNameError("recipe", name, RECIPES)
    return RECIPES[name]
