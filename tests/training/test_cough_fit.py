"""The fit of the cough check: on statistics made here, and its command on a few sounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from xai_demo.audio.cough import FEATURES
from xai_demo.errors import TrainingError
from xai_demo.training import cough_fit, refit


def test_a_fit_finds_what_tells_coughs_from_breaths() -> None:
    rng = np.random.default_rng(0)
    kinds = np.array(["sprsound"] * 50 + ["synthesised breathing"] * 50 + ["coughs"] * 40)
    statistics = rng.standard_normal((140, len(FEATURES)))
    statistics[100:, 4] += 4
    fit = cough_fit.fit_cough(statistics, kinds)
    assert np.argmax(np.abs(fit.weights)) == 4
    odds = fit.log_odds(statistics)
    assert (odds[100:] > 0).mean() > 0.9
    assert (odds[:100] < 0).mean() > 0.9


def test_a_fit_needs_both_kinds() -> None:
    with pytest.raises(TrainingError, match="needs breaths and coughs"):
        cough_fit.fit_cough(np.zeros((4, len(FEATURES))), np.array(["sprsound"] * 4))


def test_the_check_is_refitted_and_measured_by_patient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cough_fit, "_SYNTHESISED", 30)
    rng = np.random.default_rng(0)
    for patient in range(12):
        folder = tmp_path / "lung" / "normal"
        folder.mkdir(parents=True, exist_ok=True)
        breaths = [cough_fit.synthetic_breath(rng) for _ in range(4)]
        soundfile.write(folder / f"{patient}_a.wav", np.concatenate(breaths), 4000)
    (tmp_path / "coughs").mkdir()
    for number in range(6):
        sound = cough_fit.synthetic_cough(rng)
        soundfile.write(tmp_path / "coughs" / f"1-{number}-A.ogg", sound, 4000)
    result = cough_fit.refit_cough(tmp_path / "lung", coughs=tmp_path / "coughs")
    assert result["check"] == "cough"
    assert result["n"]["recorded bursts"] == 18
    assert result["refitted"]["synthesised coughs detected"]["rate"]["value"] > 0.8
    text = refit.table(result)
    assert "INTERCEPT = " in text
    assert "Fitted without recorded bursts: recorded bursts detected" in text
