"""The README: a valid Space card, and nothing in it that does not work."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from huggingface_hub import SpaceCard

from xai_demo.catalog import MODELS
from xai_demo.cli import main
from xai_demo.explainers import EXPLAINERS
from xai_demo.records import DISCLAIMER
from xai_demo.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FRONT = yaml.safe_load(TEXT.split("---\n")[1])
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
TAKE_A_MODEL = {"analyse", "fetch", "export", "evaluate", "cross-validate", "evaluate-explainers"}
PINS = dict(
    line.split("==") for line in (ROOT / "requirements.txt").read_text().splitlines() if line
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("bash") for line in block.splitlines() if line]


# The Space card


def test_the_front_matter_is_a_space_card() -> None:
    card = SpaceCard(TEXT, ignore_metadata_errors=False)
    assert (card.data.sdk, card.data.app_file, card.data.license) == ("gradio", "app.py", "mit")
    assert card.data.title == FRONT["title"]
    assert (ROOT / card.data.app_file).is_file()
    assert FRONT["python_version"] == "3.12"
    assert {FRONT["colorFrom"], FRONT["colorTo"]} <= COLOURS
    assert len(FRONT["short_description"]) <= 60
    assert re.fullmatch(r"[\U0001F300-\U0001FAFF]", FRONT["emoji"])
    assert all(re.fullmatch(r"[a-z0-9-]+", tag) for tag in FRONT["tags"])


def test_the_card_names_the_models_that_come_off_the_hub() -> None:
    assert FRONT["models"] == [e.checkpoint.repo_id for e in MODELS.values() if e.checkpoint]


def test_the_space_runs_the_gradio_that_is_pinned() -> None:
    assert FRONT["sdk_version"] == PINS["gradio"]


def test_every_requirement_is_pinned_exactly() -> None:
    for name, version in PINS.items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert re.fullmatch(r"\d+(\.\d+)+", version)


def test_the_space_has_a_python_that_the_project_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    assert project["license"].lower() == FRONT["license"]


# Commands


def test_the_two_commands_are_enough_and_ci_runs_the_second() -> None:
    run, test = commands()[:2]
    assert run == "bash .ci/setup && .venv/bin/python app.py"
    assert test == "bash .ci/setup dev && .venv/bin/python -m pytest"
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == f"{test} --require-browser"


@pytest.mark.parametrize("script", ["setup", "run"])
def test_the_scripts_are_valid_and_stop_at_the_first_fault(script: str) -> None:
    path = ROOT / ".ci" / script
    assert subprocess.run(["bash", "-n", path], check=False).returncode == 0
    assert "set -euo pipefail" in path.read_text()


def test_setup_refuses_what_it_does_not_know() -> None:
    command = ["bash", ROOT / ".ci" / "setup", "nix"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "setup: the argument is 'nix'; wanted: none, or dev.\n"


def test_ci_calls_the_one_script() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step] == ["bash .ci/run"]


@pytest.mark.parametrize("line", [line for line in commands() if "-m xai_demo" in line])
def test_every_command_shown_is_one_that_exists(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "xai_demo"]
    assert main([words[3], "--help"]) == 0
    usage = capsys.readouterr().out
    assert all(word in usage for word in words[4:] if word.startswith("--"))
    for word, after in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("xai_demo/"):
            assert (ROOT / word).is_file()
        if word in TAKE_A_MODEL:
            assert after in MODELS
        if word == "--explainer":
            assert after in EXPLAINERS


def test_the_python_shown_is_python() -> None:
    (snippet,) = blocks("python")
    ast.parse(snippet)
    assert 'api_name="/stethoscope"' in snippet
    assert (ROOT / re.findall(r'handle_file\("(.+?)"\)', snippet)[0]).is_file()


# Words


def test_every_model_and_the_disclaimer_are_in_sight() -> None:
    assert all(f"`{name}`" in TEXT for name in MODELS)
    assert DISCLAIMER in TEXT.replace("**", "")


def test_every_setting_is_told() -> None:
    told = set(re.findall(r"XAI_DEMO_[A-Z_]+", TEXT))
    assert told == set(re.findall(r"XAI_DEMO_[A-Z_]+", Settings.from_env.__doc__ or ""))


def test_links_into_the_repository_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^a-z ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE)
    }
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in headings
        elif not target.startswith("http"):
            assert (ROOT / target).exists()


def test_the_figures_are_those_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    from xai_demo.cli import main

    assert main(["models", "--table"]) == 0
    printed = capsys.readouterr().out.strip()
    shown = TEXT.partition("<!-- metrics: begin -->")[2].partition("<!-- metrics: end -->")[0]
    assert shown.strip() == printed
    bundled = [directory.name for directory in (ROOT / "weights").iterdir()]
    assert sorted(re.findall(r"^\| `(\S+)`", printed, re.MULTILINE)) == sorted(bundled)
