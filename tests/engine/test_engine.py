"""The engine loads, exports, switches backends and drops networks; small random networks."""

import dataclasses
import gc
import io
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import pytorch_grad_cam
import torch
from safetensors.torch import load_file, save_file

from tests.support.small_models import model_of, write_model
from xai_demo import engine as engine_module
from xai_demo import networks
from xai_demo.analysis import heatmap
from xai_demo.catalog import Entry
from xai_demo.engine import Engine
from xai_demo.engine.backends import Network, onnx_runner, torch_runner
from xai_demo.engine.onnx_export import (
    export_features,
    export_from_weights,
    export_in_subprocess,
    onnx_bytes,
)
from xai_demo.errors import CheckpointMismatchError, UnknownNameError, UnsuitableError
from xai_demo.hub import Hub
from xai_demo.networks import simplecnn
from xai_demo.settings import Settings

SMALL = model_of("simplecnn", name="small")
OTHER = model_of("simplecnn", name="other")
INPUTS = np.random.default_rng(0).normal(size=(3, 1, 96, 96)).astype(np.float32)


class Exporter:
    """Stands in for the export: hands out ready bytes, may be held up, and counts."""

    def __init__(self, data):
        self.data, self.calls, self.at_once, self.most_at_once = data, [], 0, 0
        self.may_go = threading.Event()
        self.may_go.set()

    def __call__(self, model, weights, layer):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.calls.append(model.name)
        self.may_go.wait(30)
        time.sleep(0.02)
        self.at_once -= 1
        if self.data is None:
            raise UnsuitableError("It cannot be exported, wanted: another.")
        return self.data


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two models of one architecture in a weights directory."""
    folder = tmp_path_factory.mktemp("weights")
    write_model(folder / SMALL.name, SMALL, seed=1)
    write_model(folder / OTHER.name, OTHER, seed=2)
    return folder


@pytest.fixture(scope="module")
def onnx_file(home):
    return export_from_weights(SMALL, home / "small" / "model.safetensors", "conv_block3")


@pytest.fixture
def exporter(onnx_file):
    return Exporter(onnx_file)


@pytest.fixture
def made(home, tmp_path, exporter):
    """A function that makes engines which share one cache."""

    def make(**settings):
        chosen = dataclasses.replace(
            Settings.from_env({}),
            **{"weights_dir": home, "cache_dir": tmp_path / "cache", "offline": True} | settings,
        )
        catalog = {m.name: Entry(task=m.task) for m in (SMALL, OTHER)}
        return Engine(Hub(chosen, catalog=catalog), exporter=exporter, export_delay_s=0)

    return make


def state_of(home, name="small"):
    return load_file(home / name / "model.safetensors")


def logits(network: Network, inputs=INPUTS):
    with torch.inference_mode():
        return network.head(network.features(inputs)).numpy()


def eventually(wanted, seconds=60):
    end = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def relative(got, wanted):
    return np.linalg.norm(got - wanted) / np.linalg.norm(wanted)


# Checkpoints


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "wrapped",
    [
        lambda state: {"model": state},
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"model_state_dict": state},
        lambda state: {f"backbone.{k}": v for k, v in state.items()},
        lambda state: (
            state
            | {
                "spectrogram_extractor.stft.conv_real.weight": torch.zeros(513, 1, 1024),
                "logmel_extractor.melW": torch.zeros(513, 64),
            }
        ),
        lambda state: {k: v.double() for k, v in state.items()},
    ],
)
def test_a_wrapped_checkpoint_is_the_one_inside(made, home, tmp_path, wrapped, zipped):
    path = tmp_path / "wrapped.pth"
    torch.save(wrapped(state_of(home)), path, _use_new_zipfile_serialization=zipped)
    engine = made()
    got = engine.network("other", backend="torch", weights=str(path))
    assert np.array_equal(logits(got), logits(engine.network("small", backend="torch")))
    assert (got.in_use.source, got.in_use.name) == ("local", "other")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"fc.bias": None}, r"has no tensor fc\.bias \(3,\)\.$"),
        ({"fc.weight": torch.zeros(5, 128)}, r"fc\.weight \(5, 128\); expected \(3, 2048\)\.$"),
        ({"extra": torch.zeros(2, 7)}, r"a tensor extra \(2, 7\), which the network does not"),
    ],
)
def test_the_first_tensor_amiss_is_named_with_its_shapes(made, home, tmp_path, changed, said):
    state = {k: v for k, v in (state_of(home) | changed).items() if v is not None}
    save_file(state, tmp_path / "amiss.safetensors")
    with pytest.raises(CheckpointMismatchError, match=said):
        made().network("small", weights=str(tmp_path / "amiss.safetensors"))


class Code:
    """What a hostile pickle does: it calls a function when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_does_not_run(made, home, tmp_path, zipped):
    proof, path = tmp_path / "it-ran", tmp_path / "evil.pth"
    state = state_of(home) | {"fc.bias": Code(proof)}
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointMismatchError, match=r"evil\.pth cannot be read as tensors"):
        made().network("small", weights=str(path))
    assert not proof.exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_refused(made, home, tmp_path, suffix, share):
    path = tmp_path / f"cut{suffix}"
    if suffix == ".pth":
        torch.save(state_of(home), path)
    else:
        save_file(state_of(home), path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(CheckpointMismatchError, match=f"cut{suffix} cannot be read as tensors"):
        made().network("small", weights=str(path))


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, {3: torch.zeros(1)}, torch.zeros(3)])
def test_a_pickle_of_something_else_is_refused(made, tmp_path, value):
    torch.save(value, tmp_path / "other.pth")
    with pytest.raises(CheckpointMismatchError, match="does not hold tensors by name"):
        made().network("small", weights=str(tmp_path / "other.pth"))


