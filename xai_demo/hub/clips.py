"""The clips for which makers of a network have published its answer: brought by address, verified.

They lie in `clips/` of the cache. None is on the Hub, so that no token goes with the question.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.errors import CheckpointMismatchError, CheckpointUnavailableError
from xai_demo.files import write_atomically
from xai_demo.hub.checkpoint import sha256_of

if TYPE_CHECKING:
    from xai_demo.records import PublishedAnswer
    from xai_demo.settings import Settings

_TIMEOUT_S = 10.0
_MOST_BYTES = 20_000_000


def place(published: PublishedAnswer, settings: Settings) -> Path:
    """Where the clip lies, or would lie, on this machine."""
    return settings.cache_dir / "clips" / published.clip


def brought(published: PublishedAnswer, settings: Settings) -> Path:
    """The clip, fetched where it is not here; one of another sha256 never comes to lie there.

    Raises CheckpointUnavailableError, CheckpointMismatchError.
    """
    path, wanted = place(published, settings), published.sha256
    if path.is_file() and wanted in (None, sha256_of(path)):
        return path
    if published.url is None or wanted is None:
        raise CheckpointUnavailableError(
            f"{published.clip} has no address that is known; wanted: that file, in {path.parent}."
        )
    if settings.offline:
        raise CheckpointUnavailableError(f"HF_HUB_OFFLINE is set, so {published.url} is not asked.")
    content = _content(published.url)
    actual = hashlib.sha256(content).hexdigest()
    if actual != wanted:
        raise CheckpointMismatchError(f"{published.url} has sha256 {actual}; wanted: {wanted}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise CheckpointUnavailableError(
            f"{path.parent} cannot be written to ({error.strerror}); wanted: a directory that can,"
            " set by XAI_DEMO_CACHE."
        ) from error
    return path


def _content(url: str) -> bytes:
    import httpx2
    from huggingface_hub import utils

    client: Any = utils  # its names are there, but not for a type checker
    content = bytearray()
    try:
        with client.get_session().stream("GET", url, timeout=_TIMEOUT_S) as answer:
            if answer.status_code != 200:
                raise CheckpointUnavailableError(f"{url} answered {answer.status_code}.")
            for piece in answer.iter_bytes():
                content += piece
                if len(content) > _MOST_BYTES:
                    raise CheckpointMismatchError(
                        f"{url} has more than {_MOST_BYTES:,} bytes; wanted: a clip."
                    )
    except (httpx2.TransportError, OSError) as error:
        raise CheckpointUnavailableError(
            f"{url} cannot be reached ({type(error).__name__})."
        ) from error
    return bytes(content)
