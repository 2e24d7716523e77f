import dataclasses
import re

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from tests.support.explainer_subjects import (
    SMALL,
    build_network,
    linear_subject,
    subject_of,
    tiny_network,
)
from xai_demo import explainers, networks
from xai_demo.analysis import heatmap
from xai_demo.errors import CancelledError, UnknownNameError, UnsuitableError
from xai_demo.explainers import EXPLAINERS, Budget

LIBRARY = {
    "Grad-CAM++": "GradCAMPlusPlus",
    "Grad-CAM": "GradCAM",
    "HiResCAM": "HiResCAM",
    "XGrad-CAM": "XGradCAM",
    "LayerCAM": "LayerCAM",
    "EigenGrad-CAM": "EigenGradCAM",
    "Eigen-CAM": "EigenCAM",
}


FEW = Budget(passes=24)  # enough to see that it works
FITS = [(name, kind) for name, e in EXPLAINERS.items() for kind in e.fits]
every_fit = pytest.mark.parametrize(("name", "kind"), FITS)


def shown(raw: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return heatmap.normalise(heatmap.resize(heatmap.normalise(raw), *shape))


@pytest.mark.parametrize("architecture", ["resnet18", "cnn6", "cnn14"])
@pytest.mark.parametrize("name", LIBRARY)
def test_a_heatmap_from_the_head_is_that_of_the_whole_network(name, architecture):
    whole, cut, inputs = build_network(architecture)
    layer = whole.get_submodule(cut.layer)
    turn = architecture.startswith("cnn")
    whole.requires_grad_(True)
    with getattr(pytorch_grad_cam, LIBRARY[name])(
        model=whole,
        target_layers=[layer],
        reshape_transform=(lambda t: t.transpose(2, 3)) if turn else None,
    ) as camera:
        expected = camera(input_tensor=inputs, targets=[ClassifierOutputTarget(1)] * 2)
    whole.requires_grad_(False)
    raw = EXPLAINERS[name].explain(subject_of(whole, cut, inputs), [1])
    for sample in range(2):
        got = shown(raw[sample, 0], expected[sample].shape)
        assert np.abs(got - expected[sample]).max() <= 1e-5


def test_ablation_is_the_librarys():
    whole, cut, inputs = build_network("resnet18")
    whole.requires_grad_(True)
    with pytorch_grad_cam.AblationCAM(model=whole, target_layers=[whole.layer4]) as camera:
        expected = camera(input_tensor=inputs[:1], targets=[ClassifierOutputTarget(2)])[0]
    raw = EXPLAINERS["Ablation-CAM"].explain(subject_of(whole, cut, inputs[:1]), [2])
    assert np.abs(shown(raw[0, 0], expected.shape) - expected).max() <= 1e-3


@every_fit
def test_all_labels_at_once_are_the_labels_one_by_one(name, kind):
    subject = subject_of(*SMALL[kind]())
    together = EXPLAINERS[name].explain(subject, [0, 1, 2], FEW)
    assert together.dtype == np.float32
    assert together.shape[:2] == (2, 3)
    assert (together >= 0).all()
    for k in range(3):
        alone = EXPLAINERS[name].explain(subject, [k], FEW)
        assert together[:, [k]] == pytest.approx(alone, rel=1e-3, abs=1e-5 * float(together.max()))


@every_fit
def test_a_heatmap_is_finite_and_not_negative_even_where_nothing_is_active(name, kind):
    whole, cut, inputs = SMALL[kind]()
    subject = subject_of(whole, cut, torch.zeros_like(inputs[:1]))
    subject = dataclasses.replace(subject, activations=torch.zeros_like(subject.activations))
    raw = EXPLAINERS[name].explain(subject, [0, 1], FEW)
    assert np.isfinite(raw).all()
    assert (raw >= 0).all()


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name, kind in FITS if EXPLAINERS[name].per_label]
)
def test_labels_have_heatmaps_of_their_own(name, kind):
    whole, cut, inputs = SMALL[kind]()
    raw = EXPLAINERS[name].explain(subject_of(whole, cut, inputs[:1]), [0, 1], FEW)
    assert not np.allclose(heatmap.normalise(raw[0, 0]), heatmap.normalise(raw[0, 1]), atol=1e-3)


