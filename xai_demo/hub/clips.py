"""Download the clips for which the authors of a network published its answer, and verify them.

They are kept in `clips/` of the cache. None is on the Hub, so no token is sent.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_demo.errors import CheckpointMismatchError, CheckpointUnavailableError
from xai_demo.files import write_atomically
from xai_demo.hub.checkpoint import sha256_of
from xai_demo.hub.store import not_writable_error

if TYPE_CHECKING:
    from xai_demo.catalog.sources import PublishedAnswer
    from xai_demo.settings import Settings

_TIMEOUT_S = 10.0
# The whole clip is held in memory, whatever the server sends.
_MAX_BYTES = 20_000_000


def clip_path(published: PublishedAnswer, settings: Settings) -> Path:
    """Where the clip is kept on this machine, whether or not it is there yet."""
    return settings.cache_dir / "clips" / published.clip


def fetch_clip(published: PublishedAnswer, settings: Settings) -> Path:
    """The clip's path, after a download if need be; a file with another sha256 is not stored.

    Raises CheckpointUnavailableError, CheckpointMismatchError.
    """
    path, expected = clip_path(published, settings), published.sha256
    # Where no sha256 is known, a clip that somebody has put here is trusted.
    if path.is_file() and expected in (None, sha256_of(path)):
        return path
    if published.url is None or expected is None:
        raise CheckpointUnavailableError(
            f"The address of {published.clip} is not known; put the file into {path.parent}."
        )
    if settings.offline:
        raise CheckpointUnavailableError(
            f"HF_HUB_OFFLINE is set, so {published.url} is not downloaded."
        )
    content = _download(published.url)
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise CheckpointMismatchError(f"{published.url} has sha256 {actual}; expected {expected}.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise not_writable_error(path.parent, error) from error
    return path


def _download(url: str) -> bytes:
    import httpx2
    from huggingface_hub import utils

    # `utils` exports its names lazily, which a type checker does not see.
    client: Any = utils
    content = bytearray()
    try:
        # The session of the Hub's client knows about proxies, and sends no token by itself.
        with client.get_session().stream("GET", url, timeout=_TIMEOUT_S) as response:
            if response.status_code != 200:
                raise CheckpointUnavailableError(f"{url} answered {response.status_code}.")
            for piece in response.iter_bytes():
                content += piece
                if len(content) > _MAX_BYTES:
                    raise CheckpointMismatchError(
                        f"{url} has more than {_MAX_BYTES:,} bytes, too many for a clip."
                    )
    except (httpx2.TransportError, OSError) as error:
        raise CheckpointUnavailableError(
            f"{url} cannot be reached ({type(error).__name__})."
        ) from error
    return bytes(content)
