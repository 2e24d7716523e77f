from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tests.support.hostile_files import holiday_photo
from xai_demo.errors import TrainingError
from xai_demo.imaging.gate import (
    WEIGHTS,
    GateVerdict,
    classify_image,
    correct_image,
    features,
    logits,
    most_likely_variant,
    probability,
    screen_radiograph,
    thumbnail,
)
from xai_demo.records import Radiograph
from xai_demo.training.input_checks import fit_gate

EXAMPLES = Path(__file__).resolve().parents[2] / "xai_demo" / "examples"
FILMS = sorted(EXAMPLES.glob("*.png"))
Pixels = NDArray[np.float32]


def film(path: Path) -> Pixels:
    return np.asarray(Image.open(path).convert("L"), np.float32) / 255


def noise() -> Pixels:
    return np.random.default_rng(0).random((200, 240)).astype(np.float32)


def ramp() -> Pixels:
    return np.tile(np.linspace(0, 1, 160, dtype=np.float32), (120, 1))


def waves() -> Pixels:
    y, x = np.mgrid[0:200, 0:200]
    return (0.5 + 0.5 * np.sin(x / 5 + y / 9)).astype(np.float32)


def page() -> Pixels:
    picture = Image.new("L", (600, 800), 255)
    draw = ImageDraw.Draw(picture)
    for line in range(60):
        draw.text((40, 30 + 12 * line), "The patient breathes deeply and slowly. " * 2, fill=0)
    return np.asarray(picture, np.float32) / 255


def stripes_of_a_spectrogram() -> Pixels:
    rows = np.exp(-np.arange(128) / 30)[::-1, None]
    beats = 0.4 + 0.6 * (np.arange(300) % 60 < 20)
    grain = np.random.default_rng(1).random((128, 300))
    return (rows * beats * (0.5 + 0.5 * grain)).astype(np.float32)


def photo() -> Pixels:
    return holiday_photo().mean(axis=2).astype(np.float32) / 255


OTHERS = (noise, ramp, waves, page, stripes_of_a_spectrogram, photo)


@pytest.mark.parametrize("path", FILMS, ids=lambda path: path.stem)
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("inverted", [False, True])
def test_the_example_films_are_recognised_whichever_way_they_stand(
    path: Path, turn: int, inverted: bool
) -> None:
    upright = film(path)
    presented = np.rot90(1 - upright if inverted else upright, -turn // 90)
    gate = classify_image(presented)
    expected = "inverted" if inverted else "rotated" if turn else "frontal"
    assert (gate.kind, gate.turn) == (expected, turn)
    np.testing.assert_allclose(correct_image(presented, gate), upright, atol=1e-6)
    assert bool(gate.sentence) == (expected != "frontal")
    assert classify_image(correct_image(presented, gate)).kind == "frontal"


@pytest.mark.parametrize(
    ("quarters", "says"),
    [(1, "turned to the left"), (2, "upside down"), (3, "turned to the right")],
)
def test_a_turned_film_is_told_how_it_stands(quarters: int, says: str) -> None:
    gate = classify_image(np.rot90(film(FILMS[0]), quarters))
    assert says in gate.sentence
    assert "can be corrected" in gate.sentence


def test_a_film_turned_and_inverted_is_told_both() -> None:
    gate = classify_image(1 - np.rot90(film(FILMS[0]), 2))
    assert re.search("inverted.*upside down.*can be corrected", gate.sentence)


@pytest.mark.parametrize("picture", OTHERS, ids=lambda picture: picture.__name__)
def test_what_is_no_film_is_stopped(picture: object) -> None:
    assert callable(picture)
    gate = classify_image(picture())
    assert gate.kind == "not a radiograph"
    assert gate.sentence.startswith("This does not look like a frontal chest X-ray.")
    assert gate.probability < 0.6


def test_what_is_in_colour_is_no_film() -> None:
    gate = classify_image(film(FILMS[0]), colour=True)
    assert gate.kind == "not a radiograph"
    assert "it is in colour" in gate.sentence
    assert classify_image(film(FILMS[0]), colour=False).kind == "frontal"


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 2), (64, 64)])
@pytest.mark.parametrize("grey", [0.0, 0.5, 1.0])
def test_a_picture_of_one_grey_is_no_film(shape: tuple[int, int], grey: float) -> None:
    gate = classify_image(np.full(shape, grey, np.float32))
    assert (gate.kind, gate.turn, gate.probability) == ("not a radiograph", 0, 0.0)
    assert "the same grey everywhere" in gate.sentence


