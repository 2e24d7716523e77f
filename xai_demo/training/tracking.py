"""Where a training run is logged: in a CSV file and, on request, with Weights & Biases as well."""

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


class Tracker(Protocol):
    """Logs the figures of each epoch until it is closed."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the figures of one epoch."""

    def close(self) -> None:
        """End the log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedRun:
    """The training run that is logged."""

    out: Path
    name: str
    settings: Mapping[str, Any]
    first_step: int = 0  # above 0: an interrupted run is resumed


class CsvTracker:
    """One line per epoch; a resumed run replaces the lines from its first step on."""

    def __init__(self, run: TrackedRun) -> None:
        self._path = run.out / CSV_FILE
        run.out.mkdir(parents=True, exist_ok=True)
        rows = _rows(self._path) if run.first_step else []
        # The epochs from the first step on run again; their old lines would stand twice.
        self._rows = [row for row in rows if int(row["step"]) < run.first_step]
        self._write()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the figures of one epoch; new names become new columns."""
        self._rows.append({"step": str(step)} | {k: f"{v:.6g}" for k, v in values.items()})
        self._write()

    def close(self) -> None:
        """Do nothing: every line is written already."""

    def _write(self) -> None:
        # By first appearance, so that columns keep their places when one is added.
        columns = list(dict.fromkeys(name for row in self._rows for name in row)) or ["step"]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="")
        writer.writeheader()
        writer.writerows(self._rows)
        # The file is short, and written whole it never ends in half a line.
        write_atomically(self._path, text.getvalue())


class WandbTracker:
    """Weights & Biases, online or offline depending on WANDB_MODE."""

    def __init__(self, run: TrackedRun) -> None:
        try:
            # Optional, of the extra `train`.
            import wandb
        except ImportError as error:
            raise TrainingError(
                f"Weights & Biases is not installed ({error}). Run `pip install "
                "'xai_demo[train]'`, or use --track csv, which needs nothing."
            ) from error
        run.out.mkdir(parents=True, exist_ok=True)
        try:
            self._run: Run = wandb.init(
                project=PROJECT, name=run.name, config=dict(run.settings), dir=run.out
            )
        except wandb.Error as error:
            raise TrainingError(
                f"Weights & Biases cannot start ({error}). Run `wandb login` first, set "
                "WANDB_MODE=offline, or use --track csv."
            ) from error

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the figures of one epoch."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run; `wandb sync` can upload an offline run later."""
        self._run.finish()


class TrackerGroup:
    """Several trackers that log the same run."""

    def __init__(self, *trackers: Tracker) -> None:
        self._trackers = trackers

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log the figures of one epoch with each tracker."""
        for tracker in self._trackers:
            tracker.log(step, values)

    def close(self) -> None:
        """Close every tracker."""
        for tracker in self._trackers:
            tracker.close()


TRACKERS: dict[str, Callable[[TrackedRun], Tracker]] = {
    "csv": CsvTracker,
    # The CSV as well: a resumed run reads it.
    # W&B comes first: where it cannot start, the log stays as it was.
    "wandb": lambda run: TrackerGroup(WandbTracker(run), CsvTracker(run)),
}


def open_tracker(name: str, run: TrackedRun) -> Tracker:
    """Start the tracker of that name; raises UnknownNameError, or TrainingError if it cannot."""
    check_tracker(name)
    return TRACKERS[name](run)


def check_tracker(name: str) -> None:
    """Raise UnknownNameError if there is no tracker of that name."""
    if name not in TRACKERS:
        raise UnknownNameError("tracker", name, TRACKERS)


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # Logs of earlier versions call the column "epoch".
    if rows and "epoch" in rows[0]:
        rows = [{"step" if k == "epoch" else k: v for k, v in row.items()} for row in rows]
    if not all((row.get("step") or "").isdigit() for row in rows):
        raise TrainingError(
            f"{path} has rows without a step; it must be the log of the run to resume."
        )
    return rows
