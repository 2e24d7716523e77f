"""Every error that a user can cause or meet, with the exit status of the command line.

XaiDemoError                      exit status 1
├── RequestError                  exit status 2: the request or the file is at fault
│   ├── UnreadableFileError       the file cannot be read, or contains nothing to analyse
│   │   └── DeidentificationError a DICOM file cannot be written without its patient's data
│   ├── DeadlineError             the request took longer than this server allows
│   ├── AnnotationError           the annotation that came with a recording is at fault
│   ├── UnknownNameError          no model, explainer, label or backend has that name
│   └── UnsuitableError           the name is known, but does not fit what it is used for
├── WeightsError                  exit status 3: the weights are not available
│   ├── CheckpointUnavailableError
│   └── CheckpointMismatchError   the file is there, but is not the expected one
├── TrainingError                 exit status 2: a dataset or a recipe is at fault
└── CancelledError                the visitor has stopped the analysis or left
"""

from collections.abc import Iterable

# AudioSet alone has 527 labels: a message that lists them all helps nobody.
_MAX_NAMES = 30


class XaiDemoError(Exception):
    """The base class; its message is one sentence that names the value met and the value needed."""

    exit_status = 1


class RequestError(XaiDemoError):
    """The request or the file is at fault."""

    exit_status = 2


class UnreadableFileError(RequestError):
    """The file cannot be read, or contains nothing to analyse."""


class DeidentificationError(UnreadableFileError):
    """A DICOM file cannot be written without its patient's data, so it must not be kept."""


class DeadlineError(RequestError):
    """The request took longer than this server allows."""


class AnnotationError(RequestError):
    """The annotation that came with a recording is not a list of cycles, or has none in it."""


class UnknownNameError(RequestError):
    """No model, explainer, label or backend has that name.

    >>> str(UnknownNameError("label", "whezze", ["normal", "wheeze"]))
    "There is no label named 'whezze'; choose from: normal, wheeze."
    """

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        # `known` may be a mapping or an iterator; it is counted and sliced below.
        names = list(known)
        choices = ", ".join(names[:_MAX_NAMES])
        if len(names) > _MAX_NAMES:
            choices += f" and {len(names) - _MAX_NAMES} more"
        super().__init__(f"There is no {kind} named {name!r}; choose from: {choices}.")


class UnsuitableError(RequestError):
    """The name is known, but does not fit what it is used for."""


class WeightsError(XaiDemoError):
    """The weights are not available."""

    exit_status = 3


class CheckpointUnavailableError(WeightsError):
    """There are no trained weights here, and none can be downloaded."""


class CheckpointMismatchError(WeightsError):
    """The file is there, but it is not the expected checkpoint."""


class TrainingError(XaiDemoError):
    """A dataset or a recipe is at fault."""

    exit_status = 2


class CancelledError(XaiDemoError):
    """The visitor has stopped the analysis or left."""
