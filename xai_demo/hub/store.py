"""Fetched checkpoints: a folder of them, the Hub they come from, and the pins that hold them.

A file lies under `checkpoints/<owner>--<name>/<commit>/`. Beside it, `<file>@<branch>.lock.json`
remembers what the first fetch got; where the catalogue leaves a pin open, the lock is the pin.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import re
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from xai_demo.errors import (
    CheckpointMismatchError,
    CheckpointUnavailableError,
    UnreadableFileError,
    XaiDemoError,
)
from xai_demo.hub.bundle import Digests, read_config
from xai_demo.records import Checkpoint, Progress

TIMEOUT_S = 10.0
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A weights file on this machine, verified, and where it came from."""

    path: Path
    source: str  # bundled, cache, hub or local
    repo_id: str | None
    revision: str | None
    sha256: str


class Store:
    """The cache directory and the Hub behind it."""

    def __init__(
        self, root: Path, *, offline: bool, endpoint: str | None, digests: Digests
    ) -> None:
        self._root = root / "checkpoints"
        self._offline = offline
        self._endpoint = endpoint  # None: the client's own choice
        self._digests = digests
        self._fetching = threading.Lock()

    def pinned(self, wanted: Checkpoint, branch: str = "main") -> Checkpoint:
        """What is wanted, its open pins closed by the lock file if there is one."""
        path = self._lock_path(wanted, branch)
        if not path.is_file():
            return wanted
        try:
            lock = read_config(path)
            revision, sha256 = str(lock["revision"]), str(lock["sha256"])
        except (KeyError, TypeError, UnreadableFileError) as error:
            raise CheckpointUnavailableError(
                f"{path} is broken; delete it to fetch again."
            ) from error
        if not COMMIT.fullmatch(revision) or wanted.revision not in (None, revision):
            return wanted
        return dataclasses.replace(wanted, revision=revision, sha256=wanted.sha256 or sha256)

    def cached(self, wanted: Checkpoint, branch: str = "main") -> Path | None:
        """The file if it was fetched before and has the right size; its bytes are not read here."""
        pinned = self.pinned(wanted, branch)
        if pinned.revision is None:
            return None
        path = self._folder(pinned.repo_id) / pinned.revision / pinned.filename
        sizes = (None, path.stat().st_size) if path.is_file() else ()
        return path if pinned.size_bytes in sizes else None

    def latest(self, wanted: Checkpoint, branch: str) -> Checkpoint:
        """What is wanted at its branch's commit of now, or of the last fetch where none can say."""
        if COMMIT.fullmatch(branch):
            return dataclasses.replace(wanted, revision=branch)
        try:
            return dataclasses.replace(wanted, revision=self._commit(wanted.repo_id, branch))
        except CheckpointUnavailableError:
            if (pinned := self.pinned(wanted, branch)).revision is None:
                raise
            return pinned

    def fetched(
        self, wanted: Checkpoint, *, branch: str = "main", progress: Progress | None = None
    ) -> Located:
        """The verified file out of the cache, or else off the Hub."""
        with self._fetching:  # a second visitor waits for the first one's download
            pinned = self.pinned(wanted, branch)
            if path := self.cached(pinned, branch):
                try:
                    return self._kept(path, pinned, "cache")
                except CheckpointMismatchError:
                    if self._offline:
                        raise
            commit = pinned.revision or self._commit(pinned.repo_id, branch)
            pinned = dataclasses.replace(pinned, revision=commit)
            located = self._kept(self._download(pinned, progress), pinned, "hub")
            lock = json.dumps({"revision": commit, "sha256": located.sha256}, indent=2)
            _write(self._lock_path(wanted, branch), lock + "\n")
            return located

    def _kept(self, path: Path, pinned: Checkpoint, source: str) -> Located:
        """The file if it is the one wanted; else it is deleted: CheckpointMismatchError."""
        repo_id, revision = pinned.repo_id, pinned.revision
        try:
            sha256 = self._digests.verified(
                path, sha256=pinned.sha256, size_bytes=pinned.size_bytes
            )
        except CheckpointMismatchError as error:
            path.unlink(missing_ok=True)
            raise CheckpointMismatchError(
                f"{error} It came from {repo_id} at {revision} and was deleted."
            ) from None
        return Located(path=path, source=source, repo_id=repo_id, revision=revision, sha256=sha256)

    def _folder(self, repo_id: str) -> Path:
        return self._root / repo_id.replace("/", "--")

    def _lock_path(self, wanted: Checkpoint, branch: str) -> Path:
        stem = f"{wanted.filename}@{branch}".replace("/", "--")
        return self._folder(wanted.repo_id) / f"{stem}.lock.json"

    def _commit(self, repo_id: str, branch: str) -> str:
        """The commit that a branch is at now."""
        self._want_network()
        from huggingface_hub import HfApi

        try:
            api = HfApi(endpoint=self._endpoint)
            commit = api.model_info(repo_id, revision=branch, timeout=TIMEOUT_S).sha
        except Exception as error:
            raise CheckpointUnavailableError(_reason(error, repo_id)) from error
        if not COMMIT.fullmatch(commit or ""):
            raise CheckpointUnavailableError(
                f"The Hub names {commit!r} as the commit of {repo_id}; wanted: 40 hex digits."
            )
        return str(commit)

    def _download(self, pinned: Checkpoint, progress: Progress | None) -> Path:
        self._want_network()
        import huggingface_hub

        # Its warnings would come before the one sentence that is raised here.
        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        report = progress or (lambda fraction, what: None)
        try:
            path = huggingface_hub.hf_hub_download(
                pinned.repo_id,
                pinned.filename,
                revision=pinned.revision,
                local_dir=self._folder(pinned.repo_id) / str(pinned.revision),
                endpoint=self._endpoint,
                tqdm_class=_bar(report, pinned.filename),
            )
        except XaiDemoError:
            raise
        except Exception as error:
            raise CheckpointUnavailableError(
                _reason(error, pinned.repo_id, pinned.filename)
            ) from error
        return Path(path)

    def _want_network(self) -> None:
        if self._offline:
            raise CheckpointUnavailableError("HF_HUB_OFFLINE is set, so the Hub is not asked.")