@every_fit
def test_an_explanation_leaves_no_gradients_and_no_hooks_behind(name, kind):
    whole, cut, inputs = SMALL[kind]()
    kinds = [type(m) for m in whole.modules()]
    EXPLAINERS[name].explain(subject_of(whole, cut, inputs[:1]), [0], FEW)
    assert all(p.grad is None and not p.requires_grad for p in whole.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in whole.modules())
    assert [type(m) for m in whole.modules()] == kinds


SLOW = [name for name, e in EXPLAINERS.items() if e.passes > 1]


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_explainer_reports_its_progress(name):
    reports = []
    budget = Budget(passes=40, progress=lambda done, doing: reports.append((done, doing)))
    EXPLAINERS[name].explain(subject_of(*tiny_network()), [0], budget)
    fractions = [done for done, _ in reports]
    assert len(set(fractions)) >= 4  # it moves
    assert fractions == sorted(fractions)
    assert fractions[-1] > 0.9
    assert reports[-1][1].startswith("Forward pass ")


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_explainer_keeps_to_its_budget(name):
    whole, cut, inputs = tiny_network()
    batches = []
    real = subject_of(whole, cut, inputs[:1])

    def forward(batch):
        batches.append(len(batch))
        return real.forward(batch)

    def network(batch):
        batches.append(len(batch))
        return whole(batch)

    counted = dataclasses.replace(real, forward=forward, network=network)
    EXPLAINERS[name].explain(counted, [1], Budget(passes=50))
    assert 30 <= sum(batches) <= 50 + 2  # and what the picture is compared with


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_explainer_stops_within_a_batch(name):
    whole, cut, inputs = tiny_network()
    batches = []
    real = subject_of(whole, cut, inputs)

    def forward(batch):
        batches.append(len(batch))
        return real.forward(batch)

    def network(batch):
        batches.append(len(batch))
        return whole(batch)

    counted = dataclasses.replace(real, forward=forward, network=network)
    with pytest.raises(
        CancelledError, match=r"Cancelled on request after \d+ of \d+ forward passes"
    ):
        EXPLAINERS[name].explain(counted, [0], Budget(passes=100, cancelled=lambda: bool(batches)))
    assert len(batches) == 1
    assert batches[0] <= 16
    with pytest.raises(CancelledError):
        EXPLAINERS[name].explain(counted, [0], Budget(cancelled=lambda: True))
    assert len(batches) == 1


@pytest.mark.parametrize(
    "name", ["Occlusion", "LIME", "SHAP", "SHAP gradients", "Integrated gradients"]
)
def test_what_adds_to_the_answer_is_hot_and_what_does_not_is_cold(name):
    subject = linear_subject(windows=2)
    raw = EXPLAINERS[name].explain(subject, [0, 1], Budget(passes=100))
    for label, (high, wide) in enumerate(((slice(0, 8), slice(0, 8)), (slice(0, 8), slice(8, 16)))):
        shown = heatmap.resize(heatmap.normalise(raw[1, label]), 16, 16)
        assert shown[high, wide].mean() > 0.5
        shown[high, wide] = 0
        assert shown.mean() < 0.12


@every_fit
def test_the_same_question_has_the_same_answer(name, kind):
    subject = subject_of(*SMALL[kind]())
    first = EXPLAINERS[name].explain(subject, [2], FEW)
    np.random.rand(7)  # as others do: shap draws from this generator
    assert np.array_equal(first, EXPLAINERS[name].explain(subject, [2], FEW))


def test_what_needs_the_whole_network_says_so_without_torch():
    subject = linear_subject(network=None)
    whole = [name for name, e in EXPLAINERS.items() if e.needs_torch]
    assert len(whole) == 4
    for name in whole:
        with pytest.raises(UnsuitableError, match="use the backend torch or another explainer"):
            EXPLAINERS[name].explain(subject, [0])
        for kind in EXPLAINERS[name].fits:
            assert name not in explainers.fitting_names(kind, torch=False)
            assert name in explainers.fitting_names(kind)