@pytest.mark.parametrize("shape", [(2, 2), (1, 9), (32, 320), (5, 1000)])
def test_an_odd_shape_is_looked_at(shape: tuple[int, int]) -> None:
    gate = classify_image(np.random.default_rng(0).random(shape).astype(np.float32))
    assert 0 <= gate.probability <= 1


def test_brightness_size_and_shape_of_a_film_do_not_matter() -> None:
    upright = film(FILMS[0])
    large = np.repeat(np.repeat(upright, 5, axis=0), 4, axis=1)
    for picture in (0.2 + 0.1 * upright, large):
        assert classify_image(picture.astype(np.float32)).kind == "frontal"


def test_correcting_what_is_right_or_no_film_changes_nothing() -> None:
    upright = film(FILMS[0])
    for picture in (upright, noise()):
        np.testing.assert_array_equal(correct_image(picture, classify_image(picture)), picture)


def test_a_quarter_to_the_left_brings_the_right_side_to_the_top() -> None:
    gate = GateVerdict(kind="rotated", probability=1.0, turn=90, sentence="")
    np.testing.assert_array_equal(
        correct_image(np.array([[1, 2], [3, 4]], np.float32), gate), [[2, 4], [1, 3]]
    )


def test_log_odds_of_zero_are_one_half_and_usual_films_need_less() -> None:
    assert probability(0.0) == 0.5
    wrong = np.full(8, -9.0)
    assert most_likely_variant(wrong) is None
    assert most_likely_variant(np.array([-1.0, *wrong[1:]])) == 0  # 27 %
    assert most_likely_variant(np.array([-9.0, -9, -1, -9, -9, -9, -9, -9])) is None
    assert most_likely_variant(np.array([-9.0, -9, 1, -9, -9, -9, -9, -9])) == 2  # 73 %
    assert most_likely_variant(np.array([0.0, 1, -9, -9, -9, -9, -9, -9])) == 0
    assert most_likely_variant(np.array([0.0, 2, -9, -9, -9, -9, -9, -9])) == 1


def test_the_statistics_of_a_turned_picture_are_those_of_the_way_it_was_turned() -> None:
    small = thumbnail(film(FILMS[0]))
    values = features(small)
    assert values.shape == (8, len(WEIGHTS))
    turned = features(np.ascontiguousarray(np.rot90(small)))
    blocks = slice(0, 64)  # the mean of each of 8 x 8 parts
    np.testing.assert_allclose(turned[0, blocks], values[1, blocks], atol=1e-6)
    inverse = features(1 - small)
    np.testing.assert_allclose(inverse[0, blocks], values[4, blocks], atol=1e-5)
    np.testing.assert_allclose(values[0, blocks].mean(), 0, atol=1e-6)


def test_a_symmetric_picture_is_like_its_mirror_image() -> None:
    small = np.zeros((128, 128), np.float32)
    small[:, 32:96] = 1
    left_and_right, up_and_down = features(small)[0, 129:131]  # after 64 blocks and 65 edges
    assert left_and_right == pytest.approx(1.0, abs=1e-4)
    assert up_and_down == pytest.approx(1.0, abs=1e-4)
    small[:64] = 1 - small[:64]
    assert features(small)[0, 130] == pytest.approx(-1.0, abs=1e-4)


