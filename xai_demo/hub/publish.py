"""Publish a model directory on the Hub: check it, write its card's metadata, and upload it.

The local `MODEL_CARD.md` becomes `README.md`, which is the name that the Hub shows, with the
figures of `config.json` in its metadata (`model-index`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.errors import CheckpointMismatchError, TrainingError, UnsuitableError
from xai_demo.hub.checkpoint import (
    CONFIG,
    WEIGHTS,
    is_repo_id,
    read_model,
    sha256_of,
)
from xai_demo.hub.download import failure_reason

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelCard

    from xai_demo.records import Model

LOCAL_CARD, HUB_CARD = "MODEL_CARD.md", "README.md"
# Not the log, plots and training checkpoints, which may lie in the same directory.
_PUBLISHED_SUFFIXES = {".json", ".safetensors", ".onnx"}
_TASKS = {
    "chest_xray": "image-classification",
    "stethoscope": "audio-classification",
    "audioset": "audio-classification",
}
# Metrics that the Hub knows under a name of its own; the others keep ours.
_METRICS = {"auroc": "roc_auc", "f1": "f1", "accuracy": "accuracy"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What will be uploaded, and to which repository."""

    repo_id: str
    model: Model
    card: str
    files: dict[str, Path]  # by their names on the Hub, without the card

    def lines(self) -> Iterator[str]:
        """Every file with its size, then the card's metadata."""
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        sizes[HUB_CARD] = len(self.card.encode())
        for name, size in sorted(sizes.items()):
            yield f"{size:>12,}  {name}"
        yield f"{sum(sizes.values()):>12,}  bytes to {self.repo_id}"
        yield self.card.split("---\n")[1].rstrip()


def plan_publication(directory: Path, *, repo_id: str) -> Publication:
    """What publishing a model directory would upload.

    Raises UnreadableFileError, TrainingError where weights or card are missing, UnsuitableError for
    an impossible `repo_id`, and CheckpointMismatchError where `config.json` names other weights.
    """
    _check_repo_id(repo_id)
    model = read_model(directory)
    for name in (WEIGHTS, LOCAL_CARD):
        if not (directory / name).is_file():
            raise TrainingError(
                f"{directory / name} does not exist; only a complete model directory is published."
            )
    # Every download is verified against `config.json`, so a wrong sha256 would reject them all.
    sha256 = sha256_of(directory / WEIGHTS)
    if sha256 != model.sha256:
        raise CheckpointMismatchError(
            f"{directory / WEIGHTS} has sha256 {sha256}; expected {model.sha256}, as in {CONFIG}."
        )
    paths = [
        p for p in sorted(directory.iterdir()) if p.is_file() and p.suffix in _PUBLISHED_SUFFIXES
    ]
    text = (directory / LOCAL_CARD).read_text(encoding="utf-8")
    return Publication(
        repo_id=repo_id,
        model=model,
        card=str(build_card(model, text)),
        files={path.name: path for path in paths},
    )


def build_card(model: Model, text: str) -> ModelCard:
    """The card with the Hub's metadata: task, library, tags, and every measured figure."""
    from huggingface_hub import EvalResult, ModelCard

    card = ModelCard(text, ignore_metadata_errors=False)
    data: Any = card.data
    task = _TASKS[model.task]
    data.pipeline_tag = task
    data.library_name = "xai_demo"
    data.tags = sorted({*(data.tags or ()), "explainable-ai", "grad-cam"})
    data.model_name = model.name
    data.metrics = sorted({_METRICS.get(name, name) for name in model.metrics})
    data.eval_results = [
        EvalResult(
            task_type=task,
            # An identifier is required, but it need not be that of a dataset on the Hub.
            dataset_type=model.name.partition("-")[0],
            dataset_name=model.measured_on or model.data,
            dataset_split="test",
            metric_type=_METRICS.get(name, name),
            metric_name=name,
            metric_value=metric.value,
            metric_args={"low": metric.low, "high": metric.high, "interval": "95 % bootstrap"},
        )
        for name, metric in model.metrics.items()
    ]
    return card


def publish(planned: Publication, *, api: HfApi | None = None, private: bool = False) -> str:
    """Upload it in one commit, creating the repository if need be; returns the commit's hash.

    Raises TrainingError with the Hub's reason.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = api or HfApi()
    # A single commit: nobody may download the weights of one version with the config of another.
    operations: list[Any] = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=path)
        for name, path in planned.files.items()
    ]
    operations.append(
        CommitOperationAdd(path_in_repo=HUB_CARD, path_or_fileobj=planned.card.encode())
    )
    try:
        api.create_repo(planned.repo_id, private=private, exist_ok=True)
        commit = api.create_commit(
            planned.repo_id,
            operations=operations,
            commit_message=f"Publish {planned.model.name}",
        )
    except Exception as error:
        # The client's own messages contain addresses, and may contain what was sent.
        raise TrainingError(
            f"{planned.model.name} was not published: {failure_reason(error, planned.repo_id)}"
            " The repository must be one that HF_TOKEN may write to."
        ) from error
    return str(commit.oid)


def _check_repo_id(repo_id: str) -> None:
    if not is_repo_id(repo_id):
        raise UnsuitableError(f"The repository is {repo_id!r}; expected owner/name.")
