"""A dataset as it is downloaded: a zip archive, unpacked for as long as it is used."""

from __future__ import annotations

import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xai_demo.errors import TrainingError

# The largest published archive of lung sounds unpacks to 4 GB.
_MAX_UNPACKED_BYTES = 40 * 10**9


@contextmanager
def unpack_dataset(data: Path) -> Iterator[Path]:
    """The folder of a dataset: `data` itself, or a temporary one for a zip archive.

    A folder that holds archives but no folders, as some downloads do, is unpacked as well, and so
    are archives within an archive. Raises TrainingError for one that is damaged or too large.
    """
    archives = [data] if data.is_file() and zipfile.is_zipfile(data) else _only_archives(data)
    if not archives:
        yield data
        return
    with tempfile.TemporaryDirectory(prefix="xai-demo-") as name:
        folder = Path(name)
        for archive in archives:
            _extract(archive, folder / archive.stem)
        for inner in sorted(folder.rglob("*.zip")):
            if "__MACOSX" not in inner.parts and not inner.name.startswith("."):
                _extract(inner, inner.with_suffix(""))
        yield folder


def _only_archives(data: Path) -> list[Path]:
    if not data.is_dir() or any(place.is_dir() for place in data.iterdir()):
        return []
    return sorted(path for path in data.glob("*.zip") if zipfile.is_zipfile(path))


def _extract(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as content:
            size = sum(entry.file_size for entry in content.infolist())
            if size > _MAX_UNPACKED_BYTES:
                raise TrainingError(
                    f"{archive.name} unpacks to {size / 1e9:.1f} GB; expected at most"
                    f" {_MAX_UNPACKED_BYTES / 1e9:.0f} GB."
                )
            # It leaves out absolute paths and "..", and writes no link.
            content.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError) as error:
        raise TrainingError(
            f"{archive.name} cannot be unpacked ({error}); expected a whole zip archive without a"
            " password, and room for its content."
        ) from error
