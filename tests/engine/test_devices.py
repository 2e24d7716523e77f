"""Where networks run and in which numbers, decided in one place; and GPUs that are lent."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.fake_analyser import FakeAnalyser
from tests.support.small_models import model_of
from xai_demo import networks
from xai_demo.analysis import zerogpu
from xai_demo.analysis.reading import Source
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.analysis.zerogpu import GPU_SECONDS, ZeroGPUAnalyser, wrap_for_zerogpu
from xai_demo.engine import backends
from xai_demo.engine.backends import CPU, CUDA, Placement, torch_runner
from xai_demo.errors import RequestError, UnknownNameError, UnreadableFileError
from xai_demo.records import Recording
from xai_demo.settings import Settings

HALVES = {"bfloat16": 0.03, "float16": 0.004}  # 8 and 11 bits, over some fifty layers


def settings(**changes: Any) -> Settings:
    return Settings(weights_dir=Path("w"), cache_dir=Path("c"), **changes)


@pytest.fixture
def sees(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    return lambda gpu: monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)


class Spaces(ModuleType):
    """Lends as `spaces` does: what goes into a call and comes out of it is copied."""

    def __init__(self, zero_gpu: bool) -> None:
        super().__init__("spaces")
        self.config = SimpleNamespace(Config=SimpleNamespace(zero_gpu=zero_gpu))
        self.durations: list[int] = []
        self.__spec__ = SimpleNamespace(name="spaces")  # type: ignore[assignment]

    def GPU(self, task: Callable[..., Any], *, duration: Any) -> Callable[..., Any]:  # noqa: N802
        def called(*given: Any) -> Any:
            copied = pickle.loads(pickle.dumps(given))
            self.durations.append(duration(*copied) if callable(duration) else duration)
            return pickle.loads(pickle.dumps(task(*copied)))

        return called


@pytest.fixture
def spaces(monkeypatch: pytest.MonkeyPatch) -> Spaces:
    module = Spaces(zero_gpu=True)
    monkeypatch.setitem(sys.modules, "spaces", module)
    return module


def test_without_a_gpu_everything_is_float32_on_the_cpu(sees: Callable[[bool], None]) -> None:
    sees(False)
    assert backends.choose_placement(settings(precision="float16")) == Placement(device="cpu")
    assert backends.onnx_providers("cpu") == [CPU]
    assert not Placement(device="cpu").is_torch_only


def test_with_one_the_precision_is_as_chosen(sees: Callable[[bool], None]) -> None:
    sees(True)
    assert backends.choose_placement(settings()) == Placement(device="cuda")
    chosen = backends.choose_placement(settings(precision="bfloat16"))
    assert chosen == Placement(device="cuda", precision="bfloat16")
    assert chosen.is_torch_only


def test_onnx_runtime_prefers_cuda_where_both_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    assert backends.onnx_providers("cuda") == [(CUDA, {"use_tf32": "0"}), CPU]
    assert backends.onnx_providers("cpu") == [CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    assert backends.onnx_providers("cuda") == [CPU]


def half_error(precision: str, device: str) -> float:
    """Relative error of ResNet-18's activations in a half type against float32."""
    model = model_of("resnet18")
    torch.manual_seed(0)
    whole = networks.architecture(model).build(model).eval().requires_grad_(False)
    features = networks.cut(model, whole).features.to(device)
    inputs = np.random.default_rng(0).normal(size=(2, 1, 96, 96)).astype(np.float32)
    exact, half = torch_runner(features)(inputs), torch_runner(features, precision)(inputs)
    assert exact.dtype == half.dtype == torch.float32
    assert not half.requires_grad
    return float((half - exact).norm() / exact.norm())


@pytest.mark.parametrize("precision", HALVES)
def test_half_numbers_differ_a_little_on_the_cpu(precision: str) -> None:
    assert 0 < half_error(precision, "cpu") < HALVES[precision]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", HALVES)
def test_half_numbers_differ_a_little_on_the_gpu(precision: str) -> None:
    assert 0 < half_error(precision, "cuda") < HALVES[precision]


# Lent GPUs


