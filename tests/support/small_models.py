"""Small models for tests: real architectures with random weights from a fixed seed."""

import dataclasses
import hashlib
import json
from pathlib import Path

from xai_demo.analysis import Analyser
from xai_demo.catalog import Entry
from xai_demo.engine import Engine
from xai_demo.hub import Hub
from xai_demo.records import LogMel, Model, Raster
from xai_demo.settings import Settings

MEL = LogMel(
    sample_rate_hz=8000,
    n_fft=256,
    win_length=256,
    hop_length=80,
    n_mels=64,
    f_min_hz=50,
    f_max_hz=2500,
    window_s=2,
    window_hop_s=1,
    min_s=1,
)
RASTER = Raster(height=96, width=96, mean=0.5, std=0.25)


def model_of(architecture: str, **changes) -> Model:
    sound = architecture.startswith("cnn") or architecture.endswith("-fine")
    model = Model(
        name=f"test-{architecture}",
        title="For tests",
        task="stethoscope" if sound else "chest_xray",
        architecture=architecture,
        labels=("normal", "crackle", "wheeze"),
        preprocessing=MEL if sound else RASTER,
        activation="softmax",
        licence="none",
        data="none",
        citation="none",
        normal_label="normal",
    )
    return dataclasses.replace(model, **changes)


def write_model(directory: Path, model: Model, seed: int = 0) -> Model:
    """Write a model directory with random weights; returns the model with its sha256."""
    import torch
    from safetensors.torch import save_file

    from xai_demo import networks

    torch.manual_seed(seed)
    whole = networks.architecture(model).build(model)
    directory.mkdir(parents=True)
    save_file(whole.state_dict(), directory / "model.safetensors")
    sha256 = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    model = dataclasses.replace(model, sha256=sha256)
    (directory / "config.json").write_text(json.dumps(model.to_config()))
    return model


def analyser_of(folder: Path, *models: Model, seed: int = 0) -> Analyser:
    """An offline analyser whose only models are these, written below `folder`."""
    for model in models:
        write_model(folder / "weights" / model.name, model, seed=seed)
    settings = dataclasses.replace(
        Settings.from_env({}),
        weights_dir=folder / "weights",
        cache_dir=folder / "cache",
        background_export=False,
        offline=True,
    )
    analyser = Analyser(settings)
    analyser.hub = Hub(settings, catalog={m.name: Entry(task=m.task) for m in models})
    analyser.engine = Engine(analyser.hub)
    return analyser
