"""What each choice is worth: small tables on a tiny network, and a t-test known by hand."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest

from tests.support.small_models import write_model
from tests.support.tiny_network import TINY
from xai_demo import networks
from xai_demo.catalog import MODELS, Entry
from xai_demo.cli import main, training
from xai_demo.errors import TrainingError, UnknownNameError
from xai_demo.records import Raster
from xai_demo.training import ablation, ablation_tables, class_imbalance
from xai_demo.training.ablation import Budget, ablate
from xai_demo.training.datasets import Dataset, covid, one_hot
from xai_demo.training.fold_metrics import compare_runs, paired_t_test
from xai_demo.training.recipes import RECIPES

NAME = "covid3-simplecnn"
SMALL = Budget(epochs=1, most=48, folds=3, side=48)


def small_dataset(data, model) -> Dataset:
    """Sixty radiographs of thirty patients whose grey level is their label."""
    n = len(model.labels)
    targets = np.arange(60) // 2 % n
    rng = np.random.default_rng(0)
    pictures = (rng.normal(0, 0.5, (60, 48, 48)) + 2 * targets[:, None, None]).astype(np.float32)
    return Dataset(
        name="made",
        labels=model.labels,
        targets=targets,
        groups=tuple(f"person{i // 2}" for i in range(60)),
        splits=("train",) * 60,
        load=lambda i, rng: (
            pictures[i] + (0 if rng is None else 1),
            one_hot(int(targets[i]), n),
        ),
    )


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(networks.ARCHITECTURES, "tiny", TINY)
    monkeypatch.setattr(ablation_tables, "ARCHITECTURES", ("tiny", "simplecnn"))
    recipe = RECIPES[NAME]
    schedule = dataclasses.replace(recipe.schedule, batch_size=8, learning_rate=0.02)
    model = dataclasses.replace(recipe.model, architecture="tiny")
    small = dataclasses.replace(recipe, model=model, schedule=schedule, read=small_dataset)
    monkeypatch.setitem(RECIPES, NAME, small)


def test_every_row_is_measured_on_every_fold_and_compared_with_the_first(tmp_path):
    reports = []
    result = ablate(
        NAME,
        data=tmp_path,
        tables=["architectures", "augmentation"],
        budget=SMALL,
        progress=lambda done, doing: reports.append((done, doing)),
    )
    assert (result["data"], result["n"], result["groups"]) == ("made", 48, 24)
    rows = result["tables"]["architectures"]["rows"]
    assert [row["name"] for row in rows] == ["tiny", "simplecnn"]
    for row in rows:
        assert len(row["folds"]) == 3
        assert all(set(fold) == {"f1", "auroc", "accuracy"} for fold in row["folds"])
        values = [fold["accuracy"] for fold in row["folds"]]
        assert row["mean"]["accuracy"] == pytest.approx(np.mean(values), abs=1e-3)
    assert rows[0]["against_first"] is None
    assert set(rows[1]["against_first"]["f1"]) == {"difference", "t", "p"}
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert any(doing == "architectures: simplecnn, fold 2 of 3" for _, doing in reports)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    text = ablation.table(result)
    assert "| architectures | f1 | p | auroc | p | accuracy | p |" in text
    assert "| simplecnn | " in text


def test_the_choices_of_balance_are_all_rows(tmp_path):
    result = ablate(NAME, data=tmp_path, tables=["balance"], budget=SMALL)
    names = [row["name"] for row in result["tables"]["balance"]["rows"]]
    assert names == list(class_imbalance.BALANCES)


def test_a_source_of_covid_is_tested_alone_and_left_out_of_training(tmp_path, monkeypatch):
    begins = [covid.SOURCES[source] for source in covid.SOURCES]

    def two_sources(data, model, *, masked: bool = False) -> Dataset:
        made = small_dataset(data, model)
        groups = tuple(
            f"{begins[int(name.removeprefix('person')) // 3 % 2] if target == 0 else ''}{name}"
            for name, target in zip(made.groups, made.targets, strict=True)
        )
        return dataclasses.replace(made, groups=groups)

    monkeypatch.setattr(covid, "read", two_sources)
    recipe = dataclasses.replace(RECIPES[NAME], read=two_sources)
    monkeypatch.setitem(RECIPES, NAME, recipe)
    sets = ablation._FoldData(tmp_path, recipe, SMALL)
    for row in ablation.TABLES["sources"](recipe):
        beginning = covid.SOURCES[row.covid_source]
        for fold in range(SMALL.folds):
            data = sets.for_fold(row, fold)
            tested = [data.groups[i] for i in data.indices("test")]
            assert all(group.startswith(beginning) for group in tested)
            rest = [g for g, s in zip(data.groups, data.splits, strict=True) if s != "test"]
            assert any(group.startswith(beginning) for group in rest) != row.is_left_out
    result = ablate(NAME, data=tmp_path, tables=["sources"], budget=SMALL)
    rows = result["tables"]["sources"]["rows"]
    assert len(rows) == 8
    assert "COVID-19 of COVID-CXNet, left out, linear classifier, lungs masked" in [
        row["name"] for row in rows
    ]
    # Its level alone tells a label here, from whichever source.
    assert rows[3]["mean"]["accuracy"] > 0.9


def test_only_recipes_from_imagenet_compare_bodies(tmp_path):
    with pytest.raises(TrainingError, match="does not start from ImageNet weights, which the tab"):
        ablate(NAME, data=tmp_path, tables=["bodies"], budget=SMALL)
    recipe = dataclasses.replace(RECIPES[NAME], is_from_imagenet=True)
    rows = ablation.TABLES["bodies"](recipe)
    assert [row.recipe.model.architecture for row in rows] == list(ablation_tables.BODIES)
    assert [row.recipe.is_from_imagenet for row in rows] == [True, True, True, False]


def test_folds_of_the_recipe_alone_are_one_row_and_the_same_twice(tmp_path):
    first, again = (ablate(NAME, data=tmp_path, tables=["folds"], budget=SMALL) for _ in range(2))
    assert first == again
    assert len(first["tables"]["folds"]["rows"]) == 1


def test_no_patient_is_in_two_splits_of_a_fold(tmp_path):
    sets = ablation._FoldData(tmp_path, RECIPES[NAME], SMALL)
    row = ablation.Row(name="any", recipe=RECIPES[NAME])
    tested = []
    for fold in range(3):
        data = sets.for_fold(row, fold)
        assert len(set(zip(data.groups, data.splits, strict=True))) == len(set(data.groups))
        assert set(data.splits) == {"train", "validation", "test"}
        tested += [data.groups[i] for i in data.indices("test")]
    assert len(tested) == 48
    assert len(set(tested)) == 24


def test_without_augmentation_radiographs_do_not_change(tmp_path):
    sets = ablation._FoldData(tmp_path, RECIPES[NAME], SMALL)
    rng = np.random.default_rng(0)
    for varied in (True, False):
        data = sets.for_fold(
            ablation.Row(name="any", recipe=RECIPES[NAME], has_augmentation=varied), 0
        )
        change = data.load(0, rng)[0] - data.load(0, None)[0]
        assert change.max() == pytest.approx(1 if varied else 0)


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        ({"tables": ["luck"]}, UnknownNameError, "no table named 'luck'; choose from: folds, arch"),
        (
            {"tables": ["shortcut"]},
            TrainingError,
            "cannot mask the lungs, which the table shortcut",
        ),
        (
            {"budget": Budget(folds=1)},
            TrainingError,
            "1 folds, 2 epochs, 240 samples and 64 pixels; at least 2",
        ),
        ({"budget": Budget(most=3)}, TrainingError, "3 samples and 64 pixels; at least 2 folds"),
    ],
)
def test_requests_that_cannot_be_met_are_refused_before_training(tmp_path, choice, error, message):
    with pytest.raises(error, match=message):
        ablate(NAME, data=tmp_path, **choice)


def test_a_recipe_of_sounds_is_refused(tmp_path):
    with pytest.raises(
        TrainingError, match="lung-resnet18 takes sounds; ablation works for recipes of rad"
    ):
        ablate("lung-resnet18", data=tmp_path)


# The paired t-test


def test_the_t_test_is_that_of_the_textbook():
    found = paired_t_test([1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 5.0, 5.0])
    # differences 1, 0, 2, 1: mean 1, deviation sqrt(2/3), t = 1 / (sqrt(2/3) / 2)
    assert found["difference"] == 1
    assert found["t"] == pytest.approx(2 / math.sqrt(2 / 3), abs=1e-3)
    assert found["p"] == pytest.approx(0.0917, abs=1e-3)


def test_without_spread_or_with_one_fold_there_is_no_test():
    assert paired_t_test([0.5, 0.6], [0.5, 0.6]) == {"difference": 0.0, "t": None, "p": None}
    assert paired_t_test([0.5], [0.75]) == {"difference": 0.25, "t": None, "p": None}
    assert paired_t_test([0.5, math.nan], [0.5, 0.6])["p"] is None


def test_two_runs_are_compared_by_the_figures_they_share():
    one = {"folds": [{"f1": 0.5, "auroc": 0.7}, {"f1": 0.6, "auroc": None}]}
    other = {"per_fold": [{"metrics": {"f1": {"value": 0.6}}}, {"metrics": {"f1": {"value": 0.8}}}]}
    assert set(compare_runs(one, other)) == {"f1"}
    assert compare_runs(one, other)["f1"]["difference"] == 0.15
    seeds = {"per_fold": {"1": [0.5, 0.7], "2": [0.9]}}
    assert compare_runs(seeds, seeds)["accuracy"]["difference"] == 0
    both = {
        "folds": 2,
        "dealt": "a",
        "per_fold": seeds["per_fold"],
        "figures_by_fold": one["folds"],
    }
    assert set(compare_runs(both, other)) == {"f1"}
    with pytest.raises(
        TrainingError, match=r"hold different patients \(digests a and b\); compare runs on"
    ):
        compare_runs(both, {**both, "dealt": "b"})
    with pytest.raises(
        TrainingError, match="figures by fold auroc, f1 and none; they must share at least one"
    ):
        compare_runs({"folds": [{"f1": 0.5, "auroc": 0.5}]}, {"metrics": {}})


def test_compare_reads_two_files_and_refuses_other_json(tmp_path, capsys):
    paths = [tmp_path / name for name in ("one.json", "other.json")]
    for path, values in zip(paths, ((0.5, 0.6, 0.7), (0.6, 0.6, 0.9)), strict=True):
        path.write_text(json.dumps({"folds": [{"f1": value} for value in values]}))
    assert main(["compare", *map(str, paths)]) == 0
    assert "| f1 | 0.1 | 1.732 | " in capsys.readouterr().out
    paths[0].write_text("[]")
    assert main(["compare", *map(str, paths)]) == 2
    assert "one.json holds a list; expected the output of" in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "no"), str(paths[1])]) == 2
    assert "cannot be read as JSON" in capsys.readouterr().err


def test_ablate_prints_tables_and_writes_json(tmp_path, capsys):
    out = tmp_path / "kept" / "tables.json"
    arguments = ["ablate", NAME, "--data", str(tmp_path), "--table", "folds", "--epochs", "1"]
    arguments += ["--most", "48", "--folds", "3", "--side", "48", "--out", str(out)]
    assert main(arguments) == 0
    assert "| folds | f1 | p |" in capsys.readouterr().out
    assert json.loads(out.read_text())["budget"]["most"] == 48
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())


def write_biased_weights(folder, monkeypatch) -> None:
    """Write random weights for the recipe's model, whose operating points favour pneumonia."""
    monkeypatch.setitem(MODELS, NAME, Entry(task="chest_xray"))
    spec = Raster(height=48, width=48, mean=0.0, std=1.0)
    points = {"COVID-19": 1.0, "Pneumonia": 0.01, "Normal": 1.0}
    model = dataclasses.replace(RECIPES[NAME].model, preprocessing=spec, operating_points=points)
    write_model(folder / NAME, model)
    (folder / NAME / "persons.json").write_text('{"learnt_from": ["person0", "person2"]}')
    monkeypatch.setenv("XAI_DEMO_WEIGHTS", str(folder))
    monkeypatch.setenv("XAI_DEMO_EXPORT", "off")


