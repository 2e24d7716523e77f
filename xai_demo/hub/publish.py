"""A model directory on the Hub: what would go, its card with the measured figures, and sending it.

The card is `MODEL_CARD.md` under the name that the Hub shows, `README.md`, with the figures of
`config.json` in its metadata (`model-index`).
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
from xai_demo.hub.download import reason

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelCard

    from xai_demo.records import Model

CARD, SHOWN_CARD = "MODEL_CARD.md", "README.md"
_SUFFIXES = {".json", ".safetensors", ".onnx"}
_TASKS = {
    "chest_xray": "image-classification",
    "stethoscope": "audio-classification",
    "audioset": "audio-classification",
}
_METRICS = {"auroc": "roc_auc", "f1": "f1", "accuracy": "accuracy"}  # where the Hub has a name


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What goes to the Hub, and under which name."""

    repo_id: str
    model: Model
    card: str
    files: dict[str, Path]  # name there -> file here, without the card

    def lines(self) -> Iterator[str]:
        """Every file with its size, then the card's metadata."""
        sizes = {name: path.stat().st_size for name, path in self.files.items()}
        sizes[SHOWN_CARD] = len(self.card.encode())
        for name, size in sorted(sizes.items()):
            yield f"{size:>12,}  {name}"
        yield f"{sum(sizes.values()):>12,}  bytes to {self.repo_id}"
        yield self.card.split("---\n")[1].rstrip()


def publication(directory: Path, *, repo_id: str) -> Publication:
    """What would go, checked: the weights are those that `config.json` names.

    Raises UnreadableFileError, TrainingError where there is no card, CheckpointMismatchError.
    """
    _check_repo(repo_id)
    model = read_model(directory)
    for name in (WEIGHTS, CARD):
        if not (directory / name).is_file():
            raise TrainingError(
                f"{directory / name} is not there; wanted: a whole model directory."
            )
    sha256 = sha256_of(directory / WEIGHTS)
    if sha256 != model.sha256:
        raise CheckpointMismatchError(
            f"{directory / WEIGHTS} has sha256 {sha256}; wanted: {model.sha256}, as {CONFIG} says."
        )
    paths = [p for p in sorted(directory.iterdir()) if p.is_file() and p.suffix in _SUFFIXES]
    text = (directory / CARD).read_text(encoding="utf-8")
    return Publication(
        repo_id=repo_id,
        model=model,
        card=str(card(model, text)),
        files={path.name: path for path in paths},
    )


def card(model: Model, text: str) -> ModelCard:
    """A card with the Hub's metadata: task, library, tags, and every measured figure."""
    from huggingface_hub import EvalResult, ModelCard

    made = ModelCard(text, ignore_metadata_errors=False)
    data: Any = made.data
    kind = _TASKS[model.task]
    data.pipeline_tag = kind
    data.library_name = "xai_demo"
    data.tags = sorted({*(data.tags or ()), "explainable-ai", "grad-cam"})
    data.model_name = model.name
    data.metrics = sorted({_METRICS.get(name, name) for name in model.metrics})
    data.eval_results = [
        EvalResult(
            task_type=kind,
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
    return made


def publish(planned: Publication, *, api: HfApi | None = None, private: bool = False) -> str:
    """Send it in one commit, the repository made if need be; returns the commit.

    Raises TrainingError with the Hub's reason.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = api or HfApi()
    sent: list[Any] = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=path)
        for name, path in planned.files.items()
    ]
    sent.append(CommitOperationAdd(path_in_repo=SHOWN_CARD, path_or_fileobj=planned.card.encode()))
    try:
        api.create_repo(planned.repo_id, private=private, exist_ok=True)
        made = api.create_commit(
            planned.repo_id,
            operations=sent,
            commit_message=f"Publish {planned.model.name}",
        )
    except Exception as error:  # the client's own hold addresses, and may hold what was sent
        raise TrainingError(
            f"{planned.model.name} was not published: {reason(error, planned.repo_id)} Wanted: a"
            " repository that HF_TOKEN may write to."
        ) from error
    return str(made.oid)


def _check_repo(repo_id: str) -> None:
    if not is_repo_id(repo_id):
        raise UnsuitableError(f"The repository is {repo_id!r}; wanted: owner/name.")
