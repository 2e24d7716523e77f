"""The request for an analysis: one record that travels from the caller to the report.

The command line, the page and the endpoints each build an `AnalysisRequest` once. Unknown and
contradictory choices are refused here, when it is built. Whatever takes the hub or a loaded network
to judge (unknown models, labels and layers, explainers that do not fit) the pipeline refuses.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.audio.noise import KINDS, Noise
from xai_demo.engine.backends import BACKENDS
from xai_demo.errors import (
    CancelledError,
    DeadlineError,
    RequestError,
    UnknownNameError,
    UnsuitableError,
)
from xai_demo.records import AGES, GATE_MODES, TASKS, Age, GateMode, Task

if TYPE_CHECKING:
    from xai_demo.audio.filters import SignalPath

# Loud enough to change some answers, and quiet enough to leave others.
DEFAULT_SNR_DB = 10.0
# The form in which a visitor of the page names a model.
HUB_ADDRESS = "hf://owner/name[@revision][/file.safetensors]"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisRequest:
    """What to predict and explain for one file; None leaves the choice to the model.

    Raises UnknownNameError for an unknown task, backend or film setting, and UnsuitableError for a
    choice that does not fit the task.
    """

    task: Task
    # To show for the file, which may lie under another one; None: the file's own.
    name: str | None = None
    # None or "auto": for radiographs the network that fits the patient, else the first of the
    # task that is available.
    model: str | None = None
    explainer: str | None = None
    # The label to explain; None: the one that is predicted.
    target: str | None = None
    layer: str | None = None
    backend: str = "auto"
    # A path or an hf:// address, instead of the model's own weights.
    weights: str | None = None
    signal_path: SignalPath | None = None  # stethoscope only
    # Only for stethoscope: an annotation, for one answer a cycle.
    cycles: str | Path | None = None
    cycles_name: str | None = None  # as `name`, for the annotation
    # Only for chest_xray: what to do if the gate has doubts.
    film: GateMode = "checked"
    # Only for chest_xray: whose radiograph it is.
    age: Age = "auto"
    # Only for sounds: added before the analysis.
    noise: Noise | None = None
    faithfulness: bool = True  # run the faithfulness test
    # Only for chest_xray: run test-time augmentation.
    uncertainty: bool = True

    def __post_init__(self) -> None:
        # Types do not bind callers over HTTP: the values arrive as plain text.
        for kind, value, known in (
            ("task", self.task, TASKS),
            ("backend", self.backend, BACKENDS),
            ("film setting", self.film, GATE_MODES),
            ("age", self.age, AGES),
        ):
            if value not in known:
                raise UnknownNameError(kind, value, known)
        # The default says nothing about a film, so every task may have it.
        if self.task != "chest_xray" and self.film != "checked":
            raise UnsuitableError(
                f"The film setting {self.film!r} is for the task chest_xray only; the task is "
                f"{self.task}."
            )
        if self.task != "chest_xray" and self.age != "auto":
            raise UnsuitableError(
                f"The age {self.age!r} is for the task chest_xray only; the task is {self.task}."
            )
        if self.task == "chest_xray" and self.noise is not None:
            raise UnsuitableError(
                f"Noise can only be added to sounds, not to the task {self.task}."
            )
        if self.task == "stethoscope":
            return
        if self.cycles is not None:
            raise UnsuitableError(
                f"Respiratory cycles are for the task stethoscope only; the task is {self.task}."
            )
        # A signal path without steps changes nothing, so every task may have one.
        if self.signal_path and (self.signal_path.band_hz or self.signal_path.denoise):
            raise UnsuitableError(
                f"Filters are for the task stethoscope only; the task is {self.task}."
            )

    @classmethod
    def from_choices(cls, task: Task, **choices: Any) -> AnalysisRequest:
        """A request from the values of a form; None and empty texts leave the default.

        >>> AnalysisRequest.from_choices("audioset", model="", target="Dog").target
        'Dog'
        """
        # Compared, not tested for truth: False is a choice.
        chosen = {name: value for name, value in choices.items() if value not in (None, "")}
        return cls(task=task, **chosen)


class TimeLimit:
    """Whether a request has been cancelled, asked between its steps, and its deadline.

    Calling it returns what `cancelled` says, and raises DeadlineError once the request has taken
    `seconds`; None: it may take as long as it does.
    """

    def __init__(
        self, seconds: float | None = None, cancelled: Callable[[], bool] | None = None
    ) -> None:
        self._seconds, self._cancelled = seconds, cancelled
        self._end = None if seconds is None else time.monotonic() + seconds
        self._paused_at: float | None = None

    def __call__(self) -> bool:
        """Whether the request has been cancelled; raises DeadlineError."""
        is_running = self._end is not None and self._paused_at is None
        if is_running and time.monotonic() > (self._end or 0):
            raise DeadlineError(
                f"The analysis took longer than the {self._seconds:g} s that are allowed here; try "
                "a shorter recording or a quicker explainer."
            )
        return self._cancelled is not None and self._cancelled()

    def check(self) -> None:
        """Raise CancelledError or DeadlineError where the request has to end."""
        if self():
            raise CancelledError("Cancelled on request.")

    def pause(self) -> None:
        """Stop counting: the request waits for others, or for a download."""
        self._paused_at = time.monotonic()

    def resume(self) -> None:
        """Count again."""
        if self._end is not None and self._paused_at is not None:
            self._end += time.monotonic() - self._paused_at
        self._paused_at = None


def check_visitor(request: AnalysisRequest, *, own_models: bool) -> None:
    """Raise UnsuitableError for weights that a visitor of the page may not use.

    Paths on the server and pickles are for the command line only.
    """
    if request.weights is None:
        return
    if not own_models:
        raise UnsuitableError("This deployment does not accept visitors' own models.")
    # The file in hf://owner/name/file; without one, it is a whole model directory.
    file = request.weights.removeprefix("hf://").partition("/")[2].partition("/")[2]
    # Loading a safetensors file cannot run code.
    is_safe = not file or file.endswith(".safetensors")
    if not (request.weights.startswith("hf://") and is_safe):
        raise UnsuitableError(
            f"Your own model must be given as {HUB_ADDRESS}, not {request.weights!r}."
        )


def noise_choice(kind: str | None, snr_db: float | None) -> Noise | None:
    """The noise to add, None if neither is given; raises RequestError for a ratio alone.

    >>> noise_choice("pink", None)
    Noise(kind='pink', snr_db=10.0)
    """
    if kind:
        # `Noise` refuses an unknown kind by name.
        known: Any = kind
        return Noise(kind=known, snr_db=DEFAULT_SNR_DB if snr_db is None else snr_db)
    if snr_db is not None:
        raise RequestError(
            f"A signal-to-noise ratio (snr) of {snr_db:g} dB needs a kind of noise: "
            f"{', '.join(KINDS[:-1])} or {KINDS[-1]}."
        )
    return None
