"""The classifier that goes with the network: asked, put in place, and told where events are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support import lung_datasets
from tests.support.lung_datasets import TinyLung
from xai_demo.training import lung
from xai_demo.training.datasets.breathing import CRACKLE, WHEEZE
from xai_demo.training.lung import classifier_head


def test_the_network_answers_with_what_is_put_into_it():
    network = TinyLung(4).eval()
    weight = np.random.default_rng(0).normal(size=(4, 12)).astype(np.float32)
    classifier_head.set_classifier(network, weight, np.arange(4, dtype=np.float32))
    windows = [np.random.default_rng(i).normal(size=(64, 50)).astype(np.float32) for i in range(70)]
    found = classifier_head.pooled_features(network, iter(windows))  # more than one batch
    assert found.shape == (70, 12)
    with torch.inference_mode():
        logits = network(torch.from_numpy(np.stack(windows))[:, None])
    np.testing.assert_allclose(logits, found @ weight.T + np.arange(4), atol=0.1)


@pytest.fixture
def dataset(tmp_path):
    """A child with a crackle from 1.0 to 1.5 s, one with a wheeze; both are trained on."""
    events = {1: [(1000, 1500, "Fine Crackle")], 2: [(2500, 3500, "Wheeze")]}
    for number, found in events.items():
        lung_datasets.write_child(
            tmp_path, lung_datasets.TRAINED, found, number=number, record="DAS"
        )
    return lung.read_lung_dataset(tmp_path, lung_datasets.TINY_MODEL)[0]


def test_some_are_drawn_once_for_all_and_keep_their_order():
    some = classifier_head.sample_indices(240, 50)
    assert np.array_equal(some, classifier_head.sample_indices(240, 50))
    assert len(set(some.tolist())) == 50
    assert (np.diff(some) > 0).all()
    assert (
        classifier_head.sample_indices(240, 240).tolist()
        == classifier_head.sample_indices(240, None).tolist()
    )
    assert classifier_head.sample_indices(3, 50).tolist() == [0, 1, 2]


def test_of_sources_that_are_cut_short_the_features_are_those_of_the_whole(tmp_path):
    events = [(300 * i, 300 * i + 250, "Normal" if i % 2 else "Wheeze") for i in range(10)]
    lung_datasets.write_child(tmp_path / "spr", lung_datasets.TRAINED, events, record="CAS")
    for patient in (1, 2):
        lung_datasets.write_adult(tmp_path / "fraiwan", patient, "N")
    dataset, _ = lung.read_lung_dataset(tmp_path, lung_datasets.TINY_MODEL)
    network = TinyLung(4).eval()
    whole = classifier_head.training_sources(network, dataset)
    some = classifier_head.training_sources(network, dataset, most=6, recordings=False)
    assert {name: len(learnt.kinds) for name, learnt in some.items()} == {
        "events": 6,
        "varied": 6,
        "windows": min(6, len(whole["windows"].kinds)),
    }
    assert "recordings" in whole
    for name, learnt in some.items():
        at = classifier_head.sample_indices(len(whole[name].kinds), 6)
        assert learnt.kinds.tolist() == whole[name].kinds[at].tolist()
        np.testing.assert_allclose(learnt.features, whole[name].features[at], atol=1e-2)
    assert some["varied"].labels is not None
    at = classifier_head.sample_indices(len(whole["varied"].kinds), 6)
    assert some["varied"].labels.tolist() == whole["varied"].labels[at].tolist()


def test_windows_with_one_kind_of_event_are_located(dataset):
    where = classifier_head.localised_windows(TinyLung(4).eval(), dataset)
    assert where is not None
    windows, columns = where.inside.shape
    assert where.contributions.shape == (windows, columns, 12)
    assert set(where.kinds.tolist()) == {CRACKLE, WHEEZE}
    # From 0, 1, 2 and 2.01 s on for 2 s: the crackle is in two of these, the wheeze in three.
    assert windows == 5
    halves = [row.reshape(2, -1).any(1).tolist() for row in where.inside[:, : columns // 2 * 2]]
    assert halves[:2] == [[False, True], [True, False]]
    assert halves[2:] == [[False, True], [True, True], [True, True]]


def test_what_the_columns_add_is_what_the_classifier_sees(dataset):
    network = TinyLung(4).eval()
    where = classifier_head.localised_windows(network, dataset)
    assert where is not None
    first = classifier_head.whole_window(dataset, 0, classifier_head.window_starts(dataset, 0)[0])
    seen = classifier_head.pooled_features(network, iter([first]))
    np.testing.assert_allclose(where.contributions[0].sum(0), seen[0], rtol=2e-2, atol=1e-3)


def test_children_without_an_event_tell_nothing_of_where(tmp_path):
    lung_datasets.write_child(tmp_path, lung_datasets.TRAINED, [(0, 2000, "Normal")])
    dataset, _ = lung.read_lung_dataset(tmp_path, lung_datasets.TINY_MODEL)
    assert classifier_head.localised_windows(TinyLung(4).eval(), dataset) is None


def test_of_whole_recordings_every_moment_is_told_with_what_sounds_in_it(tmp_path):
    events = [(500, 1500, "Fine Crackle"), (1000, 2000, "Wheeze"), (3000, 3500, "Normal")]
    lung_datasets.write_child(tmp_path, lung_datasets.TRAINED, [(0, 900, "Normal")])
    lung_datasets.write_child(tmp_path, lung_datasets.VALIDATED, events, record="CAS & DAS")
    dataset, _ = lung.read_lung_dataset(tmp_path, lung_datasets.TINY_MODEL)
    network = TinyLung(4).eval()
    found = classifier_head.predict_recordings(network, lung_datasets.TINY_MODEL, dataset=dataset)
    assert found.targets.tolist() == [3]
    assert found.probabilities.shape == (1, 4)
    assert found.moments.shape == found.sounding_s.shape
    assert found.moments.sum(axis=1) == pytest.approx(1, abs=1e-4)
    # Crackles for half a second, both for the next, wheezes for a third.
    assert found.sounding_s.sum(axis=0)[1:] == pytest.approx([0.5, 0.5, 0.5], abs=0.03)
    assert found.sounding_s.sum() == pytest.approx(4.0, abs=0.03)
