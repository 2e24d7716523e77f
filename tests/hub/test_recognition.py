"""Files that would fit two networks are known by their bytes, and answered by the right one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.analysis.test_frames_over_time import NAME as FRAMEWISE
from tests.analysis.test_frames_over_time import small_framewise
from tests.analysis.test_selftest import MODEL, NAME, small_cnn14
from tests.support.small_models import analyser_of, model_of
from xai_demo import networks
from xai_demo.analysis import Analyser
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.catalog import hub_models
from xai_demo.hub.checkpoint import recognise_model, sha256_of
from xai_demo.networks import ARCHITECTURES


@pytest.fixture
def analyser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Analyser:
    """A machine with a small Cnn14, which knows its framewise sibling too."""
    for name, like, whole in (
        (NAME, "cnn14", small_cnn14),
        (FRAMEWISE, "cnn14-decisionlevelmax", small_framewise),
    ):
        kind = dataclasses.replace(ARCHITECTURES[like], build=whole)
        monkeypatch.setitem(networks.ARCHITECTURES, name, kind)
    return analyser_of(tmp_path, MODEL)


def test_the_authors_framewise_file_is_asked_about_every_moment(analyser, tmp_path, monkeypatch):
    torch.manual_seed(1)
    path, clip = tmp_path / "any name.pth", tmp_path / "clip.wav"
    state = small_framewise(MODEL).state_dict()
    torch.save({"model": state}, path, _use_new_zipfile_serialization=False)
    rng = np.random.default_rng(0)
    soundfile.write(clip, np.clip(0.2 * rng.standard_normal(96_000), -1, 1), 32_000)

    def asked():
        return analyser.analyse(
            AnalysisRequest(task="audioset", weights=str(path), faithfulness=False), clip
        )

    taken_for_cnn14 = asked()
    assert taken_for_cnn14.report.model.architecture == NAME
    assert len(taken_for_cnn14.timeline.starts_s) == 1
    sibling = dataclasses.replace(MODEL, name=FRAMEWISE, architecture=FRAMEWISE)
    monkeypatch.setitem(hub_models.MODELS_BY_SHA256, sha256_of(path), sibling)
    found = asked()
    assert found.report.model.architecture == found.report.model.name == FRAMEWISE
    assert len(found.timeline.starts_s) == round(3.0 / 0.32)
    assert [p.probability for p in found.report.predictions] != [
        p.probability for p in taken_for_cnn14.report.predictions
    ]


def test_a_file_is_not_taken_for_a_model_of_another_task(monkeypatch):
    film = model_of("resnet18")
    (sha256,) = hub_models.MODELS_BY_SHA256
    assert recognise_model(film, sha256) is film
    assert recognise_model(hub_models.CNN14, sha256) is hub_models.CNN14_FRAMEWISE
    assert recognise_model(hub_models.CNN14, "0" * 64) is hub_models.CNN14


def test_the_framewise_network_is_described_as_published():
    model = hub_models.CNN14_FRAMEWISE
    assert model.architecture == "cnn14-decisionlevelmax"
    assert networks.architecture(model).framewise is not None
    assert (model.labels, model.preprocessing) == (
        hub_models.CNN14.labels,
        hub_models.CNN14.preprocessing,
    )
    assert "0.385" in model.data
    assert "0.431" not in model.data
