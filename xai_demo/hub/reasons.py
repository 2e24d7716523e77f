"""Why the Hub gave nothing, and whether and when it may be asked again."""

from __future__ import annotations

import errno
from typing import Any
from urllib.parse import urlsplit

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
