"""What a person may name on the Hub: `hf://owner/name[@revision][/file]`, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from xai_demo.errors import UnsuitableError
from xai_demo.hub.bundle import CONFIG, WEIGHTS

SUFFIXES = (".safetensors", ".pth")
WANTED = (
    f"wanted: a model directory ({CONFIG} and {WEIGHTS}), a .safetensors or .pth file, or"
    " hf://owner/name[@revision][/file]"
)
_URI = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^@/]+))?(/(?P<file>[^@]+))?")
_MOST_BYTES = 200  # of file and revision, which together name the lock file


@dataclass(frozen=True, slots=True, kw_only=True)
class OnHub:
    """A repository, or one file of it, at a branch, a tag or a commit."""

    repo_id: str
    filename: str | None  # None: the model directory
    revision: str

    @property
    def weights(self) -> str:
        """The name of the weights file."""
        return self.filename or WEIGHTS

    @property
    def is_pickle(self) -> bool:
        """Whether the weights are in a format that could hold more than tensors."""
        return not self.weights.endswith(".safetensors")


def parsed(uri: str) -> OnHub | None:
    """What the address names; None where it is no such address.

    Raises UnsuitableError where it names what cannot be on the Hub, or what this machine could not
    keep under that name.
    """
    match = _URI.fullmatch(uri)
    if match is None:
        return None
    named = OnHub(
        repo_id=match["repo"], filename=match["file"], revision=match["revision"] or "main"
    )
    path = PurePosixPath(named.weights)
    length = len(f"{named.weights}@{named.revision}".encode())
    if (
        not is_repo_id(named.repo_id)
        # An absolute one, or one that climbs, would be a file of this machine.
        or path.is_absolute()
        or ".." in (*path.parts, named.revision)
        or not named.weights.endswith(SUFFIXES)
        or not uri.isprintable()
        or length > _MOST_BYTES
    ):
        raise UnsuitableError(f"The weights are {_shown(uri)!r}; {WANTED}.")
    return named


def is_repo_id(repo_id: str) -> bool:
    """Whether a repository of the Hub could be called that, its owner included."""
    from huggingface_hub import utils

    client: Any = utils  # its names are there, but not for a type checker
    try:
        client.validate_repo_id(repo_id)
    except client.HFValidationError:
        return False
    return repo_id.count("/") == 1


def _shown(uri: str) -> str:
    return uri if len(uri) <= _MOST_BYTES else f"{uri[:_MOST_BYTES]}…"
