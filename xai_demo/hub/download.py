"""One file off the Hub: its facts, and its bytes in as many pieces as the network makes of them.

Session, headers, token and errors are those of the Hub's own client. That client starts anew where
a download broke off and waits as long as a server asks; here the piece on the disk is gone on with,
and patience ends.

Why the Hub gave nothing, and whether and when it may be asked again.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from xai_demo.errors import CheckpointMismatchError, CheckpointUnavailableError, XaiDemoError
from xai_demo.records import Checkpoint, Progress

COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TELL_S = 0.1  # between two words on how far a download is
_LOOK_S = 1.0  # between two words on how long the Hub is waited for

_T = TypeVar("_T")


class MissingFileError(CheckpointUnavailableError):
    """The repository is there at that commit, and has no file of that name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for the Hub, and how often to ask again."""

    timeout_s: float = 10.0  # for an answer, and between two pieces of a file
    tries: int = 4  # without a single byte more
    pause_s: float = 1.0  # before the second try; doubled before each later one
    longest_pause_s: float = 30.0  # that a server may ask for


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What the Hub says of a file before it sends it."""

    size_bytes: int | None
    sha256: str | None  # of a file in large file storage; None: the Hub does not say


class Remote:
    """The Hub as a place that files come from; endpoint None: the client's own choice."""

    def __init__(self, endpoint: str | None, patience: Patience) -> None:
        self._endpoint, self._patience = endpoint, patience

    def commit(self, repo_id: str, branch: str, progress: Progress | None = None) -> str:
        """The commit that a branch is at now; raises CheckpointUnavailableError."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self._endpoint)
        seconds = self._patience.timeout_s
        found = self._patiently(
            lambda: api.model_info(repo_id, revision=branch, timeout=seconds).sha,
            repo_id,
            progress=progress,
        )
        if not COMMIT.fullmatch(found or ""):
            raise CheckpointUnavailableError(
                f"The Hub names {found!r} as the commit of {repo_id}; wanted: 40 hex digits."
            )
        return str(found)

    def offer(self, wanted: Checkpoint, progress: Progress | None = None) -> Offer:
        """Size and sha256 of a file at its commit; raises CheckpointUnavailableError."""
        from huggingface_hub import get_hf_file_metadata

        url, seconds = self._url(wanted), self._patience.timeout_s
        facts = self._patiently(
            lambda: get_hf_file_metadata(url, timeout=seconds, endpoint=self._endpoint),
            wanted.repo_id,
            wanted.filename,
            progress=progress,
        )
        if facts.commit_hash is None:
            raise CheckpointUnavailableError(f"What answered for {wanted.repo_id} is not the Hub.")
        sha256 = facts.etag if _SHA256.fullmatch(facts.etag or "") else None
        return Offer(size_bytes=facts.size, sha256=sha256)

    def bring(
        self, wanted: Checkpoint, part: Path, *, size_bytes: int | None, progress: Progress
    ) -> None:
        """Fill `part` up to the whole file, from where it ends.

        Raises CheckpointUnavailableError, and CheckpointMismatchError where the file has another
        length; a full disk is given its room back.
        """
        tries, pause_s = 0, self._patience.pause_s
        while True:
            before = _size(part)
            try:
                self._stream(wanted, part, size_bytes, progress)
                return
            except CheckpointMismatchError:
                part.unlink(missing_ok=True)
                raise
            except XaiDemoError:
                raise
            except Exception as error:
                if isinstance(error, OSError) and error.errno in FULL:
                    part.unlink(missing_ok=True)
                if _size(part) > before:  # it moved: all patience is there again
                    tries, pause_s = 0, self._patience.pause_s
                tries += 1
                self._bear(
                    error,
                    tries,
                    pause_s,
                    wanted.repo_id,
                    wanted.filename,
                    lambda left: progress(_share(part, size_bytes), left),
                )
                pause_s *= 2

    def _url(self, wanted: Checkpoint) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(
            wanted.repo_id, wanted.filename, revision=wanted.revision, endpoint=self._endpoint
        )

    def _stream(
        self, wanted: Checkpoint, part: Path, size_bytes: int | None, progress: Progress
    ) -> None:
        from huggingface_hub import utils

        client: Any = utils  # its names are there, but not for a type checker
        have = _size(part)
        if size_bytes is not None and have >= size_bytes:
            return  # one that is too long is found out by its sha256
        headers = client.build_hf_headers() | {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        tell = _Told(wanted.filename, size_bytes, progress)
        # The redirect to large file storage is followed by the session, without the token.
        with client.get_session().stream(
            "GET", self._url(wanted), headers=headers, timeout=self._patience.timeout_s
        ) as answer:
            if have and answer.status_code == 416:
                raise _other_length(wanted, have, size_bytes)
            client.hf_raise_for_status(answer)
            goes_on = have > 0 and answer.status_code == 206
            with part.open("ab" if goes_on else "wb") as file:
                have = have if goes_on else 0
                for piece in answer.iter_raw():
                    file.write(piece)
                    have += len(piece)
                    if size_bytes is not None and have > size_bytes:
                        raise _other_length(wanted, have, size_bytes)
                    tell(have)
        if size_bytes is not None and have < size_bytes:
            raise ConnectionAbortedError(
                errno.ECONNABORTED, f"it ended after {have:,} of {size_bytes:,} bytes"
            )

    def _patiently(
        self,
        ask: Callable[[], _T],
        repo_id: str,
        filename: str = "",
        *,
        progress: Progress | None,
    ) -> _T:
        tries, pause_s = 0, self._patience.pause_s
        tell = progress or (lambda done, doing: None)
        while True:
            try:
                return ask()
            except Exception as error:
                tries += 1
                self._bear(error, tries, pause_s, repo_id, filename, lambda left: tell(0.0, left))
                pause_s *= 2

    def _bear(
        self,
        error: Exception,
        tries: int,
        pause_s: float,
        repo_id: str,
        filename: str,
        tell: Callable[[str], None],
    ) -> None:
        """Wait before the next try and say so, or raise why there will be none."""
        asked_s = asked_to_wait_s(error)
        if asked_s is not None:
            pause_s = asked_s
        longest_s = self._patience.longest_pause_s
        if tries >= self._patience.tries or not passes(error) or pause_s > longest_s:
            said = reason(error, repo_id, filename) + advice(error)
            raise _refusal(error)(said) from error
        until_s = time.monotonic() + pause_s
        while (left_s := until_s - time.monotonic()) > 0:
            tell(f"Waiting for {repo_id}, asked again in {max(1, round(left_s))} s")
            time.sleep(min(left_s, _LOOK_S))


class _Told:
    """Says how far a download is, a few times a second."""

    def __init__(self, filename: str, size_bytes: int | None, progress: Progress) -> None:
        self._name = filename.rpartition("/")[2]
        self._size_bytes, self._progress = size_bytes, progress
        self._next_s = 0.0

    def __call__(self, have: int) -> None:
        now = time.monotonic()
        if now < self._next_s and have != self._size_bytes:
            return
        self._next_s = now + _TELL_S
        if self._size_bytes:
            # No per cent: whoever draws the bar puts those of the whole task beside the words.
            of = f"{have / 1e6:,.0f} of {self._size_bytes / 1e6:,.0f} MB"
            self._progress(have / self._size_bytes, f"Downloading {self._name}: {of}")
        else:
            self._progress(0.0, f"Downloading {self._name}: {have / 1e6:,.0f} MB")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _share(part: Path, size_bytes: int | None) -> float:
    """How much of the file is here."""
    return _size(part) / size_bytes if size_bytes else 0.0


def _other_length(wanted: Checkpoint, have: int, size_bytes: int | None) -> Exception:
    size = "another number" if size_bytes is None else f"{size_bytes:,}"
    return CheckpointMismatchError(
        f"{wanted.filename} of {wanted.repo_id} came with {have:,} bytes or more; wanted: {size}."
    )


def _refusal(error: Exception) -> type[CheckpointUnavailableError]:
    from huggingface_hub import errors

    missing = isinstance(error, errors.EntryNotFoundError)
    return MissingFileError if missing else CheckpointUnavailableError


FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PASSING = {408, 429, 500, 502, 503, 504}  # answers that may be others a moment later
_CLOSED = {401, 403}  # answers that another token may turn


def passes(error: Exception) -> bool:
    """Whether the same question may be answered a moment later."""
    import httpx2
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code in _PASSING
    return isinstance(error, httpx2.TransportError | ConnectionError)


def asked_to_wait_s(error: Exception) -> float | None:
    """Seconds that a server asks to be left alone; None: it asks nothing."""
    from huggingface_hub import errors, utils

    if not isinstance(error, errors.HfHubHTTPError):
        return None
    client: Any = utils  # its names are there, but not for a type checker
    headers = error.response.headers
    said = headers.get("Retry-After", "").strip()
    if said.isdecimal():
        return float(said)  # a date is not waited for
    limit = client.parse_ratelimit_headers(headers) if error.response.status_code == 429 else None
    return float(limit.reset_in_seconds) if limit else None


def reason(error: Exception, repo_id: str, filename: str = "") -> str:
    """Why the Hub gave nothing, in one sentence; the client's own can hold addresses and advice."""
    from huggingface_hub import constants, errors

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
        return f"The Hub answered {error.response.status_code} for {repo_id}{_until(error)}."
    if isinstance(error, OSError) and error.errno in FULL:
        return f"The disk is full: {filename} of {repo_id} could not be written, and was deleted."
    if isinstance(error, ConnectionError) and error.errno == errno.ECONNABORTED:
        return f"The download from {repo_id} broke off: {error.strerror}; what came is kept."
    if isinstance(error, OSError) and error.strerror:
        return f"The download from {repo_id} failed: {error.strerror}."
    host = urlsplit(constants.ENDPOINT).hostname
    return f"{repo_id} cannot be reached on {host} ({type(error).__name__})."


def advice(error: Exception) -> str:
    """What to do about it, as one more sentence; "" where nothing else is known to help."""
    from huggingface_hub import errors

    closed = isinstance(error, errors.HfHubHTTPError) and error.response.status_code in _CLOSED
    if closed or isinstance(error, errors.RepositoryNotFoundError):
        return " Wanted: a repository that is open, or that HF_TOKEN may read."
    return ""


def _until(error: Any) -> str:
    seconds = asked_to_wait_s(error)
    return "" if seconds is None else f" and asks to be asked again in {seconds:,.0f} s"