def test_without_a_named_table_all_are_made_and_bundled_weights_are_explained(
    tmp_path, capsys, monkeypatch, without
):
    arguments = ["ablate", NAME, "--data", str(tmp_path), "--epochs", "1", "--most", "48"]
    arguments += ["--folds", "3", "--side", "48"]
    without(ablation.TABLES, "augmentation", "balance")  # their rows are tried above
    monkeypatch.setenv("XAI_DEMO_WEIGHTS", str(tmp_path / "none"))
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "| architectures | f1 | p |" in text
    assert f"Explainers were not compared: the weights of {NAME} are not installed in" in text
    write_biased_weights(tmp_path / "weights", monkeypatch)
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert "| Grad-CAM | " in text
    assert "| Guided backpropagation | " in text
    assert "Not suitable for this network: CAM." in text  # more than a mean follows the cut
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["explainers"]["explainers"]) == {"Grad-CAM", "Guided backpropagation"}


def test_the_table_of_explainers_needs_weights(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(MODELS, NAME, Entry(task="chest_xray"))
    monkeypatch.setenv("XAI_DEMO_WEIGHTS", str(tmp_path / "none"))
    assert main(["ablate", NAME, "--data", str(tmp_path), "--table", "explainers"]) == 3
    assert f"{NAME} is missing. Check out the" in capsys.readouterr().err


def test_the_choices_on_the_command_line_are_those_of_the_tables():
    assert tuple(class_imbalance.BALANCES) == training.BALANCES
    assert (*ablation.TABLES, "explainers") == training.TABLES
