"""One file from the Hub: its metadata, and a download that resumes, can be cancelled and gives up.

`huggingface_hub` supplies the session, headers and token, URLs, file metadata, redirects to large
file storage, and the classes of errors. The transfer is ours, because `hf_hub_download` of 2.4

* resumes within one call only: its partial file has another name in each call and is deleted when
  the call fails, so the next run starts from the first byte;
* waits as long as a server's `Retry-After` says, without a limit or a way to cancel;
* retries a GET on 408, 429 and lost connections, but not on 5xx;
* reports progress, and can be interrupted, only once per chunk of 10 MB;
* compares a file's length with the announced one, but never its sha256;
* warns about a full disk, and starts nevertheless.

Here a partial file stays for the next run, waiting has a limit and can be cancelled every second,
and a failure is one sentence without an address or a token. `hub.store` checks sha256 and disk
space. Xet storage is not used: every file comes over plain HTTP.
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

from xai_demo.catalog.sources import Checkpoint
from xai_demo.errors import CheckpointMismatchError, CheckpointUnavailableError, XaiDemoError
from xai_demo.records import Progress

COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PROGRESS_INTERVAL_S = 0.1
# A wait can be cancelled this often.
_POLL_INTERVAL_S = 1.0

_T = TypeVar("_T")


class MissingFileError(CheckpointUnavailableError):
    """The repository exists at that commit, but has no file of that name."""


class _DiskFullError(CheckpointUnavailableError):
    """There is no room left for the partial file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to wait for the Hub, and how often to try again."""

    timeout_s: float = 10.0  # for a response, and between two pieces of a file
    tries: int = 4  # in a row without a single new byte
    pause_s: float = 1.0  # before the second try; doubled before each later one
    longest_pause_s: float = 30.0  # that a server may ask for


@dataclass(frozen=True, slots=True, kw_only=True)
class FileMetadata:
    """What the Hub announces about a file before it sends it."""

    size_bytes: int | None
    sha256: str | None  # known for files in large file storage only


class HubClient:
    """Downloads from one endpoint of the Hub; None: the one that HF_ENDPOINT sets."""

    def __init__(self, endpoint: str | None, retry_policy: RetryPolicy) -> None:
        self._endpoint, self._policy = endpoint, retry_policy

    def resolve_commit(self, repo_id: str, branch: str, progress: Progress | None = None) -> str:
        """The commit that a branch or tag points to now; raises CheckpointUnavailableError."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self._endpoint)
        seconds = self._policy.timeout_s
        commit = self._with_retries(
            lambda: api.model_info(repo_id, revision=branch, timeout=seconds).sha,
            repo_id,
            on_wait=_at_start(progress),
        )
        if not COMMIT.fullmatch(str(commit or "")):
            raise CheckpointUnavailableError(
                f"The Hub names {str(commit)[:80]!r} as the commit of {repo_id}; expected 40 hex"
                " digits."
            )
        return str(commit)

    def file_metadata(
        self, checkpoint: Checkpoint, progress: Progress | None = None
    ) -> FileMetadata:
        """Size and sha256 of a file at its commit; raises CheckpointUnavailableError."""
        if checkpoint.url:
            return FileMetadata(size_bytes=checkpoint.size_bytes, sha256=checkpoint.sha256)
        from huggingface_hub import get_hf_file_metadata

        url, seconds = self._url(checkpoint), self._policy.timeout_s
        metadata = self._with_retries(
            lambda: get_hf_file_metadata(url, timeout=seconds, endpoint=self._endpoint),
            checkpoint.repo_id,
            checkpoint.filename,
            on_wait=_at_start(progress),
        )
        # Only the Hub sends `X-Repo-Commit`; the login page of a network, for example, does not.
        if metadata.commit_hash is None:
            raise CheckpointUnavailableError(_not_the_hub(checkpoint.repo_id))
        # The ETag of a file outside large file storage is a git hash of 40 digits instead.
        sha256 = metadata.etag if _SHA256.fullmatch(metadata.etag or "") else None
        return FileMetadata(size_bytes=metadata.size, sha256=sha256)

    def download(
        self, checkpoint: Checkpoint, part: Path, *, size_bytes: int | None, progress: Progress
    ) -> None:
        """Append to the partial file `part` until it is complete.

        Raises CheckpointUnavailableError, after which `part` remains to be resumed unless the disk
        is full, and CheckpointMismatchError where the file has another length than announced.
        """
        try:
            self._with_retries(
                lambda: self._stream(checkpoint, part, size_bytes, progress),
                checkpoint.repo_id,
                checkpoint.filename,
                on_wait=lambda text: progress(_fraction_done(part, size_bytes), text),
                bytes_done=lambda: _bytes_on_disk(part),
                host=urlsplit(checkpoint.url or "").hostname,
            )
        # Resuming would keep the wrong bytes, or leave the disk full for everybody.
        except (CheckpointMismatchError, _DiskFullError):
            part.unlink(missing_ok=True)
            raise

    def _url(self, checkpoint: Checkpoint) -> str:
        from huggingface_hub import hf_hub_url

        return checkpoint.url or hf_hub_url(
            checkpoint.repo_id,
            checkpoint.filename,
            revision=checkpoint.revision,
            endpoint=self._endpoint,
        )

    def _stream(
        self, checkpoint: Checkpoint, part: Path, size_bytes: int | None, progress: Progress
    ) -> None:
        """One request for the bytes that are missing."""
        from huggingface_hub import utils

        # `utils` exports its names lazily, which a type checker does not see.
        client: Any = utils
        done = _bytes_on_disk(part)
        if size_bytes is not None and done >= size_bytes:
            # The sha256 will reject a file that is too long.
            return
        # Compressed bytes could neither be resumed nor counted.
        headers = client.build_hf_headers(token=False if checkpoint.url else None)
        headers["Accept-Encoding"] = "identity"
        if done:
            headers["Range"] = f"bytes={done}-"
        report = _DownloadProgress(checkpoint.filename, size_bytes, progress)
        # The session follows the redirect to large file storage, and drops the token there.
        with client.get_session().stream(
            "GET", self._url(checkpoint), headers=headers, timeout=self._policy.timeout_s
        ) as response:
            # The file ends before the first missing byte: RFC 9110, 15.5.17.
            if done and response.status_code == 416:
                raise _length_error(checkpoint, f"ends at byte {done:,} or before", size_bytes)
            client.hf_raise_for_status(response)
            # A server that does not know ranges answers 200 and sends the whole file again.
            resumed = done > 0 and response.status_code == 206
            with part.open("ab" if resumed else "wb") as file:
                done = done if resumed else 0
                for piece in response.iter_raw():
                    file.write(piece)
                    done += len(piece)
                    if size_bytes is not None and done > size_bytes:
                        raise _length_error(checkpoint, f"has at least {done:,} bytes", size_bytes)
                    report(done)
        # A server may stop early without an error; as a lost connection, it is retried.
        if size_bytes is not None and done < size_bytes:
            raise ConnectionAbortedError(
                errno.ECONNABORTED, f"after {done:,} of {size_bytes:,} bytes"
            )

    def _with_retries(
        self,
        attempt: Callable[[], _T],
        repo_id: str,
        filename: str = "",
        *,
        on_wait: Callable[[str], None],
        bytes_done: Callable[[], int] = lambda: 0,
        host: str | None = None,
    ) -> _T:
        """What `attempt` returns in the end; raises CheckpointUnavailableError with the reason."""
        failures, pause_s = 0, self._policy.pause_s
        while True:
            before = bytes_done()
            try:
                return attempt()
            # A mismatch, or somebody has cancelled.
            except XaiDemoError:
                raise
            except Exception as error:
                # It got further, so counting starts anew.
                if bytes_done() > before:
                    failures, pause_s = 0, self._policy.pause_s
                failures += 1
                # A server that asks for too long a pause is given up at once, with that number.
                wait_s = retry_after_s(error)
                wait_s = pause_s if wait_s is None else wait_s
                if (
                    failures >= self._policy.tries
                    or not is_transient(error)
                    or wait_s > self._policy.longest_pause_s
                ):
                    hint = "" if host else access_hint(error)
                    message = failure_reason(error, repo_id, filename, host) + hint
                    raise _error_class(error)(message) from error
                _wait(wait_s, repo_id, on_wait)
                pause_s *= 2


