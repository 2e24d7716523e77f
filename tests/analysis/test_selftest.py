"""Known answers: a check passes for the weights it was stored with, and for no others."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from tests.support.small_models import write_model
from xai_demo import networks
from xai_demo.analysis import Analyser, selftest
from xai_demo.analysis.request import AnalysisRequest
from xai_demo.catalog import MODELS, Entry, hub_models
from xai_demo.catalog.sources import Checkpoint, PublishedAnswer
from xai_demo.cli import main
from xai_demo.errors import CheckpointMismatchError, RequestError
from xai_demo.networks import ARCHITECTURES
from xai_demo.networks.panns_modules import Cnn14, ConvBlock
from xai_demo.records import Model
from xai_demo.settings import Settings

NAME = "small-cnn14"
LABELS = ("Dog", "Rain", "Tick-tock")
WIDTHS = (1, 4, 8, 8, 16, 16, 32)
MODEL = dataclasses.replace(
    hub_models.CNN14, name=NAME, title="For tests", architecture=NAME, labels=LABELS
)


def small_cnn14(model: Model) -> torch.nn.Module:
    """Cnn14 with a sixty-fourth of its channels."""
    network = Cnn14(len(model.labels))
    for i in range(6):
        setattr(network, f"conv_block{i + 1}", ConvBlock(WIDTHS[i], WIDTHS[i + 1]))
    network.fc1 = torch.nn.Linear(WIDTHS[-1], WIDTHS[-1])
    network.fc_audioset = torch.nn.Linear(WIDTHS[-1], len(model.labels))
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean of what it has met
    with torch.no_grad():  # as if it had been trained on noise between -60 and -20 dB
        network.train()(60 * torch.rand(4, 1, 64, 128) - 80)
    return network


@pytest.fixture
def settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: Callable[..., None]
) -> Settings:
    """A machine that has one model, a small Cnn14 of random weights, and its stored answer."""
    kind = dataclasses.replace(ARCHITECTURES["cnn14"], build=small_cnn14)
    monkeypatch.setitem(networks.ARCHITECTURES, NAME, kind)
    without(MODELS, *MODELS)
    MODELS[NAME] = Entry(task="audioset")
    monkeypatch.setenv("XAI_DEMO_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("XAI_DEMO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XAI_DEMO_EXPORT", "off")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write_model(tmp_path / "weights" / NAME, MODEL, seed=5)
    made = Settings.from_env()
    selftest.store_answers([NAME], made)
    return made


def changed(settings: Settings, tensor: str, share: float) -> None:
    """Alter one tensor of the weights, and let the directory vouch for the altered file."""
    directory = settings.weights_dir / NAME
    state = load_file(directory / "model.safetensors")
    state[tensor] = state[tensor] * (1 + share)
    save_file(state, directory / "model.safetensors")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"sha256": None}))


def test_the_weights_that_the_answer_was_stored_with_pass(settings, capsys):
    (result,) = selftest.check_model(Analyser(settings), NAME)
    assert result.passed, result.sentence
    assert "as stored for dog.flac: probabilities within" in result.sentence
    assert "(allowed 0.002)" in result.sentence
    selftest.raise_for_failures([result])
    assert main(["selftest", NAME]) == 0
    assert result.sentence[:50] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tensor", "share"),
    [
        ("conv_block1.conv1.weight", 0.2),
        ("conv_block4.bn2.weight", 0.2),
        ("bn0.running_mean", 0.2),
        ("fc_audioset.weight", 0.1),
    ],
)
def test_other_weights_fail_and_both_hashes_are_named(settings, capsys, tensor, share):
    changed(settings, tensor, share)
    (result,) = selftest.check_model(Analyser(settings), NAME)
    assert result.passed is False
    assert "not as stored for dog.flac" in result.sentence
    assert "has probability" in result.sentence
    assert "The weights have sha256" in result.sentence
    with pytest.raises(CheckpointMismatchError, match="not as stored"):
        selftest.raise_for_failures([result])
    assert main(["selftest"]) == 3
    assert capsys.readouterr().err.count("\n") == 1


def test_another_heatmap_fails_though_the_answer_is_the_same(settings):
    path = settings.weights_dir / NAME / selftest.ANSWER_FILE
    answer = json.loads(path.read_text())
    answer["heat"] = np.fliplr(answer["heat"]).tolist()
    path.write_text(json.dumps(answer))
    (result,) = selftest.check_model(Analyser(settings), NAME)
    assert result.passed is False
    assert "the heatmap differs by" in result.sentence


def test_without_a_stored_answer_nothing_passes(settings, capsys):
    (settings.weights_dir / NAME / selftest.ANSWER_FILE).unlink()
    (result,) = selftest.check_model(Analyser(settings), NAME)
    assert result.passed is None
    assert f"selftest {NAME} --write" in result.sentence
    with pytest.raises(RequestError, match="no answer is stored"):
        selftest.raise_for_failures([result])
    assert main(["selftest"]) == 2
    assert main(["selftest", "--write"]) == 0
    assert main(["selftest", "--json"]) == 0
    written, _, printed = capsys.readouterr().out.partition("\n")
    assert written.startswith("Wrote ")
    assert [row["passed"] for row in json.loads(printed)] == [True]


def test_the_answer_of_a_hub_model_is_stored_in_the_catalogue(
    settings, tmp_path, monkeypatch, capsys
):
    answers = tmp_path / "catalog" / "answers"
    monkeypatch.setattr(selftest, "HUB_ANSWERS", answers)
    checkpoint = Checkpoint(repo_id="owner/name", filename="a.pth", revision=None, sha256=None)
    monkeypatch.setitem(MODELS, NAME, Entry(task="audioset", checkpoint=checkpoint))
    assert main(["selftest", NAME]) == 2
    assert f"no answer is stored in {answers / NAME}.json" in capsys.readouterr().err
    assert main(["selftest", NAME, "--write"]) == 0
    assert capsys.readouterr().out == f"Wrote {answers / NAME}.json\n"
    assert main(["selftest", NAME]) == 0
    assert f"{NAME}: as stored for dog.flac" in capsys.readouterr().out


def test_an_answer_for_another_file_is_not_compared(settings):
    path = settings.weights_dir / NAME / selftest.ANSWER_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"file_sha256": "0" * 64}))
    (result,) = selftest.check_model(Analyser(settings), NAME)
    assert result.passed is None
    assert f"was stored for {'0' * 64}" in result.sentence


def test_an_unreadable_stored_answer_is_named(settings, capsys):
    (settings.weights_dir / NAME / selftest.ANSWER_FILE).write_text("{")
    assert main(["selftest", NAME]) == 2
    assert "selftest.json cannot be read as JSON" in capsys.readouterr().err


def publish(monkeypatch, clip: Path, probabilities: dict[str, float], sha256=None) -> None:
    published = PublishedAnswer(
        clip=clip.name,
        source="its makers' page",
        probabilities=probabilities,
        tolerance=0.01,
        sha256=sha256,
    )
    entry = dataclasses.replace(MODELS[NAME], published_answer=published)
    monkeypatch.setitem(MODELS, NAME, entry)


def test_a_published_answer_is_reproduced_or_not(settings, tmp_path, monkeypatch, capsys):
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, 0.1 * np.random.default_rng(0).standard_normal(64_000), 32_000)
    analysis = Analyser(settings).analyse(
        AnalysisRequest(task="audioset", model=NAME, faithfulness=False), clip
    )
    answers = {p.label: p.probability for p in analysis.report.predictions}
    publish(monkeypatch, clip, {"Dog": answers["Dog"] + 0.009})
    assert main(["selftest", NAME, "--clip", str(clip)]) == 0
    assert "as published for clip.wav, within 0.01: Dog" in capsys.readouterr().out

    publish(monkeypatch, clip, {"Dog": answers["Dog"] + 0.011})
    assert main(["selftest", NAME, "--clip", str(clip)]) == 3
    assert "not as published for clip.wav: Dog has" in capsys.readouterr().err

    publish(monkeypatch, clip, {"Cat": 0.5})
    assert main(["selftest", NAME, "--clip", str(clip)]) == 3
    assert "there is no label 'Cat'" in capsys.readouterr().err

    publish(monkeypatch, clip, answers, sha256="0" * 64)
    assert main(["selftest", NAME, "--clip", str(clip)]) == 2
    assert f"clip.wav from its makers' page has {'0' * 64}" in capsys.readouterr().err

    publish(monkeypatch, clip, answers)
    assert main(["selftest", NAME]) == 2
    output = capsys.readouterr().err
    assert (
        "clip.wav is missing. Put clip.wav from its makers' page there, or name it with --clip"
        in output
    )


def test_a_model_that_answers_as_published_needs_no_stored_answer(
    settings, tmp_path, monkeypatch, capsys
):
    """As it is with Cnn14, of which no answer can be stored before its weights were there."""
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, 0.1 * np.random.default_rng(0).standard_normal(64_000), 32_000)
    analysis = Analyser(settings).analyse(
        AnalysisRequest(task="audioset", model=NAME, faithfulness=False), clip
    )
    answers = {p.label: p.probability for p in analysis.report.predictions}
    (settings.weights_dir / NAME / selftest.ANSWER_FILE).unlink()
    publish(monkeypatch, clip, answers)
    assert main(["selftest", NAME, "--clip", str(clip)]) == 0
    output = capsys.readouterr().out
    assert f"{NAME}: as published for clip.wav" in output
    assert f"{NAME}: not checked: no answer is stored in" in output
    publish(monkeypatch, clip, answers | {"Dog": answers["Dog"] + 0.011})
    assert main(["selftest", NAME, "--clip", str(clip)]) == 3
    publish(monkeypatch, clip, answers)
    assert main(["selftest", NAME]) == 2  # neither of the two


def test_fetch_downloads_the_clip_and_checks_the_model_on_it(
    settings, tmp_path, monkeypatch, capsys
):
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, 0.1 * np.random.default_rng(0).standard_normal(64_000), 32_000)
    analysis = Analyser(settings).analyse(
        AnalysisRequest(task="audioset", model=NAME, faithfulness=False), clip
    )
    answers = {p.label: p.probability for p in analysis.report.predictions}
    publish(monkeypatch, clip, answers)
    assert main(["fetch", NAME]) == 0  # for want of a clip nothing is refused
    output = capsys.readouterr().out
    assert "The address of clip.wav is not known" in output
    assert "not checked against the published answer" in output

    def brought(published: PublishedAnswer, settings: Settings) -> Path:
        path = selftest.clips.clip_path(published, settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clip.read_bytes())
        return path

    monkeypatch.setattr(selftest.clips, "fetch_clip", brought)
    assert main(["fetch", NAME]) == 0
    assert f"  {NAME}: as published for clip.wav" in capsys.readouterr().out
    assert main(["selftest", NAME]) == 0  # it is there from now on
    assert ": as published for" in capsys.readouterr().out
    publish(monkeypatch, clip, answers | {"Rain": answers["Rain"] + 0.02})
    assert main(["fetch", NAME]) == 3
    assert "not as published for clip.wav: Rain has" in capsys.readouterr().err


def test_fetch_checks_what_it_downloaded(settings, capsys):
    assert main(["fetch", NAME]) == 0
    assert f"{NAME}: as stored for dog.flac" in capsys.readouterr().out
    changed(settings, "fc_audioset.weight", 0.1)
    assert main(["fetch", NAME]) == 3
    assert "not as stored for dog.flac" in capsys.readouterr().err


def test_unknown_and_absent_models_are_refused(settings, capsys, monkeypatch):
    assert main(["selftest", "nix"]) == 2
    assert f"no model named 'nix'; choose from: {NAME}" in capsys.readouterr().err
    monkeypatch.setitem(MODELS, "absent", Entry(task="audioset"))
    assert main(["selftest", "absent"]) == 3
    assert main(["selftest"]) == 0
    assert "Not installed, so not checked: absent" in capsys.readouterr().out


def test_published_answers_are_those_of_the_authors():
    wanted = hub_models.CNN14_PUBLISHED
    assert wanted.probabilities["Speech"] == 0.893
    assert wanted.tolerance == 0.01
    assert set(wanted.probabilities) <= set(hub_models.CNN14.labels)
    # Logits of -0.8760, -7.0042 and -8.6602, by hand.
    assert hub_models.AST_PUBLISHED.probabilities == pytest.approx(
        {
            "Speech": 0.29400,
            "Male speech, man speaking": 0.00091,
            "Female speech, woman speaking": 0.00017,
        },
        abs=1e-5,
    )
    assert wanted.url == (
        "https://raw.githubusercontent.com/qiuqiangkong/audioset_tagging_cnn/master/resources/"
        "R9_ZSCveAHg_7s.wav"
    )
    assert MODELS["cnn14"].published_answer is wanted


def test_every_bundled_model_has_a_stored_answer():
    root = Path(selftest.__file__).parents[2] / "weights"
    for directory in root.iterdir():
        answer = json.loads((directory / selftest.ANSWER_FILE).read_text())
        config = json.loads((directory / "config.json").read_text())
        assert answer["weights_sha256"] == config["sha256"], directory.name
        assert set(answer["probabilities"]) == set(config["labels"])
