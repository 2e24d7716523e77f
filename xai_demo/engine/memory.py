"""The process's memory: few places to keep freed memory in, and given back now and then.

glibc gives every thread its own arena of memory and seldom returns any. Where many threads answer
in turn, each arena keeps what its largest answer took. Elsewhere than on glibc nothing is done.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
_ARENAS = 1
EVERY = 1  # of so many answers one gives memory back; it takes about a millisecond


def keep_few_arenas() -> bool:
    """Have threads share their memory from now on; False where that cannot be had."""
    library = _glibc()
    return bool(library and library.mallopt(_ARENA_MAX, _ARENAS))


def giver_back(every: int = EVERY, trim: Callable[[], object] | None = None) -> Callable[[], None]:
    """Something to call after each answer; each so-manieth time it gives freed memory back."""
    library = _glibc()
    give = trim or (lambda: library.malloc_trim(0) if library else None)
    count = itertools.count(1)

    def after() -> None:
        if next(count) % every == 0:
            give()

    return after


def resident_mb() -> float:
    """What of this process lies in memory now, in megabytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def threads() -> int:
    """How many threads this process has, those of libraries included (Linux)."""
    return len(os.listdir("/proc/self/task"))


def _glibc() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if all(hasattr(library, n) for n in ("mallopt", "malloc_trim")) else None
