"""Foreign checkpoints: turned once, checked tensor by tensor, cached as a model directory."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.fake_hub import COMMIT, HubServer, serve_hub
from tests.support.small_models import model_of
from xai_demo import networks
from xai_demo.catalog import MODELS, Entry
from xai_demo.catalog.sources import Checkpoint
from xai_demo.engine.backends import load_cut_network
from xai_demo.errors import CheckpointMismatchError, CheckpointUnavailableError
from xai_demo.hub import Hub, adapters
from xai_demo.hub.adapters import ADAPTERS
from xai_demo.hub.download import RetryPolicy
from xai_demo.records import Model
from xai_demo.settings import Settings

SMALL = dataclasses.replace(model_of("resnet18"), labels=("Hernia", "Edema", "Mass"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(weights_dir=tmp_path / "weights", cache_dir=tmp_path / "cache")


@pytest.fixture
def hub_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.close_session()
    with serve_hub() as hub_server:
        yield hub_server
    huggingface_hub.close_session()


def a_foreign_state(outputs: int = 18) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = dataclasses.replace(SMALL, labels=tuple(map(str, range(outputs))))
    state: dict[str, torch.Tensor] = networks.architecture(model).build(model).state_dict()
    return state


def a_file(path: Path, state: Any) -> bytes:
    torch.save(state, path)
    return path.read_bytes()


def a_hub(settings: Settings, hub_server: HubServer, content: bytes) -> Hub:
    hub_server.put("model.pt", content)
    entry = Entry(
        task="chest_xray",
        model=dataclasses.replace(SMALL, name="foreign"),
        adapter="torchxrayvision",
        checkpoint=Checkpoint(
            repo_id="owner/name",
            filename="model.pt",
            revision=COMMIT,
            sha256=hashlib.sha256(content).hexdigest(),
        ),
    )
    return Hub(
        settings,
        catalog={"foreign": entry},
        endpoint=hub_server.url,
        retry_policy=RetryPolicy(timeout_s=5, pause_s=0.01),
    )


def test_every_adapter_of_the_catalogue_is_one() -> None:
    assert {entry.adapter for entry in MODELS.values()} <= {None, *ADAPTERS}
    for entry in MODELS.values():
        assert entry.adapter is None or not entry.is_bundled


def test_a_foreign_file_becomes_a_model_directory_once(
    settings: Settings, hub_server: HubServer, tmp_path: Path
) -> None:
    state = a_foreign_state()
    content = a_file(tmp_path / "model.pt", state)
    hub = a_hub(settings, hub_server, content)
    located = hub.fetch_weights("foreign")
    assert located.sha256 == hashlib.sha256(content).hexdigest()  # of what was published
    assert (located.source, located.revision) == ("hub", COMMIT)
    assert located.path.name == "model.safetensors"
    config = json.loads((located.path.parent / "config.json").read_text())
    assert config["sha256"] == hashlib.sha256(located.path.read_bytes()).hexdigest()
    assert config["labels"] == ["Hernia", "Edema", "Mass"]
    made = load_file(located.path)
    for label, row in (("Hernia", 13), ("Edema", 4), ("Mass", 12)):
        position = SMALL.labels.index(label)
        assert torch.equal(made["fc.weight"][position], state["fc.weight"][row])
        assert torch.equal(made["fc.bias"][position], state["fc.bias"][row])
    cut = load_cut_network(hub.model("foreign"), located.path)
    assert cut.head(cut.features(torch.zeros(1, 1, 96, 96))).shape == (1, 3)

    hub_server.requests.clear()
    again = hub.fetch_weights("foreign")
    assert (again.source, again.path, again.revision) == ("cache", located.path, COMMIT)
    assert hub.is_available("foreign")
    assert hub_server.requests == []


def test_a_broken_directory_is_made_anew_from_the_cached_file(
    settings: Settings, hub_server: HubServer, tmp_path: Path
) -> None:
    hub = a_hub(settings, hub_server, a_file(tmp_path / "model.pt", a_foreign_state()))
    path = hub.fetch_weights("foreign").path
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    hub_server.requests.clear()
    assert hub.fetch_weights("foreign").path.read_bytes() == good
    (path.parent / "config.json").write_text("{")
    assert hub.fetch_weights("foreign").path.read_bytes() == good
    assert hub_server.requests == []


def test_tensors_of_another_network_are_refused_and_nothing_is_left(
    settings: Settings, hub_server: HubServer, tmp_path: Path
) -> None:
    state = a_foreign_state()
    del state["layer1.0.conv1.weight"]
    hub = a_hub(settings, hub_server, a_file(tmp_path / "model.pt", state))
    with pytest.raises(CheckpointMismatchError, match=r"no tensor layer1\.0\.conv1\.weight"):
        hub.fetch_weights("foreign")
    assert list(settings.cache_dir.rglob("model.safetensors")) == []
    hub = a_hub(settings, hub_server, a_file(tmp_path / "model.pt", a_foreign_state(outputs=17)))
    with pytest.raises(CheckpointMismatchError, match=r"fc\.weight for 17 outputs; expected 18"):
        hub.fetch_weights("foreign")


class Harmful:
    """What a pickle could do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("harm",)


