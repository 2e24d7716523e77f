"""Everything that can go wrong with a download: the real client against a real server.

In every case there is one clear sentence, the other models still work, and a good file stays good.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import huggingface_hub.constants
import huggingface_hub.file_download
import pytest

from tests.hub.test_hub import (
    CONTENT,
    FILE,
    SHA256,
    a_catalog,
    a_directory,
)
from tests.support.fake_hub import (
    COMMIT,
    LATER,
    HubServer,
    serve_hub,
)
from xai_demo.errors import (
    CancelledError,
    CheckpointMismatchError,
    CheckpointUnavailableError,
    WeightsError,
)
from xai_demo.hub import Hub, WeightsFile
from xai_demo.hub.download import RetryPolicy
from xai_demo.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
HALF = len(CONTENT) // 2
SECRET = "hf_" + "secret" * 5
QUICK = RetryPolicy(timeout_s=0.6, pause_s=0.02, longest_pause_s=1.5)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings(
        weights_dir=tmp_path / "weights",
        cache_dir=tmp_path / "cache",
        hub_cache_dir=tmp_path / "home" / "hub",
    )
    a_directory(found.weights_dir / "small")
    return found


@pytest.fixture
def hub_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    with serve_hub() as hub_server:
        hub_server.put(FILE, CONTENT)
        yield hub_server
    huggingface_hub.close_session()


class Download(NamedTuple):
    """A downloaded file, and the progress that was reported meanwhile."""

    weights: WeightsFile
    progress: list[tuple[float, str]]


def a_hub(settings: Settings, hub_server: HubServer | None, **pins: object) -> Hub:
    endpoint = hub_server.url if hub_server else "http://127.0.0.1:9"  # nobody answers there
    return Hub(settings, catalog=a_catalog(**pins), endpoint=endpoint, retry_policy=QUICK)


def download(settings: Settings, hub_server: HubServer | None, **pins: object) -> Download:
    progress: list[tuple[float, str]] = []
    hub = a_hub(settings, hub_server, **pins)
    weights = hub.fetch_weights(
        "large", progress=lambda done, doing: progress.append((done, doing))
    )
    assert weights.path.read_bytes() == CONTENT
    assert (weights.revision, weights.sha256) == (COMMIT, SHA256)
    return Download(weights, progress)


def refusal(settings: Settings, hub_server: HubServer | None, **pins: object) -> str:
    """The error message; nothing is left that could be taken for the file, and the rest works."""
    hub = a_hub(settings, hub_server, **pins)
    with pytest.raises(WeightsError) as error:
        hub.fetch_weights("large")
    sentence = str(error.value)
    assert "\n" not in sentence
    assert "http" not in sentence
    assert SECRET not in sentence
    assert not hub.is_available("large")
    assert hub.fetch_weights("small").source == "bundled"
    return sentence


def parts(settings: Settings) -> list[Path]:
    return list(settings.cache_dir.rglob("*.part"))


# Success


def test_a_file_in_large_file_storage_comes_without_the_token(
    settings: Settings, hub_server: HubServer
) -> None:
    hub_server.redirects = True
    hub_server.token = SECRET
    result = download(settings, hub_server)
    assert result.weights.source == "hub"
    assert len(hub_server.storage_requests) == 1
    assert not any(k.lower() == "authorization" for k in hub_server.storage_requests[0])
    assert result.progress[-1] == (1.0, f"Downloading {FILE}: 1 of 1 MB")


def test_progress_is_reported_during_a_slow_download(
    settings: Settings, hub_server: HubServer
) -> None:
    hub_server.pause_s = 0.05  # 17 pieces
    fractions = [done for done, _ in download(settings, hub_server).progress]
    assert len(fractions) >= 5
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_a_file_that_a_space_preloads_is_used_in_place(
    settings: Settings, hub_server: HubServer
) -> None:
    assert settings.hub_cache_dir is not None
    huggingface_hub.hf_hub_download(
        "owner/name", FILE, cache_dir=settings.hub_cache_dir, endpoint=hub_server.url
    )
    hub_server.requests.clear()
    for revision in (COMMIT, None):
        located = download(settings, hub_server, revision=revision).weights
        assert located.source == "cache"
        assert settings.hub_cache_dir in located.path.parents
    assert hub_server.requests == []
    assert a_hub(settings, None).is_available("large")


def test_a_wrong_preloaded_file_is_rejected_but_not_deleted(
    settings: Settings, hub_server: HubServer
) -> None:
    assert settings.hub_cache_dir is not None
    path = settings.hub_cache_dir / "models--owner--name" / "snapshots" / COMMIT / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[::-1])
    offline = a_hub(dataclasses.replace(settings, offline=True), None)
    with pytest.raises(CheckpointMismatchError, match="stays in another program's cache"):
        offline.fetch_weights("large")
    assert path.read_bytes() == CONTENT[::-1]
    assert download(settings, hub_server).weights.source == "hub"


# Refusals


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "The Hub answered 401 for owner/name."),
        (403, "The Hub answered 403 for owner/name."),
        (404, "The Hub answered 404 for owner/name."),
        (500, "The Hub answered 500 for owner/name."),
    ],
)
def test_an_error_status_is_reported(
    settings: Settings, hub_server: HubServer, status: int, says: str
) -> None:
    hub_server.status = status
    sentence = refusal(settings, hub_server)
    assert says in sentence
    assert "python -m xai_demo fetch large" in sentence
    assert ("one that HF_TOKEN may read" in sentence) is (status in (401, 403))
    asked = len(hub_server.requests)
    assert asked == (4 if status == 500 else 1)  # who refuses is not asked again


def test_a_private_repository_needs_the_right_token(
    settings: Settings, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_server.token = SECRET
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert "answered 401 for owner/name" in refusal(settings, hub_server)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    download(settings, hub_server)


def test_a_missing_revision_and_a_missing_file_are_reported(
    settings: Settings, hub_server: HubServer
) -> None:
    assert "owner/name has no such revision." in refusal(settings, hub_server, revision=LATER)
    assert "has no file 'other.pth'." in refusal(settings, hub_server, filename="other.pth")


def test_retry_after_is_respected(settings: Settings, hub_server: HubServer) -> None:
    hub_server.statuses, hub_server.headers = [429, 200, 429], {"Retry-After": "1"}
    start = time.monotonic()
    download(settings, hub_server)
    assert time.monotonic() - start >= 2  # once for the facts, once for the bytes


def test_a_long_retry_after_is_not_waited_for(settings: Settings, hub_server: HubServer) -> None:
    hub_server.status, hub_server.headers = 429, {"Retry-After": "3600"}
    says = "The Hub answered 429 for owner/name and asks for a pause of 3,600 s."
    assert says in refusal(settings, hub_server)
    assert len(hub_server.requests) == 1


def test_the_hubs_rate_limit_header_is_respected(settings: Settings, hub_server: HubServer) -> None:
    hub_server.statuses, hub_server.headers = [429, 200, 429], {"RateLimit": '"api";r=0;t=1'}
    start = time.monotonic()
    download(settings, hub_server)
    assert time.monotonic() - start >= 2
    hub_server.status, hub_server.headers = 429, {"RateLimit": '"resolvers";r=0;t=290'}
    again = dataclasses.replace(settings, cache_dir=settings.cache_dir / "other")
    assert "answered 429 for owner/name and asks for a pause of 290 s." in refusal(
        again, hub_server
    )


def test_progress_does_not_go_back_while_waiting(settings: Settings, hub_server: HubServer) -> None:
    hub_server.statuses, hub_server.headers = [200, 429], {"Retry-After": "1"}
    words = download(settings, hub_server).progress
    assert words[0] == (0.0, "Waiting for owner/name, next attempt in 1 s")
    again = dataclasses.replace(settings, cache_dir=settings.cache_dir / "other")
    hub_server.cuts = [HALF]
    words = download(again, hub_server).progress
    (waited,) = {done for done, doing in words if doing.startswith("Waiting")}
    assert 0 < waited <= 0.5
    assert [done for done, _ in words] == sorted(done for done, _ in words)


def test_a_cancelled_download_is_resumed_by_the_next_one(
    settings: Settings, hub_server: HubServer
) -> None:
    hub_server.pause_s = 0.05
    hub = a_hub(settings, hub_server)

    def told(done: float, _doing: str) -> None:
        if done > 0.3:
            raise CancelledError("Cancelled on request.")

    with pytest.raises(CancelledError):
        hub.fetch_weights("large", progress=told)
    (part,) = parts(settings)
    assert 0.3 < part.stat().st_size / len(CONTENT) < 1
    hub_server.pause_s = 0
    assert download(settings, hub_server).progress[0][0] > 0.3


def test_a_wait_for_a_busy_server_can_be_cancelled(
    settings: Settings, hub_server: HubServer
) -> None:
    hub_server.status, hub_server.headers = 429, {"Retry-After": "1"}

    def told(_done: float, doing: str) -> None:
        assert doing.startswith("Waiting for owner/name")
        raise CancelledError("Cancelled on request.")

    with pytest.raises(CancelledError):
        a_hub(settings, hub_server).fetch_weights("large", progress=told)
    assert len(hub_server.requests) == 1


def test_transient_errors_are_retried(settings: Settings, hub_server: HubServer) -> None:
    hub_server.statuses = [500, 503, 200, 502]
    download(settings, hub_server)


# Broken on the way


@pytest.mark.parametrize("redirects", [False, True])
def test_a_download_cut_half_way_is_resumed(
    settings: Settings, hub_server: HubServer, redirects: bool
) -> None:
    hub_server.redirects, hub_server.cuts = redirects, [HALF]
    fractions = [done for done, _ in download(settings, hub_server).progress]
    assert fractions == sorted(fractions)
    assert hub_server.bodies() == 2
    if redirects:
        wanted = [headers.get("Range") for headers in hub_server.storage_requests]
        assert wanted[0] is None
        assert re.fullmatch(r"bytes=[1-9]\d*-", wanted[1] or "")


def test_a_failed_download_is_resumed_by_the_next_run(
    settings: Settings, hub_server: HubServer
) -> None:
    hub_server.cuts = [HALF, 0, 0, 0, 0]
    sentence = refusal(settings, hub_server)
    assert "owner/name" in sentence
    (part,) = parts(settings)
    begun = part.stat().st_size
    assert 0 < begun <= HALF
    assert part.read_bytes() == CONTENT[:begun]

    hub_server.cuts = []
    result = download(settings, hub_server)
    assert result.progress[0][0] > begun / len(CONTENT) - 0.01
    assert parts(settings) == []


def test_a_damaged_partial_file_is_downloaded_again(
    settings: Settings, hub_server: HubServer
) -> None:
    folder = settings.cache_dir / "checkpoints" / "owner--name" / COMMIT
    folder.mkdir(parents=True)
    (folder / f"{FILE}.part").write_bytes(bytes(HALF))
    download(settings, hub_server)
    assert hub_server.bodies() == 2


def test_a_partial_file_that_is_too_long_is_downloaded_again(
    settings: Settings, hub_server: HubServer
) -> None:
    folder = settings.cache_dir / "checkpoints" / "owner--name" / COMMIT
    folder.mkdir(parents=True)
    (folder / f"{FILE}.part").write_bytes(CONTENT + b"!")
    download(settings, hub_server)


def test_a_stalled_server_is_given_up(settings: Settings, hub_server: HubServer) -> None:
    hub_server.pause_s = 1.0  # longer than the patience between two pieces
    hub_server.put(FILE, CONTENT[:100])  # one piece, and a wrong one
    hub_server.announced_size = len(CONTENT)
    hub_server.cuts = [50] * 20
    assert "owner/name" in refusal(settings, hub_server, size_bytes=None)


def test_wrong_bytes_of_the_right_length_are_rejected_and_deleted(
    settings: Settings, hub_server: HubServer
) -> None:
    hub_server.put(FILE, CONTENT[::-1])
    sentence = refusal(settings, hub_server)
    assert f"expected {SHA256}." in sentence
    assert "was deleted" in sentence
    assert parts(settings) == []
    hub_server.put(FILE, CONTENT)
    download(settings, hub_server)


def test_bytes_other_than_the_hub_announces_are_rejected(
    settings: Settings, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced = hashlib.sha256(b"another").hexdigest()
    monkeypatch.setattr(huggingface_hub.file_download, "_normalize_etag", lambda _etag: announced)
    hub = a_hub(settings, hub_server, revision=None, sha256=None, size_bytes=None)
    with pytest.raises(CheckpointMismatchError, match=f"expected {announced}"):
        hub.fetch_weights("large", close_open_pin=True)
    assert list(settings.cache_dir.rglob("*.lock.json")) == []


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1, 0])
def test_a_wrong_length_is_rejected_before_the_download(
    settings: Settings, hub_server: HubServer, size: int
) -> None:
    hub_server.announced_size = size
    assert f"announces {size:,} bytes for {FILE} of owner/name; expected 1,100,000." in refusal(
        settings, hub_server
    )
    assert hub_server.bodies() == 0


def test_a_file_longer_than_announced_is_cut_off(settings: Settings, hub_server: HubServer) -> None:
    hub_server.announced_size = 1000
    sentence = refusal(settings, hub_server, size_bytes=None)
    assert re.search(r"has at least [\d,]+ bytes; expected 1,000 bytes\.", sentence)
    assert parts(settings) == []


def test_a_file_shorter_than_announced_is_rejected(
    settings: Settings, hub_server: HubServer
) -> None:
    hub_server.announced_size = len(CONTENT) + 7
    assert "expected 1,100,007" in refusal(settings, hub_server, size_bytes=None)


# The disk


def test_a_full_disk_is_reported_before_the_download(
    settings: Settings, hub_server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1_500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    sentence = refusal(settings, hub_server)
    assert "has 2 MB free; net=1.pth of owner/name needs 51 MB" in sentence
    assert "XAI_DEMO_CACHE" in sentence
    assert hub_server.bodies() == 0


def test_a_disk_that_fills_up_loses_the_partial_file(
    settings: Settings, hub_server: HubServer
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, before[1]))  # no file may grow beyond half
    try:
        hub = a_hub(settings, hub_server)
        with pytest.raises(
            CheckpointUnavailableError,
            match=r"The disk is full: the partial download of net=1\.pth",
        ):
            hub.fetch_weights("large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert parts(settings) == []
    assert hub.fetch_weights("small").source == "bundled"
    download(settings, hub_server)


def test_a_cache_that_is_no_directory_is_reported(
    settings: Settings, hub_server: HubServer
) -> None:
    settings.cache_dir.write_text("a file")
    assert "cannot be written to" in refusal(settings, hub_server)


# No network


def test_without_a_network_only_a_cached_file_is_available(
    settings: Settings, hub_server: HubServer
) -> None:
    assert "cannot be reached" in refusal(settings, None)
    download(settings, hub_server)
    for offline in (False, True):
        alone = dataclasses.replace(settings, offline=offline)
        assert download(alone, None).weights.source == "cache"


@pytest.mark.parametrize("fault", ["status", "bytes", "cut", "offline", "revision"])
def test_a_good_cached_file_is_never_damaged(
    settings: Settings, hub_server: HubServer, fault: str
) -> None:
    path = download(settings, hub_server).weights.path
    kept = path.stat()
    if fault == "status":
        hub_server.status = 500
    if fault == "bytes":
        hub_server.put(FILE, CONTENT[::-1])
    if fault == "cut":
        hub_server.cuts = [HALF] * 10
    if fault == "revision":
        hub_server.files.clear()
    hub = a_hub(dataclasses.replace(settings, offline=fault == "offline"), hub_server)
    for uri in (f"hf://owner/name/{FILE}", "hf://owner/name@dev", "hf://owner/other"):
        with pytest.raises(WeightsError) if "other" in uri or "dev" in uri else _either():
            hub.fetch_custom_weights(uri, like=a_catalog()["large"].model)  # type: ignore[arg-type]
    assert hub.fetch_weights("large").source == "cache"
    now = path.stat()
    assert (now.st_ino, now.st_mtime_ns, now.st_size) == (
        kept.st_ino,
        kept.st_mtime_ns,
        kept.st_size,
    )


def _either() -> Any:
    import contextlib

    return contextlib.suppress(WeightsError)


def test_a_config_that_cannot_be_downloaded_is_not_taken_for_a_missing_one(
    settings: Settings, hub_server: HubServer
) -> None:
    like = a_catalog()["large"].model
    assert like is not None
    hub_server.put("model.safetensors", CONTENT)
    hub = a_hub(settings, hub_server)
    hub_server.statuses = [200, *[500] * 4]  # the branch is told, the config is not
    with pytest.raises(CheckpointUnavailableError, match="The Hub answered 500 for owner/name"):
        hub.fetch_custom_weights("hf://owner/name", like=like)
    model, _ = hub.fetch_custom_weights("hf://owner/name", like=like)  # there is none
    assert model.labels == like.labels
    away = a_hub(dataclasses.replace(settings, offline=True), None)
    assert away.fetch_custom_weights("hf://owner/name", like=like)[1].source == "cache"


# Several at once


def _fetch_apart(url: str, folder: str, results: Any) -> None:
    root = Path(folder)
    settings = Settings(weights_dir=root / "weights", cache_dir=root / "cache")
    hub = Hub(settings, catalog=a_catalog(), endpoint=url, retry_policy=QUICK)
    located = hub.fetch_weights("large")
    results.put((located.source, located.sha256))


def test_two_processes_download_a_file_once(
    settings: Settings, hub_server: HubServer, tmp_path: Path
) -> None:
    hub_server.pause_s = 0.03
    apart = multiprocessing.get_context("spawn")
    results = apart.Queue()
    processes = [
        apart.Process(target=_fetch_apart, args=(hub_server.url, str(tmp_path), results))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    found = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=30)
    assert found == [("cache", SHA256), ("hub", SHA256)]
    files = [p for p in settings.cache_dir.rglob("*") if p.is_file() and p.name == FILE]
    assert [p.read_bytes() for p in files] == [CONTENT]
    assert parts(settings) == []
    assert hub_server.bodies() == 1
    lock = json.loads(next(settings.cache_dir.rglob("*.lock.json")).read_text())
    assert lock == {"revision": COMMIT, "sha256": SHA256}


def test_a_download_does_not_block_other_models(settings: Settings, hub_server: HubServer) -> None:
    hub_server.pause_s = 0.1
    begun, done = threading.Event(), threading.Event()
    hub = a_hub(settings, hub_server)

    def fetch() -> None:
        hub.fetch_weights("large", progress=lambda *_: begun.set())
        done.set()

    thread = threading.Thread(target=fetch)
    thread.start()
    assert begun.wait(10)
    assert hub.fetch_weights("small").source == "bundled"
    assert not done.is_set()
    thread.join()


# The environment


def test_the_hubs_own_variables_are_respected(hub_server: HubServer, tmp_path: Path) -> None:
    hub_server.token = SECRET
    program = (
        "from xai_demo.hub import Hub\n"
        "from xai_demo.settings import Settings\n"
        "from tests.hub.test_hub import a_catalog\n"
        "hub = Hub(Settings.from_env(), catalog=a_catalog())\n"
        "print(hub.fetch_weights('large').path)\n"
    )

    def run(**environ: str) -> subprocess.CompletedProcess[str]:
        chosen = [f"{name}={value}" for name, value in environ.items()]
        # The cache is then where the Hub's own variable says.
        command = ["env", "--unset=XAI_DEMO_CACHE", "NO_PROXY=127.0.0.1", *chosen]
        command += [sys.executable, "-c", program]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    here = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": hub_server.url}
    done = run(**here, HF_TOKEN=SECRET)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == CONTENT
    assert tmp_path / "home" / "xai_demo" in Path(done.stdout.strip()).parents
    assert SECRET not in done.stdout + done.stderr

    hub_server.requests.clear()
    elsewhere = {"HF_HOME": str(tmp_path / "other"), "HF_ENDPOINT": hub_server.url}
    offline = run(**elsewhere, HF_TOKEN=SECRET, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set, so nothing is downloaded." in offline.stderr
    assert hub_server.requests == []
    refused_there = run(**elsewhere, HF_TOKEN="hf_another_secret")
    assert "The Hub answered 401 for owner/name." in refused_there.stderr
    assert "hf_another_secret" not in refused_there.stderr