# Answers


def test_probabilities_are_calibrated_by_the_temperature(made):
    network = made().network("small", backend="torch")
    halved = dataclasses.replace(network, model=dataclasses.replace(SMALL, temperature=2.0))
    got = halved.probabilities(torch.tensor([[0.0, 2 * np.log(2), 2 * np.log(5)]]))
    assert got == pytest.approx(np.array([[1 / 8, 2 / 8, 5 / 8]]))
    many = dataclasses.replace(network, model=dataclasses.replace(SMALL, activation="sigmoid"))
    got = many.probabilities(torch.tensor([[0.0, np.log(3), -np.log(3)]]))
    assert got == pytest.approx(np.array([[1 / 2, 3 / 4, 1 / 4]]))


@pytest.mark.parametrize("backend", ["torch", "onnx"])
def test_activations_are_ordinary_tensors_that_a_head_can_be_differentiated_at(made, backend):
    network = made().network("small", backend=backend)
    assert network.in_use.backend == backend
    with torch.inference_mode():
        activations = network.features(INPUTS)
    assert not activations.is_inference()
    assert not activations.requires_grad
    activations.requires_grad_(True)
    network.head(activations)[:, 1].sum().backward()
    assert activations.grad.abs().sum() > 0


def test_on_torch_the_whole_network_can_be_differentiated_too(made):
    engine = made()
    whole = engine.network("small", backend="torch").whole
    inputs = torch.from_numpy(INPUTS).requires_grad_(True)
    whole(inputs)[:, 0].sum().backward()
    assert inputs.grad.abs().sum() > 0
    assert engine.network("small", backend="onnx").whole is None


def test_one_weights_file_serves_records_that_differ(made, home):
    engine = made()
    path = str(home / "small" / "model.safetensors")
    named = engine.network("small", backend="torch")
    local = engine.network("other", backend="torch", weights=path)
    assert local.head is named.head
    assert (local.in_use.name, local.in_use.source) == ("other", "local")
    assert (named.in_use.name, named.in_use.source) == ("small", "bundled")