def _reason(error: Exception, repo_id: str, filename: str = "") -> str:
    """Why the Hub gave nothing, in one sentence; the client's own can hold addresses and advice."""
    from huggingface_hub import constants, errors

    while isinstance(error, errors.LocalEntryNotFoundError) and isinstance(
        error.__cause__, Exception
    ):
        error = error.__cause__
    sentences: tuple[tuple[type[Exception], str], ...] = (
        (errors.GatedRepoError, f"{repo_id} is gated: accept its terms on the Hub, set HF_TOKEN."),
        (errors.RepositoryNotFoundError, f"The Hub shows no repository {repo_id} to this visitor."),
        (errors.RevisionNotFoundError, f"{repo_id} has no such revision."),
        (errors.EntryNotFoundError, f"{repo_id} has no file {filename!r}."),
        (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE is set, so the Hub is not asked."),
        (errors.FileMetadataError, f"What answered for {repo_id} is not the Hub."),
    )
    for kind, sentence in sentences:
        if isinstance(error, kind):
            return sentence
    if isinstance(error, errors.HfHubHTTPError):
        return f"The Hub answered {error.response.status_code} for {repo_id}."
    if isinstance(error, OSError) and error.strerror:
        return f"The download from {repo_id} failed: {error.strerror}."
    host = urlsplit(constants.ENDPOINT).hostname
    return f"{repo_id} cannot be reached on {host} ({type(error).__name__})."


def _bar(report: Progress, what: str) -> type[Any]:
    """A progress bar of the client's kind that reports instead of drawing."""
    from tqdm import tqdm

    done = 0.0

    class Bar(tqdm):  # type: ignore[misc]
        """Silent; its `display` is called a few times a second."""

        monitor_interval = 0  # no thread that watches the bar

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **(options | {"file": io.StringIO(), "disable": False}))

        def display(self, *_args: Any, **_options: Any) -> None:
            """Tell how far the download is; a transfer of several bars never goes back."""
            nonlocal done
            if self.total:
                done = max(done, min(self.n / self.total, 1.0))
                report(done, f"downloading {what}: {done:.0%} of {self.total / 1e6:,.0f} MB")

    return Bar


def _write(path: Path, text: str) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    os.replace(file.name, path)
