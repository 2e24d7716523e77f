"""Large arrays in a file without a name, so that memory does not grow with a recording."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from xai_demo.records import Floats

_LARGE_BYTES = 2**24  # seven minutes at 8 kHz; what is smaller stays in memory
_STRETCH = 2**20  # values worked on between two that give memory back


def empty(shape: tuple[int, ...]) -> Floats:
    """An array to be filled: in memory while it is small, else in a file that dies with it."""
    size = 4 * math.prod(shape)
    if size < _LARGE_BYTES or not hasattr(os, "posix_fallocate"):
        return np.empty(shape, np.float32)
    with contextlib.suppress(OSError), tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, size)  # where the disk is full this fails, not a write
        return np.ndarray(shape, np.float32, buffer=mmap.mmap(file.fileno(), size))
    return np.empty(shape, np.float32)


def settle(array: Floats) -> None:
    """Give the memory back that an array in a file has taken on the way; its values stay."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def stretches(array: Floats, step: int = 1) -> Iterator[slice]:
    """Slices of the first axis, at multiples of `step`, with memory given back between them."""
    each = math.prod(array.shape[1:])
    size = step * max(1, _STRETCH // max(1, each * step))
    for first in range(0, len(array), size):
        yield slice(first, min(first + size, len(array)))
        settle(array)


class Growing:
    """A sound that comes piece by piece."""

    def __init__(self, expected: int = 0) -> None:
        self._room = empty((max(expected, 2**16),))
        self._count = 0

    def add(self, piece: Floats) -> None:
        """Append the samples."""
        end = self._count + len(piece)
        if end > len(self._room):
            self._move(empty((max(end, 2 * len(self._room)),)))
        self._room[self._count : end] = piece
        if end // _STRETCH > self._count // _STRETCH:
            settle(self._room)
        self._count = end

    def whole(self) -> Floats:
        """All that came, (time,)."""
        return self._room[: self._count]

    def _move(self, room: Floats) -> None:
        held = self.whole()
        for part in stretches(held):
            room[part] = held[part]
            settle(room)
        self._room = room
