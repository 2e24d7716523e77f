"""A data set in memory, whatever its layout on disk was, and how people are kept apart."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from xai_demo.records import Floats, Model

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings:
    """What was answered about whole recordings, as the demo answers them, and what is true."""

    probabilities: NDArray[np.float64]  # (recordings, labels)
    targets: NDArray[np.int64]  # (recordings,)
    moments: NDArray[np.float64]  # (moments of all recordings, labels): see `moments`
    sounding_s: NDArray[np.float64]  # (moments, labels): how long each label sounds in each


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """Samples and their labels; `load(i, rng)` gives one, varied if there is an rng."""

    name: str
    labels: tuple[str, ...]
    targets: NDArray[np.int64]  # (samples,); of independent labels (samples, labels), 0 or 1
    groups: tuple[str, ...]  # the person, or whatever else must not be shared between splits
    splits: tuple[Split, ...]
    load: Callable[
        [int, np.random.Generator | None], tuple[Floats, Floats]
    ]  # (rows, columns), (labels,)
    notes: tuple[str, ...] = ()  # what was left out, counted
    finish: Callable[[nn.Module], None] | None = None  # what is done once the network has learnt
    recordings: Callable[[nn.Module, Model], Recordings] | None = None  # of validation
    heard: tuple[str, ...] = ()  # persons beside those of the samples that training makes use of

    def indices(self, split: Split) -> NDArray[np.int64]:
        """The samples of one split."""
        return np.array([i for i, s in enumerate(self.splits) if s == split], dtype=np.int64)

    @property
    def is_independent(self) -> bool:
        """Whether a sample may have several labels, or none."""
        return self.targets.ndim == 2

    def apart_from(self, persons: frozenset[str]) -> DataSet:
        """The same with everybody else in the test part, and those persons in the training part."""
        splits: tuple[Split, ...] = tuple(
            "train" if group in persons else "test" for group in self.groups
        )
        return dataclasses.replace(self, splits=splits)

    def unvaried(self) -> DataSet:
        """The same as it is, without random changes while a network learns."""
        load = self.load
        return dataclasses.replace(self, load=lambda i, rng: load(i, None))

    def learnt_from(self) -> frozenset[str]:
        """Every person that a network is trained or tuned on."""
        known = {g for g, s in zip(self.groups, self.splits, strict=True) if s != "test"}
        return frozenset(known | set(self.heard))


def split_by_group(groups: Sequence[str], *, seed: str) -> tuple[Split, ...]:
    """70/15/15 by a hash of the group's name: the same person always falls into the same part."""
    return tuple(_split(group, seed) for group in groups)


def _split(group: str, seed: str) -> Split:
    digest = hashlib.sha256(f"{seed}:{group}".encode()).digest()
    share = int.from_bytes(digest[:8]) / 2**64
    return "train" if share < 0.70 else "validation" if share < 0.85 else "test"


def one_hot(target: int, n_labels: int) -> Floats:
    """A target as probabilities."""
    row: Floats = np.eye(n_labels, dtype=np.float32)[target]
    return row
