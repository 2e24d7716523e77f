"""The heatmap of the cut network is that of the whole one, for every architecture there is."""

from __future__ import annotations

import numpy as np
import pytest
from pytorch_grad_cam import GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from tests.support.explainer_subjects import build_network, subject_of
from xai_demo import networks
from xai_demo.analysis import heatmap
from xai_demo.explainers import EXPLAINERS

_CONVOLUTIONAL = sorted(
    name for name, each in networks.ARCHITECTURES.items() if each.kind != "transformer"
)


@pytest.mark.parametrize("architecture", _CONVOLUTIONAL)
def test_grad_cam_plus_plus_is_the_librarys_on_the_whole_network(architecture: str) -> None:
    whole, cut, inputs = build_network(architecture)
    inputs = inputs[:1]
    # These lay time out along the rows.
    is_turned = architecture.startswith(("cnn", "yamnet"))
    turn = (lambda t: t.transpose(2, 3)) if is_turned else None
    whole.requires_grad_(True)
    with GradCAMPlusPlus(whole, [whole.get_submodule(cut.layer)], turn) as camera:
        expected = camera(input_tensor=inputs, targets=[ClassifierOutputTarget(1)])[0]
    whole.requires_grad_(False)
    raw = EXPLAINERS["Grad-CAM++"].explain(subject_of(whole, cut, inputs), [0, 1])[0, 1]
    got = heatmap.normalise(heatmap.resize(heatmap.normalise(raw), *expected.shape))
    assert expected.max() > 0.9
    assert np.abs(got - expected).max() <= 1e-5
