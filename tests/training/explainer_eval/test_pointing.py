"""Heat against truths made by hand: what it scores is known before it is asked."""

from __future__ import annotations

import numpy as np
import pytest

from xai_demo.training.explainer_eval import pointing
from xai_demo.training.explainer_eval.pointing import (
    IOU_LEVELS,
    Boxes,
    Canvas,
    Tally,
    TimeFrequencyEvents,
    TimeSpans,
)

# Ten columns of a second each, four rows at 100, 200, 300 and 400 Hz; cells of one by one.
HZ = (100.0, 200.0, 300.0, 400.0)


def canvas(brightest: tuple[int, int] = (0, 0), cell=(1.0, 1.0), shape=(4, 10)) -> Canvas:
    brightness = np.zeros(shape, np.float32)
    brightness[brightest] = 1
    return Canvas(shape=shape, cell=cell, brightness=brightness, column_s=1.0, row_hz=HZ)


def spot(row: int, column: int, shape=(4, 10)) -> np.ndarray:
    heat = np.zeros(shape, np.float32)
    heat[row, column] = 1
    return heat


def test_heat_in_an_annotated_event_is_a_hit_and_elsewhere_is_not():
    truth = TimeSpans(spans=((2.0, 4.0), (7.0, 8.0)))  # columns 2, 3 and 7
    hit = truth.figures(spot(1, 7), canvas(brightest=(0, 3)))
    assert (hit["pointing"], hit["pointing_chance"], hit["pointing_energy"]) == (1, 0.3, 1)
    assert hit["heat_inside"] == 1
    assert hit["pointing_above_chance"] == pytest.approx(0.7)
    assert hit["pointing_above_energy"] == 0
    assert hit["iou"] == pytest.approx(1 / 3)
    miss = truth.figures(spot(1, 5), canvas())
    assert (miss["pointing"], miss["pointing_energy"], miss["heat_inside"]) == (0, 0, 0)
    assert miss["pointing_above_chance"] == pytest.approx(-0.3)


def test_a_peak_where_nobody_judged_is_told_from_one_in_another_event():
    truth = TimeSpans(spans=((2.0, 4.0),), labelled=((2.0, 4.0), (6.0, 7.0)))
    found = {column: truth.figures(spot(1, column), canvas()) for column in (3, 6, 8)}
    assert [found[c]["pointing"] for c in (3, 6, 8)] == [1, 0, 0]
    assert [found[c]["pointing_judged"] for c in (3, 6, 8)] == [1, 1, 0]
    alone = TimeSpans(spans=((2.0, 4.0),)).figures(spot(1, 3), canvas())
    assert alone["pointing_judged"] == 1


def test_heat_equal_to_the_events_is_perfect():
    heat = np.zeros((4, 10), np.float32)
    heat[2, 2:4] = 1
    found = TimeSpans(spans=((2.0, 4.0),)).figures(heat, canvas())
    assert (found["pointing"], found["heat_inside"], found["iou"]) == (1, 1, 1)


def test_even_heat_scores_what_chance_does():
    found = TimeSpans(spans=((2.0, 4.0),)).figures(np.zeros((4, 10), np.float32), canvas())
    assert found["pointing"] == pytest.approx(found["pointing_chance"]) == pytest.approx(0.2)


def test_time_and_band_are_judged_apart_each_with_its_tolerance():
    truth = TimeFrequencyEvents(events=((4.0, 5.0, 300.0, 300.0),))
    at = {
        (row, column): truth.figures(spot(row, column), canvas())
        for row in range(4)
        for column in range(10)
    }
    assert {c for (_, c), f in at.items() if f["time_hit"]} == {3, 4, 5}  # one cell either side
    assert {r for (r, _), f in at.items() if f["band_hit"]} == {2}  # half a cell: no neighbour
    assert {k for k, f in at.items() if f["both_hit"]} == {(2, 3), (2, 4), (2, 5)}
    first = at[0, 0]
    assert first["chance_time"] == pytest.approx(0.3)  # chance has the tolerance too
    assert first["chance_band"] == pytest.approx(0.25)


