"""The hub: bundled before cache before Hub, nothing handed out that was not verified.

The Hub's protocol is spoken by a real server on this machine to the real client.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants
import pytest

from tests.support.fake_hub import (
    COMMIT,
    LATER,
    HubServer,
    serve_hub,
)
from tests.support.small_models import MEL
from xai_demo.catalog import Entry
from xai_demo.catalog.sources import Checkpoint
from xai_demo.errors import (
    CheckpointMismatchError,
    CheckpointUnavailableError,
    UnknownNameError,
    UnreadableFileError,
    UnsuitableError,
)
from xai_demo.hub import Hub
from xai_demo.hub.download import RetryPolicy
from xai_demo.records import Metric, Model, Raster
from xai_demo.settings import Settings

CONTENT = b"what a network learnt " * 50_000  # 1.1 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = "net=1.pth"


def a_model(name: str = "small", **changes: object) -> Model:
    facts: dict[str, object] = {
        "name": name,
        "title": "A small network",
        "task": "chest_xray",
        "architecture": "resnet18",
        "labels": ("Normal", "Pneumonia"),
        "preprocessing": Raster(height=8, width=8, mean=0.5, std=0.5),
        "activation": "softmax",
        "licence": "MIT",
        "data": "made up",
        "citation": "nobody",
    }
    return Model(**(facts | changes))  # type: ignore[arg-type]


def a_checkpoint(**changes: object) -> Checkpoint:
    facts: dict[str, object] = {
        "repo_id": "owner/name",
        "filename": FILE,
        "revision": COMMIT,
        "sha256": SHA256,
        "size_bytes": len(CONTENT),
    }
    return Checkpoint(**(facts | changes))  # type: ignore[arg-type]


def a_catalog(**changes: object) -> dict[str, Entry]:
    return {
        "large": Entry(
            task="chest_xray", model=a_model("large"), checkpoint=a_checkpoint(**changes)
        ),
        "small": Entry(task="chest_xray", stand_in_for="large"),
    }


def a_directory(path: Path, model: Model | None = None, content: bytes = CONTENT) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    model = model or a_model(sha256=hashlib.sha256(content).hexdigest())
    (path / "config.json").write_text(json.dumps(model.to_config()))
    (path / "model.safetensors").write_bytes(content)
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(weights_dir=tmp_path / "weights", cache_dir=tmp_path / "cache")


@pytest.fixture
def hub_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    with serve_hub() as hub_server:
        hub_server.put(FILE, CONTENT)
        yield hub_server
    huggingface_hub.close_session()


def a_hub(settings: Settings, hub_server: HubServer | None = None, **pins: object) -> Hub:
    # Port 9 of this machine (discard) answers nobody.
    return Hub(
        settings,
        catalog=a_catalog(**pins),
        endpoint=hub_server.url if hub_server else "http://127.0.0.1:9",
        retry_policy=RetryPolicy(timeout_s=5, pause_s=0.01),
    )


def offline(settings: Settings) -> Settings:
    return dataclasses.replace(settings, offline=True)


# Names


def test_names_come_in_the_catalogues_order(settings: Settings) -> None:
    hub = a_hub(settings)
    assert hub.names() == ("large", "small")
    assert hub.names("chest_xray") == ("large", "small")
    assert hub.names("stethoscope") == ()


@pytest.mark.parametrize("ask", ["model", "is_available", "fetch_weights", "describe", "entry"])
def test_an_unknown_name_is_answered_with_the_known_ones(settings: Settings, ask: str) -> None:
    with pytest.raises(
        UnknownNameError, match=r"no model named 'tiny'; choose from: large, small\."
    ):
        getattr(a_hub(settings), ask)("tiny")


# Bundled


def test_a_bundled_model_is_found_and_verified(settings: Settings) -> None:
    directory = a_directory(settings.weights_dir / "small")
    hub = a_hub(offline(settings))
    located = hub.fetch_weights("small")
    assert located.path == directory / "model.safetensors"
    assert (located.source, located.sha256, located.repo_id) == ("bundled", SHA256, None)
    assert hub.model("small") == a_model(sha256=SHA256)
    assert hub.is_available("small")


def test_a_bundled_file_that_was_changed_is_refused_and_stays(settings: Settings) -> None:
    directory = a_directory(settings.weights_dir / "small", a_model(sha256="0" * 64))
    hub = a_hub(offline(settings))
    assert not hub.is_available("small")
    with pytest.raises(CheckpointMismatchError, match=f"sha256 {SHA256}; expected 0000"):
        hub.fetch_weights("small")
    assert (directory / "model.safetensors").read_bytes() == CONTENT


def test_a_file_replaced_after_it_was_verified_is_noticed(settings: Settings) -> None:
    directory = a_directory(settings.weights_dir / "small")
    hub = a_hub(offline(settings))
    hub.fetch_weights("small")
    (directory / "model.safetensors").write_bytes(CONTENT + b"!")
    with pytest.raises(CheckpointMismatchError):
        hub.fetch_weights("small")


def test_a_file_is_hashed_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    a_directory(settings.weights_dir / "small")
    hub = a_hub(offline(settings))
    hub.fetch_weights("small")
    monkeypatch.setattr(hashlib, "file_digest", None)  # a second hash would fail
    assert hub.fetch_weights("small").sha256 == SHA256


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("{", "cannot be read"),
        ("[]", "has no 'task'|does not describe a model"),
        ("{}", "has no 'task'"),
        ('{"task": "chest_xray", "preprocessing": 3}', "does not describe a model"),
    ],
)
def test_a_broken_config_makes_one_model_unavailable(
    settings: Settings, config: str, says: str
) -> None:
    directory = a_directory(settings.weights_dir / "small")
    (directory / "config.json").write_text(config)
    a_directory(settings.weights_dir / "large", a_model("large", sha256=SHA256))
    hub = a_hub(offline(settings))
    with pytest.raises(CheckpointUnavailableError, match=says):
        hub.model("small")
    assert not hub.is_available("small")
    assert hub.is_available("large")
    assert "python -m xai_demo train small" in hub.describe("small")["note"]


@pytest.mark.parametrize(
    "change",
    [{"labels": ("Normal",)}, {"labels": ("a", "a")}, {"name": "other"}, {"metrics": ["f1"]}],
)
def test_a_config_that_contradicts_itself_is_refused(
    settings: Settings, change: dict[str, object]
) -> None:
    directory = a_directory(settings.weights_dir / "small")
    config = a_model().to_config() | change
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointUnavailableError):
        a_hub(settings).model("small")


def test_missing_weights_say_what_to_do(settings: Settings) -> None:
    directory = a_directory(settings.weights_dir / "small")
    (directory / "model.safetensors").unlink()
    hub = a_hub(settings)
    assert not hub.is_available("small")
    with pytest.raises(CheckpointUnavailableError, match=r"is missing.*python -m xai_demo train"):
        hub.fetch_weights("small")


def test_the_default_is_the_first_that_is_here(settings: Settings) -> None:
    a_directory(settings.weights_dir / "small")
    hub = a_hub(offline(settings))
    assert hub.default_model("chest_xray") == "small"
    a_directory(settings.weights_dir / "large", a_model("large", sha256=SHA256))
    assert hub.default_model("chest_xray") == "large"


def test_no_default_where_nothing_is_here(settings: Settings) -> None:
    with pytest.raises(CheckpointUnavailableError, match="looked for large, small in"):
        a_hub(offline(settings)).default_model("chest_xray")


# Hub and cache


def test_a_checkpoint_is_fetched_verified_and_then_kept(
    settings: Settings, hub_server: HubServer
) -> None:
    hub = a_hub(settings, hub_server)
    assert not hub.is_available("large")
    told: list[tuple[float, str]] = []
    located = hub.fetch_weights(
        "large", progress=lambda fraction, what: told.append((fraction, what))
    )
    assert located.path.read_bytes() == CONTENT
    assert (located.source, located.repo_id) == ("hub", "owner/name")
    assert (located.revision, located.sha256) == (COMMIT, SHA256)
    fractions = [fraction for fraction, _ in told]
    assert fractions == sorted(fractions)
    assert 0 <= fractions[0] <= fractions[-1] <= 1
    assert FILE in told[0][1]

    hub_server.requests.clear()
    assert hub.is_available("large")
    assert hub.fetch_weights("large").source == "cache"
    assert a_hub(offline(settings)).fetch_weights("large").path == located.path
    assert hub_server.requests == []


def test_wrong_bytes_are_refused_deleted_and_said(
    settings: Settings, hub_server: HubServer
) -> None:
    hub_server.put(FILE, CONTENT[::-1])
    hub = a_hub(settings, hub_server)
    with pytest.raises(CheckpointMismatchError, match=f"expected {SHA256}.*was deleted"):
        hub.fetch_weights("large")
    assert not hub.is_available("large")
    assert [p for p in settings.cache_dir.rglob(FILE) if p.is_file()] == []

    hub_server.put(FILE, CONTENT)
    assert hub.fetch_weights("large").sha256 == SHA256


def test_a_wrong_size_is_refused(settings: Settings, hub_server: HubServer) -> None:
    with pytest.raises(
        CheckpointMismatchError,
        match=r"announces 1,100,000 bytes for net=1\.pth of owner/name; expected 7",
    ):
        a_hub(settings, hub_server, size_bytes=7).fetch_weights("large")


def test_a_cached_file_gone_bad_is_fetched_again(settings: Settings, hub_server: HubServer) -> None:
    path = a_hub(settings, hub_server).fetch_weights("large").path
    path.write_bytes(CONTENT[::-1])
    with pytest.raises(CheckpointMismatchError, match="was deleted"):
        a_hub(offline(settings)).fetch_weights("large")
    assert not path.exists()
    path.write_bytes(CONTENT[::-1])
    assert a_hub(settings, hub_server).fetch_weights("large").source == "hub"
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "revision", "says"),
    [
        (None, None, "has no file 'net=1.pth'"),
        (None, "d" * 40, "has no such revision"),
        (401, None, "The Hub answered 401 for owner/name"),
        (403, None, "The Hub answered 403 for owner/name"),
    ],
)
def test_what_the_hub_refuses_is_said_with_what_to_do(
    settings: Settings, hub_server: HubServer, status: int | None, revision: str | None, says: str
) -> None:
    hub_server.files = {("owner/name", COMMIT, "other"): b"another file"}
    hub_server.status = status
    with pytest.raises(CheckpointUnavailableError, match=says) as refusal:
        a_hub(settings, hub_server, revision=revision).fetch_weights("large")
    assert "python -m xai_demo fetch large" in str(refusal.value)
    assert str(settings.cache_dir) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_repository_that_the_hub_does_not_show_is_named(
    settings: Settings, hub_server: HubServer
) -> None:
    hub_server.files.clear()
    with pytest.raises(CheckpointUnavailableError, match="has no repository owner/name"):
        a_hub(settings, hub_server, revision=None).fetch_weights("large")


def test_a_branch_that_is_not_there_is_said(settings: Settings, hub_server: HubServer) -> None:
    with pytest.raises(CheckpointUnavailableError, match="owner/name has no such revision"):
        a_hub(settings, hub_server).fetch_custom_weights(f"hf://owner/name@dev/{FILE}", like=LIKE)


@pytest.mark.parametrize(
    "page",
    [
        b"<html>Please log in</html>",
        b"",
        b"[]",
        b"7",
        b"null",
        b'{"id": 1',
        b'{"id": "owner/name", "sha": 7}',
    ],
)
@pytest.mark.parametrize("revision", [None, COMMIT])
def test_a_server_that_answers_otherwise_than_the_hub_is_not_called_unreachable(
    settings: Settings, hub_server: HubServer, page: bytes, revision: str | None
) -> None:
    hub_server.page = page
    with pytest.raises(CheckpointUnavailableError) as caught:
        a_hub(settings, hub_server, revision=revision).fetch_weights("large")
    message = str(caught.value)
    assert "cannot be reached" not in message
    assert re.search(r"answered for owner/name, but not as the Hub does|names '7' as the", message)
    assert "log in" not in message


def test_a_hub_that_is_down_is_said_and_the_cache_still_answers(
    settings: Settings, hub_server: HubServer
) -> None:
    with pytest.raises(CheckpointUnavailableError, match="cannot be reached"):
        a_hub(settings, revision=None).fetch_weights("large")
    a_hub(settings, hub_server, revision=None).fetch_weights("large")
    assert a_hub(settings, revision=None).fetch_weights("large").source == "cache"


def test_offline_asks_nobody(settings: Settings, hub_server: HubServer) -> None:
    with pytest.raises(CheckpointUnavailableError, match="HF_HUB_OFFLINE is set"):
        a_hub(offline(settings), hub_server, revision=None).fetch_weights("large")
    assert hub_server.requests == []


def test_the_token_is_never_shown(
    settings: Settings, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    hub_server.status = 403
    with pytest.raises(CheckpointUnavailableError) as refusal:
        a_hub(settings, hub_server, revision=None).fetch_weights("large")
    assert "hf_secret" not in str(refusal.value)


def test_an_open_pin_is_closed_by_the_first_fetch_alone(
    settings: Settings, hub_server: HubServer
) -> None:
    pins = {"revision": None, "sha256": None, "size_bytes": None}
    hub = a_hub(settings, hub_server, **pins)
    assert hub.describe("large")["pin"] == "open"
    assert "revision and sha256" in hub.describe("large")["note"]
    with pytest.raises(CheckpointUnavailableError, match="Its pin is open: no sha256 of net=1"):
        hub.fetch_weights("large")
    assert hub_server.requests == []
    first = hub.fetch_weights("large", close_open_pin=True)
    assert (first.revision, first.sha256) == (COMMIT, SHA256)
    assert any("/revision/main" in request for request in hub_server.requests)
    assert any(f"/resolve/{COMMIT}/" in request for request in hub_server.requests)

    hub_server.branches["main"] = LATER
    hub_server.put(FILE, b"something else", commit=LATER)
    again = a_hub(settings, hub_server, **pins)
    assert again.fetch_weights("large").revision == COMMIT
    assert again.describe("large")["sha256"] == SHA256

    first.path.write_bytes(b"tampered with")
    with pytest.raises(CheckpointMismatchError, match=f"expected {SHA256}"):
        a_hub(offline(settings), **pins).fetch_weights("large")


def test_a_broken_lock_file_is_named(settings: Settings, hub_server: HubServer) -> None:
    hub = a_hub(settings, hub_server, revision=None)
    hub.fetch_weights("large")
    (lock,) = settings.cache_dir.rglob("*.lock.json")
    lock.write_text("{")
    with pytest.raises(CheckpointUnavailableError, match="is broken; delete it"):
        hub.fetch_weights("large")


def test_two_visitors_fetch_once(settings: Settings, hub_server: HubServer) -> None:
    hub = a_hub(settings, hub_server)
    sources: list[str] = []
    threads = [
        threading.Thread(target=lambda: sources.append(hub.fetch_weights("large").source))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sources) == ["cache", "cache", "cache", "hub"]
    assert sum(r.startswith("GET") and "/resolve/" in r for r in hub_server.requests) == 1


# Weights that a person names


LIKE = a_model(
    sha256=SHA256,
    metrics={"auroc": Metric(value=0.9, low=0.8, high=1.0)},
    temperature=2.0,
    uncertain_below=0.6,
)


def test_a_model_directory_speaks_for_itself(settings: Settings, tmp_path: Path) -> None:
    mine = a_model("mine", sha256=SHA256, architecture="densenet121")
    directory = a_directory(tmp_path / "mine", mine)
    model, located = a_hub(offline(settings)).fetch_custom_weights(str(directory), like=LIKE)
    assert model == mine
    assert (located.source, located.path) == ("local", directory / "model.safetensors")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_bare_checkpoint_brings_no_metrics_or_calibration(
    settings: Settings, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(CONTENT)
    model, located = a_hub(settings).fetch_custom_weights(str(tmp_path / name), like=LIKE)
    assert (located.source, located.sha256) == ("local", SHA256)
    assert model.labels == LIKE.labels
    assert (model.metrics, model.temperature, model.uncertain_below) == ({}, 1.0, None)
    assert model.sha256 is None


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "w.bin",
        "hf://",
        "hf://owner",
        "hf://owner/name/w.bin",
        "hf://o/n/../../w.pth",
        "s3://b/w",
    ],
)
def test_anything_else_is_refused_in_one_sentence(settings: Settings, uri: str) -> None:
    with pytest.raises((UnsuitableError, UnreadableFileError)) as refusal:
        a_hub(offline(settings)).fetch_custom_weights(uri, like=LIKE)
    assert "expected " in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_missing_local_weights_are_said(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=r"w\.pth does not exist"):
        a_hub(settings).fetch_custom_weights(str(tmp_path / "w.pth"), like=LIKE)


def test_weights_for_another_task_are_refused(settings: Settings, tmp_path: Path) -> None:
    directory = a_directory(tmp_path / "mine")
    like = dataclasses.replace(LIKE, task="audioset")
    with pytest.raises(UnsuitableError, match="are for 'chest_xray', not 'audioset'"):
        a_hub(settings).fetch_custom_weights(str(directory), like=like)


def test_a_file_on_the_hub_follows_its_branch(settings: Settings, hub_server: HubServer) -> None:
    file = "net.safetensors"
    hub_server.put(file, CONTENT)
    hub = a_hub(settings, hub_server)
    uri = f"hf://owner/name/{file}"
    assert hub.fetch_custom_weights(uri, like=LIKE)[1].revision == COMMIT
    hub_server.branches["main"] = LATER
    hub_server.put(file, b"something else", commit=LATER)
    _, located = hub.fetch_custom_weights(uri, like=LIKE)
    assert (located.revision, located.path.read_bytes()) == (LATER, b"something else")
    assert (
        a_hub(settings).fetch_custom_weights(uri, like=LIKE)[1].revision == LATER
    )  # the Hub is down
    pinned = f"hf://owner/name@{COMMIT}/{file}"
    assert hub.fetch_custom_weights(pinned, like=LIKE)[1].path.read_bytes() == CONTENT


def test_a_model_directory_on_the_hub_speaks_for_itself(
    settings: Settings, hub_server: HubServer
) -> None:
    mine = a_model("mine", sha256=SHA256)
    hub_server.put("model.safetensors", CONTENT)
    assert (
        a_hub(settings, hub_server).fetch_custom_weights("hf://owner/name", like=LIKE)[0].metrics
        == {}
    )
    hub_server.branches["v2"] = LATER
    hub_server.put("model.safetensors", CONTENT, commit=LATER)
    hub_server.put("config.json", json.dumps(mine.to_config()).encode(), commit=LATER)
    model, located = a_hub(settings, hub_server).fetch_custom_weights(
        "hf://owner/name@v2", like=LIKE
    )
    assert (model, located.revision) == (mine, LATER)


def test_another_tools_config_on_the_hub_is_passed_over(
    settings: Settings, hub_server: HubServer
) -> None:
    hub_server.put("model.safetensors", CONTENT)
    hub_server.put("config.json", b'{"hidden_size": 3}')
    model, _ = a_hub(settings, hub_server).fetch_custom_weights("hf://owner/name", like=LIKE)
    assert model.labels == LIKE.labels


# Rows


def test_a_row_has_the_contracts_fields_and_is_json(settings: Settings) -> None:
    a_directory(settings.weights_dir / "small")
    hub = a_hub(offline(settings))
    for name, source, available in (("small", "bundled", True), ("large", "hub", False)):
        row = json.loads(json.dumps(hub.describe(name)))
        assert {"name", "task", "architecture", "labels", "licence", "metrics"} <= set(row)
        assert (row["name"], row["source"], row["available"]) == (name, source, available)
        assert row["sha256"] == SHA256
    assert hub.describe("small")["note"] == ""
    assert hub.describe("small")["stand_in_for"] == "large"
    assert "python -m xai_demo fetch large" in hub.describe("large")["note"]


def test_the_best_published_one_that_is_here_answers_and_the_missing_one_is_named(
    settings: Settings,
) -> None:
    def entry(name: str, published_map: float | None) -> Entry:
        model = a_model(name, task="audioset", preprocessing=MEL)
        pins = None if name == "ten-labels" else a_checkpoint(filename=f"{name}.safetensors")
        return Entry(
            task="audioset",
            model=None if pins is None else model,
            checkpoint=pins,
            published_map=published_map,
        )

    catalog = {n: entry(n, p) for n, p in (("best", 0.5), ("good", 0.4), ("ten-labels", None))}
    record = a_model("ten-labels", task="audioset", preprocessing=MEL)
    record = dataclasses.replace(record, sha256=hashlib.sha256(CONTENT).hexdigest())
    a_directory(settings.weights_dir / "ten-labels", record)
    hub = Hub(offline(settings), catalog=catalog)
    assert hub.default_model("audioset") == "ten-labels"
    assert [hub.describe(name)["default"] for name in catalog] == [False, False, True]
    assert hub.suggestion("ten-labels") == (
        "A better network, best (published mAP 0.5), is not installed: `python -m xai_demo fetch"
        " best` downloads it."
    )
    # The best one comes, as a file in the cache.
    path = settings.cache_dir / "checkpoints" / "owner--name" / COMMIT / "best.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert hub.default_model("audioset") == "best"
    assert hub.suggestion("best") == hub.suggestion("ten-labels") == ""
    path.rename(path.with_name("good.safetensors"))
    assert hub.default_model("audioset") == "good"
    assert "best (published mAP 0.5)" in hub.suggestion("good")
