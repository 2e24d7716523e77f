"""The bench of training: every variant takes whole steps, and none changes the network."""

from __future__ import annotations

import pytest
import torch

from xai_demo.bench import training_speed
from xai_demo.cli import main


def test_every_variant_is_measured_and_compared_with_the_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training_speed, "RECIPES", ("pneumonia-resnet18",))
    monkeypatch.setattr(training_speed, "_SIDE", 32)
    monkeypatch.setattr(training_speed, "_BATCH", 4)
    assert main(["bench", "--training", "--rounds", "1"]) == 0
    text = capsys.readouterr().out
    assert (
        "| network | float32 | float32, channels last | bfloat16 | bfloat16, channels last |"
        in (text)
    )
    (row,) = [line for line in text.splitlines() if line.startswith("| pneumonia-resnet18 |")]
    assert "(1.00x)" in row
    assert row.count("x)") == 4


def test_a_step_computes_every_gradient_and_leaves_the_weights_as_they_are() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 2))
    seen: list[torch.Tensor] = []
    for parameter in network.parameters():
        parameter.register_hook(lambda gradient: seen.append(gradient.clone()))
    before = [parameter.clone() for parameter in network.parameters()]
    training_speed._step(network, torch.randn(4, 1, 4, 4), torch.eye(2)[[0, 1, 0, 1]], False)
    assert len(seen) == 2
    assert all(gradient.abs().sum() > 0 for gradient in seen)
    for old, new in zip(before, network.parameters(), strict=True):
        torch.testing.assert_close(old, new, rtol=0, atol=1e-9)
        assert new.grad is None