class _DownloadProgress:
    """Reports how far a download is, a few times a second."""

    def __init__(self, filename: str, size_bytes: int | None, progress: Progress) -> None:
        self._name = filename.rpartition("/")[2]
        self._size_bytes, self._progress = size_bytes, progress
        self._next_s = 0.0

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if now < self._next_s and done != self._size_bytes:
            return
        self._next_s = now + _PROGRESS_INTERVAL_S
        if self._size_bytes:
            # No percentage: the progress bar already shows that of the whole task.
            amount = f"{done / 1e6:,.0f} of {self._size_bytes / 1e6:,.0f} MB"
            self._progress(done / self._size_bytes, f"Downloading {self._name}: {amount}")
        else:
            self._progress(0.0, f"Downloading {self._name}: {done / 1e6:,.0f} MB")


def _wait(seconds: float, repo_id: str, on_wait: Callable[[str], None]) -> None:
    """Wait before the next attempt; `on_wait` hears of it every second, and may raise to cancel."""
    end_s = time.monotonic() + seconds
    while (left_s := end_s - time.monotonic()) > 0:
        on_wait(f"Waiting for {repo_id}, next attempt in {max(1, round(left_s))} s")
        time.sleep(min(left_s, _POLL_INTERVAL_S))


def _at_start(progress: Progress | None) -> Callable[[str], None]:
    """Reports a wait before the first byte."""
    return lambda text: progress(0.0, text) if progress else None


