"""What travels between the server and a worker: exact for values, closed to everything else."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.service import hostile_jobs
from xai_demo.records import Recording
from xai_demo.service.transfer import Encoder, decode, parse


def there_and_back(value: Any, tmp_path: Path) -> Any:
    encoder = Encoder()
    message = encoder.encode(value)
    path = tmp_path / "contents"
    with path.open("w+b") as file:
        encoder.write(file.fileno())
    assert path.stat().st_size == encoder.size
    return decode(parse(message), bytearray(path.read_bytes()), records=[Recording])


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 3, 10**30, 0.1, float("inf"), "wörd\0", b"", b"\0\xff", Path("a b")),
        *((), [[]], {"a": (1, [2, {"tuple": 3}])}, {1: 2, (3, "x"): None}),
    ],
)
def test_values_come_back_as_they_were(value: Any, tmp_path: Path) -> None:
    back = there_and_back(value, tmp_path)
    assert back == value
    assert type(back) is type(value)


def test_arrays_come_back_to_the_bit(tmp_path: Path) -> None:
    value = hostile_jobs.many_arrays()
    back = there_and_back(value, tmp_path)
    assert list(back) == list(value)
    for name in ("empty", "odd", "reversed"):
        assert back[name].dtype == value[name].dtype
        assert back[name].shape == value[name].shape
        assert back[name].tobytes() == value[name].tobytes()
    back["odd"][0] = 9  # a copy that may be changed
    sound = there_and_back(hostile_jobs.recording(0.5), tmp_path)
    assert sound.samples.tobytes() == hostile_jobs.recording(0.5).samples.tobytes()
    assert (sound.facts, sound.warnings) == ({"a": 0.1}, ("short",))


def test_what_has_no_form_is_not_sent() -> None:
    for value in (object(), {1, 2}, np.array([object()]), Recording, np.array(["a"])):
        with pytest.raises(TypeError, match="cannot be passed"):
            Encoder().encode(value)


@pytest.mark.parametrize(
    "tree",
    [
        {"record": "Popen", "fields": {"args": ["true"]}},
        {"record": "Recording", "fields": {"no": 1}},
        {"record": "Recording", "fields": {}},
        {"array": [0, "|O", [1]]},
        {"array": [0, "<f4", [-1]]},
        {"array": [0, "<f4", [5]]},
        {"array": [-4, "<f4", [1]]},
        {"array": [2**70, "<f4", [1]]},
        {"array": [0, "f4,O", [1]]},
        {"array": [0, "no dtype", [1]]},
        {"array": [0, "<f4", ["x"]]},
        {"bytes": [0, 17]},
        {"bytes": [8, -4]},
        {"dict": [[[], 1]]},
        {"dict": [1]},
        {"py/object": "os.system"},
        {},
    ],
)
def test_nothing_else_is_taken_from_a_worker(tree: Any) -> None:
    with pytest.raises(ValueError, match="not a value of a worker"):
        decode(tree, bytearray(16), records=[Recording])


def test_a_message_nested_too_deeply_is_a_value_error() -> None:
    for message in (b"[" * 10**6, b"\x80\x04cos\nsystem\n", b"", json.dumps("x").encode()[:-1]):
        with pytest.raises(ValueError, match=r".+"):
            parse(message)
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    with pytest.raises(ValueError, match="not a value of a worker"):
        decode({"list": os.sep, "deep": deep})