def test_an_explainer_that_does_not_fit_names_those_that_do():
    fit = ", ".join(explainers.fitting_names("transformer", torch=False))
    with pytest.raises(
        UnsuitableError,
        match=r"^XGrad-CAM explains convolutional networks by head gradients and does not fit "
        rf"a transformer one without torch; choose from: {re.escape(fit)}\.$",
    ):
        explainers.explainer_for("XGrad-CAM", "transformer", torch=False)
    with pytest.raises(UnsuitableError, match=r"^Attention rollout explains transformer networks"):
        explainers.explainer_for("Attention rollout", "convolutional")
    assert explainers.explainer_for("Grad-CAM", "convolutional") is EXPLAINERS["Grad-CAM"]


def test_the_default_is_in_the_table_and_every_row_is_described():
    assert {"convolutional", "transformer"} == set(EXPLAINERS[explainers.DEFAULT].fits)
    rows = explainers.describe()
    assert [row["name"] for row in rows] == list(EXPLAINERS)
    needs = {"activations", "head gradients", "full gradients", "forward passes", "attention"}
    assert {row["needs"] for row in rows} <= needs


def test_an_unknown_explainer_names_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"'Smooth'.*Grad-CAM\+\+, Grad-CAM"):
        explainers.explainer("Smooth")


def test_what_divides_by_activations_or_silences_each_channel_does_not_fit_tokens():
    missing = set(EXPLAINERS) - set(explainers.fitting_names("transformer"))
    assert missing == {"CAM", "XGrad-CAM", "Ablation-CAM", "Guided backpropagation"}


def test_the_usual_explainer_is_the_models_own_else_the_default():
    assert explainers.default_name("convolutional") == explainers.DEFAULT
    assert explainers.default_name("convolutional", "HiResCAM") == "HiResCAM"
    assert explainers.default_name("convolutional", "Attention rollout") == explainers.DEFAULT
    assert explainers.default_name("transformer", "Attention rollout") == "Attention rollout"


# CAM


POOLED = [name for name, a in networks.ARCHITECTURES.items() if a.kind == "pooled"]


@pytest.mark.parametrize("architecture", POOLED)
def test_cam_is_grad_cam_where_all_that_follows_is_the_mean_and_one_layer(architecture):
    whole, cut, inputs = build_network(architecture)
    subject = subject_of(whole, cut, inputs)
    cam, grad_cam = (EXPLAINERS[name].explain(subject, [0, 2]) for name in ("CAM", "Grad-CAM"))
    # the gradient of a mean over n places is the weight, divided by n
    places = cam.shape[2] * cam.shape[3]
    assert cam == pytest.approx(places * grad_cam, rel=1e-3, abs=1e-4 * float(cam.max()))


def test_cam_weighs_maps_as_the_last_layer_does():
    last = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        last.weight.copy_(torch.tensor([[1.0, -1.0], [0.0, 2.0]]))
    head = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), last)
    maps = torch.tensor([[[[3.0, 1.0]], [[1.0, 2.0]]]])
    subject = linear_subject(activations=maps, head=head.requires_grad_(False))
    assert EXPLAINERS["CAM"].explain(subject, [0, 1]).tolist() == [[[[2.0, 0.0]], [[2.0, 4.0]]]]


@pytest.mark.parametrize("architecture", ["cnn6", "cnn14", "simplecnn"])
def test_cam_refuses_a_head_that_does_more_and_is_not_offered_for_it(architecture):
    with pytest.raises(UnsuitableError, match="CAM needs a network that only averages its maps"):
        EXPLAINERS["CAM"].explain(subject_of(*build_network(architecture)), [0])
    kind = networks.ARCHITECTURES[architecture].kind
    assert "CAM" not in explainers.fitting_names(kind)
    assert set(explainers.fitting_names(kind)) < set(explainers.fitting_names("pooled"))
