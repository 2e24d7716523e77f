"""Exported networks on the disk: found only if they are whole and of the weights wanted.

Beside each file lies `<file>.json`, which says whose weights, cut after which layer, and the file's
own sha256. A file without it, or other than it says, is passed over and in the end written anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

from xai_demo.hub.bundle import Digests

NAME = "model.onnx"  # of an exported network that lies beside its weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which network an exported file has to be."""

    weights_sha256: str
    architecture: str
    layer: str
    rows: int
    columns: int | None  # None: any number


class Exports:
    """The exported networks of a cache directory, and those beside their weights."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._digests = Digests()

    def found(self, wanted: Wanted, *, beside: Path) -> Path | None:
        """A whole exported file of the wanted network: in `beside`, else in the cache."""
        paths = (beside / NAME, self._cached(wanted))
        return next((path for path in paths if self._whole(path, wanted)), None)

    def keep(self, wanted: Wanted, data: bytes) -> bool:
        """Write the file into the cache; False where it cannot be written to."""
        try:
            write(self._cached(wanted), wanted, data)
        except OSError:
            return False
        return True

    def _cached(self, wanted: Wanted) -> Path:
        return self._folder / f"{wanted.weights_sha256}-{wanted.layer}.onnx"

    def _whole(self, path: Path, wanted: Wanted) -> bool:
        try:
            said = json.loads(_note(path).read_text(encoding="utf-8"))
            if not isinstance(said, dict) or said != asdict(wanted) | {"sha256": said["sha256"]}:
                return False
            return bool(self._digests.sha256(path) == said["sha256"])
        except (OSError, ValueError, KeyError):
            return False


def write(path: Path, wanted: Wanted, data: bytes) -> Path:
    """Write an exported file and what it is, each whole or not at all. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    note = asdict(wanted) | {"sha256": hashlib.sha256(data).hexdigest()}
    _replace(path, data)
    _replace(_note(path), (json.dumps(note, indent=2) + "\n").encode())
    return path


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
