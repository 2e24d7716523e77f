"""The COVID-19 Radiography Database: adults' radiographs with COVID-19, and normal ones.

Chowdhury et al. 2020, Rahman et al. 2021. Its films of COVID-19 come mostly from hospitals in
Spain, its normal ones from NIH's hospital, read as normal by radiologists (RSNA). It names no
patients. A table beside the folders, `films.csv`, has for each file its label, the block of
neighbouring numbers that it is in, because neighbours may share a patient, and its near duplicates.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from xai_demo.errors import TrainingError
from xai_demo.training.datasets import Split, split_groups
from xai_demo.training.datasets.radiographs import RadiographFile

TABLE = "films.csv"
COVID, NORMAL = "COVID-19", "Normal"
# Begins the group of each of its films.
PREFIX = "radiography:"
_COLUMNS = ("file", "label", "block", "near_duplicates")
_SEED = "radiography"


def find_table(data: Path) -> Path | None:
    """The table of films in or below a folder; None where there is none."""
    return next(iter(sorted(data.rglob(TABLE))), None)


def list_radiographs(data: Path) -> list[RadiographFile]:
    """Every film of the table; films that share a block or a near duplicate are one group.

    [] where `data` has no such table. Raises TrainingError where the table lacks a column, has
    another label, or names a file that is not there.
    """
    path = find_table(data)
    if path is None:
        return []
    with path.open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        missing = [column for column in _COLUMNS if column not in (table.fieldnames or ())]
        if missing:
            raise TrainingError(
                f"{path.name} has the columns {', '.join(table.fieldnames or ()) or 'none'}; it "
                f"also needs {', '.join(missing)}."
            )
        rows = list(table)
    for number, row in enumerate(rows, start=2):
        if row["label"] not in (COVID, NORMAL):
            raise TrainingError(
                f"{path.name}, line {number}: the label is {row['label']!r}; expected is {COVID} "
                f"or {NORMAL}."
            )
        if not (path.parent / row["file"]).is_file():
            raise TrainingError(
                f"{path.name}, line {number}: {row['file']} is not in {path.parent}; every film of "
                "the table must be there."
            )
    groups = join_blocks([(row["block"], row["near_duplicates"]) for row in rows])
    return [
        RadiographFile(
            path=path.parent / row["file"], patient=f"{PREFIX}{group}", labels=(row["label"],)
        )
        for row, group in zip(rows, groups, strict=True)
    ]


def join_blocks(keys: Sequence[tuple[str, str]]) -> list[str]:
    """The group of each (block, near duplicates): whoever shares one of the two shares a group.

    >>> join_blocks([("a", "1"), ("b", "1"), ("b", "2"), ("c", "3")])
    ['a', 'a', 'a', 'c']
    """
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        parent.setdefault(name, name)
        while parent[name] != name:
            name = parent[name]
        return name

    for block, near in keys:
        first, second = root(f"block {block}"), root(f"near {near}")
        parent[second] = first
    members: dict[str, list[str]] = {}
    for block, _ in keys:
        members.setdefault(root(f"block {block}"), []).append(block)
    # By name, so that the order of the rows makes no difference.
    return [min(members[root(f"block {block}")]) for block, _ in keys]


def splits_of(groups: Sequence[str]) -> tuple[Split, ...]:
    """The split of films by group, the same for every network that is trained on them."""
    return split_groups(groups, seed=_SEED)
