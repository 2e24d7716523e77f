"""Publishing: what would go is shown, what goes is checked, and the card is one that the Hub reads.

The Hub's protocol is spoken by a real server on this machine to the real client.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
from huggingface_hub import HfApi, ModelCard

from tests.support.fake_hub import LATER, HubServer, serve_hub
from xai_demo import cli
from xai_demo.catalog import MODELS
from xai_demo.errors import CheckpointMismatchError, TrainingError, UnsuitableError
from xai_demo.hub import publish
from xai_demo.hub.checkpoint import read_model

ROOT = Path(__file__).resolve().parents[2]
BUNDLED = [name for name, entry in MODELS.items() if entry.is_bundled]
SECRET = "hf_" + "secret" * 5


@pytest.fixture
def hub_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # no such storage
    huggingface_hub.close_session()
    with serve_hub() as hub_server:
        hub_server.token = SECRET
        yield hub_server
    huggingface_hub.close_session()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A whole model directory with weights of a few bytes."""
    source = ROOT / "weights" / "pneumonia-resnet18"
    made = tmp_path / "pneumonia-resnet18"
    made.mkdir()
    shutil.copyfile(source / "MODEL_CARD.md", made / "MODEL_CARD.md")
    (made / "model.safetensors").write_bytes(b"weights")
    config = json.loads((source / "config.json").read_text())
    config["sha256"] = publish.sha256_of(made / "model.safetensors")
    (made / "config.json").write_text(json.dumps(config))
    (made / "notes.txt").write_text("not part of a model")
    return made


@pytest.mark.parametrize("name", BUNDLED)
def test_the_card_of_every_bundled_model_is_valid_and_holds_its_figures(name: str) -> None:
    folder = ROOT / "weights" / name
    model = read_model(folder)
    made = publish.build_card(model, (folder / "MODEL_CARD.md").read_text(encoding="utf-8"))
    card = ModelCard(str(made), ignore_metadata_errors=False)  # as the Hub would read it
    assert card.data.model_name == name
    assert card.data.license
    assert card.data.pipeline_tag in {"image-classification", "audio-classification"}
    results = {result.metric_name: result for result in card.data.eval_results or []}
    assert {key: result.metric_value for key, result in results.items()} == {
        key: metric.value for key, metric in model.metrics.items()
    }
    for key, result in results.items():
        assert result.metric_args is not None
        assert result.metric_args["low"] == model.metrics[key].low
        assert result.dataset_name == model.measured_on
        assert result.dataset_split == "test"
    assert results
    assert "Not a medical device" in card.text
    index = card.data.to_dict()["model-index"]
    assert [entry["name"] for entry in index] == [name]


def test_what_would_go_is_shown_and_nothing_is_sent(
    directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HfApi, "create_commit", None)  # calling it would fail
    monkeypatch.setattr(HfApi, "create_repo", None)
    command = ["publish", str(directory), "--repo", "owner/name", "--dry-run"]
    assert cli.main(command) == 0
    told = capsys.readouterr().out
    for name in ("config.json", "model.safetensors", "README.md", "model-index:"):
        assert name in told
    assert "notes.txt" not in told
    assert "           7  model.safetensors" in told
    assert told.endswith("Nothing was sent.\n")


def test_a_directory_is_sent_in_one_commit(directory: Path, hub_server: HubServer) -> None:
    planned = publish.plan_publication(directory, repo_id="owner/name")
    api = HfApi(endpoint=hub_server.url, token=SECRET)
    assert publish.publish(planned, api=api, private=True) == LATER
    assert (
        hub_server.made
        == [{"name": "name", "organization": "owner", "visibility": "private", "type": "model"}]
        or hub_server.made[0]["name"] == "name"
    )
    (lines,) = hub_server.commits
    assert lines[0]["value"]["summary"] == "Publish pneumonia-resnet18"
    sent = {line["value"]["path"]: decoded(line) for line in lines[1:]}
    assert set(sent) == {"README.md", "config.json", "model.safetensors"}
    assert sent["model.safetensors"] == b"weights"
    assert ModelCard(sent["README.md"].decode()).data.model_name == "pneumonia-resnet18"


