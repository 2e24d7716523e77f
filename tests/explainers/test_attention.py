"""Attention rollout: known by hand, and as the weights of transformers' own eager attention say."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.support import small_transformer
from tests.support.explainer_subjects import subject_of, tiny_network
from xai_demo.errors import UnsuitableError
from xai_demo.explainers import EXPLAINERS, Budget
from xai_demo.explainers.gradients import attention_flow, rollout
from xai_demo.explainers.torch_hooks import AttentionRecorder


def test_what_attends_to_nothing_else_keeps_everything():
    assert attention_flow([torch.eye(4)] * 3, patches=3).tolist() == [0, 0, 0]


def test_half_of_a_token_goes_through_and_half_is_what_it_attends_to():
    """One leading token, two patches; by hand."""
    first = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]])  # the patches look at each other
    last = torch.tensor([[0.0, 1, 0], [0, 1, 0], [0, 0, 1]])  # the leading token at the first patch
    # behind the last block the leading token holds half of itself and half of patch 0, which
    # itself holds half of patch 1
    assert attention_flow([first, last], patches=2).tolist() == [0.25, 0.25]
    assert attention_flow([first, last[:1]], patches=2).tolist() == [0.25, 0.25]  # only it may ask


def test_two_leading_tokens_count_alike():
    attention = torch.eye(4)
    attention[0] = torch.tensor([0, 0, 1.0, 0])
    attention[1] = torch.tensor([0, 0, 0, 1.0])
    assert attention_flow([attention], patches=2).tolist() == [0.25, 0.25]


def test_attention_is_seen_as_it_is_worked_out():
    query, key, value = torch.randn(3, 2, 4, 6, 8).unbind()
    with AttentionRecorder() as attended:
        mixed = functional.scaled_dot_product_attention(query, key, value, scale=0.3)
    (weights,) = attended.weights
    assert weights.shape == (2, 6, 6)
    assert torch.allclose(weights.sum(dim=2), torch.ones(2, 6))
    by_head = (query @ key.transpose(2, 3) * 0.3).softmax(dim=3)
    assert torch.allclose(weights, by_head.mean(dim=1))
    assert torch.allclose(mixed, by_head @ value, atol=1e-6)


def test_only_the_thread_that_looks_sees_it():
    def elsewhere():
        functional.scaled_dot_product_attention(*torch.randn(3, 1, 1, 2, 2).unbind())

    with AttentionRecorder() as attended:
        other = threading.Thread(target=elsewhere)
        other.start()
        other.join()
    assert attended.weights == []


def test_rollout_is_that_of_the_librarys_attentions():
    whole, cut, inputs = small_transformer.build_network()
    raw = rollout(subject_of(whole, cut, inputs), [0, 2], Budget())
    body = whole.audio_spectrogram_transformer
    body.set_attn_implementation("eager")
    with torch.inference_mode():
        attentions = body(inputs[:, 0].transpose(1, 2), output_attentions=True).attentions
    assert len(attentions) == 3
    assert raw.shape == (2, 2, *small_transformer.GRID)
    for i in range(2):
        matrix = torch.eye(22)
        for attention in attentions:  # Abnar & Zuidema 2020, equation 1, forwards
            matrix = (attention[i].mean(dim=0) + torch.eye(22)) / 2 @ matrix
        expected = (matrix[0, 2:] + matrix[1, 2:]) / 2
        assert raw[i, 0].ravel() == pytest.approx(expected.numpy(), abs=1e-6)
        assert np.ptp(raw[i, 0]) > 0
        assert np.array_equal(raw[i, 0], raw[i, 1])  # it knows no labels


def test_rollout_leaves_the_network_as_it_was():
    whole, cut, inputs = small_transformer.build_network()
    subject = subject_of(whole, cut, inputs)
    before = subject.forward(subject.inputs)
    EXPLAINERS["Attention rollout"].explain(subject, [0])
    assert np.array_equal(subject.forward(subject.inputs), before)
    assert whole.audio_spectrogram_transformer.config._attn_implementation == "sdpa"


def test_a_network_without_attention_is_refused():
    with pytest.raises(UnsuitableError, match="needs a transformer; this network has no attention"):
        rollout(subject_of(*tiny_network()), [0], Budget())


def test_the_network_may_be_the_cut_one():
    """As the engine hands it out: features, then a head in which the leading tokens alone ask."""
    whole, cut, inputs = small_transformer.build_network()
    subject = subject_of(whole, cut, inputs)
    parts = torch.nn.Sequential(cut.features, cut.head)
    of_parts = rollout(dataclasses.replace(subject, network=parts), [0], Budget())
    assert of_parts == pytest.approx(rollout(subject, [0], Budget()), abs=1e-6)
