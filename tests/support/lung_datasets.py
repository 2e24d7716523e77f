"""Small lung sounds for tests: noise with annotations, and a model whose network is tiny."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import soundfile
from torch import Tensor, nn

from xai_demo.networks import Architecture
from xai_demo.networks.timm_modules import MeanMaxPool
from xai_demo.records import LogMel, Model
from xai_demo.training.recipes import RECIPES

RATE_HZ = 8000
MODEL = RECIPES["lung-resnet18"].model
assert isinstance(MODEL.preprocessing, LogMel)
SPEC: LogMel = MODEL.preprocessing
TRAINED, VALIDATED, TESTED = "2", "1", "8"  # children, by the hash that splits them


class TinyLung(nn.Module):
    """As timm's networks: features, pooling and a last layer by their usual names."""

    num_features = 6

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 6, 5, stride=4), nn.BatchNorm2d(6), nn.ReLU())
        self.global_pool = MeanMaxPool()
        self.fc = nn.Linear(12, labels)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.features(x)

    def get_classifier(self) -> nn.Linear:
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.global_pool(self.forward_features(x)))


TINY_LUNG = Architecture(
    build=lambda model: TinyLung(len(model.labels)),
    cuts={"features": lambda net: (net.features, nn.Sequential(net.global_pool, net.fc))},
)
TINY_MODEL: Model = dataclasses.replace(MODEL, architecture="tiny-lung")


def noise(seconds: float, seed: int = 0, level: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (level * rng.normal(size=round(RATE_HZ * seconds))).astype(np.float32)


def write(path: Path, samples: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE_HZ)
    return path


def write_child(
    folder: Path,
    child: str,
    events: list[tuple[int, int, str]],
    *,
    number: int = 1,
    record: str = "Normal",
    seconds: float = 4.0,
) -> None:
    """One recording of SPRSound's layout; events in milliseconds."""
    stem = f"{child}_3.0_0_p1_{number}"
    write(folder / "train_wav" / f"{stem}.wav", noise(seconds, seed=number))
    rows = [{"start": str(a), "end": str(b), "type": kind} for a, b, kind in events]
    path = folder / "train_json" / f"{stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"record_annotation": record, "event_annotation": rows}))


def write_adult(folder: Path, patient: int, sound: str, filters: str = "BD") -> None:
    """One patient of Fraiwan's layout."""
    for number, each in enumerate(filters):
        name = f"{each}P{patient}_Asthma,{sound},P L L,70,M.wav"
        write(folder / "Audio Files" / name, noise(3.0, seed=patient + number))


def write_cycles(folder: Path, patient: int, lines: str, split: str) -> None:
    """One recording of ICBHI's layout."""
    stem = f"{patient}_1b1_Al_sc_Meditron"
    write(folder / "ICBHI_final_database" / f"{stem}.wav", noise(6.0, seed=patient))
    (folder / "ICBHI_final_database" / f"{stem}.txt").write_text(lines)
    with (folder / "ICBHI_challenge_train_test.txt").open("a") as file:
        file.write(f"{stem}\t{split}\n")


def write_manikin(folder: Path, sounds: list[tuple[str, int]]) -> None:
    """The manikin's layout: types of lung sounds, each with the seed of its noise."""
    lines = ["file,kind,type,location,sex"]
    for number, (what, seed) in enumerate(sounds):
        write(folder / f"L{number:04}.wav", noise(3.0, seed=seed))
        lines.append(f"L{number:04}.wav,lung,{what},RUA,M")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
