"""Fetched checkpoints: a folder of them, the Hub they come from, and the pins that hold them.

A file lies under `checkpoints/<owner>--<name>/<commit>/`; while it is on its way, as `<file>.part`
beside its place. `<file>@<branch>.lock.json` remembers what the first fetch got: where the
catalogue leaves a pin open, the lock is the pin. A file that another program put into the Hub
client's own cache, as a Space does before it starts, is used where it lies.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xai_demo.errors import (
    CheckpointMismatchError,
    CheckpointUnavailableError,
    UnreadableFileError,
)
from xai_demo.files import write_atomically
from xai_demo.hub.checkpoint import Digests, read_config
from xai_demo.hub.download import COMMIT, Remote
from xai_demo.records import Checkpoint, Progress

_SPARE_BYTES = 50_000_000  # of the disk, left to whoever else writes to it
_LOOK_S = 1.0  # how often one who waits for another process says so


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A weights file on this machine, verified, and where it came from."""

    path: Path
    source: str  # bundled, cache, hub or local
    repo_id: str | None
    revision: str | None
    sha256: str  # of the file that was published: what is pinned


class Store:
    """The cache directory and the Hub behind it."""

    def __init__(
        self,
        root: Path,
        *,
        offline: bool,
        remote: Remote,
        digests: Digests,
        preloaded: Path | None = None,
    ) -> None:
        self._root = root / "checkpoints"
        self._offline = offline
        self._remote = remote
        self._digests = digests
        self._preloaded_root = preloaded  # the Hub client's own cache
        self._fetching: dict[Path, threading.Lock] = {}

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
        for path in (self._own(pinned), self._preloaded(pinned, branch)):
            if path and path.is_file() and pinned.size_bytes in (None, path.stat().st_size):
                return path
        return None

    def latest(
        self, wanted: Checkpoint, branch: str, progress: Progress | None = None
    ) -> Checkpoint:
        """What is wanted at its branch's commit of now, or of the last fetch where none can say."""
        if COMMIT.fullmatch(branch):
            return dataclasses.replace(wanted, revision=branch)
        try:
            commit = self._commit(wanted.repo_id, branch, progress)
            return dataclasses.replace(wanted, revision=commit)
        except CheckpointUnavailableError:
            if (pinned := self.pinned(wanted, branch)).revision is None:
                raise
            return pinned

    def fetched(
        self,
        wanted: Checkpoint,
        *,
        branch: str = "main",
        progress: Progress | None = None,
        copies: int = 1,
    ) -> Located:
        """The verified file out of the cache, or else off the Hub.

        `copies` of it have to find room on the disk before any byte moves.
        """
        tell = progress or (lambda done, doing: None)
        try:
            if found := self._kept(wanted, branch):
                return found
        except CheckpointMismatchError:
            if self._offline:
                raise
        self._want_network()
        with self.alone(self._folder(wanted.repo_id), tell):
            with suppress(CheckpointMismatchError):
                if found := self._kept(wanted, branch):  # somebody else has brought it meanwhile
                    return found
            return self._brought(wanted, branch, tell, copies)

    @contextmanager
    def alone(self, folder: Path, progress: Progress) -> Iterator[None]:
        """Hold a folder against other visitors and other processes.

        Raises CheckpointUnavailableError where it cannot be written to.
        """
        from huggingface_hub import utils

        client: Any = utils  # its names are there, but not for a type checker
        mine = self._fetching.setdefault(folder, threading.Lock())
        with ExitStack() as held:
            while not mine.acquire(timeout=_LOOK_S):
                progress(0.0, "Waiting for another visitor's download of the same")
            held.callback(mine.release)
            while True:
                try:
                    folder.mkdir(parents=True, exist_ok=True)
                    held.enter_context(client.WeakFileLock(folder / ".lock", timeout=_LOOK_S))
                    break
                except TimeoutError:
                    progress(0.0, "Waiting for another program's download of the same")
                except OSError as error:
                    raise _unwritable(folder, error) from error
            yield

    def _kept(self, wanted: Checkpoint, branch: str) -> Located | None:
        """The file of an earlier fetch; one that is not what it should be is deleted and said."""
        pinned = self.pinned(wanted, branch)
        path = self.cached(pinned, branch)
        if path is None:
            return None
        revision = pinned.revision or self._preloaded_commit(pinned.repo_id, branch)
        pinned = dataclasses.replace(pinned, revision=revision)
        located = self._verified(path, pinned, "cache", deletes=path == self._own(pinned))
        if path != self._own(pinned):
            with suppress(OSError):  # a cache that cannot be written to can still be read
                self._lock(wanted, branch, located)
        return located

    def _brought(self, wanted: Checkpoint, branch: str, progress: Progress, copies: int) -> Located:
        pinned = self.pinned(wanted, branch)
        commit = pinned.revision or self._commit(pinned.repo_id, branch, progress)
        pinned = dataclasses.replace(pinned, revision=commit)
        offer = self._remote.offer(pinned, progress)
        if pinned.size_bytes not in (None, offer.size_bytes):
            raise CheckpointMismatchError(
                f"The Hub offers {pinned.filename} of {pinned.repo_id} with"
                f" {offer.size_bytes or 0:,} bytes; wanted: {pinned.size_bytes:,}."
            )
        sha256 = pinned.sha256 or offer.sha256  # what it says it sends is at least what must come
        sized = dataclasses.replace(pinned, size_bytes=offer.size_bytes, sha256=sha256)
        path = self._folder(pinned.repo_id) / commit / pinned.filename
        part = path.with_name(f"{path.name}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            resumed = part.is_file()
            located = self._whole(sized, part, progress, copies, again=resumed)
            os.replace(part, path)
        except OSError as error:
            raise _unwritable(path.parent, error) from error
        located = dataclasses.replace(located, path=path)
        self._lock(wanted, branch, located)
        return located

    def _whole(
        self, sized: Checkpoint, part: Path, progress: Progress, copies: int, *, again: bool
    ) -> Located:
        """The part filled up and verified; one begun by an earlier run may be begun anew."""
        _want_room(sized, part, copies)
        self._remote.bring(sized, part, size_bytes=sized.size_bytes, progress=progress)
        try:
            return self._verified(part, sized, "hub", deletes=True)
        except CheckpointMismatchError:
            if not again:
                raise
            return self._whole(sized, part, progress, copies, again=False)

    def _verified(self, path: Path, pinned: Checkpoint, source: str, *, deletes: bool) -> Located:
        """The file if it is the one wanted; else CheckpointMismatchError."""
        repo_id, revision = pinned.repo_id, pinned.revision
        try:
            sha256 = self._digests.verified(
                path, sha256=pinned.sha256, size_bytes=pinned.size_bytes
            )
        except CheckpointMismatchError as error:
            fate = "is another program's, and stays" if not deletes else "was deleted"
            if deletes:
                path.unlink(missing_ok=True)
            raise CheckpointMismatchError(
                f"{error} It came from {repo_id} at {revision} and {fate}."
            ) from None
        return Located(path=path, source=source, repo_id=repo_id, revision=revision, sha256=sha256)

    def _lock(self, wanted: Checkpoint, branch: str, located: Located) -> None:
        lock = json.dumps({"revision": located.revision, "sha256": located.sha256}, indent=2)
        path = self._lock_path(wanted, branch)
        if not path.is_file() or path.read_text(encoding="utf-8") != lock + "\n":
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, lock + "\n")

    def _folder(self, repo_id: str) -> Path:
        return self._root / repo_id.replace("/", "--")

    def _lock_path(self, wanted: Checkpoint, branch: str) -> Path:
        stem = f"{wanted.filename}@{branch}".replace("/", "--")
        return self._folder(wanted.repo_id) / f"{stem}.lock.json"

    def _own(self, pinned: Checkpoint) -> Path | None:
        if pinned.revision is None:
            return None
        return self._folder(pinned.repo_id) / pinned.revision / pinned.filename

    def _preloaded(self, pinned: Checkpoint, branch: str) -> Path | None:
        """Where the Hub client's own cache would have it, by the layout that it documents."""
        commit = pinned.revision or self._preloaded_commit(pinned.repo_id, branch)
        if self._preloaded_root is None or commit is None:
            return None
        return self._preloaded_folder(pinned.repo_id) / "snapshots" / commit / pinned.filename

    def _preloaded_commit(self, repo_id: str, branch: str) -> str | None:
        """The commit at which that cache last saw a branch."""
        if self._preloaded_root is None:
            return None
        reference = self._preloaded_folder(repo_id) / "refs" / branch
        commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else ""
        return commit if COMMIT.fullmatch(commit) else None

    def _preloaded_folder(self, repo_id: str) -> Path:
        root = self._preloaded_root or Path()
        return root / f"models--{repo_id.replace('/', '--')}"

    def _commit(self, repo_id: str, branch: str, progress: Progress | None) -> str:
        """The commit that a branch is at now."""
        self._want_network()
        return self._remote.commit(repo_id, branch, progress)

    def _want_network(self) -> None:
        if self._offline:
            raise CheckpointUnavailableError("HF_HUB_OFFLINE is set, so the Hub is not asked.")


def _want_room(sized: Checkpoint, part: Path, copies: int) -> None:
    """Raises CheckpointUnavailableError where the disk cannot take what is to come."""
    if sized.size_bytes is None:
        return
    have = part.stat().st_size if part.is_file() else 0
    wanted = max(0, copies * sized.size_bytes - have) + _SPARE_BYTES
    free = shutil.disk_usage(part.parent).free
    if free < wanted:
        raise CheckpointUnavailableError(
            f"The disk of {part.parent} has {free / 1e6:,.0f} MB free; wanted for"
            f" {sized.filename} of {sized.repo_id}: {wanted / 1e6:,.0f} MB. Make room, or set"
            " XAI_DEMO_CACHE to a larger disk."
        )


def _unwritable(folder: Path, error: OSError) -> CheckpointUnavailableError:
    return CheckpointUnavailableError(
        f"{folder} cannot be written to ({error.strerror}); wanted: a directory that can, set by"
        " XAI_DEMO_CACHE."
    )
