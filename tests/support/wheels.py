"""Made-up wheels in a folder that stands in for the package index, which pip reads by itself."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from xai_demo.catalog.sources import WheelFile

PROJECT, VERSION = "sound-network", "1.2.3"
# A wheel whose code would tell if it ran.
_CODE = "from pathlib import Path; Path('it-ran').touch(); raise SystemExit('it ran')"


def write_wheel(folder: Path, files: Mapping[str, bytes]) -> Path:
    """A wheel that pip accepts, with these files beside its code."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = PROJECT.replace("-", "_")
    path = folder / f"{stem}-{VERSION}-py3-none-any.whl"
    info = f"{stem}-{VERSION}.dist-info"
    needed = {
        f"{stem}/__init__.py": _CODE.encode(),
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: {PROJECT}\nVersion: {VERSION}\n"
            "Requires-Python: >=3.99\nRequires-Dist: torchaudio\n"
        ).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (needed | dict(files)).items():
            # Without the time of day, so that the same files give the same sha256.
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


def wheel_file(path: Path, member: str, content: bytes) -> WheelFile:
    """The pin of a member of that wheel, which should have this content."""
    return WheelFile(
        project=PROJECT,
        version=VERSION,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        member=member,
        member_sha256=hashlib.sha256(content).hexdigest(),
    )


def use_index(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Makes pip look for wheels in a folder, and nowhere else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