def test_a_name_that_is_not_known_is_told_with_those_that_are(made):
    with pytest.raises(
        UnknownNameError, match="backend named 'tpu'; choose from: auto, torch, onnx"
    ):
        made().network("small", backend="tpu")
    with pytest.raises(
        UnknownNameError, match="layer of simplecnn named 'fc'; choose from: conv_block"
    ):
        made().network("small", layer="fc")


def test_another_layer_is_another_network_and_another_file(made, tmp_path, monkeypatch):
    def earlier(network):
        children = list(network.children())
        return torch.nn.Sequential(*children[:3]), torch.nn.Sequential(*children[3:])

    usual = networks.ARCHITECTURES["simplecnn"]
    cuts = dict(usual.cuts) | {"conv_block2": earlier}
    both = dataclasses.replace(usual, cuts=cuts)
    monkeypatch.setitem(networks.ARCHITECTURES, "simplecnn", both)
    engine = made(background_export=False)
    engine._exporter = export_from_weights
    last, before = (engine.network("small", layer=name) for name in (None, "conv_block2"))
    assert (last.layer, before.layer) == ("conv_block3", "conv_block2")
    assert before.features(INPUTS).shape == (3, 64, 48, 48)
    assert last.features(INPUTS).shape == (3, 128, 24, 24)
    assert np.array_equal(logits(before), logits(last))
    onnx = engine.network("small", layer="conv_block2", backend="onnx")
    assert relative(logits(onnx), logits(before)) <= 1e-4
    assert [p.stem.split("-")[1] for p in (tmp_path / "cache/onnx").glob("*.onnx")] == [
        "conv_block2"
    ]


# Export

# The others are larger ones of the same families; tests/networks export a small AST and CED.
HEAVY = {
    "resnet50", "resnet101", "cnn14", "cnn14-decisionlevelmax", "ast", "ced-tiny",
    "efficientnet-lite1", "efficientnet-lite2",
}  # fmt: skip
LIGHT = sorted(set(networks.ARCHITECTURES) - HEAVY)


@pytest.mark.parametrize("name", LIGHT)
def test_an_exported_network_answers_and_explains_as_torch_does(name, tmp_path, capfd):
    model = model_of(name)
    torch.manual_seed(5)
    whole = networks.architecture(model).build(model).eval().requires_grad_(False)
    cut = networks.cut(model, whole)
    path = export_features(model, cut, tmp_path / "folder" / "model.onnx")
    assert [p.name for p in path.parent.iterdir()] == ["model.onnx"]
    shape = (3, 1, 96, 96) if model.task == "chest_xray" else (3, 1, 64, 120)
    inputs = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    maps = {}
    for kind, features in {"torch": torch_runner(cut.features), "onnx": onnx_runner(path)}.items():
        maps[kind] = features(inputs), grad_cam(cut.head, features(inputs))
    assert relative(*(maps[kind][0].numpy() for kind in ("onnx", "torch"))) <= 1e-4
    assert np.abs(maps["onnx"][1] - maps["torch"][1]).max() <= 1e-3
    assert np.ptp(maps["torch"][1]) > 0.5  # there is something to compare
    assert capfd.readouterr() == ("", "")


def grad_cam(head, activations):
    identity = torch.nn.Identity()
    model = torch.nn.Sequential(identity, head)
    with pytorch_grad_cam.GradCAM(model=model, target_layers=[identity]) as camera:
        # None: the most probable label of each, whose map is least likely to be zero everywhere.
        maps = camera(input_tensor=activations.requires_grad_(True), targets=None)
    activations.requires_grad_(False)
    return np.stack([heatmap.normalise(one) for one in maps])


