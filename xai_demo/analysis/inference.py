"""Running a network on prepared inputs: probabilities, raw heatmaps and the faithfulness test.

All of it goes through a `ModelRunner`, which keeps batches short, so that a request to stop takes
effect soon, and counts forward passes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xai_demo import explainers, networks
from xai_demo.analysis import faithfulness, heatmap
from xai_demo.analysis.audio_input import STEP_FRAMES
from xai_demo.errors import CancelledError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from xai_demo.analysis.inputs import PreparedInput
    from xai_demo.audio.segments import LogMelWindows
    from xai_demo.engine.backends import Network
    from xai_demo.records import Floats

# With fewer forward passes the maps of LIME, SHAP and the like are too coarse to show.
MIN_PASSES = 48
_MAX_BATCH = 32
# The first batch is small: how long a window takes is not known yet.
_FIRST_BATCH = 2
# Cancelling takes effect between two batches, so this is about how long it takes.
_BATCH_S = 0.4
# How many windows of a recording are explained: by explainers with forward passes of their own,
# which cost many times the prediction, and by all others.
_MAX_SLOW_WINDOWS = 2
_MAX_WINDOWS = 256
# Activations of more windows than this would fill the memory. Those that an explainer needs beyond
# it are computed again.
_MAX_KEPT_WINDOWS = 320
# A forward and a backward pass together cost about three forward passes.
_GRADIENT_COST = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkOutputs:
    """What a network computes for the windows of one file."""

    # Each (batch, channels, rows, columns); the first windows only.
    activations: list[Tensor]
    probabilities: Floats  # (windows, labels)
    # Framewise networks: (windows, labels, steps of `audio_input.STEP_FRAMES` frames).
    steps: Floats | None = None
    # (windows, labels, columns), see `evidence_over_time`.
    evidence: Floats | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PassAllowance:
    """Forward passes per window that an explainer may spend, and its number without a limit."""

    passes: int
    default: int

    @property
    def is_reduced(self) -> bool:
        """Whether the time limit allows fewer passes than the default."""
        return self.passes < self.default


class ModelRunner:
    """Runs a network in batches short enough to be cancelled soon, and counts forward passes."""

    def __init__(self, network: Network, cancelled: Callable[[], bool] = lambda: False) -> None:
        self._network, self.cancelled = network, cancelled
        # Seconds a window, measured on the latest batch.
        self._window_s = 0.0
        # Windows that went through the whole network so far.
        self.passes = 0

    def check(self) -> None:
        """Raise CancelledError if the analysis has been cancelled."""
        if self.cancelled():
            raise CancelledError("Cancelled on request.")

    def batches(self, count: int) -> Iterator[slice]:
        """Split `count` windows into batches, each sized by how long the one before took."""
        start = 0
        while start < count:
            self.check()
            # The time is that of the caller's work between two batches, network and all.
            size = min(self._batch_size(), count - start)
            began = time.perf_counter()
            yield slice(start, start + size)
            self._window_s = (time.perf_counter() - began) / size
            start += size

    def features(self, inputs: Floats | LogMelWindows) -> Iterator[Tensor]:
        """The activations at the cut, batch by batch; raises CancelledError."""
        # `inputs[part]` computes only these windows of a long recording.
        for part in self.batches(len(inputs)):
            self.passes += part.stop - part.start
            yield self._network.features(inputs[part])

    def logits(self, inputs: Floats) -> Tensor:
        """Logits (windows, labels) without gradients; raises CancelledError."""
        import torch

        with torch.inference_mode():
            return torch.cat([self._network.head(batch) for batch in self.features(inputs)])

    def differentiable_logits(self, inputs: Tensor) -> Tensor:
        """Logits (windows, labels) with gradients; both passes raise CancelledError.

        Raises ValueError on a backend without the whole network in torch.
        """
        import torch

        whole = self._network.whole
        if whole is None:
            raise ValueError("no whole network on this backend")
        parts = []
        for part in self.batches(len(inputs)):
            self.passes += part.stop - part.start
            logits = whole(inputs[part])
            # The backward pass runs after this method has returned: a hook can still stop it.
            if logits.requires_grad:
                logits.register_hook(lambda gradient: self.check())
            parts.append(logits)
        return torch.cat(parts)

    def _batch_size(self) -> int:
        if not self._window_s:
            return _FIRST_BATCH
        return max(1, min(_MAX_BATCH, int(_BATCH_S / self._window_s)))


def run_network(
    network: Network, inputs: Floats | LogMelWindows, runner: ModelRunner | None = None
) -> NetworkOutputs:
    """Run the network once on every window, (windows, 1, rows, columns)."""
    import numpy as np
    import torch

    activations: list[Tensor] = []
    probabilities: list[Floats] = []
    steps: list[Floats] = []
    evidence: list[Floats] = []
    n_kept = 0
    # Batch by batch, so that the activations of an hour are never in memory at once.
    for batch in (runner or ModelRunner(network)).features(inputs):
        with torch.inference_mode():
            probabilities.append(network.probabilities(network.head(batch)))
            steps += _step_probabilities(network, batch, inputs.shape[3])
        if network.model.event_points and len(inputs) > 1:
            evidence.append(column_evidence(network.head, batch))
        if n_kept < _MAX_KEPT_WINDOWS:
            activations.append(batch)
            n_kept += len(batch)
    return NetworkOutputs(
        activations=activations,
        probabilities=np.concatenate(probabilities),
        steps=np.concatenate(steps) if steps else None,
        evidence=np.concatenate(evidence) if evidence else None,
    )


def column_evidence(head: Callable[[Tensor], Tensor], activations: Tensor) -> Floats:
    """What every column adds to each logit, (batch, labels, columns); 0 where it lowers the logit.

    Activations (batch, channels, rows, columns) times the gradients of the logit, which is HiResCAM
    (Draelos and Carin 2020), summed over channels and rows.
    """
    import numpy as np
    import torch

    # The activations come from inference mode, where no gradients are recorded.
    with torch.inference_mode(False), torch.enable_grad():
        maps = activations.detach().float().clone().requires_grad_()
        logits = head(maps)
        columns = []
        for k in range(logits.shape[1]):
            # Windows do not influence each other: one backward pass a label serves the whole batch.
            (gradient,) = torch.autograd.grad(logits[:, k].sum(), maps, retain_graph=True)
            columns.append((gradient * maps.detach()).sum((1, 2)).clamp(min=0).cpu().numpy())
    evidence: Floats = np.stack(columns, axis=1)
    return evidence


def _step_probabilities(network: Network, activations: Tensor, n_frames: int) -> list[Floats]:
    """One array (windows, labels, steps) for a framewise network, none for any other."""
    framewise = networks.architecture(network.model).framewise
    if framewise is None:
        return []
    # Every frame of a step has the same logits, so the first one of each is enough.
    logits = framewise(network.head, activations, n_frames)[:, :, ::STEP_FRAMES]
    # (windows x steps, labels): calibration expects one row for each answer.
    rows = network.probabilities(logits.transpose(1, 2).flatten(0, 1))
    by_window = rows.reshape(len(activations), -1, rows.shape[1])
    return [by_window.transpose(0, 2, 1)]


def pass_allowance(
    method: explainers.Explainer, *, windows: int, window_s: float, seconds: float
) -> PassAllowance:
    """How many of an explainer's passes fit into `seconds` if one forward pass takes `window_s`.

    At least `MIN_PASSES`, at most the explainer's default.
    """
    cost = _GRADIENT_COST if method.needs == "full gradients" else 1
    # Seconds that one pass takes over all windows to be explained.
    pass_s = window_s * cost * min(windows, _MAX_SLOW_WINDOWS)
    fits = math.floor(min(seconds / pass_s, method.passes)) if pass_s > 0 else method.passes
    return PassAllowance(passes=min(method.passes, max(MIN_PASSES, fits)), default=method.passes)


def raw_heatmaps(
    network: Network,
    prepared: PreparedInput,
    outputs: NetworkOutputs,
    method: explainers.Explainer,
    targets: Sequence[int],
    budget: explainers.Budget,
    runner: ModelRunner | None = None,
) -> Floats:
    """Raw heatmaps (windows, targets, rows, columns); zero for windows that are not explained."""
    import numpy as np

    runner = runner or ModelRunner(network, budget.cancelled)
    device = outputs.activations[0].device
    # None on ONNX Runtime; explainers that need it have been refused before.
    whole = network.whole and (lambda x: runner.differentiable_logits(x.to(device)))
    explained = _windows_to_explain(method, outputs.probabilities, targets)
    # Slow explainers make batches of their own.
    parts = [slice(0, len(explained))] if method.passes else runner.batches(len(explained))
    heatmaps = []
    for part in parts:
        batch = explained[part]
        inputs = prepared.inputs[batch]
        subject = explainers.Subject(
            inputs=inputs,
            activations=_window_activations(outputs, batch, inputs, runner),
            head=network.head,
            forward=lambda inputs: runner.logits(inputs).cpu().numpy(),
            network=whole,
            background=background_value(prepared),
            feature_maps=lambda activations: networks.feature_maps(network.model, activations),
        )
        heatmaps.append(method.explain(subject, targets, budget))
    every_window = np.zeros((len(outputs.probabilities), *heatmaps[0].shape[1:]), np.float32)
    every_window[explained] = np.concatenate(heatmaps)
    return every_window


def _windows_to_explain(
    method: explainers.Explainer, probabilities: Floats, targets: Sequence[int]
) -> NDArray[np.intp]:
    """Indices of the windows in which the targets are most probable, in ascending order.

    Over a recording, a window's heatmap is weighted by the target's probability in it, so the
    windows left out matter least. For a slow explainer only the first target counts.
    """
    import numpy as np

    # (windows, targets): the ranking of the windows for each target. Stable, so that equal windows
    # keep their order.
    order = np.argsort(-probabilities[:, targets], axis=0, kind="stable")
    if method.passes:
        return np.sort(order[:_MAX_SLOW_WINDOWS, 0])
    if len(order) <= _MAX_WINDOWS:
        return np.arange(len(order))
    # Read row by row: the best window of every target, then the second best of every target.
    _, first = np.unique(order.ravel(), return_index=True)
    return np.sort(np.argsort(first, kind="stable")[:_MAX_WINDOWS])


def _window_activations(
    outputs: NetworkOutputs, windows: NDArray[np.intp], inputs: Floats, runner: ModelRunner
) -> Tensor:
    """The activations of some windows: those that were kept, or computed again."""
    import torch

    kept = torch.cat(outputs.activations)
    # Windows are in ascending order and the first ones were kept, so the last index decides.
    if windows[-1] < len(kept):
        return kept[torch.from_numpy(windows)]
    return torch.cat(list(runner.features(inputs)))


def skipped_windows_warning(explainer: str, windows: int) -> tuple[str, ...]:
    """A warning if an explainer covers only some windows of a recording."""
    passes = explainers.explainer(explainer).passes
    most = _MAX_SLOW_WINDOWS if passes else _MAX_WINDOWS
    if windows <= most:
        return ()
    why = "This recording is long"
    if passes:
        often = "many times" if passes > 1 else "again"
        why = f"This explainer runs the network {often}"
    return (
        f"{why}, so only the {most} most probable of {windows} windows were explained; the heatmap "
        "is empty elsewhere.",
    )


def fewer_passes_warning(allowance: PassAllowance, seconds: float) -> tuple[str, ...]:
    """A warning if an explainer gets fewer forward passes than its default."""
    if not allowance.is_reduced:
        return ()
    return (
        f"This network is slow here. To stay within about {seconds:g} s, the explainer used "
        f"{allowance.passes} forward passes for each window instead of {allowance.default}, so the "
        "heatmap is coarser or noisier.",
    )


def background_value(prepared: PreparedInput) -> float:
    """The value of a masked pixel: silence in a recording, the mean of a picture."""
    import numpy as np

    is_sound = prepared.sample_rate_hz is not None
    return float(prepared.inputs.min() if is_sound else np.mean(prepared.inputs[:]))


def run_faithfulness_test(
    network: Network,
    prepared: PreparedInput,
    outputs: NetworkOutputs,
    raw: Floats,
    target: int,
    runner: ModelRunner | None = None,
) -> faithfulness.Faithfulness:
    """Test the heatmap of a label in the window where that label is most probable.

    `raw` holds the label's raw heatmap of every window, (windows, rows, columns).
    """
    import numpy as np

    runner = runner or ModelRunner(network)
    # Explainers cover this window first, so its heatmap is never one of those left out.
    window = int(outputs.probabilities[:, target].argmax())
    # Padding is no part of the sound, so it is never masked.
    valid, padding = np.split(prepared.inputs[window], [prepared.valid_columns], axis=2)

    def predict(inputs: Floats) -> Floats:
        rest = np.broadcast_to(padding, (len(inputs), *padding.shape))
        whole = np.concatenate([inputs, rest], axis=3)
        return network.probabilities(runner.logits(whole))[:, target]

    test = faithfulness.MaskingTest(
        window=valid, background=background_value(prepared), predict=predict
    )
    # At the size of the input, padding included, and cropped to the sound below.
    whole = heatmap.resize(heatmap.normalise(raw[window]), *prepared.inputs.shape[2:])
    return faithfulness.measure_faithfulness(
        test,
        whole[:, : prepared.valid_columns],
        probability=float(outputs.probabilities[window, target]),
        grid=(raw.shape[1], raw.shape[2]),
        stretch_s=prepared.window_span_s(window),
    )
