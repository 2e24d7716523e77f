import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from small import model_of

from xai_demo import explainers, heat, networks
from xai_demo.errors import UnknownNameError
from xai_demo.explainers import EXPLAINERS

LIBRARY = {
    "Grad-CAM++": "GradCAMPlusPlus",
    "Grad-CAM": "GradCAM",
    "HiResCAM": "HiResCAM",
    "XGrad-CAM": "XGradCAM",
    "LayerCAM": "LayerCAM",
    "EigenGrad-CAM": "EigenGradCAM",
    "Eigen-CAM": "EigenCAM",
}


def built(architecture: str):
    model = model_of(architecture)
    torch.manual_seed(3)
    whole = networks.architecture(model).whole(model).eval()
    shape = (2, 1, 64, 200) if architecture.startswith("cnn") else (2, 1, 96, 96)
    return whole, networks.cut(model, whole), torch.randn(shape)


def shown(raw: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    return heat.scaled(heat.resized(heat.scaled(raw), *shape))


@pytest.mark.parametrize("architecture", ["resnet18", "cnn6", "cnn14"])
@pytest.mark.parametrize("name", LIBRARY)
def test_heat_from_the_head_is_that_of_the_whole_network(name, architecture):
    whole, cut, inputs = built(architecture)
    layer = whole.get_submodule(cut.layer)
    turn = architecture.startswith("cnn")
    with getattr(pytorch_grad_cam, LIBRARY[name])(
        model=whole,
        target_layers=[layer],
        reshape_transform=(lambda t: t.transpose(2, 3)) if turn else None,
    ) as camera:
        expected = camera(input_tensor=inputs, targets=[ClassifierOutputTarget(1)] * 2)
    with torch.inference_mode():
        activations = cut.features(inputs)
    raw = EXPLAINERS[name].heat(activations.clone(), cut.head, [1])
    for sample in range(2):
        got = shown(raw[sample, 0], expected[sample].shape)
        assert np.abs(got - expected[sample]).max() <= 1e-5


def test_ablation_is_the_librarys():
    whole, cut, inputs = built("resnet18")
    with pytorch_grad_cam.AblationCAM(model=whole, target_layers=[whole.layer4]) as camera:
        expected = camera(input_tensor=inputs[:1], targets=[ClassifierOutputTarget(2)])[0]
    raw = EXPLAINERS["Ablation-CAM"].heat(cut.features(inputs[:1]), cut.head, [2])
    assert np.abs(shown(raw[0, 0], expected.shape) - expected).max() <= 1e-3


@pytest.mark.parametrize("name", EXPLAINERS)
def test_all_labels_at_once_are_the_labels_one_by_one(name):
    _, cut, inputs = built("resnet18")
    with torch.inference_mode():
        activations = cut.features(inputs).clone()
    together = EXPLAINERS[name].heat(activations, cut.head, [0, 1, 2])
    assert together.shape[:2] == (2, 3)
    for k in range(3):
        alone = EXPLAINERS[name].heat(activations, cut.head, [k])
        assert together[:, [k]] == pytest.approx(alone, rel=1e-3, abs=1e-6 * float(together.max()))


@pytest.mark.parametrize("name", EXPLAINERS)
def test_heat_is_finite_and_not_negative_even_where_nothing_is_active(name):
    _, cut, inputs = built("resnet18")
    nothing = torch.zeros_like(cut.features(inputs))
    raw = EXPLAINERS[name].heat(nothing, cut.head, [0, 1])
    assert np.isfinite(raw).all()
    assert (raw >= 0).all()


@pytest.mark.parametrize("name", [n for n, e in EXPLAINERS.items() if e.per_label])
def test_labels_have_heat_of_their_own(name):
    _, cut, inputs = built("resnet18")
    raw = EXPLAINERS[name].heat(cut.features(inputs).detach(), cut.head, [0, 1])
    assert not np.allclose(heat.scaled(raw[0, 0]), heat.scaled(raw[0, 1]), atol=1e-3)


def test_heat_leaves_no_gradients_and_no_hooks_behind():
    _, cut, inputs = built("resnet18")
    EXPLAINERS["Grad-CAM++"].heat(cut.features(inputs), cut.head, [0])
    assert all(p.grad is None for p in cut.head.parameters())
    assert not any(m._forward_hooks for m in cut.head.modules())


def test_the_default_is_in_the_table_and_every_row_is_described():
    assert explainers.DEFAULT in EXPLAINERS
    rows = explainers.describe()
    assert [row["name"] for row in rows] == list(EXPLAINERS)
    needs = {"activations", "head gradients", "full gradients", "forward passes", "attention"}
    assert {row["needs"] for row in rows} <= needs


def test_an_unknown_explainer_names_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"'Smooth'.*Grad-CAM\+\+, Grad-CAM"):
        explainers.explainer("Smooth")