def large_file(lines: list[dict[str, Any]]) -> dict[str, Any]:
    (value,) = (line["value"] for line in lines if line["key"] == "lfsFile")
    return dict(value)


def test_large_files_go_to_the_storage_and_their_sum_into_the_commit(
    directory: Path, hub_server: HubServer
) -> None:
    hub_server.large = ".safetensors"
    planned = publish.plan_publication(directory, repo_id="owner/name")
    api = HfApi(endpoint=hub_server.url, token=SECRET)
    assert publish.publish(planned, api=api) == LATER
    assert hub_server.uploaded == {planned.model.sha256: b"weights"}
    assert hub_server.verified == [{"oid": planned.model.sha256, "size": 7}]
    assert not any("Authorization" in headers for headers in hub_server.storage_requests)
    told = large_file(hub_server.commits[0])
    assert (told["path"], told["oid"]) == ("model.safetensors", planned.model.sha256)
    assert publish.publish(planned, api=api) == LATER  # it is there, and only named again
    assert len(hub_server.storage_requests) == 1
    assert large_file(hub_server.commits[1]) == told


@pytest.mark.parametrize(("statuses", "commits"), [([503], 1), ([403], 0)])
def test_a_storage_that_falters_is_asked_again_and_one_that_refuses_is_told(
    directory: Path,
    hub_server: HubServer,
    statuses: list[int],
    commits: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)  # the client's own patience
    hub_server.large, hub_server.storage_statuses = ".safetensors", statuses
    planned = publish.plan_publication(directory, repo_id="owner/name")
    api = HfApi(endpoint=hub_server.url, token=SECRET)
    if commits:
        assert publish.publish(planned, api=api) == LATER
    else:
        with pytest.raises(TrainingError, match="pneumonia-resnet18 was not published: ") as told:
            publish.publish(planned, api=api)
        assert "\n" not in str(told.value)
        assert SECRET not in str(told.value)
    assert len(hub_server.commits) == commits


def decoded(line: dict[str, Any]) -> bytes:
    assert line["value"]["encoding"] == "base64"
    return base64.b64decode(line["value"]["content"])


@pytest.mark.parametrize(("status", "token"), [(None, "hf_another"), (403, SECRET), (500, SECRET)])
def test_a_hub_that_refuses_is_one_sentence_without_the_token(
    directory: Path,
    hub_server: HubServer,
    status: int | None,
    token: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)  # the client's own patience
    hub_server.status = status
    planned = publish.plan_publication(directory, repo_id="owner/name")
    with pytest.raises(TrainingError) as refusal:
        publish.publish(planned, api=HfApi(endpoint=hub_server.url, token=token))
    sentence = str(refusal.value)
    assert "pneumonia-resnet18 was not published: " in sentence
    assert "\n" not in sentence
    assert token not in sentence
    assert hub_server.commits == []


def test_weights_that_config_does_not_name_are_not_published(directory: Path) -> None:
    (directory / "model.safetensors").write_bytes(b"others")
    with pytest.raises(CheckpointMismatchError, match=r"as in config\.json"):
        publish.plan_publication(directory, repo_id="owner/name")


@pytest.mark.parametrize("name", ["MODEL_CARD.md", "model.safetensors"])
def test_half_a_directory_is_not_published(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(TrainingError, match=f"{name} does not exist; only a complete model"):
        publish.plan_publication(directory, repo_id="owner/name")


@pytest.mark.parametrize("repo", ["", "name", "a/b/c", "owner/../name", "owner/name!"])
def test_a_repository_that_cannot_be_is_refused(directory: Path, repo: str) -> None:
    with pytest.raises(UnsuitableError, match="expected owner/name"):
        publish.plan_publication(directory, repo_id=repo)


def test_a_model_that_is_not_here_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["publish", "nothing", "--repo", "owner/name", "--dry-run"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    first = min(path.name for path in (ROOT / "weights").glob("*/"))
    assert f"no model directory named 'nothing'; choose from: {first}, " in told.err
