"""Every package that the code imports is one that an installation asks for, and pins."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [ROOT / "app.py", *sorted((ROOT / "xai_demo").rglob("*.py"))]
# Not installed but lent by Hugging Face, whose ZeroGPU Spaces have it.
PROVIDED_BY_SPACES = {"spaces"}


def requirements() -> dict[str, str]:
    """Name, as PyPI normalises it, and version specifier of each requirement and extra."""
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in project["optional-dependencies"].values():
        lines += extra
    split = (re.match(r"([\w.-]+)(.*)", line) for line in lines if line)
    return {normalised(match[1]): match[2] for match in split if match}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported_packages() -> dict[str, str]:
    """Each top-level package that is not of the standard library, and a file that imports it."""
    packages: dict[str, str] = {}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names = [node.module]
            for name in names:
                packages.setdefault(name.partition(".")[0], str(path.relative_to(ROOT)))
    own = sys.stdlib_module_names | {"xai_demo"} | PROVIDED_BY_SPACES
    return {name: path for name, path in packages.items() if name not in own}


@cache
def distributions(package: str) -> frozenset[str]:
    return frozenset(map(normalised, packages_distributions().get(package, ())))


@pytest.mark.parametrize(
    ("package", "path"), sorted(imported_packages().items()), ids=lambda value: value
)
def test_an_imported_package_is_required(package: str, path: str) -> None:
    names = distributions(package) or {normalised(package)}
    assert names & set(requirements()), f"{path} imports {package}, which nothing requires"


def test_what_is_installed_is_what_is_pinned() -> None:
    for name, specifier in requirements().items():
        if specifier.startswith("=="):
            # PyTorch's builds carry a local label, as in 2.11.0+cpu.
            assert version(name).partition("+")[0] == specifier.removeprefix("=="), name
