"""Downloaded checkpoints: the cache folder, the Hub behind it, and what pins each file.

A file lies under `checkpoints/<owner>--<name>/<commit>/`, and beside that place as `<file>.part`
while it is being downloaded. `<file>@<branch>.lock.json` records the commit and sha256 of the first
download: where the catalogue leaves a pin open, the lock file is the pin. A file that another
program has put into the Hub client's own cache, as a Space does before it starts, is used in place.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xai_demo.catalog.sources import Checkpoint
from xai_demo.errors import (
    CheckpointMismatchError,
    CheckpointUnavailableError,
    UnreadableFileError,
    UnsuitableError,
)
from xai_demo.files import write_atomically
from xai_demo.hub.checkpoint import Digests, read_config
from xai_demo.hub.download import COMMIT, HubClient
from xai_demo.records import Progress

# Left free on the disk for other programs.
_RESERVE_BYTES = 50_000_000
# A file in the folder of a visitor's repository, whose time is that of the last use.
_USED = ".used"
# How often a wait for another download is reported.
_POLL_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """A verified weights file on this machine, and where it came from."""

    path: Path
    source: str  # bundled, cache, hub, release, wheel or local
    repo_id: str | None
    revision: str | None
    sha256: str  # of the published file, which is what pins refer to


class Store:
    """The cache directory and the Hub behind it."""

    def __init__(
        self,
        root: Path,
        *,
        offline: bool,
        client: HubClient,
        digests: Digests,
        hub_cache_dir: Path | None = None,
    ) -> None:
        self._root = root / "checkpoints"
        self._offline = offline
        self._client = client
        self._digests = digests
        self._hub_cache_dir = hub_cache_dir  # of the Hub's own client
        self._thread_locks: dict[Path, threading.Lock] = {}

    def with_pins(self, checkpoint: Checkpoint, branch: str = "main") -> Checkpoint:
        """`checkpoint`, with its open pins closed by the lock file if there is one."""
        path = self._lock_path(checkpoint, branch)
        if not path.is_file():
            return checkpoint
        try:
            lock = read_config(path)
            revision, sha256 = str(lock["revision"]), str(lock["sha256"])
        # An error, because going on without the lock file would silently open the pin again.
        except (KeyError, TypeError, UnreadableFileError) as error:
            raise CheckpointUnavailableError(
                f"{path} is broken; delete it to fetch again."
            ) from error
        # A revision that the catalogue pins overrules a lock from before that pin.
        if not COMMIT.fullmatch(revision) or checkpoint.revision not in (None, revision):
            return checkpoint
        return dataclasses.replace(
            checkpoint, revision=revision, sha256=checkpoint.sha256 or sha256
        )

    def cached_path(self, checkpoint: Checkpoint, branch: str = "main") -> Path | None:
        """The file of an earlier download if it has the right size; its sha256 is not computed."""
        pinned = self.with_pins(checkpoint, branch)
        candidates = (self._checkpoint_path(pinned), self._hub_cache_path(pinned, branch))
        for path in candidates:
            if path and path.is_file() and pinned.size_bytes in (None, path.stat().st_size):
                return path
        return None

    def at_branch(
        self, checkpoint: Checkpoint, branch: str, progress: Progress | None = None
    ) -> Checkpoint:
        """`checkpoint` at the commit its branch points to now, else at that of the last download.

        Raises CheckpointUnavailableError where the Hub does not answer and there was none.
        """
        if COMMIT.fullmatch(branch):
            return dataclasses.replace(checkpoint, revision=branch)
        try:
            commit = self._resolve_commit(checkpoint.repo_id, branch, progress)
            return dataclasses.replace(checkpoint, revision=commit)
        except CheckpointUnavailableError:
            if (pinned := self.with_pins(checkpoint, branch)).revision is None:
                raise
            return pinned

    def fetch(
        self,
        checkpoint: Checkpoint,
        *,
        branch: str = "main",
        progress: Progress | None = None,
        copies: int = 1,
        max_bytes: int | None = None,
    ) -> WeightsFile:
        """The verified file from the cache, else from the Hub.

        The disk must have room for `copies` of it before the download starts. Raises
        CheckpointUnavailableError, CheckpointMismatchError, and UnsuitableError for more than
        `max_bytes`.
        """
        report = progress or (lambda done, doing: None)
        try:
            # Without the lock, so that a file that is here never waits for another download.
            if weights := self._cached_weights(checkpoint, branch):
                return weights
        # A damaged file of our own is deleted by now, so it can be downloaded again.
        except CheckpointMismatchError:
            if self._offline:
                raise
        self._check_online()
        with self.lock_folder(self._folder(checkpoint.repo_id), report):
            with suppress(CheckpointMismatchError):
                # Another visitor or program may have downloaded it during the wait for the lock.
                if weights := self._cached_weights(checkpoint, branch):
                    return weights
            return self._download(checkpoint, branch, report, copies, max_bytes)

    def keep_recent(self, repo_id: str, *, catalogued: Container[str], most_bytes: int) -> None:
        """Note that a visitor's repository was used now, and delete those used longest ago.

        The rest, without those of the catalogue, has at most `most_bytes`. Does nothing where the
        cache cannot be written to.
        """
        kept = self._folder(repo_id)
        with suppress(OSError):
            (kept / _USED).touch()
            used = {
                path.parent: path.stat().st_mtime
                for path in self._root.glob(f"*/{_USED}")
                if path.parent.name.replace("--", "/", 1) not in catalogued
            }
            size = sum(map(_folder_bytes, used))
            for folder in sorted(used, key=used.__getitem__):
                if size <= most_bytes or folder == kept:
                    break
                # Not while another visitor downloads into it.
                lock = self._thread_locks.setdefault(folder, threading.Lock())
                if lock.acquire(blocking=False):
                    with suppress(OSError):
                        size -= _folder_bytes(folder)
                        shutil.rmtree(folder)
                    lock.release()

    @contextmanager
    def lock_folder(self, folder: Path, progress: Progress) -> Iterator[None]:
        """Hold a folder against other threads and other processes.

        Raises CheckpointUnavailableError where it cannot be written to.
        """
        from huggingface_hub import utils

        # `utils` exports its names lazily, which a type checker does not see.
        client: Any = utils
        thread_lock = self._thread_locks.setdefault(folder, threading.Lock())
        # First the threads of this process, then other processes: the messages differ.
        with ExitStack() as stack:
            while not thread_lock.acquire(timeout=_POLL_INTERVAL_S):
                progress(0.0, "Waiting for another visitor's download of the same model")
            stack.callback(thread_lock.release)
            while True:
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    # This lock also works on file systems that do not support flock.
                    file_lock = client.WeakFileLock(folder / ".lock", timeout=_POLL_INTERVAL_S)
                    stack.enter_context(file_lock)
                    break
                except TimeoutError:
                    progress(0.0, "Waiting for another program's download of the same model")
                except OSError as error:
                    raise not_writable_error(folder, error) from error
            yield

    def _cached_weights(self, checkpoint: Checkpoint, branch: str) -> WeightsFile | None:
        """The file of an earlier download; CheckpointMismatchError where it has changed since."""
        pinned = self.with_pins(checkpoint, branch)
        path = self.cached_path(pinned, branch)
        if path is None:
            return None
        if path == self._checkpoint_path(pinned):
            return self._verify(path, pinned, "cache", owned=True)
        # A branch is not enough for the lock file, but the folder's name tells the commit.
        pinned = dataclasses.replace(pinned, revision=self._hub_cache_commit(path))
        weights = self._verify(path, pinned, "cache", owned=False)
        # A cache on a read-only disk can still be used.
        with suppress(OSError):
            self._write_lock(checkpoint, branch, weights)
        return weights

    def _download(
        self,
        checkpoint: Checkpoint,
        branch: str,
        progress: Progress,
        copies: int,
        max_bytes: int | None,
    ) -> WeightsFile:
        pinned = self.with_pins(checkpoint, branch)
        commit = pinned.revision or self._resolve_commit(pinned.repo_id, branch, progress)
        pinned = dataclasses.replace(pinned, revision=commit)
        announced = self._client.file_metadata(pinned, progress)
        if pinned.size_bytes not in (None, announced.size_bytes):
            raise CheckpointMismatchError(
                f"The Hub announces {announced.size_bytes or 0:,} bytes for {pinned.filename} of"
                f" {pinned.repo_id}; expected {pinned.size_bytes:,}."
            )
        # A size that is not announced could be any.
        if max_bytes is not None and (announced.size_bytes or max_bytes + 1) > max_bytes:
            raise UnsuitableError(
                f"{pinned.filename} of {pinned.repo_id} has {announced.size_bytes or 0:,} bytes;"
                f" at most {max_bytes:,} are downloaded here."
            )
        # Without a pin, the file must at least be the one that the Hub announces.
        sha256 = pinned.sha256 or announced.sha256
        exact = dataclasses.replace(pinned, size_bytes=announced.size_bytes, sha256=sha256)
        path = self._folder(pinned.repo_id) / commit / pinned.filename
        part = path.with_name(f"{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            weights = self._complete_part(exact, part, progress, copies, retry=part.is_file())
            # Only now, so that nothing under a final name is partial or unverified.
            os.replace(part, path)
        except OSError as error:
            raise not_writable_error(path.parent, error) from error
        weights = dataclasses.replace(weights, path=path)
        self._write_lock(checkpoint, branch, weights)
        return weights

    def _complete_part(
        self, exact: Checkpoint, part: Path, progress: Progress, copies: int, *, retry: bool
    ) -> WeightsFile:
        """The partial file, completed and verified; with `retry`, a bad one is downloaded again.

        A file begun by an earlier run may have been damaged since. One begun by this run has not,
        and a second download of it would be as wrong as the first.
        """
        _check_disk_space(exact, part, copies)
        self._client.download(exact, part, size_bytes=exact.size_bytes, progress=progress)
        try:
            return self._verify(part, exact, exact.kind, owned=True)
        except CheckpointMismatchError:
            if not retry:
                raise
            return self._complete_part(exact, part, progress, copies, retry=False)

    def _verify(self, path: Path, pinned: Checkpoint, source: str, *, owned: bool) -> WeightsFile:
        """The file if its bytes are right, else CheckpointMismatchError; deletes one of our own."""
        repo_id, revision = pinned.repo_id, pinned.revision
        try:
            sha256 = self._digests.verify(path, sha256=pinned.sha256, size_bytes=pinned.size_bytes)
        except CheckpointMismatchError as error:
            if owned:
                path.unlink(missing_ok=True)
            consequence = "was deleted" if owned else "stays in another program's cache"
            raise CheckpointMismatchError(
                f"{error} It came from {repo_id} at {revision} and {consequence}."
            ) from None
        return WeightsFile(
            path=path, source=source, repo_id=repo_id, revision=revision, sha256=sha256
        )

    def _write_lock(self, checkpoint: Checkpoint, branch: str, weights: WeightsFile) -> None:
        lock = json.dumps({"revision": weights.revision, "sha256": weights.sha256}, indent=2)
        path = self._lock_path(checkpoint, branch)
        # An unchanged lock is not written again: the cache may be on a read-only disk.
        if not path.is_file() or path.read_text(encoding="utf-8") != lock + "\n":
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lock + "\n")

    def _folder(self, repo_id: str) -> Path:
        return self._root / repo_id.replace("/", "--")

    def _lock_path(self, checkpoint: Checkpoint, branch: str) -> Path:
        # Two branches of a repository may be at different commits, so each has a lock file.
        stem = f"{checkpoint.filename}@{branch}".replace("/", "--")
        return self._folder(checkpoint.repo_id) / f"{stem}.lock.json"

    def _checkpoint_path(self, pinned: Checkpoint) -> Path | None:
        if pinned.revision is None:
            return None
        return self._folder(pinned.repo_id) / pinned.revision / pinned.filename

    def _hub_cache_path(self, pinned: Checkpoint, branch: str) -> Path | None:
        """The file in the cache of the Hub's own client, None where it is not there."""
        # The client takes a third of a second to import: not where it cannot have a cache.
        if self._hub_cache_dir is None or not self._hub_cache_dir.is_dir():
            return None
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(
            pinned.repo_id,
            pinned.filename,
            cache_dir=self._hub_cache_dir,
            revision=pinned.revision or branch,
        )
        # Besides None, the client returns a marker for files that it knows to be missing.
        return Path(path) if isinstance(path, str) else None

    def _hub_cache_commit(self, path: Path) -> str:
        """The commit of a file in that cache: `models--<repository>/snapshots/<commit>/<file>`."""
        return path.relative_to(self._hub_cache_dir or path.anchor).parts[2]

    def _resolve_commit(self, repo_id: str, branch: str, progress: Progress | None) -> str:
        self._check_online()
        return self._client.resolve_commit(repo_id, branch, progress)

    def _check_online(self) -> None:
        if self._offline:
            raise CheckpointUnavailableError("HF_HUB_OFFLINE is set, so nothing is downloaded.")


def not_writable_error(folder: Path, error: OSError) -> CheckpointUnavailableError:
    """What to raise, and to tell the user, where the cache cannot be written to."""
    return CheckpointUnavailableError(
        f"{folder} cannot be written to ({error.strerror}); set XAI_DEMO_CACHE to a writable"
        " directory."
    )


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _check_disk_space(exact: Checkpoint, part: Path, copies: int) -> None:
    """Raises CheckpointUnavailableError where the disk has no room for the download."""
    if exact.size_bytes is None:
        return
    done = part.stat().st_size if part.is_file() else 0
    needed = max(0, copies * exact.size_bytes - done) + _RESERVE_BYTES
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise CheckpointUnavailableError(
            f"The disk of {part.parent} has {free / 1e6:,.0f} MB free; {exact.filename} of"
            f" {exact.repo_id} needs {needed / 1e6:,.0f} MB. Free some space, or set XAI_DEMO_CACHE"
            " to a directory on a larger disk."
        )
