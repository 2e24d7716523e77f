"""Answers for a terminal: figures by finding, and of each part, as they were measured."""

from __future__ import annotations

from xai_demo.export import evaluation_text


def metric(value: float | None) -> dict[str, float | None]:
    return {"value": value, "low": value, "high": value}


RESULT = {
    "model": "nih14-resnet18",
    "data": "nih14",
    "n": 190,
    "groups": 180,
    "metrics": {"auroc": metric(0.7)},
    "per_class": {
        "Mass": {"auroc": metric(0.75), "f1": metric(0.5)},
        "Hernia": {"auroc": metric(None), "f1": metric(0.0)},
    },
}


def test_every_finding_has_its_row_of_figures() -> None:
    lines = evaluation_text(RESULT).splitlines()
    assert lines[0] == "nih14-resnet18 on nih14: n = 190, groups 180"
    assert "  auroc                0.700 (0.700-0.700)" in lines
    assert "| label | auroc | f1 |" in lines
    assert "| Mass | 0.750 (0.750-0.750) | 0.500 (0.500-0.500) |" in lines
    assert "| Hernia | not defined | 0.000 (0.000-0.000) |" in lines


def test_figures_of_other_hospitals_and_without_lungs_stand_below() -> None:
    part = {"n": 12, "groups": 11, "metrics": {"f1": metric(0.4)}}
    lines = evaluation_text({**RESULT, "parts": {"external": part}}).splitlines()
    assert lines[-2:] == [
        "external: n = 12, groups 11",
        "  f1                   0.400 (0.400-0.400)",
    ]


def test_without_figures_by_label_there_is_no_table() -> None:
    assert "|" not in evaluation_text({**RESULT, "per_class": {}})
