"""What a synthesised file holds, and where: known, because it was put there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xai_demo.records import Task

if TYPE_CHECKING:
    from xai_demo.records import Floats, Pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """A stretch of sound and the band that holds its energy."""

    label: str
    start_s: float
    end_s: float
    low_hz: float
    high_hz: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A region of a picture in fractions of its width and height, from its upper left corner."""

    label: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Synthesised:
    """A made sound and what is in it."""

    samples: Floats  # (time,), -1..1
    sample_rate_hz: int
    truth: tuple[Truth, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phantom:
    """A made radiograph and what is in it."""

    pixels: Pixels  # (height, width) grey
    truth: tuple[Box, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A file that ships with the demo, and how it was made."""

    task: Task
    file: str
    title: str
    expectation: str  # what was put in, never what a network answers
    build: Callable[[], Synthesised | Phantom]
