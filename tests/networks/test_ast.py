"""AST: cut inside its last block, laid out as its patches lie, loaded from the published names."""

import dataclasses

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from safetensors.torch import save_file
from transformers import ASTConfig, ASTForAudioClassification

from tests.support import small_transformer
from tests.support.small_models import model_of
from xai_demo import networks
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.catalog.hub_models import AST
from xai_demo.engine.backends import load_cut_network, onnx_runner
from xai_demo.engine.onnx_export import export_features
from xai_demo.errors import CheckpointMismatchError, UnsuitableError
from xai_demo.networks import ast

OLD_NAMES = (  # as the published file has them
    (".layers.", ".encoder.layer."),
    (".attention.q_proj.", ".attention.attention.query."),
    (".attention.k_proj.", ".attention.attention.key."),
    (".attention.v_proj.", ".attention.attention.value."),
    (".attention.o_proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)


def published(name: str) -> str:
    for new, old in OLD_NAMES:
        name = name.replace(new, old)
    return name


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(networks.ARCHITECTURES, "ast", small_transformer.ARCHITECTURE)
    return small_transformer.build_network()


def test_head_of_features_is_the_whole_network(small):
    whole, cut, inputs = small
    with torch.inference_mode():
        logits = cut.head(cut.features(inputs))
        assert logits.numpy() == pytest.approx(whole(inputs).numpy(), abs=1e-6)
    assert logits.std() > 0.01


def test_the_whole_network_is_the_librarys(small):
    whole, _, inputs = small
    config = whole.audio_spectrogram_transformer.config
    theirs = ASTForAudioClassification(config).eval()
    theirs.load_state_dict(whole.state_dict())  # strict: the names are its own
    with torch.inference_mode():
        expected = theirs(inputs[:, 0].transpose(1, 2)).logits
        assert torch.allclose(whole(inputs), expected, atol=1e-6)


def test_patches_lie_by_frequency_from_the_lowest_and_by_time(small):
    """A patch's token says where the patch is: the embedding is made to add up what it sees."""
    whole, _, _ = small
    body = whole.audio_spectrogram_transformer
    torch.nn.init.ones_(body.embeddings.patch_embeddings.projection.weight)
    inputs = torch.zeros(1, 1, 48, 64)
    inputs[0, 0, 10:14, 40:44] = 1  # under patches 0 and 1 from below, 3 and 4 from the left
    seen = body.embeddings(inputs[:, 0].transpose(1, 2))
    none = body.embeddings(torch.zeros_like(inputs)[:, 0].transpose(1, 2))
    laid_out = small_transformer.feature_maps(torch.cat([seen - none, seen[:, :2]], dim=1))[0, 0]
    hot = {(int(r), int(c)) for r, c in laid_out.nonzero()}
    assert laid_out.shape == small_transformer.GRID
    assert hot == {(0, 3), (0, 4), (1, 3), (1, 4)}


def test_the_published_network_has_12_by_101_patches_after_two_leading_tokens():
    tokens = torch.arange(1214 + 2, dtype=torch.float32)[None, :, None]
    laid_out = networks.feature_maps(AST, tokens)
    assert laid_out.shape == (1, 1, 12, 101)
    assert laid_out[0, 0, 0, :2].tolist() == [2, 3]
    assert laid_out[0, 0, 1, 0] == 2 + 101
    assert laid_out[0, 0, -1, -1] == 1213


def test_the_published_network_has_the_published_size():
    with torch.device("meta"):
        whole = networks.architecture(AST).build(AST)
    assert sum(p.numel() for p in whole.parameters()) == 86_594_063
    bytes_of_tensors = 4 * 86_594_063
    assert 0 < 346_404_948 - bytes_of_tensors < 40_000  # the file's header


LIBRARY = {
    "Grad-CAM": "GradCAM",
    "Grad-CAM++": "GradCAMPlusPlus",
    "HiResCAM": "HiResCAM",
    "LayerCAM": "LayerCAM",
    "EigenGrad-CAM": "EigenGradCAM",
    "Eigen-CAM": "EigenCAM",
}


@pytest.mark.parametrize("name", LIBRARY)
def test_a_heatmap_by_the_cut_is_that_of_the_whole_network(small, name):
    from tests.support.explainer_subjects import subject_of
    from xai_demo.analysis import heatmap
    from xai_demo.explainers import EXPLAINERS

    whole, cut, inputs = small

    def laid_out(tokens):  # as pytorch-grad-cam's documentation has it for other transformers
        return tokens[:, 2:].reshape(len(tokens), *small_transformer.GRID, -1).permute(0, 3, 1, 2)

    whole.requires_grad_(True)
    with getattr(pytorch_grad_cam, LIBRARY[name])(
        model=whole,
        target_layers=[whole.get_submodule(cut.layer)],
        reshape_transform=laid_out,
    ) as camera:
        expected = camera(input_tensor=inputs, targets=[ClassifierOutputTarget(1)] * 2)
    whole.requires_grad_(False)
    raw = EXPLAINERS[name].explain(subject_of(whole, cut, inputs), [1])
    for sample in range(2):
        got = heatmap.normalise(
            heatmap.resize(heatmap.normalise(raw[sample, 0]), *expected[sample].shape)
        )
        assert np.ptp(expected[sample]) > 0.9
        assert np.abs(got - expected[sample]).max() <= 1e-4


def test_the_head_works_out_the_leading_tokens_alone(small):
    _, cut, inputs = small
    asking = []
    hook = cut.head.mlp.register_forward_hook(lambda m, i, o: asking.append(o.shape[1]))
    cut.head(cut.features(inputs))
    hook.remove()
    assert asking == [2]


def test_exported_features_are_torchs_and_of_one_width(small, tmp_path):
    _, cut, inputs = small
    path = export_features(small_transformer.MODEL, cut, tmp_path / "model.onnx")
    with torch.inference_mode():
        expected = cut.features(inputs)
    got = onnx_runner(path)(np.repeat(inputs.numpy(), 2, axis=0))
    assert got[::2].numpy() == pytest.approx(expected.numpy(), abs=1e-4)
    shape = on_onnx_shape(path)
    assert shape[1:] == [1, 48, 64]
    assert isinstance(shape[0], str)


def on_onnx_shape(path):
    import onnx

    dimensions = onnx.load(path).graph.input[0].type.tensor_type.shape.dim
    return [d.dim_value or d.dim_param for d in dimensions]


def test_a_file_with_the_published_names_is_loaded(small, tmp_path):
    whole, _, inputs = small
    state = {published(name): tensor for name, tensor in whole.state_dict().items()}
    assert "audio_spectrogram_transformer.encoder.layer.0.attention.attention.query.weight" in state
    assert "audio_spectrogram_transformer.encoder.layer.2.output.dense.bias" in state
    save_file(state, tmp_path / "old.safetensors")
    save_file(whole.state_dict(), tmp_path / "new.safetensors")
    for name in ("old", "new"):
        cut = load_cut_network(small_transformer.MODEL, tmp_path / f"{name}.safetensors")
        with torch.inference_mode():
            logits = cut.head(cut.features(inputs))
            assert torch.allclose(logits, whole(inputs), atol=1e-6)


def test_a_file_of_another_size_names_the_tensor_and_both_shapes(small, tmp_path):
    whole, _, _ = small
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    more = dataclasses.replace(small_transformer.MODEL, labels=("a", "b", "c", "d"))
    with pytest.raises(
        CheckpointMismatchError, match=r"dense\.weight \(3, 32\); expected \(4, 32\)"
    ):
        load_cut_network(more, tmp_path / "model.safetensors")


def test_a_model_without_a_fixed_width_cannot_be_an_ast():
    model = dataclasses.replace(model_of("cnn6"), architecture="ast")
    with pytest.raises(UnsuitableError, match="AST needs inputs with a fixed number of frames"):
        ast.builder()(model)


def test_our_names_for_the_published_are_the_librarys():
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    names = ASTForAudioClassification(
        ASTConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    ).state_dict()
    assert {networks.tensor_name(AST, published(name)) for name in names} == set(names)
    renamings = get_checkpoint_conversion_mapping("ASTModel")
    assert len(renamings) == len(ast.TENSOR_RENAMES)


@pytest.mark.parametrize("explainer", ["LayerCAM", "Attention rollout"])
def test_a_recording_is_answered_and_explained(small, tmp_path, tone, explainer):
    from tests.support.small_models import write_model
    from xai_demo.analysis import Analyser
    from xai_demo.settings import Settings

    model = dataclasses.replace(
        small_transformer.MODEL,
        name="ast",
        task="audioset",
        normal_label=None,
        labels=("a", "b", "c"),
    )
    write_model(tmp_path / "weights" / "ast", model)
    settings = Settings(
        weights_dir=tmp_path / "weights", cache_dir=tmp_path / "cache", background_export=False
    )
    analysis = Analyser(settings).analyse(
        AnalysisRequest(task="audioset", model="ast", explainer=explainer), tone
    )
    found = analysis.report.explanations[0]
    assert analysis.report.model.architecture == "ast"
    assert found.layer == small_transformer.LAYER
    assert found.values.shape == (4, 8)  # 5 patches in 64 frames, so 8 in 97
    assert found.heatmap.shape == analysis.view.pixels.shape == (48, 97)
    assert np.ptp(found.heatmap) > 0.9
    assert found.faithfulness is not None
