"""What a training recipe consists of; the recipes themselves are in `recipes`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.records import Model, Progress
from xai_demo.training.datasets import Dataset

if TYPE_CHECKING:
    from torch import nn

    from xai_demo.training.metrics import Array, Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The hyperparameters of one training run.

    The defaults are AdamW, a one-cycle learning rate and averaged weights. Adam
    (`decoupled_decay` False), a learning rate halved on a validation plateau (`plateau_patience`)
    and gradual unfreezing from the last stage backwards (`unfreeze_every`) are options.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    # Parameter of the Beta distribution; 0: no mixup.
    mixup: float
    label_smoothing: float
    # Classes are drawn in proportion to (their size) ** power.
    sampling_power: float
    # Share of the epochs, from the first, on smaller inputs.
    low_resolution_share: float = 0.0
    low_resolution_scale: float = 1.0  # relative size of those inputs
    ema_decay: float = 0.998  # of the exponential moving average of the weights
    max_gradient_norm: float = 5.0
    time_loss_weight: float = 0.5  # of the time-resolved loss, where there is one
    # Epochs without improvement before training stops; 0: never stop early.
    patience: int = 0
    # AdamW; False: Adam, weight decay as part of the gradient.
    decoupled_decay: bool = True
    # Epochs without improvement that halve the rate; 0: one cycle.
    plateau_patience: int = 0
    # Epochs until one more stage is trained; 0: all from the start.
    unfreeze_every: int = 0
    # Before the last layer; None: as the architecture has it.
    dropout: float | None = None
    label_weight_power: float = 0.0  # labels weigh (their size) ** -power in the loss
    # Of the focal loss (Lin et al. 2017); 0: plain cross-entropy.
    focal_gamma: float = 0.0
    smote: bool = False  # refit the last layer on features balanced by SMOTE


# Evaluates a network on the data in a folder. The set holds the patients that the network was
# trained on; None: not known.
Evaluator = Callable[["nn.Module", Model, Path, "frozenset[str] | None", Progress], "Evaluation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The result of `evaluate`, and the predictions to plot, by the folder for their plots."""

    result: dict[str, Any]
    predictions: Mapping[str, SamplePredictions]


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePredictions:
    """What a model answered and what is true; `targets` in the shape a `Dataset` has them."""

    probabilities: Array  # (samples, labels)
    targets: Labels
    decisions: Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One trainable model: its data, its schedule and the texts of its card."""

    model: Model  # without weights and figures
    read: Callable[[Path, Model], Dataset]
    schedule: Schedule
    failures: str  # known failures, for the card
    # Of the validation samples: the least certain answer "uncertain".
    uncertain_share: float
    n_sources: int = 0  # sources with a classifier of their own during training
    # Yields the data once per published fold, with that fold as the test split.
    published_folds: Callable[[Path, Model], Iterator[tuple[str, Dataset]]] | None = None
    evaluate: Evaluator | None = None  # None: one decision per sample of the test split
    # Bundled model to take weights from; None: random weights.
    initial_model: str | None = None
    # Instead: from weights trained on ImageNet, see `initial_weights`.
    is_from_imagenet: bool = False
    # Of independent labels: the largest share of the validation samples without any label that is
    # given one. None: no limit.
    max_false_alarms: float | None = None
    # Then also: the share of the labels present there that is listed at least, where it can be.
    min_listed: float = 0.0