def test_what_is_fitted_tells_its_own_pictures_apart() -> None:
    dice = np.random.default_rng(0)
    pictures = [film(path) for path in FILMS] * 4 + [make() for make in OTHERS] * 2
    grains = [dice.normal(scale=0.02, size=picture.shape) for picture in pictures]
    values = np.stack(
        [
            features(thumbnail((p + g).astype(np.float32)))
            for p, g in zip(pictures, grains, strict=True)
        ]
    )
    kinds = ["film"] * 4 * len(FILMS) + ["other"] * 2 * len(OTHERS)
    fitted = fit_gate(values, kinds, radiograph_kinds={"film"})
    odds = fitted.intercept + values @ np.array(fitted.weights)
    ways = [most_likely_variant(row) for row in odds]
    assert [way == 0 for way in ways] == [kind == "film" for kind in kinds]
    assert logits(values).shape == odds.shape


@pytest.mark.parametrize("kinds", [["nih", "nih"], ["photo", "page"]])
def test_a_fit_needs_films_and_others(kinds: list[str]) -> None:
    with pytest.raises(TrainingError, match="a fit needs some of nih, and some of any other"):
        fit_gate(np.zeros((2, 8, 3)), kinds, radiograph_kinds={"nih"})


def as_read(pixels: Pixels, **facts: object) -> Radiograph:
    height, width = pixels.shape
    return Radiograph(pixels=pixels, facts={"width": width, "height": height, **facts})


def test_a_film_as_it_should_be_goes_on_untouched() -> None:
    source = as_read(film(FILMS[0]))
    for way in ("checked", "corrected", "as-is"):
        passed = screen_radiograph(source, way)  # type: ignore[arg-type]
        assert passed.pixels is source.pixels
        assert (passed.warnings, passed.doubt) == ((), "")
        assert passed.facts["gate"]["kind"] == "frontal"
        assert passed.facts["gate"]["corrected"] is False


def test_an_inverted_film_is_doubted_corrected_or_taken_as_it_is() -> None:
    source = as_read(1 - film(FILMS[0]))
    checked = screen_radiograph(source)
    assert "seems to be inverted" in checked.doubt
    assert checked.warnings == (checked.doubt,)
    assert checked.pixels is source.pixels
    right = screen_radiograph(source, "corrected")
    assert right.doubt == ""
    assert right.warnings == ("The radiograph was corrected before the analysis: inverted.",)
    assert np.allclose(right.pixels, film(FILMS[0]))
    assert right.facts["gate"]["corrected"] is True
    left = screen_radiograph(source, "as-is")
    assert left.doubt == ""
    assert "seems to be inverted" in left.warnings[0]


def test_a_film_that_lies_on_its_side_is_as_wide_as_it_was_high_once_corrected() -> None:
    upright = np.ascontiguousarray(film(FILMS[0])[::2])  # wider than high
    source = as_read(np.ascontiguousarray(np.rot90(upright)))
    right = screen_radiograph(source, "corrected")
    assert right.warnings == (
        "The radiograph was corrected before the analysis: turned right by 90 degrees.",
    )
    assert np.array_equal(right.pixels, upright)
    assert (right.facts["height"], right.facts["width"]) == upright.shape


def test_what_is_no_film_is_doubted_even_where_it_was_to_be_corrected() -> None:
    for way in ("checked", "corrected"):
        passed = screen_radiograph(as_read(noise()), way)  # type: ignore[arg-type]
        assert passed.doubt.startswith("This does not look like a frontal chest X-ray.")
    assert screen_radiograph(as_read(noise()), "as-is").doubt == ""
    colour = screen_radiograph(as_read(film(FILMS[0]), colour=True))
    assert "it is in colour" in colour.doubt


def test_what_the_reader_warned_of_is_not_lost_and_an_even_grey_is_not_warned_of_twice() -> None:
    lateral = Radiograph(pixels=noise(), facts={}, warnings=("This is a lateral radiograph.",))
    assert screen_radiograph(lateral).warnings[1:] == ("This is a lateral radiograph.",)
    even = screen_radiograph(as_read(np.full((80, 80), 0.5, np.float32)))
    assert even.warnings == ()