def test_an_export_that_differs_is_not_kept(tmp_path, monkeypatch):
    cut = networks.cut(SMALL, simplecnn.build(SMALL).eval())
    monkeypatch.setattr("xai_demo.engine.onnx_export.TOLERANCE", -1.0)
    with pytest.raises(UnsuitableError, match=r"exported small differs from torch by \d"):
        export_features(SMALL, cut, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_sound_network_is_exported_for_any_length():
    model = dataclasses.replace(model_of("cnn6"), architecture="simplecnn")
    cut = networks.cut(model, simplecnn.build(model).eval())
    run = onnx_runner(onnx_bytes(model, cut))
    inputs = np.random.default_rng(2).normal(size=(1, 1, 64, 333)).astype(np.float32)
    assert relative(run(inputs).numpy(), torch_runner(cut.features)(inputs).numpy()) <= 1e-4


def test_a_process_of_its_own_exports_quietly_and_says_why_it_could_not(home, tmp_path, capfd):
    weights = home / "small" / "model.safetensors"
    exported = onnx_runner(export_in_subprocess(SMALL, weights, "conv_block3"))(INPUTS)
    (tmp_path / "cut.safetensors").write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(UnsuitableError, match=r"small could not be .*cut\.safetensors cannot be"):
        export_in_subprocess(SMALL, tmp_path / "cut.safetensors", "conv_block3")
    cut = networks.cut(SMALL, simplecnn.build(SMALL).eval())
    cut.features.load_state_dict(
        {k: v for k, v in state_of(home).items() if k.startswith("conv")}, strict=True
    )
    assert relative(exported.numpy(), torch_runner(cut.features)(INPUTS).detach().numpy()) <= 1e-4
    assert capfd.readouterr() == ("", "")


def test_export_writes_where_it_is_asked_to(made, tmp_path, home, exporter):
    written = made().export("small", tmp_path / "out")
    assert written == tmp_path / "out" / "model.onnx"
    assert written.read_bytes() == exporter.data
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UnsuitableError, match=r"model\.onnx cannot be written"):
        made().export("small", tmp_path / "file" / "out")


def test_an_export_beside_the_weights_is_used_but_not_that_of_other_weights(
    home, tmp_path, exporter, made
):
    weights = tmp_path / "own"
    for model in (SMALL, OTHER):
        (weights / model.name).mkdir(parents=True)
        for file in (home / model.name).iterdir():
            (weights / model.name / file.name).write_bytes(file.read_bytes())
    engine = made(weights_dir=weights, background_export=False)
    beside = engine.export("small")
    assert beside == weights / "small" / "model.onnx"
    assert engine.network("small").in_use.backend == "onnx"
    for name in ("model.onnx", "model.onnx.json"):
        (weights / "other" / name).write_bytes((weights / "small" / name).read_bytes())
    assert engine.network("other").in_use.backend == "torch"


# In the background


def test_torch_answers_at_once_and_onnx_runtime_takes_over(made, exporter):
    exporter.may_go.clear()
    engine = made()
    first = engine.network("small")
    answer = logits(first)
    assert first.in_use.backend == "torch"
    eventually(lambda: exporter.calls)
    assert engine.network("small").in_use.backend == "torch"
    exporter.may_go.set()
    eventually(lambda: engine.network("small").in_use.backend == "onnx")
    later = engine.network("small")
    assert later.head is first.head
    assert relative(logits(later), answer) <= 1e-4
    assert np.array_equal(logits(first), answer)  # who still holds it is not disturbed
    assert exporter.calls == ["small"]
    assert made().network("small").in_use.backend == "onnx"  # another process, the same cache
    assert exporter.calls == ["small"]


def test_torch_is_let_go_when_onnx_runtime_takes_over(made):
    engine = made()
    whole = weakref.ref(engine.network("small").whole)
    eventually(lambda: engine.network("small").in_use.backend == "onnx")
    gc.collect()
    assert whole() is None


def test_one_export_at_a_time_and_each_once(made, exporter):
    engine = made()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(engine.network, ["small", "other"] * 8))
    eventually(lambda: engine.network("small").in_use.backend == "onnx")
    eventually(lambda: engine.network("other").in_use.backend == "onnx")
    assert sorted(exporter.calls) == ["other", "small"]
    assert exporter.most_at_once == 1


