"""Masking tests and comparisons of heatmaps, on networks and maps with answers known by hand."""

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.road import NoisyLinearImputer, ROADCombined

from xai_demo.analysis import faithfulness
from xai_demo.analysis.faithfulness import Faithfulness, MaskingTest

TRUTH = np.zeros((10, 10), bool)
TRUTH[2:6, 3:8] = True  # a fifth of the picture
PERFECT = TRUTH.astype(np.float32)


def masking_test(predict, window=None, background: float = 0.0) -> MaskingTest:
    window = np.ones((1, 10, 10), np.float32) if window is None else window
    return MaskingTest(window=window, background=background, predict=predict)


def within_truth(batch: np.ndarray) -> np.ndarray:
    """A network that looks at the finding alone: the mean of what it sees there."""
    return batch[:, 0, TRUTH].mean(axis=1)


def everywhere(batch: np.ndarray) -> np.ndarray:
    return batch.mean(axis=(1, 2, 3))


def test_masking_what_the_network_looks_at_lowers_the_probability():
    calls = []

    def answer(batch):
        calls.append(batch)
        return within_truth(batch)

    result = faithfulness.measure_faithfulness(
        masking_test(answer), PERFECT, probability=1.0, grid=(5, 5)
    )
    assert (result.probability, result.hidden, result.share, result.draws) == (1, 0, 0.2, 4)
    assert 0.5 < result.random < 1
    (batch,) = calls  # one call
    assert batch.shape == (5, 1, 10, 10)
    assert (batch == 0).sum(axis=(1, 2, 3)).tolist() == [20] * 5
    for random in batch[1:, 0]:  # whole cells of two by two
        cells = random.reshape(5, 2, 5, 2).mean(axis=(1, 3))
        assert set(np.unique(cells)) == {0, 1}
    assert len({random.tobytes() for random in batch[1:]}) == 4


def test_where_every_pixel_counts_alike_the_heatmap_is_no_better_than_chance():
    result = faithfulness.measure_faithfulness(masking_test(everywhere), PERFECT, probability=1.0)
    assert result.hidden == pytest.approx(0.8)
    assert result.random == pytest.approx(0.8)


def test_masked_pixels_have_the_background_value():
    masks = [TRUTH, ~TRUTH]
    hidden = masking_test(everywhere, background=-2.5).apply(masks)
    assert set(hidden[0, 0][TRUTH]) == {-2.5}
    assert set(hidden[0, 0][~TRUTH]) == {1}
    assert set(hidden[1, 0][~TRUTH]) == {-2.5}
    assert hidden.dtype == np.float32


def test_measuring_twice_gives_the_same_result():
    values = np.zeros((10, 10), np.float32)  # all equal: the lot decides, and always alike
    first = faithfulness.measure_faithfulness(masking_test(within_truth), values, probability=1.0)
    assert first == faithfulness.measure_faithfulness(
        masking_test(within_truth), values, probability=1.0
    )


@pytest.mark.parametrize("share", [0.0, 0.07, 0.2, 1.0])
def test_the_top_share_is_exact_even_with_ties(share):
    values = np.zeros((10, 10), np.float32)
    values[4, 4] = 1
    mask = faithfulness.top_share_mask(values, share)
    assert mask.sum() == round(100 * share)
    assert mask[4, 4] == (share > 0)
    corner = faithfulness.top_share_mask(np.zeros((100, 100)), 0.2)[:50, :50]
    assert 0.15 < corner.mean() < 0.25  # equals are not taken from the top left


@pytest.mark.parametrize(
    ("probability", "hidden", "random", "sentence"),
    [
        (
            0.83,
            0.21,
            0.79,
            "Masking the most important fifth lowers the probability of wheeze from 0.83 to 0.21; "
            "masking a random fifth lowers it to 0.79.",
        ),
        (
            0.83,
            0.21,
            0.86,
            "Masking the most important fifth lowers the probability of wheeze from 0.83 to 0.21; "
            "masking a random fifth does not lower it (0.86).",
        ),
        (
            0.83,
            0.8301,
            0.5,
            "Masking the most important fifth does not lower the probability of wheeze (0.83 "
            "before, 0.83 after), so this heatmap does not show what the answer is based on.",
        ),
        (
            0.83,
            0.7,
            0.69,
            "Masking the most important fifth lowers the probability of wheeze from 0.83 to 0.70, "
            "but masking a random fifth lowers it at least as much, to 0.69, so this heatmap does "
            "not show what the answer is based on.",
        ),
    ],
)
def test_the_sentence_claims_no_more_than_was_measured(probability, hidden, random, sentence):
    result = Faithfulness(share=0.2, probability=probability, hidden=hidden, random=random, draws=4)
    assert result.sentence("wheeze") == sentence


