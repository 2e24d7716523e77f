"""A dataset in memory, whatever its layout on disk, and the splitter that keeps patients apart.

`assign_parts` decides which part each sample goes to. Samples of one group (a patient, or the
source of a clip) always stay together. Given labels, it stratifies by iterative stratification
(Sechidis, Tsoumakas & Vlahavas 2011); without labels, a hash of the group's name alone decides, so
that a patient stays in the same part whatever else is in the folder. `split_groups` and
`assign_folds` are the two uses of it: train/validation/test, and folds.
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
FoldRule = Literal["iterative", "group k-fold"]

# Begins the group of a file whose name says nothing of a patient: such files are nobody's dataset.
OWN_FILES = "folders:"
# In the order of SHARES: the number of a part is its index here.
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
SHARES = (0.70, 0.15, 0.15)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingPredictions:
    """What a model predicts for whole recordings, as the demo does, and the truth."""

    probabilities: NDArray[np.float64]  # (recordings, labels)
    targets: NDArray[np.int64]  # (recordings,)
    # Probabilities by time, (moments of all recordings, labels).
    moments: NDArray[np.float64]
    # Seconds for which each label sounds, (moments, labels).
    sounding_s: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Samples and their labels; `load(i, rng)` returns one, augmented if there is an rng."""

    name: str
    labels: tuple[str, ...]
    # (samples,); independent labels: (samples, labels), 0 or 1.
    targets: NDArray[np.int64]
    # The patient, or whatever else two splits must not share.
    groups: tuple[str, ...]
    splits: tuple[Split, ...]
    # Returns (rows, columns) and (labels,).
    load: Callable[[int, np.random.Generator | None], tuple[Floats, Floats]]
    notes: tuple[str, ...] = ()  # what was left out, with counts
    # The last step, once the network is trained.
    finish: Callable[[nn.Module], None] | None = None
    # Predictions for the whole recordings of the validation split.
    predict_recordings: Callable[[nn.Module, Model], RecordingPredictions] | None = None
    # Patients that training uses beside those of the samples.
    extra_groups: tuple[str, ...] = ()

    def indices(self, split: Split) -> NDArray[np.int64]:
        """The samples of one split."""
        return np.array([i for i, s in enumerate(self.splits) if s == split], dtype=np.int64)

    @property
    def is_independent(self) -> bool:
        """Whether a sample may have several labels, or none."""
        return self.targets.ndim == 2

    def with_training_groups(self, groups: frozenset[str]) -> Dataset:
        """The same dataset with these groups in the training split and all others in the test."""
        splits: tuple[Split, ...] = tuple(
            "train" if group in groups else "test" for group in self.groups
        )
        return dataclasses.replace(self, splits=splits)

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> Dataset:
        """The same dataset with these samples alone, in this order."""
        kept = [int(i) for i in indices]
        load = self.load
        return dataclasses.replace(
            self,
            targets=self.targets[kept],
            groups=tuple(self.groups[i] for i in kept),
            splits=tuple(self.splits[i] for i in kept),
            # Samples are renumbered here; `self` loads them by the numbers that they had.
            load=lambda i, rng: load(kept[i], rng),
        )

    def held_out(self, trained_on: frozenset[str] | None) -> Dataset:
        """The same dataset with all that a network was not trained on in the test split.

        `trained_on` are the groups that it was trained on. None: not known; then groups of a
        published dataset keep their split, and all of the user's own files are in the test. A note
        says how many samples are left out of the test, and why.
        """
        if trained_on is None:
            splits: tuple[Split, ...] = tuple(
                "test" if group.startswith(OWN_FILES) else split
                for group, split in zip(self.groups, self.splits, strict=True)
            )
            data = dataclasses.replace(self, splits=splits)
            reason = (
                "the weights come without a list of those they were trained on, and these are not "
                "in the recipe's test split"
            )
        else:
            data = self.with_training_groups(trained_on)
            reason = "the network was trained on them"
        omitted = [g for g, s in zip(data.groups, data.splits, strict=True) if s != "test"]
        note = (
            f"Left out: {len(omitted)} of {len(data.groups)} samples, of {len(set(omitted))} "
            f"patients or sources: {reason}."
        )
        return dataclasses.replace(data, notes=(*self.notes, *((note,) if omitted else ())))

    def without_augmentation(self) -> Dataset:
        """The same dataset, whose samples are never augmented."""
        load = self.load
        return dataclasses.replace(self, load=lambda i, rng: load(i, None))

    def training_groups(self) -> frozenset[str]:
        """Every group that a network is trained or tuned on."""
        # Validation counts: temperature and operating points are chosen on it.
        known = {g for g, s in zip(self.groups, self.splits, strict=True) if s != "test"}
        return frozenset(known | set(self.extra_groups))


def one_hot(target: int, n_labels: int) -> Floats:
    """A class index as probabilities, (labels,).

    >>> one_hot(1, 3).tolist()
    [0.0, 1.0, 0.0]
    """
    row: Floats = np.eye(n_labels, dtype=np.float32)[target]
    return row


