"""Every error a visitor can cause or meet.

XaiDemoError                      exit status 1
├── RequestError                  exit status 2: the request or the file is at fault
│   ├── UnreadableFileError       the file cannot be read, or holds nothing to analyse
│   ├── AnnotationError           the annotation that came with it is at fault
│   ├── UnknownNameError          no model, explainer, label or backend of that name
│   └── UnsuitableError           the name is known, but does not fit what it is asked to do
├── WeightsError                  exit status 3: weights cannot be had
│   ├── CheckpointUnavailableError
│   └── CheckpointMismatchError   the file is there, but is not the pinned one
├── TrainingError                 exit status 2: a data set or a recipe is at fault
└── CancelledError                somebody who waited for the answer no longer does
"""

from collections.abc import Iterable

_MOST_NAMES = 30  # of the 527 labels of AudioSet, say, nobody reads more


class XaiDemoError(Exception):
    """One sentence for the person who asked: the value met and the value wanted."""

    exit_status = 1


class RequestError(XaiDemoError):
    """The request or the file is at fault."""

    exit_status = 2


class UnreadableFileError(RequestError):
    """The file cannot be read, or holds nothing to analyse."""


class AnnotationError(RequestError):
    """The annotation that came with a recording is no list of cycles, or has none in it."""


class UnknownNameError(RequestError):
    """No model, explainer, label or backend has that name."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        names = list(known)
        wanted = ", ".join(names[:_MOST_NAMES])
        if len(names) > _MOST_NAMES:
            wanted += f" or one of {len(names) - _MOST_NAMES} more"
        super().__init__(f"There is no {kind} named {name!r}; wanted: {wanted}.")


class UnsuitableError(RequestError):
    """The name is known, but does not fit what it is asked to do."""


class WeightsError(XaiDemoError):
    """Weights cannot be had."""

    exit_status = 3


class CheckpointUnavailableError(WeightsError):
    """No trained weights are here, and none can be fetched."""


class CheckpointMismatchError(WeightsError):
    """The file found is not the checkpoint that was pinned."""


class TrainingError(XaiDemoError):
    """A data set or a recipe is at fault."""

    exit_status = 2


class CancelledError(XaiDemoError):
    """Somebody who waited for the answer no longer does."""
