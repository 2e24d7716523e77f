"""What the slow explainers find: known by hand on a network that adds up, or as libraries do."""

import threading

import numpy as np
import pytest
import torch
from pytorch_grad_cam import GuidedBackpropReLUModel, ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from torch.nn import functional

from tests.support.explainer_subjects import (
    build_network,
    linear_subject,
    subject_of,
    tiny_network,
)
from xai_demo.analysis import heatmap
from xai_demo.explainers import (
    EXPLAINERS,
    Budget,
    cam,
    gradients,
    perturbation,
)
from xai_demo.explainers.torch_hooks import GuidedReLU


def test_score_cam_is_the_librarys_where_the_background_is_zero():
    whole, cut, inputs = tiny_network()
    with ScoreCAM(model=whole, target_layers=[whole[0]]) as camera:
        expected = camera(input_tensor=inputs, targets=[ClassifierOutputTarget(2)] * 2)
    raw = cam.score_cam(subject_of(whole, cut, inputs), [0, 2], Budget(passes=32))
    for sample in range(2):
        got = heatmap.normalise(
            heatmap.resize(heatmap.normalise(raw[sample, 1]), *inputs.shape[2:])
        )
        assert got == pytest.approx(expected[sample], abs=1e-4)


def test_score_cam_within_a_budget_asks_the_channels_that_vary_most():
    activations = torch.ones(1, 3, 4, 4)
    activations[0, 1, :2, :2] = 9  # what label 0 of the network looks at
    activations[0, 2, 0, 0] = 2
    subject = linear_subject(activations=activations, background=0.0)
    raw = cam.score_cam(subject, [0], Budget(passes=1))
    assert raw[0, 0].tolist() == activations[0, 1].tolist()


def test_occlusion_is_what_the_logit_loses():
    raw = perturbation.occlusion(linear_subject(background=0.5), [0, 1], Budget(passes=16))
    assert raw.shape == (1, 2, 4, 4)
    # a patch over the whole quarter: 64 pixels fall by a half, at weight 1 and at weight 2
    assert raw[0, 0, 0, 0] == pytest.approx(32)
    assert raw[0, 1, 0, 3] == pytest.approx(64)
    # the second cell lies under one patch inside and one half outside
    assert raw[0, 0, 0, 1] == pytest.approx((32 + 16) / 2)
    assert raw[0, 0, 3, 3] == 0  # hiding what speaks against a label is no evidence for it


def test_lime_finds_the_weights_of_a_linear_network():
    raw = perturbation.lime(linear_subject(background=0.5), [0, 1], Budget(passes=80))
    assert raw.shape == (1, 2, 4, 4)
    # a cell of 16 pixels falls by a half; the ridge takes some of it
    assert raw[0, 0, :2, :2] == pytest.approx(np.full((2, 2), 8), rel=0.2)
    assert raw[0, 1, :2, 2:] == pytest.approx(np.full((2, 2), 16), rel=0.2)
    assert raw[0, 0, 2:, 2:].max() == 0
    assert raw[0, 0, 2:, :2].max() < 1


def test_shapley_values_sum_to_what_the_picture_adds():
    subject = linear_subject(background=0.5)
    values = perturbation.owen_values(subject, [0, 1], Budget(passes=60))
    assert values.shape == (1, 2, 16, 16)
    assert values[0, 0].sum() == pytest.approx(0, abs=1e-3)
    assert values[0, 0, :8, :8].sum() == pytest.approx(32, abs=1e-3)
    assert values[0, 0, 8:, 8:].sum() == pytest.approx(-32, abs=1e-3)
    assert values[0, 1].sum() == pytest.approx(64, abs=1e-3)
    whole, cut, inputs = tiny_network()
    real = subject_of(whole, cut, inputs[:1], background=-0.3)
    before, after = real.forward(np.stack([np.full_like(real.inputs[0], -0.3), real.inputs[0]]))
    values = perturbation.owen_values(real, [2], Budget(passes=40))
    assert values.sum() == pytest.approx(float(after[2] - before[2]), abs=1e-4)


def test_expected_gradients_of_a_linear_network_are_its_weights():
    raw = perturbation.expected_gradients(linear_subject(background=0.5), [1, 0], Budget(passes=3))
    assert raw.shape == (1, 2, 16, 16)
    assert raw[0, 0, :8, 8:] == pytest.approx(np.full((8, 8), 1.0))  # 2 x (1 - 0.5)
    assert raw[0, 1, :8, :8] == pytest.approx(np.full((8, 8), 0.5))
    assert raw[0, 1, :8, 8:].max() == raw[0, 1, 8:].max() == 0


@pytest.mark.parametrize("architecture", ["resnet18", "cnn6"])
def test_integrated_gradients_are_complete(architecture):
    whole, cut, inputs = build_network(architecture)
    subject = subject_of(whole, cut, inputs[:1], background=-0.5)
    integrals = gradients.signed_integrated_gradients(subject, [0, 2], Budget(passes=48))
    empty = np.full_like(subject.inputs, -0.5)
    gained = (subject.forward(subject.inputs) - subject.forward(empty))[0]
    for k, target in enumerate((0, 2)):
        assert integrals[0, k].sum() == pytest.approx(gained[target], rel=0.05, abs=1e-3)


def test_integrated_gradients_of_a_linear_network_are_its_weights():
    integrals = gradients.signed_integrated_gradients(
        linear_subject(background=0.5), [0], Budget(passes=2)
    )
    assert integrals[0, 0, :8, :8] == pytest.approx(np.full((8, 8), 0.5))
    assert integrals[0, 0, 8:, 8:] == pytest.approx(np.full((8, 8), -0.5))
    shown = EXPLAINERS["Integrated gradients"].explain(linear_subject(), [0], Budget(passes=2))
    assert shown[0, 0, 8:].max() == 0


def test_guided_gradients_are_the_librarys():
    whole, cut, inputs = build_network("resnet18")
    subject = subject_of(whole, cut, inputs[:1])
    found = gradients.guided_gradients(subject, [1], Budget())
    expected = GuidedBackpropReLUModel(model=whole, device="cpu")(inputs[:1].clone(), 1)[..., 0]
    assert np.abs(expected).max() > 1e-6
    assert found[0, 0] == pytest.approx(expected, abs=1e-5 * float(np.abs(expected).max()))


@pytest.mark.parametrize(
    "rectifier",
    [functional.relu, torch.relu, torch.Tensor.relu, nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6()],
)
def test_no_negative_gradient_comes_back_through_a_rectifier(rectifier):
    x = torch.tensor([1.0, 2.0, -1.0], requires_grad=True)
    weights = torch.tensor([5.0, -5.0, 5.0])
    with GuidedReLU():
        (guided,) = torch.autograd.grad((rectifier(x + 0) * weights).sum(), x)
    (plain,) = torch.autograd.grad((rectifier(x + 0) * weights).sum(), x)
    assert guided.tolist() == [5, 0, 0]
    assert plain.tolist() == [5, -5, 0]


def test_guidance_holds_for_one_thread_alone():
    seen = []

    def elsewhere():
        x = torch.tensor([2.0], requires_grad=True)
        (gradient,) = torch.autograd.grad(-functional.relu(x).sum(), x)
        seen.append(gradient.item())

    with GuidedReLU():
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join()
    assert seen == [-1]
