"""Persons dealt into parts: nobody in two, every label in each."""

from __future__ import annotations

import numpy as np
import pytest

from xai_demo.errors import TrainingError
from xai_demo.training.datasets import assign_folds, assign_parts, split_groups


def findings(n: int = 1000, labels: int = 4) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(0)
    groups = [f"person{i}" for i in rng.integers(0, n // 2, size=n)]
    rates = np.array([0.3, 0.1, 0.05, 0.02])[:labels]
    return groups, (rng.random((n, labels)) < rates).astype(np.int64)


def test_nobody_is_in_two_parts_and_every_label_is_in_each_by_its_share():
    groups, targets = findings()
    splits = np.array(split_groups(groups, targets=targets, seed="any"))
    assert len(set(zip(groups, splits.tolist(), strict=True))) == len(set(groups))
    for split, share in (("train", 0.7), ("validation", 0.15), ("test", 0.15)):
        part = targets[splits == split]
        assert len(part) == pytest.approx(share * 1000, abs=15)
        wanted = share * targets.sum(axis=0)
        assert np.abs(part.sum(axis=0) - wanted).max() <= 2.5


def test_four_of_a_rare_label_are_dealt_to_all_three_parts():
    targets = np.zeros((100, 1), np.int64)
    targets[:6] = 1
    splits = split_groups([str(i) for i in range(100)], targets=targets, seed="any")
    assert sorted(splits[:6]) == ["test", "train", "train", "train", "train", "validation"]


def test_exclusive_labels_and_samples_without_a_label_have_their_share_too():
    groups = [str(i) for i in range(200)]
    parts = assign_parts(groups, np.repeat([0, 1], 100), (0.5, 0.5), seed="any")
    assert [int((parts[:100] == p).sum()) for p in (0, 1)] == [50, 50]
    targets = np.zeros((200, 1), np.int64)
    targets[100:] = 1
    parts = assign_parts(groups, targets, (0.8, 0.2), seed="any")
    assert [int((parts[:100] == p).sum()) for p in (0, 1)] == [80, 20]


def test_the_parts_do_not_hang_on_the_order_of_the_samples_and_the_seed_changes_them():
    groups, targets = findings()
    parts = assign_parts(groups, targets, (0.7, 0.3), seed="one")
    turned = assign_parts(groups[::-1], targets[::-1], (0.7, 0.3), seed="one")
    np.testing.assert_array_equal(parts, turned[::-1])
    assert (parts != assign_parts(groups, targets, (0.7, 0.3), seed="two")).any()


def test_folds_are_as_many_as_asked_for_and_need_a_person_each():
    groups, targets = findings()
    found = assign_folds(groups, targets, 5, seed="any")
    assert np.bincount(found).tolist() == pytest.approx([200] * 5, abs=10)
    with pytest.raises(
        TrainingError, match="1 patients cannot be split into 2 folds; at least two"
    ):
        assign_folds(["a", "a"], np.zeros(2, np.int64), 2, seed="any")
    with pytest.raises(TrainingError, match="into 1 folds"):
        assign_folds(["a", "b"], np.zeros(2, np.int64), 1, seed="any")
