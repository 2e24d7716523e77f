"""Where the course of a training run is written: a CSV file, or Weights & Biases as well."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from xai_demo.errors import TrainingError, UnknownNameError
from xai_demo.files import write_atomically

if TYPE_CHECKING:
    from wandb import Run

CSV_FILE = "log.csv"
PROJECT = "xai_demo"
_INSTALL = "pip install 'xai_demo[train]', or tracking by csv, which needs nothing"


class Tracker(Protocol):
    """Takes the figures of each epoch until it is closed."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Enter the figures of one epoch."""

    def close(self) -> None:
        """Nothing more comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """What is tracked."""

    out: Path
    name: str
    settings: Mapping[str, Any]
    first_step: int = 0  # more than 0 where an interrupted run goes on


class CsvTracker:
    """One line an epoch, whole at any time; what lies beyond the first step is written anew."""

    def __init__(self, run: Tracked) -> None:
        self._path = run.out / CSV_FILE
        run.out.mkdir(parents=True, exist_ok=True)
        rows = _rows(self._path) if run.first_step else []
        self._rows = [row for row in rows if int(row["step"]) < run.first_step]
        self._write()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Enter the figures of one epoch; a column may be new."""
        self._rows.append({"step": str(step)} | {k: f"{v:.6g}" for k, v in values.items()})
        self._write()

    def close(self) -> None:
        """Nothing to do: every line is already there."""

    def _write(self) -> None:
        columns = list(dict.fromkeys(name for row in self._rows for name in row)) or ["step"]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(self._rows)
        write_atomically(self._path, text.getvalue())


class WandbTracker:
    """Weights & Biases, online or offline as its own WANDB_MODE says."""

    def __init__(self, run: Tracked) -> None:
        try:
            import wandb
        except ImportError as error:
            raise TrainingError(
                f"Weights & Biases is not installed ({error}), wanted: {_INSTALL}."
            ) from error
        run.out.mkdir(parents=True, exist_ok=True)
        try:
            self._run: Run = wandb.init(
                project=PROJECT, name=run.name, config=dict(run.settings), dir=run.out
            )
        except wandb.Error as error:
            raise TrainingError(
                f"Weights & Biases does not begin ({error}), wanted: `wandb login` before, "
                "WANDB_MODE=offline, or tracking by csv."
            ) from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Enter the figures of one epoch."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run; offline it can be sent later by `wandb sync`."""
        self._run.finish()


class Several:
    """Trackers side by side."""

    def __init__(self, *trackers: Tracker) -> None:
        self._trackers = trackers

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Enter the figures of one epoch in each."""
        for tracker in self._trackers:
            tracker.log(step, values)

    def close(self) -> None:
        """Close each."""
        for tracker in self._trackers:
            tracker.close()


TRACKERS: dict[str, Callable[[Tracked], Tracker]] = {
    "csv": CsvTracker,
    "wandb": lambda run: Several(WandbTracker(run), CsvTracker(run)),
}


def opened(name: str, run: Tracked) -> Tracker:
    """The tracker of that name; raises UnknownNameError, or TrainingError where it cannot begin."""
    known(name)
    return TRACKERS[name](run)


def known(name: str) -> None:
    """Raise UnknownNameError where there is no tracker of that name."""
    if name not in TRACKERS:
        raise UnknownNameError("tracker", name, TRACKERS)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and "epoch" in rows[0]:  # what the column was called once
        rows = [{"step" if k == "epoch" else k: v for k, v in row.items()} for row in rows]
    if not all((row.get("step") or "").isdigit() for row in rows):
        raise TrainingError(f"{path} has no steps, wanted: the log of the run that is resumed.")
    return rows
