"""Persons dealt into parts so that every label has its share in each. Pure, and the same each time.

Iterative stratification (Sechidis, Tsoumakas & Vlahavas 2011) of whole persons: the rarest label
left is dealt first, each of its persons to the part that lacks it most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.errors import TrainingError
from xai_demo.training.dataset import Split, one_hot

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SHARES = (0.70, 0.15, 0.15)


def split_stratified(
    groups: Sequence[str], targets: NDArray[np.int64], *, seed: str
) -> tuple[Split, ...]:
    """70/15/15 by person; `targets` are labels (samples,) or many a sample (samples, labels)."""
    return tuple(SPLITS[part] for part in dealt(groups, targets, SHARES, seed=seed))


def folds(
    groups: Sequence[str], targets: NDArray[np.int64], count: int, *, seed: str
) -> NDArray[np.int64]:
    """The fold of every sample; raises TrainingError where there are fewer persons than folds."""
    persons = len(set(groups))
    if count < 2 or persons < count:
        raise TrainingError(
            f"{persons} persons in {count} folds, wanted: at least two folds, and a person for each"
        )
    return dealt(groups, targets, (1 / count,) * count, seed=seed)


def dealt(
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