def test_an_export_that_fails_is_not_tried_again_and_torch_goes_on(made, exporter):
    exporter.data = None
    engine = made()
    answer = logits(engine.network("small"))
    eventually(lambda: engine._worker is None)
    assert np.array_equal(logits(engine.network("small")), answer)
    assert engine.network("small").in_use.backend == "torch"
    assert (exporter.calls, engine._worker) == (["small"], None)


def test_nothing_is_exported_where_it_is_not_wanted_or_cannot_be(made, exporter, monkeypatch):
    assert made(background_export=False).network("small").in_use.backend == "torch"
    engine = made()
    assert engine.network("small", backend="torch").in_use.backend == "torch"
    monkeypatch.setattr(engine_module, "missing_export_packages", lambda: ("onnx",))
    assert engine.network("small").in_use.backend == "torch"
    assert (exporter.calls, engine._worker) == ([], None)
    with pytest.raises(UnsuitableError, match="small cannot be exported to ONNX without onnx;"):
        engine.network("small", backend="onnx")


def test_without_onnx_runtime_torch_answers_even_where_an_export_lies(made, monkeypatch):
    made().network("small", backend="onnx")
    monkeypatch.setattr(engine_module, "missing_export_packages", lambda: ("onnxruntime",))
    monkeypatch.setattr(engine_module, "missing_packages", lambda *names: names)
    assert made().network("small").in_use.backend == "torch"


# The cache


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "a flipped bit": flipped,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1000]),
    "empty": lambda path: path.write_bytes(b""),
    "foreign": lambda path: path.write_bytes(b"not ours"),
    "no note": lambda path: path.with_name(f"{path.name}.json").unlink(),
    "a broken note": lambda path: path.with_name(f"{path.name}.json").write_text("["),
    "a note that is none": lambda path: path.with_name(f"{path.name}.json").write_text("[]"),
    "other weights": lambda path: path.with_name(f"{path.name}.json").write_text(
        path.with_name(f"{path.name}.json").read_text().replace(path.name[:8], "00000000")
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_file_is_noticed_and_rebuilt(made, tmp_path, exporter, damage):
    answer = logits(made().network("small", backend="onnx"))
    (path,) = (tmp_path / "cache" / "onnx").glob("*.onnx")
    whole = path.read_bytes()
    assert made().network("small", backend="onnx").in_use.backend == "onnx"
    assert len(exporter.calls) == 1
    DAMAGE[damage](path)
    assert made(background_export=False).network("small").in_use.backend == "torch"
    again = made().network("small", backend="onnx")
    assert len(exporter.calls) == 2
    assert np.array_equal(logits(again), answer)
    assert path.read_bytes() == whole
    assert made(background_export=False).network("small").in_use.backend == "onnx"


def test_a_whole_file_that_onnx_runtime_cannot_run_leaves_torch_answering(made, exporter):
    exporter.data = b"of another version"
    with pytest.raises(UnsuitableError, match="cannot run the exported small"):
        made().network("small", backend="onnx")
    assert made().network("small").in_use.backend == "torch"


def test_a_cache_that_cannot_be_written_is_done_without(made, tmp_path, exporter):
    (tmp_path / "file").write_text("in the way")
    engine = made(cache_dir=tmp_path / "file" / "cache")
    torch_answer = logits(engine.network("small"))
    eventually(lambda: engine.network("small").in_use.backend == "onnx")
    assert relative(logits(engine.network("small")), torch_answer) <= 1e-4
    other = made(cache_dir=tmp_path / "file" / "cache").network("small", backend="onnx")
    assert relative(logits(other), torch_answer) <= 1e-4
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_full_disk_leaves_no_half_file(made, tmp_path, monkeypatch):
    class FullDisk(io.FileIO):
        def write(self, data):
            super().write(data[:100])
            raise OSError(28, "No space left on device")

    real = Path.open

    def open_on_a_full_disk(self, mode="r", **options):
        return FullDisk(self, mode) if mode == "xb" else real(self, mode, **options)

    monkeypatch.setattr(Path, "open", open_on_a_full_disk)
    assert made().network("small", backend="onnx").in_use.backend == "onnx"
    assert list((tmp_path / "cache" / "onnx").iterdir()) == []


# Memory and threads


def test_the_least_recently_used_goes_and_comes_back_the_same(made):
    engine = made(max_models=1, background_export=False)
    answer = logits(engine.network("small"))
    held = weakref.ref(engine.network("small").head)
    assert held() is not None
    other = logits(engine.network("other"))
    gc.collect()
    assert held() is None
    assert np.array_equal(logits(engine.network("small")), answer)
    assert not np.allclose(other, answer)


def test_at_most_so_many_networks_are_held(made):
    engine = made(max_models=2, background_export=False)
    held = [weakref.ref(engine.network(*which).head) for which in [("small",), ("other",)]]
    held.append(weakref.ref(engine.network("small", backend="onnx").head))
    gc.collect()
    assert [one() is None for one in held] == [True, False, False]


def test_eight_threads_load_once_and_answer_as_one(made, monkeypatch):
    loads, real = [], engine_module.load_cut_network
    monkeypatch.setattr(
        engine_module, "load_cut_network", lambda *about: loads.append(about) or real(*about)
    )
    engine = made(background_export=False)
    rows = np.random.default_rng(3).normal(size=(16, 1, 1, 96, 96)).astype(np.float32)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda row: logits(engine.network("small"), row), rows))
    alone = [logits(engine.network("small"), row) for row in rows]
    assert len(loads) == 1
    assert np.array_equal(together, alone)


