"""Asking a network: windows in, probabilities, heat and the trial of that heat out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xai_demo import explainers, faithfulness, heat

if TYPE_CHECKING:
    from torch import Tensor

    from xai_demo.engine import Network
    from xai_demo.medium import Medium
    from xai_demo.records import Floats

_BATCH = 32
_SLOW_WINDOWS = 2  # windows of a recording that an explainer of many forward passes is asked about


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a network makes of every window."""

    activations: list[Tensor]  # each (batch, channels, rows, columns)
    probabilities: Floats  # (windows, labels)


def answered(network: Network, inputs: Floats) -> Answer:
    """Run every window, (windows, 1, rows, columns), through the network."""
    import numpy as np
    import torch

    activations: list[Tensor] = []
    probabilities: list[Floats] = []
    for start in range(0, len(inputs), _BATCH):
        batch = network.features(inputs[start : start + _BATCH])
        with torch.inference_mode():
            probabilities.append(network.probabilities(network.head(batch)))
        activations.append(batch)
    return Answer(activations=activations, probabilities=np.concatenate(probabilities))


def raw_heat(
    network: Network,
    made: Medium,
    answer: Answer,
    method: explainers.Explainer,
    targets: Sequence[int],
    budget: explainers.Budget,
) -> Floats:
    """Raw heat of every window; of a slow explainer, that of the most probable ones."""
    import numpy as np
    import torch

    def forward(inputs: Floats) -> Floats:
        with torch.inference_mode():
            logits: Floats = network.head(network.features(inputs)).cpu().numpy()
        return logits

    activations = torch.cat(answer.activations)
    whole = network.whole and (lambda x, run=network.whole: run(x.to(activations.device)))
    order = np.argsort(-answer.probabilities[:, targets[0]], kind="stable")
    asked = np.sort(order[:_SLOW_WINDOWS]) if method.passes else np.arange(len(order))
    found = []
    for start in range(0, len(asked), _BATCH):
        batch = asked[start : start + _BATCH]
        subject = explainers.Subject(
            inputs=made.inputs[batch],
            activations=activations[torch.from_numpy(batch)],
            head=network.head,
            forward=forward,
            network=whole,
            background=background(made),
        )
        found.append(method.heat(subject, targets, budget))
    heat = np.zeros((len(order), *found[0].shape[1:]), np.float32)
    heat[asked] = np.concatenate(found)
    return heat


def partial_warning(explainer: str, windows: int) -> tuple[str, ...]:
    """What to say where only some windows of a recording were explained."""
    if not explainers.explainer(explainer).passes or windows <= _SLOW_WINDOWS:
        return ()
    return (
        f"This explainer asks the network many times, so only the {_SLOW_WINDOWS} most probable of "
        f"{windows} windows were explained; the rest of the recording shows no heat.",
    )


def background(made: Medium) -> float:
    """How a hidden pixel looks to the network: quiet in a recording, the mean of a picture."""
    return float(made.inputs.min() if made.sample_rate_hz else made.inputs.mean())


def trial(
    network: Network, made: Medium, answer: Answer, raw: Floats, target: int
) -> faithfulness.Faithfulness:
    """What hiding the heat does to a label, in the window where that label is most probable.

    `raw` is the label's heat in every window, (windows, rows, columns).
    """
    import torch

    window = int(answer.probabilities[:, target].argmax())

    def probability(inputs: Floats) -> Floats:
        with torch.inference_mode():
            logits = network.head(network.features(inputs))
        return network.probabilities(logits)[:, target]

    asked = faithfulness.Trial(
        window=made.inputs[window], background=background(made), answer=probability
    )
    heatmap = heat.resized(heat.scaled(raw[window]), *made.inputs.shape[2:])
    return faithfulness.measured(
        asked,
        heatmap,
        probability=float(answer.probabilities[window, target]),
        grid=(raw.shape[1], raw.shape[2]),
    )
