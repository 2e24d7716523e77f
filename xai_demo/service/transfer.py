"""Values between the server and a worker: JSON for what is small, an open file for arrays.

Whatever comes from a worker is data and never code: nothing is unpickled, records are built from a
list that the server names, and every offset is checked against the file. Numbers, texts, lists,
tuples, dictionaries, paths, bytes, numpy arrays and records (dataclasses) are understood.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# Arrays start at multiples of this, so that every dtype is aligned.
_ALIGNMENT = 64
# bool, signed, unsigned, float and complex: no dtype that holds objects.
_DTYPE_KINDS = "biufc"


class Encoder:
    """Turns values into JSON; the contents of arrays and bytes are kept aside for a file."""

    def __init__(self) -> None:
        self._blobs: list[tuple[int, memoryview]] = []
        self.size = 0  # bytes that the file will have

    def encode(self, value: Any) -> bytes:
        """The value as JSON; raises TypeError for a type that is not understood."""
        return json.dumps(self._tree(value), separators=(",", ":")).encode()

    def write(self, descriptor: int) -> None:
        """Write the contents of arrays and bytes to an open file; raises OSError."""
        for offset, blob in self._blobs:
            while blob:
                count = os.pwrite(descriptor, blob, offset)
                blob, offset = blob[count:], offset + count

    def _tree(self, value: Any) -> Any:
        match value:
            case None | bool() | int() | float() | str():
                # Subclasses, such as numpy's float64, become what they are equal to.
                return value
            case list():
                return [self._tree(each) for each in value]
            case tuple():
                return {"tuple": [self._tree(each) for each in value]}
            case Mapping():
                return {"dict": [[self._tree(k), self._tree(v)] for k, v in value.items()]}
            case Path():
                return {"path": str(value)}
            case bytes():
                return {"bytes": [self._keep(memoryview(value)), len(value)]}
            case np.generic():
                return self._tree(value.item())
            case np.ndarray() if value.dtype.kind in _DTYPE_KINDS:
                contents = np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
                shape = list(value.shape)
                return {"array": [self._keep(contents), value.dtype.str, shape]}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [each.name for each in dataclasses.fields(value)]
            fields = {name: self._tree(getattr(value, name)) for name in names}
            return {"record": type(value).__name__, "fields": fields}
        raise TypeError(f"{type(value).__name__} cannot be passed between server and worker")

    def _keep(self, contents: memoryview) -> int:
        offset = -(-self.size // _ALIGNMENT) * _ALIGNMENT
        if contents.nbytes:
            self._blobs.append((offset, contents.cast("B")))
            self.size = offset + contents.nbytes
        return offset if contents.nbytes else 0


def parse(message: bytes) -> Any:
    """The JSON in a message; raises ValueError for anything else, however deeply nested it is."""
    try:
        return json.loads(message)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def decode(tree: Any, contents: Any = b"", *, records: Iterable[type] = ()) -> Any:
    """The value that an `Encoder` has encoded, from its parsed JSON.

    Arrays are views of the buffer `contents`. Raises ValueError for anything else, whatever it is.
    """
    known = {record.__name__: record for record in records}
    try:
        return _value(tree, memoryview(contents), contents, known)
    # Hostile input meets constructors of any kind here: each may raise what it likes.
    except Exception as error:
        raise ValueError(f"not a value of a worker: {type(error).__name__}") from error


def _value(tree: Any, view: memoryview, contents: Any, known: Mapping[str, type]) -> Any:
    def value(each: Any) -> Any:
        return _value(each, view, contents, known)

    match tree:
        case None | bool() | int() | float() | str():
            return tree
        case list():
            return [value(each) for each in tree]
        case {"tuple": list(items)}:
            return tuple(value(each) for each in items)
        case {"dict": list(items)}:
            return {value(key): value(each) for key, each in items}
        case {"path": str(path)}:
            return Path(path)
        case {"bytes": [int(offset), int(size)]}:
            _check_range(offset, size, view)
            return bytes(view[offset : offset + size])
        case {"array": [int(offset), str(name), list(shape)]}:
            return _array(offset, np.dtype(name), tuple(map(int, shape)), view, contents)
        case {"record": str(name), "fields": dict(fields)}:
            return known[name](**{key: value(each) for key, each in fields.items()})
    raise ValueError("an unknown kind of value")


def _array(
    offset: int, dtype: np.dtype[Any], shape: tuple[int, ...], view: memoryview, contents: Any
) -> Any:
    if dtype.kind not in _DTYPE_KINDS or any(length < 0 for length in shape):
        raise ValueError("not an array of numbers")
    size = dtype.itemsize * math.prod(shape)
    _check_range(offset, size, view)
    if not size:
        return np.empty(shape, dtype)
    # Of the buffer itself, not of the view: `files.release_pages` looks for a memory map.
    return np.ndarray(shape, dtype, buffer=contents, offset=offset)


def _check_range(offset: int, size: int, view: memoryview) -> None:
    if not 0 <= offset <= offset + size <= view.nbytes:
        raise ValueError("a range outside of the file")
