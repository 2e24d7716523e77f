"""The house rules, read from the source: imports, doors, sizes and names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "xai_demo"

# By folder: a module or folder in it may import those in the rows above its own, and itself.
ROWS: dict[str, tuple[set[str], ...]] = {
    "xai_demo": (
        {"records", "errors"},
        {
            "catalog",
            "decision",
            "examples",
            "explainers",
            "files",
            "networks",
            "render",
            "scheduler",
            "settings",
        },
        {"audio", "imaging", "export", "service", "synthesis"},
        {"hub"},
        {"engine"},
        {"analysis"},
        {"tabs", "training"},
        {"bench"},
        {"cli"},
        {"__main__"},
    ),
    "xai_demo.training": (
        {"augmentation", "lung_films", "lung_outlines", "metrics", "tracking"},
        {"datasets", "plots"},
        {"recipe"},
        {"calibration", "class_imbalance", "initial_weights", "losses"},
        {"ablation_tables", "explainer_report", "findings", "lung"},
        {"fold_metrics", "trainer"},
        {"model_card_text", "predict"},
        {"recipes"},
        {"evaluate", "model_card"},
        {"train"},
        {"folds"},
        {"ablation", "cross_validation", "explainer_eval", "gate_eval", "input_checks"},
        {"lung_fit", "refit"},
        {"age_fit", "cough_fit"},
        {"auto_eval"},
    ),
    "xai_demo.tabs": (
        {"cache", "phrases", "queue", "requests", "theme"},
        {"controls", "figure"},
        {"comparison", "timeline"},
        {"details", "live", "noise", "result", "signal_path"},
        {"layout"},
        {"api", "events"},
        {"__init__"},
        {"server"},
    ),
}
# Only these may import the library.
DOORS = {
    "gradio": {"tabs", "app"},
    "huggingface_hub": {"hub"},
    "onnxruntime": {"engine"},
}
TOP_LEVEL = {
    "__init__",
    "__main__",
    "analysis",
    "audio",
    "bench",
    "catalog",
    "cli",
    "decision",
    "engine",
    "errors",
    "examples",
    "explainers",
    "export",
    "files",
    "hub",
    "imaging",
    "networks",
    "records",
    "render",
    "scheduler",
    "service",
    "settings",
    "synthesis",
    "tabs",
    "training",
}
MOST_MODULES = 204
MOST_MODULE_LINES = 400
SHORT_MODULE_LINES = 40
MOST_SHORT_MODULES = 15
MOST_FUNCTION_LINES = 60

# As the whole name of a function these say neither what it does nor what it returns. Regular ones
# are those that end in "ed"; these are the irregular ones.
IRREGULAR_PARTICIPLES = re.compile(
    "begun|born|bound|bought|broken|brought|built|caught|chosen|come|dealt|done|drawn|driven|"
    "eaten|fallen|felt|fought|found|forgotten|given|gone|grown|heard|held|hidden|hung|kept|"
    "known|laid|learnt|left|lent|lit|lost|made|meant|met|paid|proven|said|seen|sent|shaken|"
    "shown|sold|sought|spent|spoken|spread|struck|sung|sunk|swept|taken|taught|thought|"
    "thrown|told|torn|understood|wept|won|worn|wound|woven|written"
)
NO_PARTICIPLES = {"embed", "exceed", "feed", "need", "proceed", "seed", "speed"}
PRONOUNS = {
    "he",
    "her",
    "him",
    "it",
    "its",
    "she",
    "them",
    "they",
    "us",
    "we",
    "who",
    "whom",
    "you",
}

SOURCES = [*sorted(PACKAGE.rglob("*.py")), ROOT / "app.py"]
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def module_of(path: Path) -> str:
    """The dotted name: `xai_demo.hub` for xai_demo/hub/__init__.py."""
    dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return dotted.removesuffix(".__init__")


MODULES = {module_of(path): path for path in SOURCES}


def part(module: str, folder: str) -> str | None:
    """The module or folder directly in `folder` that a module belongs to; None outside of it."""
    if module == folder:
        return "__init__"
    prefix, _, rest = module.partition(folder + ".")
    return rest.split(".")[0] if rest and not prefix else None


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module imported anywhere in the file, in full: `xai_demo.hub.store`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


def place(path: Path) -> str:
    return str(path.relative_to(ROOT))


def row_of(name: str, folder: str) -> int:
    for number, row in enumerate(ROWS[folder]):
        if name in row:
            return number
    raise AssertionError(f"{name!r} is in no row of {folder}: say in ROWS where it belongs")


def calls(tree: ast.AST, name: str) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name
    ]


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_bare_participle(name: str) -> bool:
    word = name.strip("_")
    return bool(IRREGULAR_PARTICIPLES.fullmatch(word)) or (
        "_" not in word and word.endswith("ed") and word not in NO_PARTICIPLES
    )


def test_an_import_is_seen_wherever_and_however_it_is_written() -> None:
    source = (
        "def f():\n    from xai_demo import cli\n    import xai_demo.hub.store as s, gradio.themes"
    )
    assert set(imports(ast.parse(source))) == {
        "xai_demo.cli",
        "xai_demo.hub.store",
        "gradio.themes",
    }
    assert part("xai_demo.hub.store", "xai_demo") == "hub"
    assert part("xai_demo.training.lung.samples", "xai_demo.training") == "lung"
    assert part("xai_demo.training", "xai_demo.training") == "__init__"
    assert part("xai_demo.tabs.api", "xai_demo.training") is None
    assert row_of("records", "xai_demo") < row_of("hub", "xai_demo") < row_of("cli", "xai_demo")


@pytest.mark.parametrize("folder", ROWS)
def test_rows_name_what_exists_and_all_of_it(folder: str) -> None:
    names = [name for row in ROWS[folder] for name in row]
    exist = {part(module, folder) for module in MODULES} - {None, "__init__"}
    assert len(names) == len(set(names)), "a name stands in two rows"
    assert set(names) - {"__init__"} == exist


@pytest.mark.parametrize("folder", ROWS)
def test_imports_point_down(folder: str) -> None:
    offenders = []
    for path, tree in TREES.items():
        own = part(module_of(path), folder)
        if own is None or (own == "__init__" and own not in set().union(*ROWS[folder])):
            continue
        for module in imports(tree):
            other = part(module, folder)
            if other in (None, own, "__init__"):
                continue
            if row_of(other, folder) >= row_of(own, folder):
                offenders.append(f"{place(path)} imports {module}")
    assert offenders == []


def test_the_package_and_its_training_import_nothing_of_their_own() -> None:
    for module in ("xai_demo", "xai_demo.training"):
        own = {name for name in imports(TREES[MODULES[module]]) if name.startswith("xai_demo")}
        assert own == set(), module


def test_each_library_has_its_door() -> None:
    offenders = [
        f"{place(path)} imports {library}"
        for path, tree in TREES.items()
        for library in {name.split(".")[0] for name in imports(tree)} & set(DOORS)
        if (part(module_of(path), "xai_demo") or path.stem) not in DOORS[library]
    ]
    assert offenders == []


def test_the_environment_is_read_in_settings_alone() -> None:
    readers = {"os.environ", "os.getenv", "os.putenv", "os.environb"}
    offenders = []
    for path, tree in TREES.items():
        named = {ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
        taken = {
            f"os.{alias.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "os"
            for alias in node.names
        }
        if (named | taken) & readers and module_of(path) != "xai_demo.settings":
            offenders.append(place(path))
    assert offenders == []


def test_only_the_command_line_prints() -> None:
    offenders = [
        f"{place(path)}:{call.lineno}"
        for path, tree in TREES.items()
        for call in calls(tree, "print")
        if part(module_of(path), "xai_demo") != "cli"
    ]
    assert offenders == []


def test_a_pickle_is_read_as_weights_only() -> None:
    loaders = {"pickle", "cPickle", "dill", "joblib", "cloudpickle"}
    offenders = []
    for path, tree in TREES.items():
        for call in calls(tree, "torch.load"):
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            if options.get("weights_only") != "True":
                offenders.append(f"{place(path)}:{call.lineno}")
        offenders += [
            f"{place(path)} imports {library}"
            for library in {name.split(".")[0] for name in imports(tree)} & loaders
        ]
    assert offenders == []


def test_faults_are_neither_swallowed_nor_silenced() -> None:
    offenders = []
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler) and node.type is None:
                offenders.append(f"{place(path)}:{node.lineno}: a bare except")
            if isinstance(node, ast.ImportFrom) and any(a.name == "*" for a in node.names):
                offenders.append(f"{place(path)}:{node.lineno}: a star import")
        offenders += [
            f"{place(path)}:{call.lineno}: warnings are silenced"
            for call in calls(tree, "warnings.filterwarnings")
            if "'ignore'" in ast.unparse(call)
        ]
        offenders += [
            f"{place(path)}:{call.lineno}: warnings are silenced"
            for call in calls(tree, "warnings.simplefilter")
        ]
    assert offenders == []


def test_files_and_functions_stay_small() -> None:
    offenders = []
    for path, tree in TREES.items():
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > MOST_MODULE_LINES:
            offenders.append(f"{place(path)} has {lines} lines")
        for node in functions(tree):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MOST_FUNCTION_LINES:
                offenders.append(f"{place(path)}:{node.lineno}: {node.name} has {lines} lines")
    assert offenders == []


def test_modules_are_few_and_full() -> None:
    package = [path for path in SOURCES if PACKAGE in path.parents]
    short = [
        place(path)
        for path in package
        if len(path.read_text(encoding="utf-8").splitlines()) < SHORT_MODULE_LINES
    ]
    assert len(package) <= MOST_MODULES
    assert len(short) <= MOST_SHORT_MODULES, short
    assert {part(module, "xai_demo") for module in MODULES} - {None} == TOP_LEVEL


def test_a_function_is_named_by_a_verb_or_a_noun() -> None:
    offenders = [
        f"{place(path)}:{node.lineno}: {node.name}"
        for path, tree in TREES.items()
        for node in functions(tree)
        if is_bare_participle(node.name) or node.name.strip("_") in PRONOUNS
    ]
    assert offenders == []


@pytest.mark.parametrize("name", ["found", "_shown", "told", "asked", "scaled", "_drawn", "learnt"])
def test_bare_participles_are_recognised(name: str) -> None:
    assert is_bare_participle(name)


@pytest.mark.parametrize("name", ["feed", "seed", "find", "is_masked", "masked_share", "read"])
def test_verbs_and_nouns_are_not_taken_for_participles(name: str) -> None:
    assert not is_bare_participle(name)


def test_every_module_says_what_it_is_in_one_line() -> None:
    offenders = [
        place(path)
        for path, tree in TREES.items()
        if not re.match(r".{10,95}[.?](\n\n|$)", ast.get_docstring(tree) or "")
    ]
    assert offenders == []


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
        "xai_demo.analysis.request",
        "xai_demo.cli",
    ],
)
def test_importing_loads_nothing_heavy(module: str) -> None:
    heavy = "torch timm transformers librosa onnxruntime gradio huggingface_hub matplotlib"
    program = f"import sys, {module}; print(*sorted(set('{heavy}'.split()) & set(sys.modules)))"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
