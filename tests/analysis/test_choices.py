"""Which network answers for whose radiograph, and what the report says of it."""

from __future__ import annotations

import dataclasses

import pytest

from tests.support.dicom_files import dicom_radiograph
from tests.support.hostile_files import radiograph
from tests.support.small_models import model_of, write_model
from xai_demo.analysis import Analyser, choices
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.analysis.zerogpu import GPU_SECONDS, ZeroGPUAnalyser
from xai_demo.catalog import Entry
from xai_demo.catalog.hub_models import NIH_FINDINGS
from xai_demo.engine import Engine
from xai_demo.errors import UnknownNameError, UnsuitableError
from xai_demo.export import report_text
from xai_demo.hub import Hub
from xai_demo.settings import Settings


@pytest.fixture(scope="module")
def analyser(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    kinds = ("Normal", "Pneumonia")
    adults = {"activation": "sigmoid", "normal_label": None, "patients": "adults"}
    models = [
        model_of("resnet18", name="other", labels=kinds, normal_label="Normal"),
        model_of("resnet18", name="two", labels=("Mass", "Nodule"), **adults),
        model_of("resnet18", name="adults", labels=NIH_FINDINGS, **adults),
        model_of(
            "resnet18",
            name="children",
            labels=kinds,
            normal_label="Normal",
            patients="children",
            meant_for="For children only.",
        ),
        model_of("cnn6", name="tags", task="audioset", activation="sigmoid", normal_label=None),
    ]
    for model in models:
        write_model(folder / "weights" / model.name, model)
    settings = dataclasses.replace(
        Settings.from_env({}),
        weights_dir=folder / "weights",
        cache_dir=folder / "cache",
        background_export=False,
        offline=True,
    )
    made = Analyser(settings)
    # Preferred, but not installed.
    catalog = {"best": Entry(task="chest_xray")} | {m.name: Entry(task=m.task) for m in models}
    made.hub = Hub(settings, catalog=catalog)
    made.engine = Engine(made.hub)
    return made


@pytest.fixture
def dicom(tmp_path):
    def write(age: str) -> str:
        path = tmp_path / "film.dcm"
        path.write_bytes(dicom_radiograph(radiograph(), PatientAge=age))
        return str(path)

    return write


def ask(analyser, path, **chosen):
    request = AnalysisRequest(
        task="chest_xray", backend="torch", film="as-is", faithfulness=False, uncertainty=False,
        **chosen,
    )  # fmt: skip
    return analyser.analyse(request, path).report


@pytest.mark.parametrize("model", [None, "auto"])
@pytest.mark.parametrize(("age", "network"), [("060Y", "adults"), ("004Y", "children")])
def test_the_fitting_network_answers(analyser, dicom, model, age, network) -> None:
    report = ask(analyser, dicom(age), model=model)
    assert report.model.name == network
    assert report.input["age"]["source"] == "dicom"
    assert "mismatch" not in report.input["age"]


def test_the_visitors_word_wins(analyser, dicom) -> None:
    report = ask(analyser, dicom("060Y"), age="child")
    assert report.model.name == "children"
    assert report.input["age"]["value"] == "child"
    assert report.input["age"]["doubt"]["source"] == "dicom"
    assert report.warnings[0].startswith("children was trained on children, and this may well be")


def test_a_named_network_is_used_as_asked_and_warns_where_it_does_not_fit(analyser, dicom) -> None:
    report = ask(analyser, dicom("060Y"), model="children")
    assert report.model.name == "children"
    unfit = report.input["age"]["mismatch"]
    assert unfit.startswith("children was trained on children, and this is an adult's film")
    assert unfit.endswith("For children only.")
    assert report.to_json()["warnings"][0] == unfit
    lines = report_text(report).splitlines()
    # Beside the answer, and once.
    assert f"Warning: {unfit}" in lines[:3]
    assert sum(unfit in line for line in lines) == 1


def test_a_target_that_one_network_knows_is_checked_before_the_file_is_read(analyser) -> None:
    with pytest.raises(UnknownNameError, match="Unicorn"):
        ask(analyser, "/nowhere.png", target="Unicorn")
    with pytest.raises(UnknownNameError, match="label of children"):
        ask(analyser, "/nowhere.png", target="Mass", age="child")


def test_a_target_of_the_other_network_is_refused_by_name(analyser, dicom) -> None:
    assert ask(analyser, dicom("060Y"), target="Hernia").explanations[0].target == "Hernia"
    with pytest.raises(UnknownNameError, match="label of children"):
        ask(analyser, dicom("004Y"), target="Hernia")


def test_the_networks_of_adults_and_of_children_are_loaded_at_the_start(analyser) -> None:
    assert choices.default_models(analyser.hub, "chest_xray") == ("adults", "children")
    assert choices.default_models(analyser.hub, "audioset") == ("tags",)
    # With those of the other two tabs.
    assert analyser.hub.settings.max_models >= 4


def test_without_a_fitting_network_the_default_answers(analyser) -> None:
    settings = analyser.hub.settings
    hub = Hub(settings, catalog={"other": Entry(task="chest_xray")})
    assert choices.fitting_model(hub, "adult") == choices.fitting_model(hub, "child") == "other"


@pytest.mark.parametrize("age", ["-3", "abc", "900Y"])
def test_an_unknown_age_is_refused_with_the_known_ones(age) -> None:
    with pytest.raises(UnknownNameError, match=f"{age}.*auto, adult, child"):
        AnalysisRequest(task="chest_xray", age=age)


def test_an_age_is_for_radiographs_only() -> None:
    with pytest.raises(UnsuitableError, match="chest_xray only"):
        AnalysisRequest(task="audioset", age="child")


def test_a_gpu_is_asked_for_as_long_as_a_network_of_the_patients_may_take(analyser, dicom) -> None:
    class Spaces:
        def GPU(self, function, duration):  # noqa: N802
            return function

    shared = ZeroGPUAnalyser(analyser, Spaces())
    request = AnalysisRequest(task="chest_xray", model="auto", age="child")
    source = analyser.read(request, dicom("060Y"))
    assert shared._max_seconds(request, "film.dcm", source) == GPU_SECONDS["convolutional"]
    assert shared.analyse(request, dicom("060Y")).report.model.name == "children"
