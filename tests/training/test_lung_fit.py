"""Fitting the network of the lung field: what it learns from, and that the fit is the file."""

from __future__ import annotations

import io
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from xai_demo.cli import main
from xai_demo.errors import TrainingError
from xai_demo.imaging import lungs
from xai_demo.imaging.gate import thumbnail
from xai_demo.settings import Settings
from xai_demo.synthesis.thorax import lung_masks, thorax_phantom
from xai_demo.training import gate_eval, lung_films, lung_fit
from xai_demo.training.datasets import split_groups
from xai_demo.training.lung_outlines import SIDE, outline_lungs

if TYPE_CHECKING:
    from pathlib import Path

    from xai_demo.records import Floats


@cache
def phantom(seed: int) -> Floats:
    return thumbnail(np.asarray(thorax_phantom(seed=seed).pixels / 255, np.float32))


def dice(one, other) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_clear_lungs_are_outlined_and_others_refused() -> None:
    film = phantom(3)
    outline = outline_lungs(film)
    assert outline is not None
    assert min(map(dice, outline, lung_masks(SIDE))) > 0.85
    # The left one in the image comes first.
    assert np.nonzero(outline[0])[1].mean() < SIDE / 2 < np.nonzero(outline[1])[1].mean()
    assert outline_lungs(film[::-1].copy()) is None
    hidden = film.copy()
    hidden[:, : SIDE // 2] = film.max()
    assert outline_lungs(hidden) is None
    assert outline_lungs(np.random.default_rng(0).random((SIDE, SIDE), np.float32)) is None


def test_variations_move_the_lungs_with_the_film() -> None:
    film, truth = phantom(4), np.moveaxis(lung_masks(SIDE).astype(np.float32), 0, 2)
    rng = np.random.default_rng(1)
    varied = [lung_films.vary(film, truth, rng) for _ in range(40)]
    for image, planes in varied:
        assert image.dtype == planes.dtype == np.float32
        assert (image.shape, planes.shape) == ((SIDE, SIDE), (SIDE, SIDE, 2))
        assert 0 <= image.min() <= image.max() <= 1
        # Mirrored or not, the first lung lies left of the second.
        left, right = (np.nonzero(planes[..., k] > 0.5)[1].mean() for k in (0, 1))
        assert left < right
    # The network in use finds nearly all of them where they went.
    agreement = [dice(lungs.lung_field(x), p.max(axis=2) >= 0.5) for x, p in varied]
    assert np.median(agreement) > 0.85
    again = lung_films.vary(film, truth, np.random.default_rng(1))
    np.testing.assert_array_equal(again[0], varied[0][0])


def test_opacities_hide_lungs_and_leave_their_outline() -> None:
    film, truth = phantom(5), np.moveaxis(lung_masks(SIDE).astype(np.float32), 0, 2)
    inside = truth.max(axis=2) > 0.5
    rng = np.random.default_rng(2)
    changes = [lung_films._add_opacities(film, truth, rng) - film for _ in range(30)]
    assert np.mean([change[inside].max() > 0.15 for change in changes]) > 0.8
    far = ~inside & (np.abs(film - film[inside].mean()) >= 0)
    far[8:-8] = False
    assert all(np.abs(change[far]).max() < 0.05 for change in changes)


def test_the_file_holds_the_network() -> None:
    torch.manual_seed(1)
    network = lung_fit.LungNetwork()
    # Normalisation that is not the identity, so that folding it counts.
    for _ in range(3):
        network(torch.rand(4, 1, SIDE, SIDE))
    # From weights that were not fitted, all answers would be about a half.
    dict(network.named_children())["out"][0].weight.data *= 20
    network.eval()
    film = phantom(3)
    with torch.no_grad():
        wanted = torch.sigmoid(network(torch.from_numpy(film)[None, None]))[0].numpy()
    file = io.BytesIO(lung_fit.packed_weights(network))
    answer = lungs.lung_probabilities(film, lungs.read_weights(file))
    # Eight bits a weight.
    np.testing.assert_allclose(answer, wanted, atol=0.03)
    assert np.ptp(wanted) > 0.3


@pytest.fixture(scope="module")
def films(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("films") / "clear"
    folder.mkdir()
    # Patients by NIH's file names: two that are fitted on, and one that is left out.
    splits = split_groups([f"nih:{i}" for i in range(1, 60)], seed="lung fields")
    chosen = [*np.flatnonzero([split == "train" for split in splits])[:2], splits.index("test")]
    for seed, i in zip((3, 4, 5), chosen, strict=True):
        pixels = np.rint(255 * phantom(seed)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i + 1:08}_000.png")
    return folder.parent


def test_a_fit_writes_weights_and_measures_them(films, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(lung_fit, "_PHANTOMS", 1)
    monkeypatch.setattr(lung_fit, "BATCH", 4)
    monkeypatch.setattr(gate_eval, "other_images", lambda *_: iter([("x", phantom(3).T, None)] * 2))
    out = tmp_path / "lungs.npz"
    images = gate_eval.ImageFolders(radiographs=films)
    result = lung_fit.refit_lungs(images, settings=Settings.from_env({}), out=out, steps=2)
    assert set(lungs.read_weights(out)) == set(lungs.LAYERS)
    assert result["n"] == {"films": 2, "with clear lungs": 2}
    assert result["rows"]["clear"]["n"] == 1
    assert {"thorax phantoms", "films turned or inverted"} <= set(result["rows"])
    # The weights in use, measured on the same: phantoms are found, and nothing on the others.
    measured = lung_fit.refit_lungs(images, settings=Settings.from_env({}))
    assert (measured["n"], measured["groups"]) == ({}, 1)
    used = measured["rows"]
    assert used["clear"]["found"] == used["thorax phantoms"]["found"] == 1
    assert min(used["clear"][name] for name in ("dice", "shifted", "mirrored")) > 0.85
    assert used["thorax phantoms"]["dice"] > 0.85
    assert used["drawings and spectrograms"]["found"] == 0
    text = lung_fit.table(result)
    assert "| thorax phantoms | 1 |" in text


def test_without_clear_lungs_there_is_nothing_to_fit(tmp_path, capsys) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (80, 80)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    images = gate_eval.ImageFolders(radiographs=tmp_path)
    with pytest.raises(TrainingError, match="has 0 films with clear lungs; at least 2"):
        lung_fit.refit_lungs(images, settings=Settings.from_env({}), out=tmp_path / "lungs.npz")
    assert not (tmp_path / "lungs.npz").exists()
    assert main(["refit", "lungs", "--data", str(tmp_path / "missing")]) == 2
    assert "missing" in capsys.readouterr().err
