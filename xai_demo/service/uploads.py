"""The folder of uploads: random names, a quota, free disk space, and a sweeper that empties it.

Each process has a folder of its own, and a lock that the system takes away when the process ends,
however it ends. So the next process on this machine sees which folders nobody uses any more, and
deletes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import logging
import os
import re
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from xai_demo.errors import RequestError
from xai_demo.service.visitors import HTTPRefusalError

KEEP_S = 3600.0
SWEEP_EVERY_S = 600.0
# If the folder or the disk is full, files older than this have to go.
_KEEP_UNDER_PRESSURE_S = 600.0
# How long a count of the bytes in the folder is good enough.
_RECOUNT_S = 10.0
# Only of these, so that nothing of a visitor's name is kept. Nothing reads a file by its suffix.
_SUFFIXES = re.compile(
    r"\.(3gp|aac|aiff?|amr|avif|bmp|caf|csv|dcm|dicom|flac|gif|heic|jpe?g|json|m4a|mp[34]|og[ag]|"
    r"opus|png|tiff?|tsv|txt|wave?|webm|webp|zip)"
)
_UPLOAD = re.compile(r"[0-9a-f]{32}(\.[a-z0-9]{1,5})?")
_log = logging.getLogger(__name__)


class UploadFolder:
    """Where the uploads of this process lie, and what Gradio makes of them."""

    def __init__(
        self, base: Path | None, *, quota_bytes: int, min_free_bytes: int, keep_s: float = KEEP_S
    ) -> None:
        self.path = _process_folder(base or _default_base())[0]
        self.quota_bytes, self.min_free_bytes, self.keep_s = quota_bytes, min_free_bytes, keep_s
        self._lock = threading.Lock()
        self._used, self._counted_at = 0, float("-inf")
        self._stop = threading.Event()

    def new_path(self, name: str) -> Path:
        """Return a random path for an upload; of its name only a well-known suffix is kept."""
        suffix = PurePosixPath(name).suffix.lower()
        return self.path / (secrets.token_hex(16) + (suffix if _SUFFIXES.fullmatch(suffix) else ""))

    def contains(self, path: str) -> bool:
        """Whether a path is that of a file in the folder, and not a link to elsewhere."""
        try:
            place = Path(path).resolve()
            return place.is_relative_to(self.path) and place.is_file()
        except (OSError, ValueError, RuntimeError):
            return False

    def claim(self, n_bytes: int) -> None:
        """Count bytes that are about to be written; raises HTTPRefusalError if there is no room.

        What is older than ten minutes is deleted rather than that.
        """
        if self._room(n_bytes):
            return
        self.sweep(keep_s=_KEEP_UNDER_PRESSURE_S)
        if not self._room(n_bytes):
            raise HTTPRefusalError(
                507,
                "disk",
                "The server has no room for your file now. Please try again in ten minutes.",
                retry_after_s=600,
            )

    def used_bytes(self) -> int:
        """Return the size of all files in the folder, as of a few seconds ago."""
        with self._lock:
            if time.monotonic() - self._counted_at > _RECOUNT_S:
                self._used = sum(file.st_size for _, file in self._files())
                self._counted_at = time.monotonic()
            return self._used

    def free_bytes(self) -> int:
        """Return what is free on the disk."""
        return shutil.disk_usage(self.path).free

    def sweep(self, *, keep_s: float | None = None, now: float | None = None) -> int:
        """Delete the files that have lain here for longer than is promised; return how many.

        Nothing refers to an upload that was aborted, refused or forgotten, so only age counts.
        """
        oldest = (now or time.time()) - (self.keep_s if keep_s is None else keep_s)
        count = 0
        for path, file in self._files():
            if max(file.st_mtime, file.st_ctime) < oldest:
                with contextlib.suppress(OSError):
                    path.unlink()
                    count += 1
        for folder in [Path(root) for root, _, _ in os.walk(self.path, topdown=False)][:-1]:
            # Fails for those that are not empty, which is what they are kept for.
            with contextlib.suppress(OSError):
                if folder.stat().st_mtime < oldest:
                    folder.rmdir()
        with self._lock:
            self._counted_at = float("-inf")
        if count:
            _log.info("Deleted %d old uploads", count)
        return count

    def start(self) -> None:
        """Sweep now and every ten minutes, or more often if files are kept for less than twenty."""

        def sweep_on_schedule() -> None:
            while True:
                try:
                    self.sweep()
                except OSError:
                    _log.exception("The uploads could not be swept")
                if self._stop.wait(min(SWEEP_EVERY_S, self.keep_s / 2)):
                    return

        self._stop.clear()
        threading.Thread(target=sweep_on_schedule, name="sweeper", daemon=True).start()

    def stop(self) -> None:
        """End the sweeper."""
        self._stop.set()

    def delete(self) -> None:
        """Delete the folder and all that is in it: the process ends."""
        self.stop()
        shutil.rmtree(self.path, ignore_errors=True)
        _lock_of(self.path).unlink(missing_ok=True)

    def _room(self, n_bytes: int) -> bool:
        fits = self.used_bytes() + n_bytes <= self.quota_bytes
        with self._lock:
            self._used += n_bytes if fits else 0
        return fits and self.free_bytes() - n_bytes >= self.min_free_bytes

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        for root, _, names in os.walk(self.path):
            for name in names:
                path = Path(root) / name
                with contextlib.suppress(OSError):
                    yield path, path.lstat()


def discard_upload(path: str, folder: Path) -> None:
    """Delete an upload that is used up; anything but a visitor's upload is left alone.

    The name of an upload is random and is told to nobody but who sent it, so whoever names it owns
    it. What Gradio made, such as the copy of an example that everybody shares, is named otherwise.
    """
    place = Path(path)
    with contextlib.suppress(OSError):
        is_upload = bool(_UPLOAD.fullmatch(place.name)) and place.parent.resolve() == folder
        if is_upload and stat.S_ISREG(place.lstat().st_mode):
            place.unlink()


def _default_base() -> Path:
    # With the user, because a folder has one owner and the temporary directory is everybody's.
    return Path(tempfile.gettempdir()) / f"xai_demo-{os.getuid()}"


# Once in a process: two pages of one process share it, because Gradio has one folder a process.
@functools.cache
def _process_folder(base: Path) -> tuple[Path, BinaryIO]:
    """Return a new folder for this process in `base`, and its lock; delete those left behind.

    Raises RequestError if the folder cannot be made, or is not this user's own.
    """
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = base.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
            raise PermissionError("it is another user's")
        # One process at a time, or it would take the other's new lock for one left behind.
        with (base / "lock").open("wb") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            _delete_abandoned(base)
            folder = base.resolve() / f"run-{os.getpid()}-{secrets.token_hex(4)}"
            lock = _lock_of(folder).open("wb")
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder.mkdir(mode=0o700)
    except OSError as error:
        raise RequestError(
            f"The folder for uploads cannot be used: {error.strerror or error}. Set "
            "XAI_DEMO_UPLOADS to a folder that this user owns."
        ) from error
    return folder, lock


def _delete_abandoned(base: Path) -> None:
    for lock_path in base.glob("run-*.lock"):
        with contextlib.suppress(OSError), lock_path.open("rb") as lock:
            # Raises BlockingIOError, an OSError, while its process lives.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock_path.with_suffix(""), ignore_errors=True)
            lock_path.unlink()
    for folder in base.glob("run-*"):
        if folder.is_dir() and not _lock_of(folder).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")
