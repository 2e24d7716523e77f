"""The Space: the files that it needs and no others, sent whole, and started from them alone."""

from __future__ import annotations

import re
import shutil
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import yaml
from gradio_client import Client, handle_file
from huggingface_hub import HfApi

from tests.support.fake_hub import (
    COMMIT,
    LATER,
    HubServer,
    serve_hub,
)
from xai_demo import cli
from xai_demo.catalog import MODELS
from xai_demo.cli import release
from xai_demo.errors import TrainingError, XaiDemoError
from xai_demo.hub import space
from xai_demo.hub.space import RunningPage

ROOT = Path(__file__).resolve().parents[2]
CHOSEN = space.required_files(ROOT)
FRONT = yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---\n")[1])
WORKFLOWS = ROOT / ".github" / "workflows"
SECRET = "hf_" + "secret" * 5


@pytest.fixture
def hub_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()
    with serve_hub() as hub_server:
        yield hub_server
    huggingface_hub.close_session()


def test_the_space_holds_what_it_needs_and_nothing_else() -> None:
    assert {"app.py", "README.md", "requirements.txt", "LICENSE"} <= set(CHOSEN)
    assert "xai_demo/tabs/server.py" in CHOSEN
    assert "xai_demo/networks/panns_modules.py" in CHOSEN  # imported inside of a function
    assert "xai_demo/engine/onnx_export.py" in CHOSEN
    assert "xai_demo/tabs/page.css" in CHOSEN
    assert "xai_demo/catalog/labels/audioset.txt" in CHOSEN
    for name, entry in MODELS.items():
        if entry.is_bundled:
            assert f"weights/{name}/model.safetensors" in CHOSEN
    assert not [name for name in CHOSEN if name.startswith(("tests/", ".", "xai_demo/training"))]
    assert "xai_demo/cli/__init__.py" not in CHOSEN
    assert len(set(CHOSEN)) == len(CHOSEN)
    assert {Path(name).name for name in CHOSEN if name.startswith("weights/")} == {
        "config.json",
        "model.safetensors",
        "MODEL_CARD.md",
    }


def test_the_card_of_the_space_finds_its_pictures_and_pages() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"docs/[\w./-]+", text))
    assert {"docs/images/page-light.webp", "docs/images/page-dark.webp"} <= linked
    assert linked <= set(CHOSEN)
    assert "docs/architecture.svg" in CHOSEN


def test_every_file_of_the_space_is_listed_with_its_size() -> None:
    told = list(space.list_files(ROOT, CHOSEN))
    assert told[0].split() == [f"{(ROOT / CHOSEN[0]).stat().st_size:,}", CHOSEN[0]]
    total = sum((ROOT / name).stat().st_size for name in CHOSEN)
    assert told[-1].split() == [f"{total:,}", "bytes", "in", str(len(CHOSEN)), "files"]
    assert total < 1_000_000_000  # what a Space may hold


def test_the_files_alone_are_enough_for_a_page_that_answers() -> None:
    with space.serve_copy(ROOT, CHOSEN) as page:
        client = Client(page.url, verbose=False, analytics_enabled=False)
        for task, example in (("stethoscope", "wheeze.flac"), ("chest_xray", "one_opacity.png")):
            file = handle_file(ROOT / "xai_demo" / "examples" / example)
            report = client.predict(file, api_name=f"/{task}")[0]
            assert report["model"]["source"] == "bundled"
            assert report["predictions"][0]["probability"] > 0.3
            assert report["explanations"]
        assert {row["name"] for row in client.predict(api_name="/models")} == set(MODELS)
        client.close()


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    for name in CHOSEN:
        if not name.startswith("weights/") and name != "LICENSE":
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / name)
    with pytest.raises(TrainingError, match="LICENSE does not exist; a complete checkout"):
        space.required_files(tmp_path)


# Sending


