"""What a person names on the Hub: which file that is, and that it is no other.

The Hub's protocol is spoken by a real server on this machine to the real client.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tests.hub.test_hub import (
    CONTENT,
    FILE,
    LIKE,
    SHA256,
    a_hub,
    a_model,
    hub_server,
    settings,
)
from tests.support.fake_hub import COMMIT, LATER, HubServer
from xai_demo.errors import CheckpointMismatchError, UnsuitableError
from xai_demo.hub.checkpoint import HubAddress, is_repo_id, parse_uri
from xai_demo.settings import Settings

__all__ = ["hub_server", "settings"]  # fixtures

OTHER = CONTENT[::-1]


@pytest.mark.parametrize(
    ("uri", "file", "revision"),
    [
        ("hf://owner/name", None, "main"),
        ("hf://owner/name@v2", None, "v2"),
        ("hf://owner/name/a/b.safetensors", "a/b.safetensors", "main"),
        (f"hf://owner/name@{COMMIT}/net=1.pth", "net=1.pth", COMMIT),
    ],
)
def test_an_address_is_taken_apart(uri: str, file: str | None, revision: str) -> None:
    assert parse_uri(uri) == HubAddress(repo_id="owner/name", filename=file, revision=revision)


@pytest.mark.parametrize("uri", ["", "weights/mine", "hf:/owner/name", "hf://owner", "HF://o/n"])
def test_what_is_no_address_is_left_to_be_a_path(uri: str) -> None:
    assert parse_uri(uri) is None


@pytest.mark.parametrize(
    "uri",
    [
        "hf://../..",
        "hf://owner/na..me",
        "hf://owner/-name",
        f"hf://{'o' * 97}/name",
        "hf://owner/name@..",
        "hf://owner/name/../../../w.safetensors",
        "hf://owner/name/w.bin",
        "hf://owner/name/w\n.safetensors",
        "hf://owner/name/w\0.safetensors",
        f"hf://owner/name/{'w' * 250}.safetensors",
        f"hf://owner/name@{'b' * 250}",
    ],
)
def test_what_cannot_be_on_the_hub_is_refused_before_it_is_asked(
    settings: Settings, hub_server: HubServer, uri: str
) -> None:
    with pytest.raises(UnsuitableError, match="expected a model directory") as refusal:
        a_hub(settings, hub_server).fetch_custom_weights(uri, like=LIKE)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 500
    assert hub_server.requests == []


@pytest.mark.parametrize("revision", ["", f"@{COMMIT}"])
def test_a_file_of_this_machine_is_never_one_of_the_hub(
    settings: Settings, hub_server: HubServer, tmp_path: Path, revision: str
) -> None:
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(OTHER)
    hub = a_hub(settings, hub_server)
    with pytest.raises(UnsuitableError, match="expected a model directory"):
        hub.fetch_custom_weights(f"hf://owner/name{revision}/{mine}", like=LIKE)
    assert mine.read_bytes() == OTHER
    assert hub_server.requests == []


def test_a_repository_has_an_owner_and_a_name() -> None:
    assert is_repo_id("owner/a-name_1.5")
    assert not any(map(is_repo_id, ["name", "a/b/c", "owner/a--b", "owner/name.git", "a/"]))


def test_weights_other_than_their_config_names_are_refused(
    settings: Settings, hub_server: HubServer
) -> None:
    mine = a_model("mine", sha256=SHA256)
    hub_server.put("config.json", json.dumps(mine.to_config()).encode())
    hub_server.put("model.safetensors", OTHER)
    with pytest.raises(CheckpointMismatchError, match=f"expected {SHA256}.*was deleted"):
        a_hub(settings, hub_server).fetch_custom_weights("hf://owner/name", like=LIKE)
    assert list(settings.cache_dir.rglob("model.safetensors*")) == []
    hub_server.put("model.safetensors", CONTENT)
    model, located = a_hub(settings, hub_server).fetch_custom_weights("hf://owner/name", like=LIKE)
    assert (model, located.sha256) == (mine, SHA256)


def test_a_pickle_is_held_to_what_its_first_fetch_brought(
    settings: Settings, hub_server: HubServer
) -> None:
    uri = f"hf://owner/name/{FILE}"
    first = a_hub(settings, hub_server).fetch_custom_weights(uri, like=LIKE)[1]
    assert first.sha256 == SHA256

    hub_server.branches["main"] = LATER
    hub_server.put(FILE, OTHER, commit=LATER)
    with pytest.raises(
        CheckpointMismatchError, match="A pickle must stay the one that was downloaded first"
    ) as refusal:
        a_hub(settings, hub_server).fetch_custom_weights(uri, like=LIKE)
    assert f"expected {SHA256}." in str(refusal.value)
    assert f"by its commit, {LATER}." in str(refusal.value)
    assert first.path.read_bytes() == CONTENT
    offline = dataclasses.replace(settings, offline=True)
    assert a_hub(offline).fetch_custom_weights(uri, like=LIKE)[1].path == first.path

    chosen = f"hf://owner/name@{LATER}/{FILE}"
    assert (
        a_hub(settings, hub_server).fetch_custom_weights(chosen, like=LIKE)[1].path.read_bytes()
        == OTHER
    )


def test_a_pickle_that_stayed_the_same_moves_with_its_branch(
    settings: Settings, hub_server: HubServer
) -> None:
    uri = f"hf://owner/name/{FILE}"
    a_hub(settings, hub_server).fetch_custom_weights(uri, like=LIKE)
    hub_server.branches["main"] = LATER
    hub_server.put(FILE, CONTENT, commit=LATER)
    located = a_hub(settings, hub_server).fetch_custom_weights(uri, like=LIKE)[1]
    assert (located.revision, located.sha256) == (LATER, SHA256)
