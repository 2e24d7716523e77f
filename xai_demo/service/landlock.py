"""Landlock: a process gives up all files but a few, so that one upload cannot fetch another.

The kernel's own interface, for which Python has no library: three system calls, see landlock(7).
It is there since Linux 5.13, without privileges, and in containers.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

import xai_demo

# The same numbers on every architecture but Alpha.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG, _PATH_BENEATH, _NO_NEW_PRIVILEGES = 1, 1, 38
_READ_FILE, _READ_DIRECTORY = 1 << 2, 1 << 3
# Every access to files that the first version knows: running, reading, writing, making, removing.
_ALL_ACCESS = (1 << 13) - 1
_SYSTEM_PATHS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
_OWN_PATHS = ("/proc/self", "/dev/null", "/dev/urandom")


class ReadOnlyFiles:
    """The files that a process may go on reading; `restrict` closes all others to it for good."""

    def __init__(self) -> None:
        self._ruleset = _call(_CREATE_RULESET, struct.pack("=Q", _ALL_ACCESS), 8, 0)
        installed = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib")}
        base = Path(sys.base_prefix, "lib")
        self.add([*_SYSTEM_PATHS, *_OWN_PATHS, *installed, base, *xai_demo.__path__])

    @staticmethod
    def is_supported() -> bool:
        """Whether this kernel has Landlock, and it is switched on."""
        try:
            return sys.platform == "linux" and _call(_CREATE_RULESET, None, 0, _VERSION_FLAG) > 0
        except OSError:
            return False

    def add(self, paths: Iterable[str | Path]) -> None:
        """Keep these files, and folders with all that is in them; leaves out what is not there."""
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                access = _READ_FILE | (_READ_DIRECTORY if Path(path).is_dir() else 0)
                descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
                try:
                    rule = struct.pack("=Qi", access, descriptor)
                    _call(_ADD_RULE, self._ruleset, _PATH_BENEATH, rule, 0)
                finally:
                    os.close(descriptor)

    def restrict(self) -> None:
        """Give up every other file; what is open stays so."""
        ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        _call(_RESTRICT_SELF, self._ruleset, 0)
        os.close(self._ruleset)


def _call(number: int, *arguments: int | bytes | None) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "Landlock")
    return result