def test_the_space_is_made_to_hold_those_files_and_no_others(
    hub_server: HubServer, tmp_path: Path
) -> None:
    for name in ("app.py", "weights/a.json", "other.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"# {name}\n")
    hub_server.token = SECRET
    hub_server.put("gone.py", b"old")
    hub_server.put("app.py", b"old")
    commit = space.deploy(
        tmp_path,
        ("app.py", "weights/a.json"),
        repo_id="owner/name",
        message="Deploy it",
        api=HfApi(endpoint=hub_server.url, token=SECRET),
    )
    assert commit == LATER
    (lines,) = hub_server.commits
    assert lines[0]["value"]["summary"] == "Deploy it"
    kinds = {(line["key"], line["value"].get("path")) for line in lines[1:]}
    assert ("file", "app.py") in kinds
    assert ("file", "weights/a.json") in kinds
    assert ("deletedFile", "gone.py") in kinds
    assert "other.py" not in {path for _, path in kinds}
    assert any(r.startswith("POST /api/spaces/owner/name/commit") for r in hub_server.requests)


def test_a_hub_that_refuses_the_space_is_one_sentence(
    hub_server: HubServer, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text("")
    hub_server.token = SECRET
    with pytest.raises(TrainingError, match="The Space was not updated: ") as refusal:
        space.deploy(
            tmp_path,
            ("app.py",),
            repo_id="owner/name",
            message="",
            api=HfApi(endpoint=hub_server.url, token="hf_other"),
        )
    assert "\n" not in str(refusal.value)


# Starting and asking


def test_the_time_until_a_page_answers_is_measured(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import http.server, os, time\n"
        "time.sleep(0.5)\n"
        "where = ('127.0.0.1', int(os.environ['GRADIO_SERVER_PORT']))\n"
        "http.server.HTTPServer(where, http.server.SimpleHTTPRequestHandler).serve_forever()\n"
    )
    (tmp_path / "other.py").write_text("")
    with space.serve_copy(tmp_path, ("app.py",)) as page:
        assert 0.5 < page.seconds < 30
        listed = urllib.request.urlopen(page.url, timeout=5).read().decode()
    assert "app.py" in listed
    assert "other.py" not in listed


def test_a_page_that_does_not_come_up_leaves_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("raise SystemExit('no such luck')")
    refusal = pytest.raises(XaiDemoError, match="the last line of its log: no such luck")
    with refusal, space.serve_copy(tmp_path, ("app.py",)):
        pass


def test_a_deployed_page_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    import gradio_client

    def refuse(*_args: object, **_options: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(gradio_client, "Client", refuse)
    with pytest.raises(
        TrainingError, match=r"within 0 s \(ConnectionError\); expected predictions"
    ):
        space.wait_for_answer("http://127.0.0.1:9", ROOT, within_s=0.02, pause_s=0.05)


def test_a_deployed_page_is_asked_for_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    import gradio_client

    asked: list[object] = []

    class FakeClient:
        def __init__(self, where: str, **options: object) -> None:
            asked.append((where, options["token"], options["analytics_enabled"]))

        def predict(self, file: dict[str, object], api_name: str) -> list[object]:
            asked.append(api_name)
            return [{"predictions": [{"label": "wheeze"}]}]

    monkeypatch.setattr(gradio_client, "Client", FakeClient)
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert space.wait_for_answer("http://here", ROOT) < 5
    assert space.wait_for_answer("owner/name", ROOT) < 5
    # only the Hub's own page is shown the token
    wanted = [("http://here", None, False), "/stethoscope", ("owner/name", SECRET, False)]
    assert asked == [*wanted, "/stethoscope"]


def stages(*told: tuple[str, str | None]) -> tuple[HfApi, list[tuple[str, str | None]]]:
    """A Hub that tells these stages of a Space and commits in turn, the last for good."""
    left = list(told)

    def runtime(_repo_id: str) -> SimpleNamespace:
        stage, commit = left.pop(0) if len(left) > 1 else left[0]
        if stage == "away":
            raise ConnectionError
        return SimpleNamespace(stage=stage, raw={"sha": commit} if commit else {})

    api: Any = SimpleNamespace(get_space_runtime=runtime)
    return api, left


def test_a_commit_before_that_still_runs_is_not_taken_for_the_one_that_was_sent() -> None:
    before = COMMIT
    api, left = stages(
        ("RUNNING", before),
        ("away", None),
        ("RUNNING_BUILDING", before),
        ("RUNTIME_ERROR", before),  # of the one before, soon after the commit
        ("APP_STARTING", LATER),
        ("RUNNING", LATER),
    )
    assert space.wait_until_running("owner/name", LATER, api=api, pause_s=0.01) < 5
    assert left == [("RUNNING", LATER)]


@pytest.mark.parametrize("stage", ["BUILD_ERROR", "RUNTIME_ERROR", "CONFIG_ERROR", "PAUSED"])
def test_a_space_that_breaks_is_said_at_once(stage: str) -> None:
    api, _ = stages((stage, LATER))
    with pytest.raises(TrainingError, match=rf"it is {stage} at {LATER}\); expected RUNNING at"):
        space.wait_until_running("owner/name", LATER, api=api, pause_s=0.01, grace_s=0.05)


def test_a_space_that_never_comes_up_is_given_up() -> None:
    api, _ = stages(("RUNNING", COMMIT))
    with pytest.raises(TrainingError, match=f"it is RUNNING at {COMMIT}"):
        space.wait_until_running("owner/name", LATER, api=api, within_s=0.05, pause_s=0.01)


def test_deploy_wants_to_know_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["deploy"]) == 2
    assert "--space OWNER/NAME, or --dry-run" in capsys.readouterr().err


@contextmanager
def a_start(_root: Path, _chosen: tuple[str, ...]) -> Iterator[RunningPage]:
    yield RunningPage(url="http://here/", seconds=12.34)


@pytest.mark.parametrize("url", [None, "", "https://owner-name.hf.space"])
def test_what_was_sent_is_waited_for_and_asked(
    url: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(space, "serve_copy", a_start)
    monkeypatch.setattr(space, "deploy", lambda *_given, **_named: LATER)
    monkeypatch.setattr(
        space, "wait_until_running", lambda repo, commit: asked.append(f"{repo} {commit}") or 61.0
    )
    monkeypatch.setattr(
        space, "wait_for_answer", lambda where, _root, **_limits: asked.append(where) or 7.0
    )
    command = ["deploy", "--space", "owner/name", *(["--url", url] if url is not None else [])]
    assert cli.main(command) == 0
    assert asked == ["http://here/", f"owner/name {LATER}", url or "owner/name"]
    told = capsys.readouterr().out
    assert "built and started in 61 s" in told
    assert told.endswith("It analysed an example 7 s later\n")


def test_a_dry_run_prints_files_size_and_start_up_time(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "serve_copy", a_start)
    monkeypatch.setattr(space, "wait_for_answer", lambda where, _root, **_limits: 3.21)
    monkeypatch.setattr(space, "deploy", None)  # calling it would fail
    assert release.ROOT == ROOT
    assert cli.main(["deploy", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "  app.py\n" in told
    assert f"bytes in {len(CHOSEN)} files\n" in told
    assert "The page started in 12.3 s" in told
    assert "It analysed an example 3.2 s later" in told
    assert told.endswith("Nothing was sent.\n")


# What is written down in several places


def test_what_is_preloaded_is_what_the_catalogue_pins() -> None:
    wanted = [entry.preload_line for entry in MODELS.values() if entry.preload_line]
    assert FRONT["preload_from_hub"] == wanted
    ast = "MIT/ast-finetuned-audioset-10-10-0.4593 model.safetensors"
    assert f"{ast} f826b80d28226b62986cc218e5cec390b1096902" in wanted
    assert MODELS["nih14-resnet50"].preload_line is None  # a pickle that nobody has seen yet


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.name)
def test_every_action_is_pinned_by_its_commit(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    used = re.findall(r"uses: (\S+)", text)
    assert used
    for action in used:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action), action
    assert len(re.findall(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", text, re.MULTILINE)) == len(used)
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}


def test_ci_tests_both_pythons() -> None:
    workflow = yaml.safe_load((WORKFLOWS / "ci.yml").read_text())
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12"]


def test_the_space_is_deployed_after_green_ci_on_main_and_only_shown_elsewhere() -> None:
    workflow = yaml.safe_load((WORKFLOWS / "deploy.yml").read_text())
    triggers = workflow[True]  # YAML takes the word `on` for yes
    assert triggers["workflow_run"]["workflows"] == ["ci"]
    assert triggers["workflow_run"]["branches"] == ["main"]
    assert "pull_request" in triggers
    jobs = workflow["jobs"]
    assert "conclusion == 'success'" in jobs["deploy"]["if"]
    assert "event == 'push'" in jobs["deploy"]["if"]
    shown = [step.get("run", "") for step in jobs["show"]["steps"]]
    sent = [step.get("run", "") for step in jobs["deploy"]["steps"]]
    assert any("deploy --dry-run" in run for run in shown)
    assert not any("HF_TOKEN" in str(step) for step in jobs["show"]["steps"])
    assert any("deploy --space" in run and "--url" in run for run in sent)
