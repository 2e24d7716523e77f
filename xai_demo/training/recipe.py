"""What a recipe is made of."""

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
    """How a network is trained: AdamW, one cycle of the learning rate, averaged weights.

    Unless it says otherwise: Adam (`decoupled` False), the learning rate halved where validation
    stands still (`plateau`), the last layers first (`thaw_every`).
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    mixup: float  # parameter of the Beta distribution; 0: none
    label_smoothing: float
    sampling_power: float  # classes are drawn in proportion to (their size) ** power
    small_until: float = 0.0  # share of the epochs trained at a smaller picture ...
    small_scale: float = 1.0  # ... of this relative size
    averaging: float = 0.998  # decay of the exponential moving average of the weights
    clip: float = 5.0  # the gradient's largest norm
    in_time: float = 0.5  # weight of the time-resolved loss, where there is one
    patience: int = 0  # epochs without a better validation after which it stops; 0: never
    decoupled: bool = True  # weight decay beside the gradient (AdamW), not in it (Adam)
    plateau: int = 0  # epochs without a better validation that halve the rate; 0: one cycle
    thaw_every: int = 0  # epochs until one more stage, from the last, learns; 0: all learn at once
    dropout: float | None = None  # before the last layer; None: as the architecture has it
    weighted: float = 0.0  # labels count by their size to the power of minus this
    focal: float = 0.0  # how little what is easy counts (gamma of Lin et al. 2017)
    smote: bool = False  # the last layer is fitted anew on balanced features


# Evaluates a network on what lies in a folder, given the persons that it learnt from, if known.
Judge = Callable[["nn.Module", Model, Path, "frozenset[str] | None", Progress], "Evaluation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What `evaluate` says, and of what its pictures are drawn, by the folder they go into."""

    result: dict[str, Any]
    answers: Mapping[str, Answers]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a model made of some samples, and what they are; `targets` as a `DataSet` has them."""

    probabilities: Array  # (samples, labels)
    targets: Labels
    decided: Labels


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One trainable model."""

    model: Model  # without weights and figures
    read: Callable[[Path, Model], Dataset]
    schedule: Schedule
    failures: str  # known failures, for the card
    uncertainty: float  # share of validation cases, the least sure, that are answered "uncertain"
    sources: int = 0  # of how many kinds the data are, each with a classifier while it learns
    # The data once for each fold that its makers published, that one being the test part.
    folds: Callable[[Path, Model], Iterator[tuple[str, Dataset]]] | None = None
    judge: Judge | None = None  # how it is evaluated; None: one label a sample of the test split
    start: str | None = None  # the bundled model whose layers it starts from; None: from nothing
