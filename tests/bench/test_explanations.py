"""What an explanation costs: the structure of the figures, and their table."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.support.tiny_network import LAYER, TINY
from xai_demo import networks
from xai_demo.bench import explanations
from xai_demo.settings import Settings

RATIOS = (
    "whole_1",
    "whole_14",
    "torch_0",
    "torch_1",
    "torch_14",
    "onnx_0",
    "onnx_1",
    "onnx_14",
)
DIFFERENCES = ("difference_torch", "difference_onnx")


def test_the_table_shows_milliseconds_ratios_and_differences():
    row = {
        "forward_ms": 41.6,
        "whole_1": 4.2,
        "whole_14": 52.0,
        "torch_0": 1.01,
        "torch_1": 1.104,
        "torch_14": 1.33,
        "onnx_0": 0.5,
        "onnx_1": 0.6149,
        "onnx_14": 0.79,
        "difference_torch": 2.34e-7,
        "difference_onnx": 1.06e-5,
    }
    result = {
        "threads": 2,
        "rounds": 9,
        "explainer": "Grad-CAM++",
        "architectures": {"resnet18": row, "cnn14": row | {"forward_ms": 0.4}},
    }
    lines = explanations.table(result).splitlines()
    assert lines[0].startswith("| network | forward, torch (ms) | pytorch-grad-cam, 1 class | py")
    figures = "4.20x | 52.00x | 1.01x | 1.10x | 1.33x | 0.50x | 0.61x | 0.79x | 2.3e-07 | 1.1e-05 |"
    assert lines[2] == f"| resnet18 | 42 | {figures}"
    assert lines[3] == f"| cnn14 | 0 | {figures}"
    assert {line.count("|") for line in lines[:4]} == {13}
    assert lines[4] == ""
    assert lines[5] == (
        "Grad-CAM++, 2 threads, median of 9 interleaved rounds, pytorch-grad-cam's 14 classes once;"
        " ratios to the plain torch forward pass. Differences are the largest over 14 classes."
    )


def test_every_architecture_with_a_map_is_measured_at_the_layer_it_is_cut_after():
    known = {name for name, a in networks.ARCHITECTURES.items() if a.kind != "transformer"}
    variants = {n for n in known if any(n.startswith(f"{m}-") for m in known)}
    assert set(explanations._LAYERS) == known - variants
    for name, layer in explanations._LAYERS.items():
        assert networks.ARCHITECTURES[name].default_layer == layer


@pytest.fixture
def tiny(monkeypatch) -> str:
    monkeypatch.setitem(networks.ARCHITECTURES, "tiny", TINY)
    monkeypatch.setattr(explanations, "_LAYERS", {"tiny": LAYER})
    return "tiny"


def test_a_run_measures_every_variant_and_the_heatmaps_agree(tiny, tmp_path):
    progress = []
    settings = Settings(weights_dir=tmp_path, cache_dir=tmp_path)
    result = explanations.run(
        settings, rounds=1, progress=lambda done, doing: progress.append(doing)
    )
    assert progress == [tiny]
    assert result["rounds"] == 1
    assert result["threads"] >= 1
    assert result["explainer"] == "Grad-CAM++"
    assert set(result["versions"]) == {"torch", "onnxruntime"}
    row = result["architectures"][tiny]
    assert set(row) == {"forward_ms", *RATIOS, *DIFFERENCES}
    assert all(row[name] > 0 for name in ("forward_ms", *RATIOS))
    assert all(0 <= row[name] < 1e-3 for name in DIFFERENCES)
    assert f"| {tiny} |" in explanations.table(result)


def test_a_ratio_is_the_median_over_that_of_the_forward_pass(monkeypatch):
    # A clock that the ways turn on themselves; the first round, slow from warming up, is left out.
    now = [0.0]
    durations = {
        "forward": iter([9.0, 2.0, 2.0, 2.0]),
        "torch_1": iter([9.0, 3.0, 100.0, 3.0]),
    }
    monkeypatch.setattr(
        explanations, "time", SimpleNamespace(perf_counter=lambda: now[0], sleep=lambda s: None)
    )

    def way(name: str):
        def once() -> None:
            now[0] += next(durations[name])

        return once

    seconds = explanations._median_seconds({name: way(name) for name in durations}, rounds=3)
    assert explanations._ratios(seconds) == {"forward_ms": 2000, "torch_1": 1.5}