def split_groups(
    groups: Sequence[str], *, seed: str, targets: NDArray[np.int64] | None = None
) -> tuple[Split, ...]:
    """The split of every sample, 70/15/15 by group; stratified by label if `targets` are given.

    >>> split_groups(["41146240", "1", "41146240"], seed="sprsound")
    ('train', 'validation', 'train')
    """
    return tuple(SPLITS[part] for part in assign_parts(groups, targets, SHARES, seed=seed))


def assign_folds(
    groups: Sequence[str],
    targets: NDArray[np.int64],
    count: int,
    *,
    seed: str,
    rule: FoldRule = "iterative",
) -> NDArray[np.int64]:
    """The fold of every sample, stratified by label; a group is in one fold only.

    Raises TrainingError for fewer than two folds, or fewer groups than folds.
    """
    n_groups = len(set(groups))
    if count < 2 or n_groups < count:
        raise TrainingError(
            f"{n_groups} patients cannot be split into {count} folds; at least two folds and one "
            "patient per fold are needed."
        )
    if rule == "iterative":
        return assign_parts(groups, targets, (1 / count,) * count, seed=seed)
    # The Fraiwan figures in the cards of the lung models were measured with scikit-learn's folds.
    # Iterative stratification would put other patients together and change them.
    from sklearn.model_selection import StratifiedGroupKFold

    fold_of = np.empty(len(groups), np.int64)
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=int(seed))
    for fold, (_, held_out) in enumerate(splitter.split(targets, targets, groups)):
        fold_of[held_out] = fold
    return fold_of


def assign_parts(
    groups: Sequence[str],
    targets: NDArray[np.int64] | None,
    shares: Sequence[float],
    *,
    seed: str,
) -> NDArray[np.int64]:
    """The part of every sample, so that the parts have these shares; a group is in one part only.

    `targets`, (samples,) or (samples, labels) of 0 and 1, stratify the parts by label. With None,
    a group's part depends on its name and the seed alone. Both are deterministic, and neither
    depends on the order of the samples.

    >>> assign_parts(["a", "b", "c", "d"], np.array([0, 0, 1, 1]), (0.5, 0.5), seed="x").tolist()
    [1, 0, 1, 0]
    """
    names, group_of = np.unique(np.array(groups), return_inverse=True)
    # Not hash(), which Python salts anew in every process.
    digests = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in names]
    # Two rules on the same hash, because the test patients of a shipped model must not change:
    # those of pneumonia, COVID-19 and lung sounds were assigned by the hash alone, those of NIH's
    # fourteen findings by label as well. Only the first lets datasets with the same patients
    # share one split.
    if targets is None:
        part_of = _parts_by_hash(digests, shares)
    else:
        part_of = _stratified_parts(digests, group_of, _label_columns(targets), shares)
    result: NDArray[np.int64] = part_of[group_of].astype(np.int64)
    return result


def _parts_by_hash(digests: Sequence[bytes], shares: Sequence[float]) -> NDArray[np.int64]:
    """The part of every group: where its hash, read as a number from 0 to 1, falls."""
    positions = [int.from_bytes(digest[:8]) / 2**64 for digest in digests]
    # Without the last edge, which rounding may leave just below 1.
    parts: NDArray[np.int64] = np.searchsorted(np.cumsum(shares)[:-1], positions, side="right")
    return parts


def _stratified_parts(
    digests: Sequence[bytes],
    group_of: NDArray[np.int64],
    columns: NDArray[np.float64],
    shares: Sequence[float],
) -> NDArray[np.int64]:
    """The part of every group, by iterative stratification of whole groups.

    The rarest label left is assigned first, each of its groups to the part that lacks it most.
    """
    counts = np.zeros((len(digests), columns.shape[1]))
    # `counts[group_of] += columns` would count a group once, however many samples it has.
    np.add.at(counts, group_of, columns)
    order = np.array(sorted(range(len(digests)), key=lambda i: digests[i]))
    part_of = np.full(len(digests), -1)
    lacks = np.outer(shares, counts.sum(axis=0))  # (parts, labels)
    room = np.array(shares) * len(group_of)
    # Every group has a count in some column, if only in that of samples without a label. So each
    # round assigns at least one group.
    while (left := part_of < 0).any():
        remaining = counts[left].sum(axis=0)
        label = int(np.where(remaining > 0, remaining, np.inf).argmin())
        for group in order[left[order] & (counts[order, label] > 0)]:
            # Ties go to the part with the most room, then to the first.
            part = max(range(len(shares)), key=lambda p: (lacks[p, label], room[p], -p))
            part_of[group] = part
            lacks[part] -= counts[group]
            room[part] -= (group_of == group).sum()
    return part_of


def _label_columns(targets: NDArray[np.int64]) -> NDArray[np.float64]:
    """One column per label, the last for samples without any: (samples, labels + 1)."""
    if targets.ndim == 1:
        n_labels = int(targets.max(initial=0)) + 1
        rows = np.stack([one_hot(int(t), n_labels) for t in targets])
    else:
        rows = targets.astype(np.float32)
    none = rows.sum(axis=1, keepdims=True) == 0
    columns: NDArray[np.float64] = np.hstack([rows, none]).astype(np.float64)
    return columns