def test_a_coarser_network_has_a_larger_tolerance_and_so_has_chance():
    truth = TimeFrequencyEvents(events=((4.0, 5.0, 300.0, 300.0),))
    coarse = truth.figures(spot(1, 2), canvas(cell=(2.0, 2.0)))
    assert (coarse["time_hit"], coarse["band_hit"]) == (1, 1)
    assert (coarse["chance_time"], coarse["chance_band"]) == pytest.approx((0.5, 0.75))


def test_the_brightest_cell_is_the_rule_to_beat():
    truth = TimeFrequencyEvents(events=((4.0, 5.0, 300.0, 300.0),))
    found = truth.figures(spot(2, 4), canvas(brightest=(0, 4)))
    assert (found["energy_time"], found["energy_band"]) == (1, 0)
    assert (found["time_above_energy"], found["band_above_energy"]) == (0, 1)


def box(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros((10, 10), bool)
    mask[top:bottom, left:right] = True
    return mask


def test_heat_equal_to_the_box_has_pointing_one_and_overlap_one():
    mask = box(2, 6, 3, 8)
    found = Boxes(masks=(mask,)).figures(mask.astype(np.float32), canvas(shape=(10, 10)))
    assert (found["pointing"], found["iou"], found["heat_inside"]) == (1, 1, 1)
    assert [found[f"iou_{level:g}"] for level in IOU_LEVELS] == [1, 1, 1, 1]
    assert found["pointing_chance"] == pytest.approx(0.2)
    assert (found["pointing_centre"], found["pointing_above_centre"]) == (1, 0)


def test_half_of_a_box_overlaps_by_a_half_and_beside_it_not_at_all():
    truth = Boxes(masks=(box(0, 4, 0, 4),))
    half = truth.figures(box(0, 2, 0, 4).astype(np.float32), canvas(shape=(10, 10)))
    assert (half["iou"], half["iou_0.25"], half["iou_0.5"], half["iou_0.75"]) == (0.5, 1, 1, 0)
    beside = truth.figures(box(6, 8, 6, 8).astype(np.float32), canvas(shape=(10, 10)))
    assert (beside["pointing"], beside["iou"], beside["iou_0.1"]) == (0, 0, 0)
    assert beside["pointing_centre"] == 0


def test_of_two_boxes_either_may_be_pointed_at():
    truth = Boxes(masks=(box(0, 2, 0, 2), box(6, 9, 6, 9)))
    found = truth.figures(box(6, 9, 6, 9).astype(np.float32), canvas(shape=(10, 10)))
    assert (found["pointing"], found["iou"]) == (1, 1)
    assert found["pointing_chance"] == pytest.approx(0.13)


def test_the_hot_box_is_that_of_the_region_with_the_peak():
    heat = np.zeros((10, 10), np.float32)
    heat[1:3, 1:3] = 0.8  # hot as well, but another region
    heat[5, 5:8] = 0.6
    heat[6, 6] = 1
    heat[7, 6] = 0.4  # under half of the maximum
    assert np.array_equal(pointing.hot_box(heat), box(5, 7, 5, 8))
    assert not pointing.hot_box(np.zeros((10, 10), np.float32)).any()


def test_brightness_is_averaged_over_cells():
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    found = pointing.cell_means(values, (2, 3))
    assert found.shape == (4, 6)
    assert found[0, 0] == found[1, 1] == pytest.approx((0 + 1 + 6 + 7) / 4)
    assert found[3, 5] == pytest.approx((16 + 17 + 22 + 23) / 4)
    assert np.array_equal(pointing.cell_means(values, (40, 60)), values)


def test_a_tally_gives_means_with_intervals_over_persons():
    tally = Tally()
    for person, value in (("a", 1.0), ("a", 1.0), ("b", 0.0), ("c", 0.0)):
        tally.add(person, {"pointing": value, "other": 0.25})
    found = tally.to_json()
    assert found["pointing"]["value"] == 0.5
    assert found["pointing"]["low"] == 0  # a draw without the person with the hits
    assert found["pointing"]["high"] == 1
    assert found["other"] == {"value": 0.25, "low": 0.25, "high": 0.25}
    assert Tally().to_json() == {}
