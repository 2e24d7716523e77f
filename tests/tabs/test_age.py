"""Whose radiograph it is, on the page and at the endpoints, without a browser."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from tests.support.fake_analyser import MODELS, FakeAnalyser, FakeHub, aged, answer
from xai_demo.catalog.hub_models import NIH_FINDINGS
from xai_demo.records import Model
from xai_demo.tabs import CHEST_XRAY, controls
from xai_demo.tabs.layout import model_dependent_updates
from xai_demo.tabs.result import answer_html

CHILDREN = replace(
    FakeHub().model("pneumonia-resnet18"), patients="children", meant_for="For children only."
)
ADULTS = replace(
    FakeHub().model("findings-resnet18"),
    name="nih14",
    labels=NIH_FINDINGS,
    patients="adults",
    meant_for="For adults only.",
)


@dataclass
class Hub(FakeHub):
    """A hub with a network for children and one for adults."""

    def names(self, task=None):
        return tuple(m.name for m in self.models() if task in (None, m.task))

    def model(self, name: str) -> Model:
        return next(m for m in self.models() if m.name == name)

    @staticmethod
    def models() -> list[Model]:
        return [CHILDREN, ADULTS, *(m for m in MODELS if m.task != "chest_xray")]


def html(age: str, model: Model) -> str:
    analysis = aged(answer(model, "film.png", "Grad-CAM++", None), model, age)
    return answer_html(analysis, model)


def test_the_answer_says_whose_film_it_was_read_as_and_how_to_change_that() -> None:
    guessed = html("auto", ADULTS)
    assert "Read as an adult&#x27;s film (from the picture, 97 %); change it here" in guessed
    assert 'data-age="child"' in guessed
    assert "xai-mismatch" not in guessed
    chosen = html("child", CHILDREN)
    assert "Read as a child&#x27;s film (as you chose)" in chosen
    assert 'data-age="adult"' in chosen


def test_an_unfit_network_warns_above_its_answer_and_only_once() -> None:
    page = html("adult", CHILDREN)
    banner = page.index("was trained on children, and this is an adult")
    assert banner < page.index("xai-headline")
    assert page.count("was trained on children") == 1
    assert "For children only." in page


def test_the_automatic_choice_comes_first_and_offers_what_either_network_knows() -> None:
    explainer, target, layer, _ = model_dependent_updates(
        CHEST_XRAY, FakeAnalyser(hub=Hub()), "auto"
    )
    targets = [value for _, value in target["choices"]]
    assert {"Hernia", "Normal", "Pneumonia"} <= set(targets)
    assert len(targets) == len(set(targets))
    assert layer["visible"] is False
    assert layer["value"] is None
    assert explainer["value"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("auto", ("for adults nih14", "for children pneumonia-resnet18")),
        ("pneumonia-resnet18", ("For children only.",)),
        ("nih14", ("For adults only.",)),
    ],
)
def test_beside_the_button_stands_for_whom_the_network_is_meant(name, words) -> None:
    text = controls.meant_for_html(FakeAnalyser(hub=Hub()), name)
    assert all(each in text for each in words)


def test_a_network_for_one_age_says_so_in_the_list() -> None:
    hub = Hub()
    hub.describe = lambda name: {  # type: ignore[method-assign]
        "title": name, "patients": hub.model(name).patients, "available": name != "nih14"
    }  # fmt: skip
    analyser = FakeAnalyser(hub=hub)
    assert controls._model_title(analyser, "nih14") == "nih14 (for adults, not installed)"
    assert controls._model_title(analyser, "pneumonia-resnet18").endswith("(for children)")
    assert controls._model_title(analyser, "lung-resnet18") == "lung-resnet18"
