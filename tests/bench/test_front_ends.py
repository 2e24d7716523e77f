"""Our front ends beside the original ones: the same numbers, and their table."""

import numpy as np
import pytest

from xai_demo.audio import spectrogram
from xai_demo.bench import front_ends
from xai_demo.catalog.hub_models import AST, CNN14
from xai_demo.errors import RequestError

SPEC = CNN14.preprocessing
SOUNDS = {
    "chirp, chord and noise": front_ends.sound(32000),
    "noise": np.random.default_rng(1).normal(0, 0.1, 64000).astype(np.float32),
    "loud noise": np.random.default_rng(2).uniform(-1, 1, 64000).astype(np.float32),
    "quiet noise": np.random.default_rng(3).normal(0, 1e-4, 64000).astype(np.float32),
    "clicks": np.eye(1, 3200, 100, dtype=np.float32).repeat(20, axis=0).ravel(),
}


@pytest.mark.parametrize("name", SOUNDS)
def test_cnn14s_front_end_is_torchlibrosas_wherever_there_is_energy(name):
    samples = SOUNDS[name]
    _, theirs = front_ends._torchlibrosa(SPEC, samples)
    ours, original = spectrogram.log_mel(samples, SPEC), theirs()
    assert ours.shape == original.shape == (64, len(samples) // 320 + 1)
    assert front_ends.difference_db(ours, original) <= 1e-4


def test_silence_is_torchlibrosas_too():
    _, theirs = front_ends._torchlibrosa(SPEC, np.zeros(32000, np.float32))
    ours = spectrogram.log_mel(np.zeros(32000, np.float32), SPEC)
    assert np.abs(ours - theirs()).max() <= 1e-4


def test_a_run_measures_both_front_ends():
    progress = []
    result = front_ends.run(rounds=1, progress=lambda done, doing: progress.append(doing))
    assert progress == list(result["front_ends"]) == [CNN14.name, AST.name]
    for row in result["front_ends"].values():
        assert row["faster"] == pytest.approx(row["original_ms"] / row["here_ms"])
        assert row["difference_db"] <= 1e-3


def test_the_table_shows_each_beside_its_original():
    row = {
        "original": "torchlibrosa",
        "original_ms": 61.26,
        "here_ms": 6.0,
        "faster": 10.21,
        "difference_db": 3.1e-5,
    }
    result = {"seconds": 10, "rounds": 15, "front_ends": {"cnn14": row}}
    lines = front_ends.table(result).splitlines()
    assert lines[2] == "| cnn14 (torchlibrosa) | 61.3 | 6.0 | 10.2x | 3.1e-05 |"
    assert {line.count("|") for line in lines[:3]} == {6}
    assert lines[4].startswith("10 s of sound, median of 15 interleaved rounds")


def test_a_difference_counts_only_where_there_is_energy():
    original = np.array([[0.0, -90.0], [-39.0, -60.0], [-41.0, -101.0]], np.float32)
    ours = original + np.array([[0, 0], [0.5, 0.25], [7, 7]], np.float32)
    assert front_ends.difference_db(ours, original) == pytest.approx(0.5)


def test_without_torchlibrosa_the_development_packages_are_named(monkeypatch):
    monkeypatch.setattr(front_ends, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match="torchlibrosa is not installed; it is one of the dev"):
        front_ends.run()
