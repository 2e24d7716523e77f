"""A checkpoint at an address of its own, as EfficientAT's release has it: pinned by its sha256."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from tests.hub.test_hub import CONTENT, FILE, SHA256, a_checkpoint, a_model
from tests.support.fake_hub import HubServer, serve_hub
from xai_demo.catalog import MODELS, Entry
from xai_demo.errors import CheckpointMismatchError, CheckpointUnavailableError
from xai_demo.hub import Hub
from xai_demo.hub.download import RetryPolicy
from xai_demo.settings import Settings

SECRET = "hf_" + "secret" * 5


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(weights_dir=tmp_path / "weights", cache_dir=tmp_path / "cache")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    with serve_hub() as server:
        server.put(FILE, CONTENT)
        yield server
    huggingface_hub.close_session()


def a_hub(settings: Settings, url: str, **changes: object) -> Hub:
    pins: dict[str, object] = {"revision": "v0.0.1", "url": url, "size_bytes": len(CONTENT)}
    entry = Entry(
        task="chest_xray", model=a_model("large"), checkpoint=a_checkpoint(**pins | changes)
    )
    return Hub(
        settings,
        catalog={"large": entry},
        endpoint="http://127.0.0.1:9",  # the Hub is not asked, and would not answer
        retry_policy=RetryPolicy(timeout_s=5, pause_s=0.01, tries=2),
    )


def test_the_file_comes_from_its_address_without_a_token_and_is_kept(
    settings: Settings, server: HubServer
) -> None:
    url = f"{server.storage_url}/stored/{SHA256}"
    hub = a_hub(settings, url)
    assert not hub.is_available("large")
    weights = hub.fetch_weights("large")
    assert weights.path.read_bytes() == CONTENT
    assert (weights.source, weights.revision, weights.sha256) == ("release", "v0.0.1", SHA256)
    assert [request.get("Authorization") for request in server.storage_requests] == [None]
    assert hub.is_available("large")
    row = hub.describe("large")
    assert (row["source"], row["pin"], row["url"], row["note"]) == ("release", "closed", url, "")

    server.storage_requests.clear()
    assert a_hub(settings, url).fetch_weights("large").source == "cache"
    assert server.storage_requests == []


def test_a_download_that_breaks_off_is_resumed(settings: Settings, server: HubServer) -> None:
    server.cuts = [len(CONTENT) // 2]
    hub = a_hub(settings, f"{server.storage_url}/stored/{SHA256}")
    assert hub.fetch_weights("large").path.read_bytes() == CONTENT
    ranges = [request.get("Range") for request in server.storage_requests]
    assert ranges == [None, f"bytes={len(CONTENT) // 2}-"]


def test_other_bytes_are_deleted_and_reported(settings: Settings, server: HubServer) -> None:
    hub = a_hub(settings, f"{server.storage_url}/stored/{SHA256}", sha256="0" * 64)
    with pytest.raises(CheckpointMismatchError, match=f"sha256 {SHA256}.*{'0' * 64}"):
        hub.fetch_weights("large")
    assert [path for path in settings.cache_dir.rglob("*") if path.name.startswith(FILE)] == []


def test_a_server_that_has_no_such_file_is_named_instead_of_the_hub(
    settings: Settings, server: HubServer
) -> None:
    hub = a_hub(settings, f"{server.url}/absent.pt")
    with pytest.raises(CheckpointUnavailableError) as error:
        hub.fetch_weights("large")
    message = str(error.value)
    assert "127.0.0.1 answered 404 for owner/name." in message
    assert "Hub" not in message
    assert "http" not in message
    assert SECRET not in message


def test_without_a_network_it_says_how_to_get_it(settings: Settings, server: HubServer) -> None:
    hub = a_hub(settings, "http://127.0.0.1:9/absent.pt")
    with pytest.raises(CheckpointUnavailableError) as error:
        hub.fetch_weights("large")
    assert "owner/name cannot be reached on 127.0.0.1" in str(error.value)
    assert "`python -m xai_demo fetch large`" in str(error.value)


def test_a_space_cannot_preload_it() -> None:
    entry = MODELS["efficientat-mn10"]
    assert entry.checkpoint is not None
    assert entry.checkpoint.site == "github.com"
    assert entry.preload_line is None
    assert not entry.has_open_pin
