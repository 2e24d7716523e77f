"""What is asked about one file, as one record that travels from the caller to the report.

The command line, the page and the endpoints each build an `AnalysisRequest` once. Choices that
contradict each other are refused here, when it is built. What takes the hub or a loaded model to
tell (unknown models, labels, layers, explainers that do not fit) is refused by the pipeline.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.audio.noise import KINDS, Noise
from xai_demo.engine.backends import BACKENDS
from xai_demo.errors import RequestError, UnknownNameError, UnsuitableError
from xai_demo.records import GATE_MODES, TASKS, GateMode, Task

if TYPE_CHECKING:
    from xai_demo.audio.filters import SignalPath

DEFAULT_SNR_DB = 10.0
HUB_ADDRESS = "hf://owner/name[@revision][/file.safetensors]"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisRequest:
    """What to answer and explain about one file; None stands for the model's own choice.

    Building one raises RequestError where a choice is unknown or does not fit the task.
    """

    task: Task
    model: str | None = None  # None: the first of the task that is available
    explainer: str | None = None
    target: str | None = None  # the label to explain; None: the answer itself
    layer: str | None = None
    backend: str = "auto"
    weights: str | None = None  # a path or an hf:// address, in place of the model's own weights
    signal_path: SignalPath | None = None  # breath sounds; None: as the model was trained
    cycles: str | Path | None = None  # breath sounds: an annotation file, to answer by cycle
    film: GateMode = "checked"  # what to do with a radiograph that the gate doubts
    noise: Noise | None = None  # to add to a sound
    faithfulness: bool = True  # mask the most important region and run the network again
    uncertainty: bool = True  # radiographs: run the network on shifted and rotated copies as well

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("task", self.task, TASKS),
            ("backend", self.backend, BACKENDS),
            ("film setting", self.film, GATE_MODES),
        ):
            if value not in known:
                raise UnknownNameError(kind, value, known)
        if self.task != "chest_xray" and self.film != "checked":
            raise UnsuitableError(
                f"The film setting {self.film!r} is for the task chest_xray only; the task is "
                f"{self.task}."
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
        if self.signal_path and (self.signal_path.band_hz or self.signal_path.denoise):
            raise UnsuitableError(
                f"Filters are for the task stethoscope only; the task is {self.task}."
            )

    @classmethod
    def from_choices(cls, task: Task, **choices: Any) -> AnalysisRequest:
        """A request from the values of a form, where None or an empty text leaves the default."""
        chosen = {name: value for name, value in choices.items() if value not in (None, "")}
        return cls(task=task, **chosen)


def check_visitor(request: AnalysisRequest, *, own_models: bool) -> None:
    """Raise UnsuitableError for weights that a visitor of the page may not name.

    Only this machine's own user may name a path on it, or a pickle.
    """
    if request.weights is None:
        return
    if not own_models:
        raise UnsuitableError("This deployment does not accept visitors' own models.")
    file = request.weights.removeprefix("hf://").partition("/")[2].partition("/")[2]
    is_safe = not file or file.endswith(".safetensors")
    if not (request.weights.startswith("hf://") and is_safe):
        raise UnsuitableError(
            f"Your own model must be given as {HUB_ADDRESS}, not {request.weights!r}."
        )


def noise_choice(kind: str | None, snr_db: float | None) -> Noise | None:
    """The noise to add, None without a kind; raises RequestError for a ratio or kind alone."""
    if kind:
        known: Any = kind  # `Noise` refuses an unknown one by name
        return Noise(kind=known, snr_db=DEFAULT_SNR_DB if snr_db is None else snr_db)
    if snr_db is not None:
        raise RequestError(
            f"A signal-to-noise ratio (snr) of {snr_db:g} dB needs a kind of noise: "
            f"{', '.join(KINDS[:-1])} or {KINDS[-1]}."
        )
    return None
