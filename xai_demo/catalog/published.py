"""What the makers of a network say that it answers for a clip of theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedAnswer:
    """Some probabilities of one clip, and where both are from."""

    clip: str  # file name
    where: str  # a person finds the clip there
    probabilities: Mapping[str, float]
    tolerance: float
    sha256: str | None = None  # of the clip; None: not known
    url: str | None = (
        None  # of the clip itself, where its sha256 is known; None: a person brings it
    )
