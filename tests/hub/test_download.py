"""What goes wrong on the way from the Hub, done by a real server to the real client.

In every case: one clear sentence, the other models still answer, and a good file stays good.
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
    Shelf,
    serving,
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
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    with serving() as shelf:
        shelf.put(FILE, CONTENT)
        yield shelf
    huggingface_hub.close_session()


class Told(NamedTuple):
    """What a person was told while a file came."""

    located: WeightsFile
    words: list[tuple[float, str]]


def a_hub(settings: Settings, shelf: Shelf | None, **pins: object) -> Hub:
    endpoint = shelf.url if shelf else "http://127.0.0.1:9"  # nobody answers there
    return Hub(settings, catalog=a_catalog(**pins), endpoint=endpoint, retry_policy=QUICK)


def brought(settings: Settings, shelf: Shelf | None, **pins: object) -> Told:
    words: list[tuple[float, str]] = []
    hub = a_hub(settings, shelf, **pins)
    located = hub.fetch_weights("large", progress=lambda done, doing: words.append((done, doing)))
    assert located.path.read_bytes() == CONTENT
    assert (located.revision, located.sha256) == (COMMIT, SHA256)
    return Told(located, words)


def refused(settings: Settings, shelf: Shelf | None, **pins: object) -> str:
    """The sentence; nothing half is left that could be taken for the file, the rest answers."""
    hub = a_hub(settings, shelf, **pins)
    with pytest.raises(WeightsError) as refusal:
        hub.fetch_weights("large")
    sentence = str(refusal.value)
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
    settings: Settings, shelf: Shelf
) -> None:
    shelf.redirects = True
    shelf.token = SECRET
    told = brought(settings, shelf)
    assert told.located.source == "hub"
    assert len(shelf.storage_requests) == 1
    assert not any(k.lower() == "authorization" for k in shelf.storage_requests[0])
    assert told.words[-1] == (1.0, f"Downloading {FILE}: 1 of 1 MB")


def test_a_slow_file_comes_and_tells_how_far_it_is(settings: Settings, shelf: Shelf) -> None:
    shelf.pause_s = 0.05  # 17 pieces
    fractions = [done for done, _ in brought(settings, shelf).words]
    assert len(fractions) >= 5
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_what_a_space_preloads_is_used_where_it_lies(settings: Settings, shelf: Shelf) -> None:
    assert settings.hub_cache_dir is not None
    huggingface_hub.hf_hub_download(
        "owner/name", FILE, cache_dir=settings.hub_cache_dir, endpoint=shelf.url
    )
    shelf.requests.clear()
    for revision in (COMMIT, None):
        located = brought(settings, shelf, revision=revision).located
        assert located.source == "cache"
        assert settings.hub_cache_dir in located.path.parents
    assert shelf.requests == []
    assert a_hub(settings, None).is_available("large")


def test_a_wrong_preloaded_file_is_refused_and_left_to_whose_it_is(
    settings: Settings, shelf: Shelf
) -> None:
    assert settings.hub_cache_dir is not None
    path = settings.hub_cache_dir / "models--owner--name" / "snapshots" / COMMIT / FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[::-1])
    offline = a_hub(dataclasses.replace(settings, offline=True), None)
    with pytest.raises(CheckpointMismatchError, match="stays in another program's cache"):
        offline.fetch_weights("large")
    assert path.read_bytes() == CONTENT[::-1]
    assert brought(settings, shelf).located.source == "hub"


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
def test_a_refusal_is_said_with_its_number(
    settings: Settings, shelf: Shelf, status: int, says: str
) -> None:
    shelf.status = status
    sentence = refused(settings, shelf)
    assert says in sentence
    assert "python -m xai_demo fetch large" in sentence
    assert ("one that HF_TOKEN may read" in sentence) is (status in (401, 403))
    asked = len(shelf.requests)
    assert asked == (4 if status == 500 else 1)  # who refuses is not asked again


def test_a_repository_for_others_is_said_and_opens_with_the_token(
    settings: Settings, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf.token = SECRET
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert "answered 401 for owner/name" in refused(settings, shelf)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    brought(settings, shelf)


def test_a_missing_revision_and_a_missing_file_are_said(settings: Settings, shelf: Shelf) -> None:
    assert "owner/name has no such revision." in refused(settings, shelf, revision=LATER)
    assert "has no file 'other.pth'." in refused(settings, shelf, filename="other.pth")


def test_too_many_questions_wait_as_long_as_is_asked(settings: Settings, shelf: Shelf) -> None:
    shelf.statuses, shelf.headers = [429, 200, 429], {"Retry-After": "1"}
    start = time.monotonic()
    brought(settings, shelf)
    assert time.monotonic() - start >= 2  # once for the facts, once for the bytes


def test_nobody_waits_an_hour_because_a_server_says_so(settings: Settings, shelf: Shelf) -> None:
    shelf.status, shelf.headers = 429, {"Retry-After": "3600"}
    says = "The Hub answered 429 for owner/name and asks for a pause of 3,600 s."
    assert says in refused(settings, shelf)
    assert len(shelf.requests) == 1


def test_the_hubs_own_word_for_how_long_to_wait_is_heard(settings: Settings, shelf: Shelf) -> None:
    shelf.statuses, shelf.headers = [429, 200, 429], {"RateLimit": '"api";r=0;t=1'}
    start = time.monotonic()
    brought(settings, shelf)
    assert time.monotonic() - start >= 2
    shelf.status, shelf.headers = 429, {"RateLimit": '"resolvers";r=0;t=290'}
    again = dataclasses.replace(settings, cache_dir=settings.cache_dir / "other")
    assert "answered 429 for owner/name and asks for a pause of 290 s." in refused(again, shelf)


def test_a_wait_is_told_as_far_as_the_file_is(settings: Settings, shelf: Shelf) -> None:
    shelf.statuses, shelf.headers = [200, 429], {"Retry-After": "1"}
    words = brought(settings, shelf).words
    assert words[0] == (0.0, "Waiting for owner/name, next attempt in 1 s")
    again = dataclasses.replace(settings, cache_dir=settings.cache_dir / "other")
    shelf.cuts = [HALF]
    words = brought(again, shelf).words
    (waited,) = {done for done, doing in words if doing.startswith("Waiting")}
    assert 0 < waited <= 0.5
    assert [done for done, _ in words] == sorted(done for done, _ in words)


def test_who_no_longer_waits_leaves_a_part_that_the_next_one_goes_on_with(
    settings: Settings, shelf: Shelf
) -> None:
    shelf.pause_s = 0.05
    hub = a_hub(settings, shelf)

    def told(done: float, _doing: str) -> None:
        if done > 0.3:
            raise CancelledError("Cancelled on request.")

    with pytest.raises(CancelledError):
        hub.fetch_weights("large", progress=told)
    (part,) = parts(settings)
    assert 0.3 < part.stat().st_size / len(CONTENT) < 1
    shelf.pause_s = 0
    assert brought(settings, shelf).words[0][0] > 0.3


def test_who_no_longer_waits_is_not_kept_by_a_server_that_asks_for_patience(
    settings: Settings, shelf: Shelf
) -> None:
    shelf.status, shelf.headers = 429, {"Retry-After": "1"}

    def told(_done: float, doing: str) -> None:
        assert doing.startswith("Waiting for owner/name")
        raise CancelledError("Cancelled on request.")

    with pytest.raises(CancelledError):
        a_hub(settings, shelf).fetch_weights("large", progress=told)
    assert len(shelf.requests) == 1


def test_a_fault_that_passes_is_not_noticed(settings: Settings, shelf: Shelf) -> None:
    shelf.statuses = [500, 503, 200, 502]
    brought(settings, shelf)


# Broken on the way


@pytest.mark.parametrize("redirects", [False, True])
def test_a_connection_cut_at_half_is_gone_on_with(
    settings: Settings, shelf: Shelf, redirects: bool
) -> None:
    shelf.redirects, shelf.cuts = redirects, [HALF]
    fractions = [done for done, _ in brought(settings, shelf).words]
    assert fractions == sorted(fractions)
    assert shelf.bodies() == 2
    if redirects:
        wanted = [headers.get("Range") for headers in shelf.storage_requests]
        assert wanted[0] is None
        assert re.fullmatch(r"bytes=[1-9]\d*-", wanted[1] or "")


def test_a_connection_cut_for_good_leaves_a_part_that_the_next_run_goes_on_with(
    settings: Settings, shelf: Shelf
) -> None:
    shelf.cuts = [HALF, 0, 0, 0, 0]
    sentence = refused(settings, shelf)
    assert "owner/name" in sentence
    (part,) = parts(settings)
    begun = part.stat().st_size
    assert 0 < begun <= HALF
    assert part.read_bytes() == CONTENT[:begun]

    shelf.cuts = []
    told = brought(settings, shelf)
    assert told.words[0][0] > begun / len(CONTENT) - 0.01
    assert parts(settings) == []


def test_a_part_that_went_bad_is_begun_anew(settings: Settings, shelf: Shelf) -> None:
    folder = settings.cache_dir / "checkpoints" / "owner--name" / COMMIT
    folder.mkdir(parents=True)
    (folder / f"{FILE}.part").write_bytes(bytes(HALF))
    brought(settings, shelf)
    assert shelf.bodies() == 2


def test_a_part_longer_than_the_file_is_begun_anew(settings: Settings, shelf: Shelf) -> None:
    folder = settings.cache_dir / "checkpoints" / "owner--name" / COMMIT
    folder.mkdir(parents=True)
    (folder / f"{FILE}.part").write_bytes(CONTENT + b"!")
    brought(settings, shelf)


def test_a_server_that_stalls_is_left_after_a_while(settings: Settings, shelf: Shelf) -> None:
    shelf.pause_s = 1.0  # longer than the patience between two pieces
    shelf.put(FILE, CONTENT[:100])  # one piece, and a wrong one
    shelf.says_size = len(CONTENT)
    shelf.cuts = [50] * 20
    assert "owner/name" in refused(settings, shelf, size_bytes=None)


def test_wrong_bytes_of_the_right_length_are_refused_deleted_and_said(
    settings: Settings, shelf: Shelf
) -> None:
    shelf.put(FILE, CONTENT[::-1])
    sentence = refused(settings, shelf)
    assert f"expected {SHA256}." in sentence
    assert "was deleted" in sentence
    assert parts(settings) == []
    shelf.put(FILE, CONTENT)
    brought(settings, shelf)


def test_bytes_other_than_the_hub_itself_announces_are_refused(
    settings: Settings, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    announced = hashlib.sha256(b"another").hexdigest()
    monkeypatch.setattr(huggingface_hub.file_download, "_normalize_etag", lambda _etag: announced)
    hub = a_hub(settings, shelf, revision=None, sha256=None, size_bytes=None)
    with pytest.raises(CheckpointMismatchError, match=f"expected {announced}"):
        hub.fetch_weights("large", close_open_pin=True)
    assert list(settings.cache_dir.rglob("*.lock.json")) == []


@pytest.mark.parametrize("size", [len(CONTENT) - 1, len(CONTENT) + 1, 0])
def test_a_wrong_length_is_refused_before_a_byte_moves(
    settings: Settings, shelf: Shelf, size: int
) -> None:
    shelf.says_size = size
    assert f"announces {size:,} bytes for {FILE} of owner/name; expected 1,100,000." in refused(
        settings, shelf
    )
    assert shelf.bodies() == 0


def test_a_file_that_never_ends_is_cut_off(settings: Settings, shelf: Shelf) -> None:
    shelf.says_size = 1000
    sentence = refused(settings, shelf, size_bytes=None)
    assert re.search(r"has at least [\d,]+ bytes; expected 1,000 bytes\.", sentence)
    assert parts(settings) == []


def test_a_file_that_ends_too_soon_is_refused(settings: Settings, shelf: Shelf) -> None:
    shelf.says_size = len(CONTENT) + 7
    assert "expected 1,100,007" in refused(settings, shelf, size_bytes=None)


# The disk


def test_a_disk_without_room_is_said_before_a_byte_moves(
    settings: Settings, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1_500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    sentence = refused(settings, shelf)
    assert "has 2 MB free; net=1.pth of owner/name needs 51 MB" in sentence
    assert "XAI_DEMO_CACHE" in sentence
    assert shelf.bodies() == 0


def test_a_disk_that_fills_up_on_the_way_gets_its_room_back(
    settings: Settings, shelf: Shelf
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, before[1]))  # no file may grow beyond half
    try:
        hub = a_hub(settings, shelf)
        with pytest.raises(
            CheckpointUnavailableError,
            match=r"The disk is full: the partial download of net=1\.pth",
        ):
            hub.fetch_weights("large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert parts(settings) == []
    assert hub.fetch_weights("small").source == "bundled"
    brought(settings, shelf)


def test_a_cache_that_is_no_directory_is_said(settings: Settings, shelf: Shelf) -> None:
    settings.cache_dir.write_text("a file")
    assert "cannot be written to" in refused(settings, shelf)


# No network


def test_without_a_network_a_cached_file_answers_and_another_is_refused(
    settings: Settings, shelf: Shelf
) -> None:
    assert "cannot be reached" in refused(settings, None)
    brought(settings, shelf)
    for offline in (False, True):
        alone = dataclasses.replace(settings, offline=offline)
        assert brought(alone, None).located.source == "cache"


@pytest.mark.parametrize("fault", ["status", "bytes", "cut", "offline", "revision"])
def test_a_good_cached_file_is_never_damaged(settings: Settings, shelf: Shelf, fault: str) -> None:
    path = brought(settings, shelf).located.path
    kept = path.stat()
    if fault == "status":
        shelf.status = 500
    if fault == "bytes":
        shelf.put(FILE, CONTENT[::-1])
    if fault == "cut":
        shelf.cuts = [HALF] * 10
    if fault == "revision":
        shelf.files.clear()
    hub = a_hub(dataclasses.replace(settings, offline=fault == "offline"), shelf)
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


def test_a_config_that_could_not_be_had_is_not_taken_for_none(
    settings: Settings, shelf: Shelf
) -> None:
    like = a_catalog()["large"].model
    assert like is not None
    shelf.put("model.safetensors", CONTENT)
    hub = a_hub(settings, shelf)
    shelf.statuses = [200, *[500] * 4]  # the branch is told, the config is not
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


def test_two_processes_at_once_end_with_one_good_file(
    settings: Settings, shelf: Shelf, tmp_path: Path
) -> None:
    shelf.pause_s = 0.03
    apart = multiprocessing.get_context("spawn")
    results = apart.Queue()
    processes = [
        apart.Process(target=_fetch_apart, args=(shelf.url, str(tmp_path), results))
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
    assert shelf.bodies() == 1
    lock = json.loads(next(settings.cache_dir.rglob("*.lock.json")).read_text())
    assert lock == {"revision": COMMIT, "sha256": SHA256}


def test_a_download_keeps_no_other_model_waiting(settings: Settings, shelf: Shelf) -> None:
    shelf.pause_s = 0.1
    begun, done = threading.Event(), threading.Event()
    hub = a_hub(settings, shelf)

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


def test_the_hubs_own_variables_are_respected(shelf: Shelf, tmp_path: Path) -> None:
    shelf.token = SECRET
    program = (
        "from xai_demo.hub import Hub\n"
        "from xai_demo.settings import Settings\n"
        "from tests.hub.test_hub import a_catalog\n"
        "hub = Hub(Settings.from_env(), catalog=a_catalog())\n"
        "print(hub.fetch_weights('large').path)\n"
    )

    def run(**environ: str) -> subprocess.CompletedProcess[str]:
        chosen = [f"{name}={value}" for name, value in environ.items()]
        command = ["env", "NO_PROXY=127.0.0.1", *chosen, sys.executable, "-c", program]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    here = {"HF_HOME": str(tmp_path / "home"), "HF_ENDPOINT": shelf.url}
    done = run(**here, HF_TOKEN=SECRET)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == CONTENT
    assert tmp_path / "home" / "xai_demo" in Path(done.stdout.strip()).parents
    assert SECRET not in done.stdout + done.stderr

    shelf.requests.clear()
    elsewhere = {"HF_HOME": str(tmp_path / "other"), "HF_ENDPOINT": shelf.url}
    offline = run(**elsewhere, HF_TOKEN=SECRET, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE is set, so nothing is downloaded." in offline.stderr
    assert shelf.requests == []
    refused_there = run(**elsewhere, HF_TOKEN="hf_another_secret")
    assert "The Hub answered 401 for owner/name." in refused_there.stderr
    assert "hf_another_secret" not in refused_there.stderr
