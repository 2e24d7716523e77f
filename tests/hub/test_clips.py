"""Clips of published answers: fetched once, by address, and only where the bytes are the known."""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub.constants
import pytest

from xai_demo.catalog import MODELS
from xai_demo.catalog.sources import PublishedAnswer
from xai_demo.errors import CheckpointMismatchError, CheckpointUnavailableError
from xai_demo.hub import clips
from xai_demo.settings import Settings

CONTENT = b"RIFF" + bytes(5000)


class Site(ThreadingHTTPServer):
    """A page with one clip, which notes what it is asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.content, self.status = CONTENT, 200
        self.asked: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/clip.wav"


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Site)
        self.server.asked.append(dict(self.headers))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    server = Site()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()
    huggingface_hub.close_session()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(weights_dir=tmp_path / "weights", cache_dir=tmp_path / "cache")


def published(url: str | None, sha256: str | None = hashlib.sha256(CONTENT).hexdigest()):
    return PublishedAnswer(
        clip="clip.wav",
        source="its makers' page",
        probabilities={"Dog": 0.5},
        tolerance=0.01,
        sha256=sha256,
        url=url,
    )


def test_a_clip_is_brought_once_and_no_token_goes_with_the_question(site, settings):
    path = clips.fetch_clip(published(site.url), settings)
    assert path == settings.cache_dir / "clips" / "clip.wav"
    assert path.read_bytes() == CONTENT
    assert clips.fetch_clip(published(site.url), settings) == path
    (asked,) = site.asked
    assert "hf_secret" not in str(asked)
    assert [p.name for p in path.parent.iterdir()] == ["clip.wav"]


def test_one_that_was_damaged_is_brought_anew(site, settings):
    path = clips.fetch_clip(published(site.url), settings)
    path.write_bytes(b"something else")
    assert clips.fetch_clip(published(site.url), settings).read_bytes() == CONTENT


def test_other_bytes_are_refused_and_not_kept(site, settings):
    site.content = CONTENT + b"!"
    with pytest.raises(
        CheckpointMismatchError, match=r"has sha256 [0-9a-f]{64}; expected [0-9a-f]{64}\."
    ):
        clips.fetch_clip(published(site.url), settings)
    assert not (settings.cache_dir / "clips").exists()


def test_what_is_no_clip_by_its_size_is_not_read_to_its_end(site, settings, monkeypatch):
    monkeypatch.setattr(clips, "_MAX_BYTES", 1000)
    with pytest.raises(CheckpointMismatchError, match="more than 1,000 bytes, too many for a clip"):
        clips.fetch_clip(published(site.url), settings)


def test_why_there_is_none_is_said(site, settings, tmp_path):
    site.status = 404
    with pytest.raises(CheckpointUnavailableError, match=r"clip\.wav answered 404"):
        clips.fetch_clip(published(site.url), settings)
    with pytest.raises(CheckpointUnavailableError, match="cannot be reached"):
        clips.fetch_clip(published("http://127.0.0.1:1/clip.wav"), settings)
    offline = dataclasses.replace(settings, offline=True)
    with pytest.raises(CheckpointUnavailableError, match="HF_HUB_OFFLINE is set"):
        clips.fetch_clip(published(site.url), offline)
    for unknown in (published(None), published(site.url, sha256=None)):
        with pytest.raises(
            CheckpointUnavailableError,
            match=r"address of clip\.wav is not known; put the file into",
        ):
            clips.fetch_clip(unknown, settings)
    site.status = 200
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CheckpointUnavailableError, match="cannot be written to"):
        clips.fetch_clip(published(site.url), settings)


def test_one_that_a_person_put_there_needs_no_address(settings):
    path = settings.cache_dir / "clips" / "clip.wav"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    assert clips.fetch_clip(published(None), settings) == path
    assert clips.fetch_clip(published(None, sha256=None), settings) == path


def test_an_address_in_the_catalogue_is_safe_and_held_by_a_sha256():
    answers = [entry.published_answer for entry in MODELS.values() if entry.published_answer]
    with_address = [answer for answer in answers if answer.url]
    assert with_address
    for answer in with_address:
        assert answer.url.startswith("https://")
        assert answer.url.endswith(f"/{answer.clip}")
        assert len(answer.sha256 or "") == 64