def test_for_a_recording_the_sentence_names_the_window():
    result = Faithfulness(
        share=0.2, probability=0.83, hidden=0.21, random=0.79, draws=4, stretch_s=(2.0, 4.0004)
    )
    assert result.sentence("wheeze") == (
        "From 2.0 to 4.0 s, where wheeze is most probable: masking the most important fifth lowers "
        "the probability of wheeze from 0.83 to 0.21; masking a random fifth lowers it to 0.79."
    )
    assert result.to_json()["stretch_s"] == [2.0, 4.0]


def test_the_report_has_rounded_fields():
    result = Faithfulness(share=0.3, probability=1 / 3, hidden=0.0, random=2 / 3, draws=4)
    assert result.to_json() == {
        "share": 0.3,
        "probability": 0.333333,
        "hidden": 0.0,
        "random": 0.666667,
        "draws": 4,
        "stretch_s": None,
    }
    assert "Masking the most important 30 % lowers" in result.sentence("crackle")


def test_deletion_is_the_triangle_under_a_perfect_map():
    # from 1 to 0 over the first fifth: half of it
    assert faithfulness.deletion_auc(masking_test(within_truth), PERFECT) == pytest.approx(0.1)
    # and the cold pixels first: 1 for four fifths, then down
    assert faithfulness.deletion_auc(masking_test(within_truth), -PERFECT) == pytest.approx(0.9)
    assert faithfulness.deletion_auc(masking_test(everywhere), PERFECT) == pytest.approx(0.5)


def test_insertion_rises_out_of_a_blur():
    stripes = np.tile(np.array([1, 0], np.float32), (1, 10, 5))

    def sharp(batch):  # blurring leaves no pixel at 0 or 1
        return np.isin(batch[:, 0, TRUTH], (0, 1)).mean(axis=1)

    assert faithfulness.insertion_auc(masking_test(sharp, stripes), PERFECT) == pytest.approx(0.9)
    assert faithfulness.insertion_auc(masking_test(sharp, stripes), -PERFECT) == pytest.approx(0.1)


def test_a_map_fades_the_window_into_the_background():
    test = masking_test(everywhere, background=0.5)
    assert faithfulness.probability_through_heatmap(test, PERFECT) == pytest.approx(0.2 + 0.8 * 0.5)
    assert faithfulness.probability_through_heatmap(test, PERFECT / 2) == pytest.approx(
        0.2 * 0.75 + 0.8 * 0.5
    )


def test_drop_and_increase_are_means_over_inputs():
    whole, through = [0.8, 0.5, 0.4], [0.4, 0.6, 0.4]
    assert faithfulness.average_drop(whole, through) == pytest.approx(0.5 / 3)
    assert faithfulness.average_increase(whole, through) == pytest.approx(1 / 3)
    assert faithfulness.average_drop([0.0], [0.3]) == 0


class _NoNoise(np.random.Generator):
    """A random generator whose noise is nought."""

    def normal(self, mean, deviation, size):
        return np.full(size, float(mean))


def test_road_equals_pytorch_grad_cam(monkeypatch):
    generator = np.random.default_rng(2)
    window = generator.normal(size=(1, 20, 20)).astype(np.float32)
    weights = generator.normal(size=(20, 20)).astype(np.float32)
    values = generator.permutation(400).reshape(20, 20).astype(np.float32) / 400

    def answer(batch):
        return 1 / (1 + np.exp(-(batch[:, 0] * weights).sum(axis=(1, 2)) / 10))

    own = faithfulness.road(masking_test(answer, window), values)
    assert own == faithfulness.road(masking_test(answer, window), values)
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # theirs differs each time
    monkeypatch.setattr(np.random, "default_rng", lambda seed: _NoNoise(np.random.PCG64(seed)))
    expected = ROADCombined(percentiles=[20, 40, 60, 80])(
        torch.from_numpy(window[None]),
        values[None],
        [lambda output: output],
        lambda batch: torch.from_numpy(answer(batch.numpy())),
    )
    assert abs(expected[0]) > 0.01
    result = faithfulness.road(masking_test(answer, window), values)
    assert result == pytest.approx(expected[0], abs=1e-5)
    assert result != own  # which has a noise of a hundredth
    assert result == pytest.approx(own, abs=0.02)


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_imputing_equals_pytorch_grad_cam(share):
    generator = np.random.default_rng(4)
    picture = generator.normal(size=(12, 17)).astype(np.float32)
    gone = faithfulness.top_share_mask(generator.random((12, 17)).astype(np.float32), share)
    expected = NoisyLinearImputer(noise=0)(
        torch.from_numpy(picture[None]), torch.from_numpy((~gone).astype(np.float32))
    )
    result = faithfulness.impute(picture, gone)
    assert result == pytest.approx(expected[0].numpy(), abs=1e-5)
    assert np.array_equal(result[~gone], picture[~gone])
    assert faithfulness.impute(picture, np.zeros_like(gone)) is picture