def test_where_nobody_lends_the_analyser_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    analyser: Any = FakeAnalyser()
    monkeypatch.setitem(sys.modules, "spaces", Spaces(zero_gpu=False))
    assert backends.zerogpu_package() is None
    assert wrap_for_zerogpu(analyser) is analyser
    monkeypatch.delitem(sys.modules, "spaces")
    monkeypatch.setattr(backends, "find_spec", lambda _name: None)
    assert backends.zerogpu_package() is None


def test_a_lent_gpu_is_said_and_torch_works_alone(
    spaces: Spaces, sees: Callable[[bool], None]
) -> None:
    sees(True)  # as `spaces` makes torch say before any call
    decided = backends.choose_placement(settings())
    assert decided == Placement(device="cuda", is_lent=True)
    assert decided.is_torch_only
    assert backends.zerogpu_package() is spaces


def test_networks_are_placed_before_any_call_and_answers_come_out_of_it(
    spaces: Spaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyser: Any = FakeAnalyser()
    warmed: list[bool] = []
    monkeypatch.setattr(analyser, "warm_up", lambda: warmed.append(True))
    monkeypatch.setattr(networks, "architecture", lambda _m: SimpleNamespace(kind="transformer"))
    on_gpu = wrap_for_zerogpu(analyser)
    assert isinstance(on_gpu, ZeroGPUAnalyser)
    assert warmed == [True]
    told: list[str] = []
    answer = on_gpu.analyse(
        AnalysisRequest(task="stethoscope", explainer="SHAP"),
        "tone.wav",
        progress=lambda _done, doing: told.append(doing),
        cancelled=lambda: False,
    )
    assert answer.report.predictions[0].probability == pytest.approx(0.83)
    assert analyser.calls[0]["explainer"] == "SHAP"
    assert told == ["Waiting for a GPU"]
    on_gpu.analyse(AnalysisRequest(task="stethoscope"), "tone.wav")
    assert spaces.durations == [GPU_SECONDS["transformer"] + zerogpu._SLOW_EXPLAINER_S, 30]
    assert on_gpu.hub is analyser.hub


def test_a_file_is_read_before_a_gpu_is_asked_for(
    spaces: Spaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyser: Any = FakeAnalyser()
    source = Source(
        content=Recording(samples=np.ones(8, np.float32), sample_rate_hz=8000, facts={}),
        timing_ms={"read": 3.0},
    )
    order: list[Any] = []

    def read(*_given: Any, **_options: Any) -> Source:
        order.append("read")
        return source

    def analyse(*_given: Any, source: Source) -> str:
        # Into the forked process it goes as a pickle.
        order.append(pickle.loads(pickle.dumps(source)).timing_ms)
        return "answer"

    monkeypatch.setattr(analyser, "read", read)
    monkeypatch.setattr(analyser, "analyse", analyse)
    answer: Any = ZeroGPUAnalyser(analyser, spaces).analyse(
        AnalysisRequest(task="stethoscope"), "tone.wav"
    )
    assert answer == "answer"
    assert order == ["read", {"read": 3.0}]


def test_live_sound_is_answered_on_it_too(spaces: Spaces) -> None:
    analyser: Any = FakeAnalyser()
    predictions, decision = ZeroGPUAnalyser(analyser, spaces).live(
        "stethoscope", np.zeros(8000, np.float32), 8000
    )
    assert decision.label == predictions[0].label
    assert spaces.durations == [GPU_SECONDS["convolutional"]]


def test_errors_come_out_of_a_call_as_what_they_say(spaces: Spaces) -> None:
    analyser: Any = FakeAnalyser()
    on_gpu = ZeroGPUAnalyser(analyser, spaces)
    with pytest.raises(UnreadableFileError, match=r"refuse\.wav is a text file"):
        on_gpu.analyse(AnalysisRequest(task="stethoscope"), "refuse.wav")
    with pytest.raises(RequestError, match="no label named 'x'; choose from: "):
        on_gpu.analyse(AnalysisRequest(task="stethoscope", target="x"), "tone.wav")
    with pytest.raises(RequestError, match="no model named 'none'"):
        on_gpu.analyse(AnalysisRequest(task="stethoscope", model="none"), "tone.wav")
    assert issubclass(UnknownNameError, RequestError)
