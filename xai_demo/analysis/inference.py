"""Asking a network: windows in, probabilities, heat and the trial of that heat out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xai_demo import explainers, networks
from xai_demo.analysis import faithfulness
from xai_demo.analysis import heatmap as heat
from xai_demo.analysis.audio_input import STEP_FRAMES
from xai_demo.errors import CancelledError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from xai_demo.analysis.inputs import Medium
    from xai_demo.audio.segments import LogMelWindows
    from xai_demo.engine import Network
    from xai_demo.records import Floats

LEAST_PASSES = 48  # fewer make a map too coarse to show
_BATCH = 32
_FIRST_BATCH = 2  # until it is known how long a window takes
_HEARD_WITHIN_S = 0.4  # how long a batch may take: a request to stop is heard between two
_SLOW_WINDOWS = 2  # windows of a recording that an explainer with passes of its own is asked about
_MOST_WINDOWS = 256  # windows of a recording that any explainer is asked about
_MOST_KEPT = 320  # windows whose activations are kept; of more, they are made again where needed
_WITH_GRADIENTS = 3  # what a pass forward and back costs, in passes forward


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a network makes of every window."""

    activations: list[Tensor]  # each (batch, channels, rows, columns); of the first windows
    probabilities: Floats  # (windows, labels)
    # Of a network that answers for every moment: (windows, labels, steps of `sound.STEP_FRAMES`).
    steps: Floats | None = None
    evidence: Floats | None = None  # (windows, labels, columns): see `evidence_over_time`


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """Forward passes per window that an explainer may spend, and would without a limit of time."""

    passes: int
    usual: int

    @property
    def is_cut(self) -> bool:
        """Whether the limit of time took something away."""
        return self.passes < self.usual


class Asker:
    """Asks a network in batches so small that a request to stop is soon heard, and counts them."""

    def __init__(self, network: Network, cancelled: Callable[[], bool] = lambda: False) -> None:
        self._network, self.cancelled = network, cancelled
        self._window_s = 0.0  # of the latest batch
        self.passes = 0  # windows that went through the whole network so far

    def check(self) -> None:
        """Raise CancelledError if somebody asked to stop."""
        if self.cancelled():
            raise CancelledError("Cancelled on request.")

    def batches(self, count: int) -> Iterator[slice]:
        """So many windows in parts, each as large as the time of the one before allows."""
        start = 0
        while start < count:
            self.check()
            size = min(self._size(), count - start)
            began = time.perf_counter()
            yield slice(start, start + size)
            self._window_s = (time.perf_counter() - began) / size
            start += size

    def features(self, inputs: Floats | LogMelWindows) -> Iterator[Tensor]:
        """The activations of the windows, part by part."""
        for part in self.batches(len(inputs)):
            self.passes += part.stop - part.start
            yield self._network.features(inputs[part])

    def logits(self, inputs: Floats) -> Tensor:
        """(windows, labels), without gradients."""
        import torch

        with torch.inference_mode():
            return torch.cat([self._network.head(batch) for batch in self.features(inputs)])

    def differentiable(self, inputs: Tensor) -> Tensor:
        """(windows, labels), for gradients; to stop is also heard on the way back."""
        import torch

        whole = self._network.whole
        if whole is None:
            raise ValueError("no whole network on this backend")
        parts = []
        for part in self.batches(len(inputs)):
            self.passes += part.stop - part.start
            logits = whole(inputs[part])
            if logits.requires_grad:
                logits.register_hook(lambda gradient: self.check())
            parts.append(logits)
        return torch.cat(parts)

    def _size(self) -> int:
        if not self._window_s:
            return _FIRST_BATCH
        return max(1, min(_BATCH, int(_HEARD_WITHIN_S / self._window_s)))


def answered(
    network: Network, inputs: Floats | LogMelWindows, asker: Asker | None = None
) -> Answer:
    """Run every window, (windows, 1, rows, columns), through the network."""
    import numpy as np
    import torch

    activations: list[Tensor] = []
    probabilities: list[Floats] = []
    steps: list[Floats] = []
    evidence: list[Floats] = []
    kept = 0
    for batch in (asker or Asker(network)).features(inputs):
        with torch.inference_mode():
            probabilities.append(network.probabilities(network.head(batch)))
            steps += _steps(network, batch, inputs.shape[3])
        if network.model.event_points and len(inputs) > 1:
            evidence.append(evidence_over_time(network.head, batch))
        if kept < _MOST_KEPT:
            activations.append(batch)
            kept += len(batch)
    return Answer(
        activations=activations,
        probabilities=np.concatenate(probabilities),
        steps=np.concatenate(steps) if steps else None,
        evidence=np.concatenate(evidence) if evidence else None,
    )


def evidence_over_time(head: Callable[[Tensor], Tensor], activations: Tensor) -> Floats:
    """What every column of the maps adds to each logit, (batch, labels, columns), if it adds.

    Activations (batch, channels, rows, columns) times the gradients of the logit, which is HiResCAM
    (Draelos and Carin 2020), summed over channels and rows.
    """
    import numpy as np
    import torch

    with torch.inference_mode(False), torch.enable_grad():
        maps = activations.detach().float().clone().requires_grad_()
        logits = head(maps)
        added = []
        for k in range(logits.shape[1]):
            (slope,) = torch.autograd.grad(logits[:, k].sum(), maps, retain_graph=True)
            added.append((slope * maps.detach()).sum((1, 2)).clamp(min=0).cpu().numpy())
    found: Floats = np.stack(added, axis=1)
    return found