def test_loading_one_network_keeps_nobody_from_another(made, monkeypatch):
    engine = made(background_export=False)
    engine.network("small")
    loading, may_go, real = threading.Event(), threading.Event(), engine_module.load_cut_network

    def slowly(*about):
        loading.set()
        assert may_go.wait(30)
        return real(*about)

    monkeypatch.setattr(engine_module, "load_cut_network", slowly)
    with ThreadPoolExecutor(2) as pool:
        other = pool.submit(engine.network, "other")
        assert loading.wait(30)
        small = pool.submit(lambda: logits(engine.network("small")))
        assert small.result(30).shape == (3, 3)
        assert not other.done()
        may_go.set()
        assert other.result(30).in_use.name == "other"


def test_a_load_that_fails_is_tried_again(made, monkeypatch):
    def fails(*about):
        raise CheckpointMismatchError("It broke, wanted: whole.")

    engine = made(background_export=False)
    with monkeypatch.context() as broken:
        broken.setattr(engine_module, "load_cut_network", fails)
        with pytest.raises(CheckpointMismatchError, match="It broke"):
            engine.network("small")
    assert engine.network("small").in_use.backend == "torch"


# Devices


def asked_of_onnx_runtime(monkeypatch, *, refuses=()):
    """The providers that sessions are asked for; sessions with one of `refuses` cannot be made."""
    asked, real = [], onnxruntime.InferenceSession

    def session(source, options, providers, **more):
        names = [p if isinstance(p, str) else p[0] for p in providers]
        asked.append(names)
        if set(names) & set(refuses):
            raise RuntimeError("no CUDA here")
        return real(source, options, providers, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: asked.append("preload"))
    monkeypatch.setattr(
        onnxruntime,
        "get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    return asked


def test_without_a_gpu_cuda_is_never_asked_for(made, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    asked = asked_of_onnx_runtime(monkeypatch)
    network = made().network("small", backend="onnx")
    assert asked == [["CPUExecutionProvider"]]
    assert network.in_use.device == "cpu"


def test_where_cuda_cannot_be_had_after_all_the_cpu_answers(made, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked = asked_of_onnx_runtime(monkeypatch, refuses=["CUDAExecutionProvider"])
    network = made().network("small", backend="onnx")
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert asked == ["preload", both, ["CPUExecutionProvider"]]
    assert network.in_use.device == "cpu"
    assert logits(network).shape == (3, 3)
