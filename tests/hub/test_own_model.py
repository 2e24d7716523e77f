"""A model of the visitor's own: what may be named, where, and what answers."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio
import pytest

from tests.support.fake_analyser import FakeAnalyser, FakeHub, write_film
from tests.support.small_models import RASTER, model_of, write_model
from xai_demo.analysis import Analyser
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.errors import UnknownNameError, UnsuitableError
from xai_demo.settings import Settings
from xai_demo.tabs import build, controls
from xai_demo.tabs.requests import Refusal, run_request

if TYPE_CHECKING:
    from tests.support.fake_hub import HubServer


def asked(own: str, *, allowed: bool = True) -> tuple[FakeAnalyser, Any]:
    analyser = FakeAnalyser(hub=FakeHub(own_models=allowed))
    with gradio.Blocks():
        widgets = controls.lay_out("chest_xray", analyser)
    values = [own if widget is widgets.weights else widget.value for widget in widgets.all]
    request = widgets.page_request("chest_xray", values).request
    return analyser, run_request(analyser, request, "film.png")


def boxes(analyser: FakeAnalyser) -> list[str]:
    """Those in sight."""
    page = build(analyser)
    found = [b for b in page.blocks.values() if str(b.elem_id).endswith("-own-model")]
    return sorted(str(block.elem_id) for block in found if in_sight(block))


def in_sight(block: Any) -> bool:
    while block is not None:
        if not getattr(block, "visible", True):
            return False
        block = block.parent
    return True


@pytest.mark.parametrize(
    "uri",
    ["hf://owner/name", " hf://owner/name@v2 ", "hf://owner/name@main/a/model.safetensors"],
)
def test_a_model_on_the_hub_is_handed_on(uri: str) -> None:
    analyser, _ = asked(uri)
    assert analyser.calls[0]["weights"] == uri.strip()


def test_nothing_named_is_nothing_handed_on() -> None:
    analyser, _ = asked("  ")
    assert analyser.calls[0]["weights"] is None


@pytest.mark.parametrize(
    "uri", ["/etc/passwd", "weights/a", "hf://owner/name/model.pth", "https://example.org", "a"]
)
def test_a_path_of_the_server_or_a_pickle_is_refused_in_words(uri: str) -> None:
    analyser, outcome = asked(uri)
    assert isinstance(outcome, Refusal)
    # Messages to visitors have no absolute paths.
    shown = "(a path of the server)" if uri.startswith("/") else uri
    assert f"hf://owner/name[@revision][/file.safetensors], not {shown!r}." in outcome.message
    assert analyser.calls == []


def test_a_deployment_can_take_none() -> None:
    analyser, outcome = asked("hf://owner/name", allowed=False)
    assert isinstance(outcome, Refusal)
    assert "does not accept visitors' own models" in outcome.message
    assert analyser.calls == []
    assert boxes(analyser) == []


def test_every_tab_has_a_box_for_it_where_it_is_allowed() -> None:
    wanted = ["audioset-own-model", "chest_xray-own-model", "stethoscope-own-model"]
    assert boxes(FakeAnalyser()) == wanted


def test_an_own_model_answers_with_its_own_labels_and_preparation(tmp_path: Path) -> None:
    import dataclasses

    mine = model_of(
        "resnet18",
        name="mine",
        labels=("cat", "dog"),
        normal_label=None,
        preprocessing=dataclasses.replace(RASTER, height=64, width=64),
    )
    write_model(tmp_path / "mine", mine)
    settings = dataclasses.replace(
        Settings.from_env({}), cache_dir=tmp_path, offline=True, background_export=False
    )
    film = write_film(tmp_path / "film.png")
    analyser = Analyser(settings)
    named = {"weights": str(tmp_path / "mine"), "model": "pneumonia-resnet18"}
    analysis = analyser.analyse(
        AnalysisRequest(task="chest_xray", target="dog", faithfulness=False, **named), film
    )
    assert analysis.model is not None
    assert analysis.model.labels == ("cat", "dog")
    assert {p.label for p in analysis.report.predictions} == {"cat", "dog"}
    assert (analysis.report.model.name, analysis.report.model.source) == ("mine", "local")
    assert analysis.report.explanations[0].heatmap.shape == (64, 64)
    with pytest.raises(
        UnknownNameError, match="label of mine named 'Pneumonia'; choose from: cat, dog"
    ):
        analyser.analyse(AnalysisRequest(task="chest_xray", target="Pneumonia", **named), film)


def test_a_model_that_is_too_large_is_not_downloaded(
    fetching: Analyser, hub_server: HubServer
) -> None:
    hub = fetching.hub
    hub.settings = dataclasses.replace(hub.settings, max_own_model_bytes=1_000_000)
    with pytest.raises(UnsuitableError, match=r"bytes; at most 1,000,000 are downloaded here"):
        hub.fetch_custom_weights("hf://owner/name", like=hub.model("large"))
    assert not list(hub.settings.cache_dir.rglob("*.safetensors*"))


def test_the_models_used_longest_ago_make_room(fetching: Analyser, hub_server: HubServer) -> None:
    hub = fetching.hub
    files = dict(hub_server.files)
    for name in "abcd":
        for (_, commit, file), content in files.items():
            hub_server.files[f"other/{name}", commit, file] = content
    size = sum(len(content) for content in files.values())
    hub.settings = dataclasses.replace(hub.settings, own_cache_bytes=2 * size + 100_000)
    like, folder = hub.model("large"), hub.settings.cache_dir / "checkpoints"
    for number, name in enumerate("abacd"):
        _, weights = hub.fetch_custom_weights(f"hf://other/{name}", like=like)
        assert hub.is_own(weights)
        os.utime(folder / f"other--{name}" / ".used", (number, number))
    assert sorted(path.name for path in folder.glob("other--*")) == ["other--c", "other--d"]
    # What the catalogue has is not a visitor's, whoever uses it.
    _, weights = hub.fetch_custom_weights("hf://owner/name", like=like)
    assert not hub.is_own(weights)
    assert weights.path.is_file()