def _steps(network: Network, activations: Tensor, n_frames: int) -> list[Floats]:
    """The answers for every step, (windows, labels, steps), of a network that has them."""
    framewise = networks.architecture(network.model).framewise
    if framewise is None:
        return []
    logits = framewise(network.head, activations, n_frames)[:, :, ::STEP_FRAMES]
    rows = network.probabilities(logits.transpose(1, 2).flatten(0, 1))
    by_window = rows.reshape(len(activations), -1, rows.shape[1])
    return [by_window.transpose(0, 2, 1)]


def allowance(
    method: explainers.Explainer, *, windows: int, window_s: float, seconds: float
) -> Allowance:
    """What of an explainer's passes fits into so many seconds, where a forward pass takes so long.

    At least `LEAST_PASSES`, at most what the table says.
    """
    cost = _WITH_GRADIENTS if method.needs == "full gradients" else 1
    each = window_s * cost * min(windows, _SLOW_WINDOWS)
    fits = math.floor(min(seconds / each, method.passes)) if each > 0 else method.passes
    return Allowance(passes=min(method.passes, max(LEAST_PASSES, fits)), usual=method.passes)


def raw_heat(
    network: Network,
    made: Medium,
    answer: Answer,
    method: explainers.Explainer,
    targets: Sequence[int],
    budget: explainers.Budget,
    asker: Asker | None = None,
) -> Floats:
    """Raw heat of every window; of a slow explainer, that of the most probable ones."""
    import numpy as np

    asker = asker or Asker(network, budget.cancelled)
    place = answer.activations[0].device
    whole = network.whole and (lambda x: asker.differentiable(x.to(place)))
    asked = _asked(method, answer.probabilities, targets)
    found = []
    for part in [slice(0, len(asked))] if method.passes else asker.batches(len(asked)):
        batch = asked[part]
        inputs = made.inputs[batch]
        subject = explainers.Subject(
            inputs=inputs,
            activations=_activations(answer, batch, inputs, asker),
            head=network.head,
            forward=lambda inputs: asker.logits(inputs).cpu().numpy(),
            network=whole,
            background=background(made),
            feature_maps=lambda activations: networks.feature_maps(network.model, activations),
        )
        found.append(method.explain(subject, targets, budget))
    heat = np.zeros((len(answer.probabilities), *found[0].shape[1:]), np.float32)
    heat[asked] = np.concatenate(found)
    return heat


def _asked(
    method: explainers.Explainer, probabilities: Floats, targets: Sequence[int]
) -> NDArray[np.intp]:
    """The windows to explain: those where a target is most probable, the first before the others.

    A recording's heat is weighed by the target's probability: the windows left out have least.
    """
    import numpy as np

    order = np.argsort(-probabilities[:, targets], axis=0, kind="stable")
    if method.passes:
        return np.sort(order[:_SLOW_WINDOWS, 0])
    if len(order) <= _MOST_WINDOWS:
        return np.arange(len(order))
    _, first = np.unique(order.ravel(), return_index=True)  # by rank, targets in turn
    return np.sort(np.argsort(first, kind="stable")[:_MOST_WINDOWS])


def _activations(answer: Answer, windows: NDArray[np.intp], inputs: Floats, asker: Asker) -> Tensor:
    """Those of some windows, kept or made again."""
    import torch

    kept = torch.cat(answer.activations)
    if windows[-1] < len(kept):
        return kept[torch.from_numpy(windows)]
    return torch.cat(list(asker.features(inputs)))


def partial_warning(explainer: str, windows: int) -> tuple[str, ...]:
    """What to say where only some windows of a recording were explained."""
    passes = explainers.explainer(explainer).passes
    most = _SLOW_WINDOWS if passes else _MOST_WINDOWS
    if windows <= most:
        return ()
    why = f"Of so long a recording, only the {most}"
    if passes:
        often = "many times" if passes > 1 else "again"
        why = f"This explainer asks the network {often}, so only the {most}"
    return (
        f"{why} most probable of {windows} windows were explained; the rest of the recording shows "
        "no heat.",
    )


def cut_warning(allowed: Allowance, seconds: float) -> tuple[str, ...]:
    """What to say where an explainer was given fewer passes than is usual."""
    if not allowed.is_cut:
        return ()
    return (
        f"This network is slow here: so that the heat takes about {seconds:g} s, the explainer had "
        f"{allowed.passes} forward passes for each window, not the usual {allowed.usual}; the heat "
        "is coarser or less steady for it.",
    )


def background(made: Medium) -> float:
    """How a hidden pixel looks to the network: quiet in a recording, the mean of a picture."""
    import numpy as np

    return float(made.inputs.min() if made.sample_rate_hz else np.mean(made.inputs[:]))


def trial(
    network: Network,
    made: Medium,
    answer: Answer,
    raw: Floats,
    target: int,
    asker: Asker | None = None,
) -> faithfulness.Faithfulness:
    """What hiding the heat does to a label, in the window where that label is most probable.

    `raw` is the label's heat in every window, (windows, rows, columns).
    """
    import numpy as np

    asker = asker or Asker(network)
    window = int(answer.probabilities[:, target].argmax())

    heard, padding = np.split(made.inputs[window], [made.seen], axis=2)  # padding stays as it is

    def probability(inputs: Floats) -> Floats:
        rest = np.broadcast_to(padding, (len(inputs), *padding.shape))
        whole = np.concatenate([inputs, rest], axis=3)
        return network.probabilities(asker.logits(whole))[:, target]

    asked = faithfulness.Trial(window=heard, background=background(made), answer=probability)
    heatmap = heat.resized(heat.scaled(raw[window]), *made.inputs.shape[2:])[:, : made.seen]
    return faithfulness.measured(
        asked,
        heatmap,
        probability=float(answer.probabilities[window, target]),
        grid=(raw.shape[1], raw.shape[2]),
        stretch_s=made.stretch(window),
    )
