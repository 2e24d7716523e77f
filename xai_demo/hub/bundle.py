"""A model is a directory: `config.json`, read here, and `model.safetensors`, verified here."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

from xai_demo.errors import CheckpointMismatchError, UnreadableFileError
from xai_demo.records import Model

CONFIG = "config.json"
WEIGHTS = "model.safetensors"


def read_config(path: Path) -> Any:
    """The JSON value in a file; UnreadableFileError when there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise UnreadableFileError(f"{path} cannot be read: {said}; wanted: JSON.") from error


def read_model(directory: Path) -> Model:
    """What the directory's `config.json` says; UnreadableFileError when it says no whole model."""
    path = directory / CONFIG
    config = read_config(path)
    try:
        model = Model.from_config(config)
    except KeyError as error:
        raise UnreadableFileError(f"{path} does not say {error.args[0]!r}.") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise UnreadableFileError(f"{path} does not describe a model: {error}.") from error
    if not isinstance(config["labels"], list) or not 1 < len(set(model.labels)) == len(
        model.labels
    ):
        raise UnreadableFileError(f"{path} has labels {config['labels']!r}; wanted: two or more.")
    return model


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Digests:
    """The sha256 of files, worked out again only when a file has changed."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int, int], str] = {}
        self._lock = threading.Lock()

    def sha256(self, path: Path) -> str:
        """The sha256 of the file's bytes, in lower-case hexadecimal digits."""
        facts = path.stat()
        key = (str(path), facts.st_size, facts.st_mtime_ns, facts.st_ino)
        with self._lock:
            if key not in self._known:
                self._known[key] = sha256_of(path)
            return self._known[key]

    def verified(self, path: Path, *, sha256: str | None, size_bytes: int | None = None) -> str:
        """The file's sha256; CheckpointMismatchError where that or the size is not the wanted."""
        size = path.stat().st_size
        if size_bytes not in (None, size):
            raise CheckpointMismatchError(f"{path} has {size:,} bytes; wanted: {size_bytes:,}.")
        actual = self.sha256(path)
        if sha256 not in (None, actual):
            raise CheckpointMismatchError(
                f"{path} ({size:,} bytes) has sha256 {actual}; wanted: {sha256}."
            )
        return actual