def test_a_pickle_of_more_than_tensors_is_never_run(
    settings: Settings, hub_server: HubServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = a_hub(settings, hub_server, a_file(tmp_path / "model.pt", {"harm": Harmful()}))
    with pytest.raises(CheckpointMismatchError, match="a pickle that holds only tensors"):
        hub.fetch_weights("foreign")
    assert "harm" not in capsys.readouterr().out


def test_a_cache_for_models_that_cannot_be_written_is_said(
    settings: Settings, hub_server: HubServer, tmp_path: Path
) -> None:
    hub = a_hub(settings, hub_server, a_file(tmp_path / "model.pt", a_foreign_state()))
    settings.cache_dir.mkdir()
    (settings.cache_dir / "models").write_text("a file")
    with pytest.raises(CheckpointUnavailableError, match="cannot be written"):
        hub.fetch_weights("foreign")


def test_the_outputs_of_torchxrayvision_are_in_its_order() -> None:
    # NIH's usual order of the fourteen, as positions in torchxrayvision's list
    order = [0, 10, 7, 2, 12, 11, 8, 3, 1, 4, 5, 6, 9, 13]
    nih = [adapters.TORCHXRAYVISION_OUTPUTS[i] for i in order]
    assert nih[:4] == ["Atelectasis", "Cardiomegaly", "Effusion", "Infiltration"]
    assert len(adapters.TORCHXRAYVISION_OUTPUTS) == 18


def whole_state(model: Model) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        state: dict[str, torch.Tensor] = networks.architecture(model).build(model).state_dict()
    return state


def test_panns_keep_their_names() -> None:
    model = MODELS["cnn14"].model
    assert model is not None
    state = whole_state(model)
    assert ADAPTERS["panns"](model, state) == state


def test_transformers_old_names_become_the_new_ones() -> None:
    model = MODELS["ast"].model
    assert model is not None
    old = "audio_spectrogram_transformer.encoder.layer.3.attention.attention.query.weight"
    new = "audio_spectrogram_transformer.layers.3.attention.q_proj.weight"
    adapted = ADAPTERS["transformers-ast"](model, {old: torch.zeros(1)})
    assert list(adapted) == [new]
    assert new in whole_state(model)


def test_the_directory_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    state = a_foreign_state()
    save_file(state, tmp_path / "model.safetensors")
    target = tmp_path / "made"
    wrong = dataclasses.replace(SMALL, architecture="resnet50")
    with pytest.raises(CheckpointMismatchError):
        adapters.adapt_checkpoint(wrong, "torchxrayvision", tmp_path / "model.safetensors", target)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.safetensors"]
    adapters.adapt_checkpoint(SMALL, "torchxrayvision", tmp_path / "model.safetensors", target)
    assert sorted(p.name for p in target.iterdir()) == ["config.json", "model.safetensors"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["made", "model.safetensors"]


def test_chexvision_loses_its_second_head_and_answers_as_its_author_wrote_it() -> None:
    model = dataclasses.replace(model_of("densenet121-chexvision"), labels=("a", "b", "c"))
    torch.manual_seed(0)
    whole = networks.architecture(model).build(model).eval()
    published = {f"backbone.{k}": v for k, v in whole.state_dict().items() if k[:8] == "features"}
    published |= {k: v for k, v in whole.state_dict().items() if k[:8] != "features"}
    published |= {"binary_head.weight": torch.zeros(1, 512), "binary_head.bias": torch.zeros(1)}
    named = {k.removeprefix("backbone."): v for k, v in published.items()}  # as they are read
    adapted = ADAPTERS["chexvision"](model, named)
    assert set(adapted) == set(whole.state_dict())
    assert not any(name.startswith(("binary_head", "colours")) for name in adapted)

    # the same by hand: three standardised colours, features, mean, two layers
    grey = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    with torch.no_grad():
        pooled = whole.features((grey.repeat(1, 3, 1, 1) - mean) / std).mean((2, 3))
        hidden = torch.relu(
            pooled @ adapted["feature_layer.0.weight"].T + adapted["feature_layer.0.bias"]
        )
        logits = hidden @ adapted["multilabel_head.weight"].T + adapted["multilabel_head.bias"]
        assert torch.allclose(whole(grey), logits, atol=1e-5)
