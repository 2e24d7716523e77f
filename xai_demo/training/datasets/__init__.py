"""A data set in memory, whatever its layout on disk was, and how people are kept apart.

Persons dealt into parts so that every label has its share in each. Pure, and the same each time.

Iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011) of whole persons: the rarest label
left is dealt first, each of its persons to the part that lacks it most.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from xai_demo.errors import TrainingError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    from xai_demo.records import Floats, Model

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingPredictions:
    """What was answered about whole recordings, as the demo answers them, and what is true."""

    probabilities: NDArray[np.float64]  # (recordings, labels)
    targets: NDArray[np.int64]  # (recordings,)
    moments: NDArray[np.float64]  # (moments of all recordings, labels): see `moments`
    sounding_s: NDArray[np.float64]  # (moments, labels): how long each label sounds in each


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
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
    recordings: Callable[[nn.Module, Model], RecordingPredictions] | None = None  # of validation
    heard: tuple[str, ...] = ()  # persons beside those of the samples that training makes use of

    def indices(self, split: Split) -> NDArray[np.int64]:
        """The samples of one split."""
        return np.array([i for i, s in enumerate(self.splits) if s == split], dtype=np.int64)

    @property
    def is_independent(self) -> bool:
        """Whether a sample may have several labels, or none."""
        return self.targets.ndim == 2

    def apart_from(self, persons: frozenset[str]) -> Dataset:
        """The same with everybody else in the test part, and those persons in the training part."""
        splits: tuple[Split, ...] = tuple(
            "train" if group in persons else "test" for group in self.groups
        )
        return dataclasses.replace(self, splits=splits)

    def unvaried(self) -> Dataset:
        """The same as it is, without random changes while a network learns."""
        load = self.load
        return dataclasses.replace(self, load=lambda i, rng: load(i, None))

    def learnt_from(self) -> frozenset[str]:
        """Every person that a network is trained or tuned on."""
        known = {g for g, s in zip(self.groups, self.splits, strict=True) if s != "test"}
        return frozenset(known | set(self.heard))


def split_groups(groups: Sequence[str], *, seed: str) -> tuple[Split, ...]:
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


SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SHARES = (0.70, 0.15, 0.15)


def split_stratified(
    groups: Sequence[str], targets: NDArray[np.int64], *, seed: str
) -> tuple[Split, ...]:
    """70/15/15 by person; `targets` are labels (samples,) or many a sample (samples, labels)."""
    return tuple(SPLITS[part] for part in assign_parts(groups, targets, SHARES, seed=seed))


def assign_folds(
    groups: Sequence[str], targets: NDArray[np.int64], count: int, *, seed: str
) -> NDArray[np.int64]:
    """The fold of every sample; raises TrainingError where there are fewer persons than folds."""
    persons = len(set(groups))
    if count < 2 or persons < count:
        raise TrainingError(
            f"{persons} persons in {count} folds, wanted: at least two folds, and a person for each"
        )
    return assign_parts(groups, targets, (1 / count,) * count, seed=seed)


def assign_parts(
    groups: Sequence[str], targets: NDArray[np.int64], shares: Sequence[float], *, seed: str
) -> NDArray[np.int64]:
    """The part of every sample, by the wanted shares of the parts; a person is in one only."""
    names, group_of = np.unique(np.array(groups), return_inverse=True)
    counts = np.zeros((len(names), _columns(targets).shape[1]))
    np.add.at(counts, group_of, _columns(targets))
    order = np.array(sorted(range(len(names)), key=lambda i: _digest(f"{seed}:{names[i]}")))
    part_of = np.full(len(names), -1)
    lacks = np.outer(shares, counts.sum(axis=0))  # (parts, labels)
    room = np.array(shares) * len(groups)
    while (left := part_of < 0).any():
        remaining = counts[left].sum(axis=0)
        label = int(np.where(remaining > 0, remaining, np.inf).argmin())
        for person in order[left[order] & (counts[order, label] > 0)]:
            part = max(range(len(shares)), key=lambda p: (lacks[p, label], room[p], -p))
            part_of[person] = part
            lacks[part] -= counts[person]
            room[part] -= (group_of == person).sum()
    result: NDArray[np.int64] = part_of[group_of].astype(np.int64)
    return result


def _columns(targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """One column a label, the last for samples without any: (samples, labels + 1)."""
    if targets.ndim == 1:
        n_labels = int(targets.max(initial=0)) + 1
        rows = np.stack([one_hot(int(t), n_labels) for t in targets])
    else:
        rows = targets.astype(np.float32)
    none = rows.sum(axis=1, keepdims=True) == 0
    columns: NDArray[np.float64] = np.hstack([rows, none]).astype(np.float64)
    return columns


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