def test_a_single_imputed_pixel_is_the_weighted_mean_of_its_neighbours():
    picture = np.array([[1, 2, 3], [4, 99, 6], [7, 8, 9]], np.float32)
    gone = picture == 99
    mean = (2 + 4 + 6 + 8) / 6 + (1 + 3 + 7 + 9) / 12
    assert faithfulness.impute(picture, gone)[1, 1] == pytest.approx(mean)


def test_the_top_share_is_what_sorting_puts_first():
    values = np.random.default_rng(5).integers(0, 6, (9, 11)).astype(np.float32)
    lot = np.random.default_rng(0).random(values.size)
    order = np.lexsort((lot, -values.ravel()))
    for share in (0.0, 0.05, 0.3, 0.5, 0.77, 1.0):
        expected = np.zeros(values.size, bool)
        expected[order[: round(share * values.size)]] = True
        assert np.array_equal(faithfulness.top_share_mask(values, share).ravel(), expected)


def test_road_rewards_a_map_that_points_at_what_counts():
    window = np.zeros((1, 10, 10), np.float32)
    window[0, TRUTH] = 1
    assert faithfulness.road(masking_test(within_truth, window), PERFECT) > 0.3
    assert faithfulness.road(masking_test(within_truth, window), -PERFECT) < -0.3


def test_pointing_hits_where_the_maximum_is():
    values = np.zeros((10, 10), np.float32)
    values[2, 3] = 1
    assert faithfulness.pointing_hit(values, TRUTH) == 1
    values[0, 0] = 2
    assert faithfulness.pointing_hit(values, TRUTH) == 0
    values[2, 3] = 2
    assert faithfulness.pointing_hit(values, TRUTH) == 0.5
    flat = np.zeros((10, 10), np.float32)
    assert faithfulness.pointing_hit(flat, TRUTH) == pytest.approx(0.2)
    assert faithfulness.pointing_chance(TRUTH) == pytest.approx(0.2)


def test_the_share_inside_the_truth_is_part_of_the_sum():
    assert faithfulness.share_inside(PERFECT, TRUTH) == 1
    assert faithfulness.share_inside(np.ones((10, 10), np.float32), TRUTH) == pytest.approx(0.2)
    assert faithfulness.share_inside(np.zeros((10, 10), np.float32), TRUTH) == 0


def test_iou_compares_the_high_pixels_with_the_truth():
    assert faithfulness.iou(PERFECT, TRUTH) == 1
    half = PERFECT.copy()
    half[2:4, 3:8] = 0.4  # under the threshold: 10 of 20
    assert faithfulness.iou(half, TRUTH) == pytest.approx(0.5)
    assert faithfulness.iou(half, TRUTH, threshold=0.3) == 1
    assert faithfulness.iou(np.ones((10, 10), np.float32), TRUTH) == pytest.approx(0.2)
    assert faithfulness.iou(np.zeros((10, 10), np.float32), TRUTH) == 0


def test_rank_correlation_depends_on_the_order_only():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert faithfulness.rank_correlation(values, values**3) == pytest.approx(1)
    assert faithfulness.rank_correlation(values, -values) == pytest.approx(-1)
    assert faithfulness.rank_correlation(values, np.ones((3, 4), np.float32)) == 0
    one, other = np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 3.0, 2.0]])
    assert faithfulness.rank_correlation(one, other) == pytest.approx(0.5)  # 1 - 6 * 2 / (3 * 8)


def test_a_map_that_random_weights_reproduce_scores_badly():
    generator = np.random.default_rng(4)
    one, other = generator.random((2, 64, 64)).astype(np.float32)
    same = faithfulness.randomisation_similarity(one, one)
    assert same == pytest.approx({"rank_correlation": 1, "similarity": 1})
    against = faithfulness.randomisation_similarity(one, 1 - one)
    assert against["rank_correlation"] == pytest.approx(1)  # the same map with its colours turned
    assert against["similarity"] < 0
    apart = faithfulness.randomisation_similarity(one, other)
    assert apart["rank_correlation"] < 0.1
    assert abs(apart["similarity"]) < 0.15
