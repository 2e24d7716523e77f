"""A request is refused when it is built if its choices are unknown or contradict each other."""

from __future__ import annotations

import pickle
from dataclasses import replace

import pytest

from xai_demo.analysis.request import AnalysisRequest, check_visitor, noise_choice
from xai_demo.audio.filters import SignalPath
from xai_demo.audio.noise import Noise
from xai_demo.errors import RequestError, UnknownNameError, UnsuitableError

PINK = Noise(kind="pink", snr_db=5)
OWN = "hf://owner/name"


@pytest.mark.parametrize(
    ("choices", "error", "says"),
    [
        ({"task": "dermatology"}, UnknownNameError, "'dermatology'.*stethoscope"),
        ({"task": "audioset", "backend": "tensorflow"}, UnknownNameError, "'tensorflow'.*torch"),
        ({"task": "chest_xray", "film": "upside"}, UnknownNameError, "'upside'.*checked"),
        ({"task": "audioset", "film": "as-is"}, UnsuitableError, "'as-is' is for.*chest_xray"),
        ({"task": "chest_xray", "noise": PINK}, UnsuitableError, "Noise.*chest_xray"),
        ({"task": "audioset", "cycles": "a.txt"}, UnsuitableError, "cycles.*stethoscope"),
        ({"task": "audioset", "signal_path": SignalPath()}, UnsuitableError, "Filters.*audioset"),
    ],
)
def test_an_unknown_or_contradictory_choice_is_refused(choices, error, says):
    with pytest.raises(error, match=says):
        AnalysisRequest(**choices)
    with pytest.raises(error, match=says):
        AnalysisRequest.from_choices(**choices)


def test_a_changed_request_is_checked_again():
    request = AnalysisRequest(task="chest_xray")
    with pytest.raises(UnsuitableError, match="Noise"):
        replace(request, noise=PINK)


def test_a_signal_path_without_a_step_fits_every_task():
    path = SignalPath(band_hz=None, denoise=False)
    assert AnalysisRequest(task="audioset", signal_path=path).signal_path == path


def test_empty_values_of_a_form_leave_the_defaults():
    empty = AnalysisRequest.from_choices("chest_xray", model="", film=None, uncertainty=None)
    assert empty == AnalysisRequest(task="chest_xray")
    assert not AnalysisRequest.from_choices("chest_xray", uncertainty=False).uncertainty


def test_a_request_survives_the_way_into_another_process():
    request = AnalysisRequest(task="stethoscope", signal_path=SignalPath(), noise=PINK)
    assert pickle.loads(pickle.dumps(request)) == request


@pytest.mark.parametrize("weights", ["/etc/passwd", "hf://owner/name/model.pth", "a"])
def test_a_visitor_may_name_only_safetensors_on_the_hub(weights):
    request = AnalysisRequest(task="audioset", weights=weights)
    with pytest.raises(UnsuitableError, match=f"not {weights!r}"):
        check_visitor(request, own_models=True)


def test_a_deployment_can_refuse_own_models():
    request = AnalysisRequest(task="audioset", weights=OWN)
    check_visitor(request, own_models=True)
    check_visitor(replace(request, weights=None), own_models=False)
    with pytest.raises(UnsuitableError, match="does not accept"):
        check_visitor(request, own_models=False)


def test_a_ratio_needs_a_kind_of_noise():
    assert noise_choice(None, None) is noise_choice("", None) is None
    assert noise_choice("pink", 5) == PINK
    with pytest.raises(RequestError, match="5 dB needs a kind of noise: white, pink or babble"):
        noise_choice("", 5)
    with pytest.raises(UnknownNameError, match="brown"):
        noise_choice("brown", 5)