def _bytes_on_disk(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _fraction_done(part: Path, size_bytes: int | None) -> float:
    return _bytes_on_disk(part) / size_bytes if size_bytes else 0.0


def _length_error(checkpoint: Checkpoint, fact: str, size_bytes: int | None) -> Exception:
    expected = "more" if size_bytes is None else f"{size_bytes:,} bytes"
    return CheckpointMismatchError(
        f"{checkpoint.filename} of {checkpoint.repo_id} {fact}; expected {expected}."
    )


def _error_class(error: Exception) -> type[CheckpointUnavailableError]:
    from huggingface_hub import errors

    if isinstance(error, errors.EntryNotFoundError):
        return MissingFileError
    return _DiskFullError if _is_disk_full(error) else CheckpointUnavailableError


# EDQUOT is a full quota, EFBIG a file larger than the file system or a limit of the shell allows.
_DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# After these, the same request may succeed.
_TRANSIENT_STATUSES = {408, 429, 500, 502, 503, 504}
# After these, another token may help.
_FORBIDDEN_STATUSES = {401, 403}


def _is_disk_full(error: Exception) -> bool:
    return isinstance(error, OSError) and error.errno in _DISK_FULL_ERRNOS


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    import httpx2
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code in _TRANSIENT_STATUSES
    # huggingface_hub sends its requests with httpx2, and passes these errors on.
    return isinstance(error, httpx2.TransportError | ConnectionError)


def retry_after_s(error: Exception) -> float | None:
    """Seconds that the server asks to wait before the next request; None where it does not.

    From `Retry-After` in seconds (RFC 9110, section 10.2.3; a date is ignored), else from the Hub's
    own `RateLimit` header.
    """
    from huggingface_hub import errors, utils

    if not isinstance(error, errors.HfHubHTTPError):
        return None
    # `utils` exports its names lazily, which a type checker does not see.
    client: Any = utils
    headers = error.response.headers
    seconds = headers.get("Retry-After", "").strip()
    if seconds.isdecimal():
        return float(seconds)
    limit = client.parse_ratelimit_headers(headers) if error.response.status_code == 429 else None
    return float(limit.reset_in_seconds) if limit else None


def failure_reason(
    error: Exception, repo_id: str, filename: str = "", host: str | None = None
) -> str:
    """Why the Hub, or another `host`, sent nothing, in one sentence of ours.

    The client's own messages span lines, give advice on its options, and may contain addresses.
    """
    import httpx2
    from huggingface_hub import constants, errors

    sentences: tuple[tuple[type[Exception], str], ...] = (
        # The order matters: a gated repository is also one that is not found.
        (
            errors.GatedRepoError,
            f"{repo_id} is gated: accept its terms on the Hub, and set HF_TOKEN.",
        ),
        (errors.RepositoryNotFoundError, f"The Hub has no repository {repo_id}, or it is private."),
        (errors.RevisionNotFoundError, f"{repo_id} has no such revision."),
        (errors.EntryNotFoundError, f"{repo_id} has no file {filename!r}."),
        (errors.OfflineModeIsEnabled, "HF_HUB_OFFLINE is set, so nothing is downloaded."),
        (errors.FileMetadataError, _not_the_hub(repo_id)),
    )
    for kind, sentence in sentences:
        if isinstance(error, kind):
            return sentence
    if isinstance(error, errors.HfHubHTTPError):
        seconds = retry_after_s(error)
        wait = "" if seconds is None else f" and asks for a pause of {seconds:,.0f} s"
        return f"{host or 'The Hub'} answered {error.response.status_code} for {repo_id}{wait}."
    if _is_disk_full(error):
        return f"The disk is full: the partial download of {filename} from {repo_id} was deleted."
    if isinstance(error, ConnectionError) and error.errno == errno.ECONNABORTED:
        return (
            f"The download from {repo_id} was cut off {error.strerror}; the next attempt resumes"
            " it."
        )
    if isinstance(error, OSError) and error.strerror:
        return f"The download from {repo_id} failed: {error.strerror}."
    # Whatever else the client fails on is an answer that it cannot make sense of, such as a page
    # where JSON should be.
    if not isinstance(error, httpx2.TransportError | OSError):
        return _not_the_hub(repo_id)
    # The messages of what is left may contain addresses, so only the class is named.
    host = host or urlsplit(constants.ENDPOINT).hostname
    return f"{repo_id} cannot be reached on {host} ({type(error).__name__})."


def access_hint(error: Exception) -> str:
    """What the user can do about missing access, as one more sentence; "" for other errors."""
    from huggingface_hub import errors

    forbidden = (
        isinstance(error, errors.HfHubHTTPError)
        and error.response.status_code in _FORBIDDEN_STATUSES
    )
    # To a stranger, the Hub says of a private repository that it does not exist.
    if forbidden or isinstance(error, errors.RepositoryNotFoundError):
        return " The repository must be public, or one that HF_TOKEN may read."
    return ""


def _not_the_hub(repo_id: str) -> str:
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    return (
        f"{host} answered for {repo_id}, but not as the Hub does; expected JSON with the commit of"
        " the repository. A login page or a proxy may stand in between."
    )
