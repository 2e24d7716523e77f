"""Refits of the input checks: small data in, coefficients and rates out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.lung_datasets import write_child
from xai_demo.audio import quality
from xai_demo.cli import main
from xai_demo.errors import TrainingError
from xai_demo.imaging import gate
from xai_demo.settings import Settings
from xai_demo.synthesis.thorax import thorax_phantom
from xai_demo.training import gate_eval, refit
from xai_demo.training.gate_eval import ImageFolders
from xai_demo.training.input_checks import GateFit, QualityFit


@pytest.fixture(autouse=True)
def few_synthetic(monkeypatch):
    monkeypatch.setattr(gate_eval, "IMAGES_PER_KIND", 4)
    monkeypatch.setattr(refit, "SYNTHETIC_SOUNDS", 6)


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("refit")
    for seed in range(6):
        place = root / "films" / ("one" if seed < 3 else "other/part")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(thorax_phantom(seed=seed).pixels).save(place / f"{seed}.png")
    (root / "films" / "one" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return root / "films"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sprsound")
    for child in range(3, 9):
        write_child(root, str(child), [(500, 2000, "Normal")], number=child)
    write_child(root, "9", [], record="Poor Quality", number=9)
    return root


def settings(folder: Path) -> Settings:
    return Settings(weights_dir=folder, cache_dir=folder, offline=True)


def test_the_gate_is_refitted_and_measured_beside_its_literals(radiographs):
    result = refit.refit_gate(ImageFolders(radiographs=radiographs), settings=settings(radiographs))
    assert result["n"]["radiographs of one"] == 3
    assert result["n"]["radiographs of other"] == 3
    assert result["n"]["spectrograms"] == 4
    assert len(result["weights"]) == len(gate.WEIGHTS)
    for fit in ("shipped", "refitted"):
        assert result[fit]["radiographs of one accepted"]["n"] == 3
        assert result[fit]["radiographs of one, rotated or inverted, recognised"]["n"] == 21
        assert result[fit]["charts stopped"]["n"] == 4
    assert result["shipped"]["radiographs of one accepted"]["right"] == 3
    assert result["shipped"]["radiographs of one, rotated or inverted, recognised"]["right"] >= 20
    assert "1 files could not be read and are left out: broken.png." in result["notes"]
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_the_order_of_the_orientations_is_that_of_a_rotated_radiograph():
    upright = thorax_phantom(seed=0).pixels / np.float32(255)
    odds = gate.logits(gate.features(gate.thumbnail(upright)))
    (recognised,) = (
        row
        for name, row in refit._gate_rates(odds[None], ["film"], {"film"}).items()
        if "recognised" in name
    )
    turned = [
        gate.classify_image(np.ascontiguousarray(np.rot90(image, -quarters))).turn == 90 * quarters
        for image in (upright, 1 - upright)
        for quarters in range(4)
    ]
    assert recognised["right"] == sum(turned) - 1


def test_the_quality_check_is_refitted_and_measured_beside_its_literals(recordings):
    result = refit.refit_quality(refit.SoundFolders(recordings=recordings))
    assert result["n"] == {"breath": 6, "speech": 18, "music": 12, "noise": 12}
    assert set(result["coefficients"]) == set(quality.FEATURES)
    assert result["refitted"]["windows of breath accepted"]["n"] == 6
    assert result["shipped"]["windows of speech detected"]["right"] == 18
    assert result["shipped"]["windows of music detected"]["right"] == 12
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    most = refit.refit_quality(refit.SoundFolders(recordings=recordings, most=3))
    assert most["n"]["breath"] == 3


def test_the_literals_are_python_to_paste(recordings, radiographs):
    for result in (
        refit.refit_quality(refit.SoundFolders(recordings=recordings)),
        refit.refit_gate(ImageFolders(radiographs=radiographs), settings=settings(radiographs)),
    ):
        literals, _, rest = refit.table(result).partition("\n\n")
        assert max(map(len, literals.splitlines())) <= 100
        names: dict[str, object] = {}
        exec(literals, names)
        if result["check"] == "gate":
            assert names["INTERCEPT"] == result["intercept"]
            assert list(names["WEIGHTS"]) == result["weights"]
        else:
            assert list(names["INTERCEPTS"]) == result["intercepts"]
            assert {k: list(v) for k, v in names["COEFFICIENTS"].items()} == result["coefficients"]
        assert "| literals |" in rest
        assert "were not kept" in rest


def test_what_was_fitted_gives_the_log_odds_of_the_checks_themselves():
    values = np.random.default_rng(0).random((5, len(gate.WEIGHTS)))
    fit = GateFit(intercept=gate.INTERCEPT, weights=gate.WEIGHTS)
    np.testing.assert_allclose(fit.log_odds(values), gate.logits(values))
    windows = np.random.default_rng(0).random((1, len(quality.FEATURES)))
    odds = QualityFit(intercepts=quality.INTERCEPTS, coefficients=quality.COEFFICIENTS).log_odds(
        windows
    )
    breath = quality.probabilities(windows[0])["breath"]
    assert breath == pytest.approx(1 / (1 + np.exp(odds[0]).sum()))


def test_the_command_prints_the_fit_and_refuses_what_is_no_folder(recordings, tmp_path, capsys):
    command = ["refit", "quality", "--data", str(recordings)]
    assert main([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["check"] == "quality"
    assert main([*command, "--music", str(tmp_path / "nowhere")]) == 2
    assert "nowhere is not a folder; a folder of sounds of music is needed" in (
        capsys.readouterr().err
    )
    (tmp_path / "empty").mkdir()
    assert main([*command, "--speech", str(tmp_path / "empty")]) == 2
    assert "a fit needs windows of each of breath, speech, music, noise" in capsys.readouterr().err
    with pytest.raises(TrainingError, match="empty contains no readable radiograph"):
        refit.refit_gate(ImageFolders(radiographs=tmp_path / "empty"), settings=settings(tmp_path))
