"""The house rules, read from the source: who may import whom, and which effect has which door."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "xai_demo"

# A module or folder may import those in the rows above its own, and itself.
ROWS = (
    {"records", "errors"},
    {
        "directories",
        "files",
        "gate_model",
        "kaldi",
        "pacing",
        "settings",
        "shelf",
        "turns",
        "uncertainty",
    },
    {
        "annotations",
        "containers",
        "dicom",
        "filtering",
        "gate",
        "listening",
        "moments",
        "quality",
        "tables",
    },
    {"audio", "image", "noise", "raster", "spectrum", "render", "synthesis", "decision", "waves"},
    {"catalog", "explainers", "faithfulness", "heat", "networks", "plain", "results", "windows"},
    {"hub", "picture", "sound"},
    {"engine", "medium"},
    {"inference"},
    {"explaining"},
    {"disturbance", "pipeline"},
    {"lent", "served"},
    {
        "asked",
        "selftest",
        "tabs",
        "training",
        "bench",
        "endurance",
        "frontend_bench",
        "overhead",
        "slow_bench",
        "start_bench",
    },
    {"long_bench"},
    {"benches", "studies"},
    {"cli"},
    {"__main__", "app"},
)
# Who alone may import or call what.
DOORS = {
    "gradio": {"tabs", "app"},
    "huggingface_hub": {"hub", "training"},
    "onnxruntime": {"engine"},
}
MOST_MODULE_LINES = 400
MOST_FUNCTION_LINES = 60

SOURCES = [*sorted(PACKAGE.rglob("*.py")), ROOT / "app.py"]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def part(path: Path) -> str:
    """The top-level module or folder that a file belongs to: `hub` for xai_demo/hub/store.py."""
    if path.parent == ROOT:
        return path.stem
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module imported anywhere in the file, in full: `xai_demo.hub.store`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            assert node.module is not None
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_parts(tree: ast.AST) -> set[str]:
    """The project's own parts that a file imports."""
    names = [name.split(".") for name in imports(tree)]
    known = set().union(*ROWS) | {part(path) for path in SOURCES}
    return {name[1] for name in names if name[0] == "xai_demo" and name[1:2]} & known


def row_of(name: str) -> int:
    for number, row in enumerate(ROWS):
        if name in row:
            return number
    raise AssertionError(f"{name!r} is in no row: say in ROWS where it belongs")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_file = pytest.mark.parametrize("path", SOURCES, ids=named)


def test_an_import_is_seen_wherever_and_however_it_is_written() -> None:
    source = (
        "def f():\n    from xai_demo import cli\n    import xai_demo.hub.store as s, gradio.themes"
    )
    assert own_parts(ast.parse(source)) == {"cli", "hub"}
    assert "gradio.themes" in set(imports(ast.parse(source)))
    assert row_of("records") < row_of("hub") < row_of("cli")


@every_file
def test_imports_point_down(path: Path) -> None:
    if part(path) == "__init__":
        assert own_parts(TREES[path]) == set()
        return
    above = {
        other
        for other in own_parts(TREES[path]) - {part(path)}
        if row_of(other) >= row_of(part(path))
    }
    assert above == set()


@every_file
def test_each_library_has_its_door(path: Path) -> None:
    used = {name.split(".")[0] for name in imports(TREES[path])}
    outside = {library for library in used & set(DOORS) if part(path) not in DOORS[library]}
    assert outside == set()


@every_file
def test_the_environment_is_read_in_settings_alone(path: Path) -> None:
    wanted = {"os.environ", "os.getenv", "os.putenv", "os.environb"}
    named = {ast.unparse(n) for n in ast.walk(TREES[path]) if isinstance(n, ast.Attribute)}
    found = (named | set(imports(TREES[path]))) & wanted
    assert not found or part(path) == "settings"


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name
    ]


@every_file
def test_only_the_command_line_prints(path: Path) -> None:
    assert not calls(TREES[path], "print") or part(path) == "cli"


@every_file
def test_a_pickle_is_read_as_weights_only(path: Path) -> None:
    for call in calls(TREES[path], "torch.load"):
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        assert options.get("weights_only") == "True", f"line {call.lineno}"
    loaders = {"pickle", "cPickle", "dill", "joblib", "cloudpickle"}
    assert not {name.split(".")[0] for name in imports(TREES[path])} & loaders


@every_file
def test_faults_are_neither_swallowed_nor_silenced(path: Path) -> None:
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"line {node.lineno}: a bare except"
        if isinstance(node, ast.ImportFrom):
            assert all(a.name != "*" for a in node.names), f"line {node.lineno}: a star import"
    for call in calls(TREES[path], "warnings.filterwarnings"):
        assert "'ignore'" not in ast.unparse(call), f"line {call.lineno}"
    assert not calls(TREES[path], "warnings.simplefilter")


@every_file
def test_files_and_functions_stay_small(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_MODULE_LINES
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= MOST_FUNCTION_LINES, f"{node.name} has {lines} lines"


@pytest.mark.parametrize(
    "module",
    [
        "xai_demo",
        "xai_demo.settings",
        "xai_demo.records",
        "xai_demo.catalog",
        "xai_demo.hub",
        "xai_demo.explainers",
        "xai_demo.analysis",
        "xai_demo.cli",
    ],
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    heavy = "torch timm transformers librosa onnxruntime gradio huggingface_hub matplotlib"
    program = f"import sys, {module}; print(*sorted(set('{heavy}'.split()) & set(sys.modules)))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
