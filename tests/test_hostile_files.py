"""Every hostile and unusual file of the table, through the command line and the analyser."""

import json
from pathlib import Path

import pytest

from tests.support.hostile_files import AUDIO, IMAGES, Case
from xai_demo import cli
from xai_demo.analysis import Analyser
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.errors import XaiDemoError
from xai_demo.settings import Settings

CASES = [("stethoscope", "lung-resnet18", case) for case in AUDIO] + [
    ("chest_xray", "pneumonia-resnet18", case) for case in IMAGES
]
REFUSED = [row for row in CASES if row[2].outcome == "refused"]
ANSWERED = [row for row in CASES if row[2].outcome != "refused"]


def name(value: object) -> str:
    return value.name if isinstance(value, Case) else ""


@pytest.fixture(scope="module")
def analyser(tmp_path_factory):
    import dataclasses

    cache = tmp_path_factory.mktemp("cache")
    return Analyser(
        dataclasses.replace(
            Settings.from_env({}), cache_dir=cache, offline=True, background_export=False
        )
    )


@pytest.mark.parametrize(("task", "model", "case"), REFUSED, ids=name)
def test_the_command_line_refuses_in_one_line_and_writes_nothing(
    task, model, case, tmp_path, capsys
):
    path, out = tmp_path / case.name, tmp_path / "out"
    case.build(path)
    status = cli.main(["analyse", model, str(path), "--out", str(out), "--json"])
    output = capsys.readouterr()
    assert status == 2
    assert output.out == ""
    assert len(output.err.strip().splitlines()) == 1
    assert case.name in output.err
    assert "Traceback" not in output.err
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize(("task", "model", "case"), ANSWERED, ids=name)
def test_an_unusual_file_is_answered_and_the_report_is_json(task, model, case, tmp_path, analyser):
    path: Path = tmp_path / case.name
    case.build(path)
    report = analyser.analyse(AnalysisRequest(task=task, model=model, backend="torch"), path).report
    json.dumps(report.to_json(), allow_nan=False)
    assert report.predictions
    if case.outcome == "warned":
        assert report.warnings


def test_after_a_refusal_the_next_request_is_answered(analyser, tmp_path):
    task, model, bad = REFUSED[0]
    bad.build(tmp_path / bad.name)
    good = next(case for t, _, case in ANSWERED if t == task and case.outcome == "fine")
    good.build(tmp_path / good.name)
    with pytest.raises(XaiDemoError):
        analyser.analyse(AnalysisRequest(task=task, model=model), tmp_path / bad.name)
    assert analyser.analyse(
        AnalysisRequest(task=task, model=model), tmp_path / good.name
    ).report.predictions
