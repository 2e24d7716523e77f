"""Random changes to films with known lungs, for fitting the network of `imaging.lungs`.

A film is a thumbnail, (128, 128), 0 to 1; its lungs are (128, 128, 2), those on the left of the
image first. Opacities, haze and effusions are drawn into clear lungs, whose outline stays what it
was: so the network learns to continue it where a lung cannot be seen. Distances are in pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xai_demo.records import Floats

    Rng = np.random.Generator

SIDE = 128
_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
_MIDDLE = SIDE / 2 - 0.5
_TEXTS = ("R", "L", "A", "D", "AP", "PORTABLE", "SUPINE", "48 hours", "10:32")


def vary(film: Floats, lungs: Floats, rng: Rng) -> tuple[Floats, Floats]:
    """Another film that might be of another patient, and where the lungs are on it."""
    if rng.random() < 0.3:
        film, lungs = film[:, ::-1].copy(), lungs[:, ::-1, ::-1].copy()
    if rng.random() < 0.55:
        film = _add_opacities(film, lungs, rng)
    film, lungs = _warp(film, lungs, rng)
    film = _change_exposure(_add_objects(film, rng), rng)
    return _add_frame(film, lungs, rng) if rng.random() < 0.15 else (film, lungs)


def without_lungs(films: Sequence[Floats], others: Sequence[Floats], rng: Rng) -> Floats:
    """An image on which no upright lungs are: a film turned, inverted or cut, or another image."""
    film = films[int(rng.integers(len(films)))]
    kind = rng.random()
    if kind < 0.3:
        film = np.rot90(film, int(rng.choice([1, 2, 3]))).copy()
    elif kind < 0.5:
        film = 1 - film
    elif kind < 0.65 or not others:
        film = _corner(film, rng)
    else:
        film = others[int(rng.integers(len(others)))]
    film, _ = _warp(film, np.zeros((SIDE, SIDE, 2), np.float32), rng)
    return _change_exposure(_add_objects(film, rng), rng)


def _corner(film: Floats, rng: Rng) -> Floats:
    """A corner of a film, or the middle of its upper or lower edge, enlarged."""
    width = int(rng.integers(24, 44))
    middle, end = (SIDE - width) // 2, SIDE - width
    places = ((0, 0), (0, end), (end, 0), (end, end), (0, middle), (end, middle))
    top, left = places[rng.integers(len(places))]
    return _floats(cv2.resize(film[top : top + width, left : left + width], (SIDE, SIDE)))


def _add_opacities(film: Floats, lungs: Floats, rng: Rng) -> Floats:
    """Draw clouds, haze, or fluid from below, as bright as the tissue outside of the lungs."""
    both = lungs.max(axis=2)
    if not (both > 0.5).any():
        return film
    kind = rng.random()
    if kind < 0.4:
        opacity = _clouds(both, rng)
    elif kind < 0.62:
        haze = cv2.GaussianBlur(lungs @ rng.uniform(0, 0.95, 2).astype(np.float32), (0, 0), 2)
        opacity = _floats(haze * np.clip(1 + _noise(6, 0.2, rng), 0, 1))
    else:
        opacity = _effusion(lungs, rng)
    tissue = float(np.quantile(film[both < 0.3], 0.8)) * rng.uniform(0.85, 1.1)
    return _floats(film + opacity * (tissue - film))


def _clouds(both: Floats, rng: Rng) -> Floats:
    rows, columns = np.nonzero(both > 0.5)
    opacity = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(rng.integers(1, 7)):
        i = rng.integers(len(rows))
        wide, high = rng.uniform(4, 22, 2)
        distance = np.hypot((_X - columns[i]) / wide, (_Y - rows[i]) / high)
        cloud = np.clip(1.6 - 1.2 * distance + _noise(10, 0.25, rng), 0, 1)
        opacity = _floats(np.maximum(opacity, rng.uniform(0.3, 1) * cloud))
    return _floats(opacity * cv2.GaussianBlur(both, (0, 0), 2))


def _effusion(lungs: Floats, rng: Rng) -> Floats:
    """Fluid up to some level, or all over, in one lung or both; its edge with the chest goes."""
    opacity = np.zeros((SIDE, SIDE), np.float32)
    for side in ((0,), (1,), (0, 1))[rng.integers(3)]:
        rows = np.nonzero(lungs[..., side] > 0.5)[0]
        if not len(rows):
            continue
        level = rows.max() - rng.uniform(0.05, 1.15) * np.ptp(rows)
        slope, softness = rng.normal(0, 0.12), rng.uniform(1, 10)
        depth = np.clip((_Y - level + slope * (_X - SIDE / 2)) / softness, -30, 30)
        spread = cv2.dilate(lungs[..., side], np.ones((7, 7), np.uint8))
        fluid = cv2.GaussianBlur(spread, (0, 0), 3) / (1 + np.exp(-depth))
        opacity = _floats(np.maximum(opacity, rng.uniform(0.7, 1) * fluid))
    return opacity


def _warp(film: Floats, lungs: Floats, rng: Rng) -> tuple[Floats, Floats]:
    """Turn, scale, shear, shift and bend a film and its lungs."""
    angle, shear = np.deg2rad(rng.normal(0, 5)), rng.normal(0, 0.05)
    scale, aspect = np.exp(rng.normal(-0.02, 0.11)), np.exp(rng.normal(0, 0.07))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    back = np.linalg.inv(turn @ [[scale * aspect, shear], [0, scale / aspect]])
    shift = rng.normal(0, 0.045, 2) * SIDE
    across, down = _X - _MIDDLE, _Y - _MIDDLE
    x = back[0, 0] * across + back[0, 1] * down + _MIDDLE - shift[0]
    y = back[1, 0] * across + back[1, 1] * down + _MIDDLE - shift[1]
    if rng.random() < 0.6:
        x, y = x + _noise(5, 2.2, rng), y + _noise(5, 2.2, rng)
    x, y = x.astype(np.float32), y.astype(np.float32)
    # What comes in at the edges: the edge repeated, or black, white or grey.
    mode = cv2.BORDER_REPLICATE if rng.random() < 0.5 else cv2.BORDER_CONSTANT
    grey = float(rng.choice([0, 0, 1, rng.random()]))
    moved = cv2.remap(film, x, y, cv2.INTER_LINEAR, borderMode=mode, borderValue=grey)
    return _floats(moved), _floats(cv2.remap(lungs, x, y, cv2.INTER_LINEAR))


def _add_objects(film: Floats, rng: Rng) -> Floats:
    """Draw tubes, letters and something round, as lie on many films."""
    for _ in range(rng.integers(0, 3)):
        ends = rng.uniform(0, SIDE, (rng.integers(2, 5), 2))
        tube = np.zeros((SIDE, SIDE), np.float32)
        cv2.polylines(tube, [ends.astype(np.int32)], False, 1.0, 1, cv2.LINE_AA)
        film = film + cv2.GaussianBlur(tube, (0, 0), rng.uniform(0.3, 1)) * rng.uniform(0.1, 0.6)
    for _ in range(rng.integers(1, 3) if rng.random() < 0.5 else 0):
        plane = np.zeros((SIDE, SIDE), np.uint8)
        place = (int(rng.integers(0, SIDE - 10)), int(rng.integers(8, SIDE)))
        text, size = str(rng.choice(_TEXTS)), float(rng.uniform(0.2, 0.7))
        cv2.putText(plane, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, 255, 1, cv2.LINE_AA)
        letters, grey = plane / np.float32(255), float(rng.choice([0, 1, 1, 0.9]))
        film = _floats(film + letters * (grey - film))
    if rng.random() < 0.2:
        (x, y), radius = rng.uniform(0, SIDE, 2), rng.uniform(2, 9)
        spot = np.clip(1.5 - np.hypot(_X - x, _Y - y) / radius, 0, 1)
        film = film + spot * rng.uniform(0.2, 0.6)
    return _floats(film)


def _change_exposure(film: Floats, rng: Rng) -> Floats:
    """Change gamma, contrast, evenness, sharpness and grain."""
    low, high = np.quantile(film, (0.005, 0.995))
    film = np.clip((film - low) / max(high - low, 1e-3), 0, 1)
    film = film ** np.float32(np.exp(rng.normal(0, 0.35)))
    if rng.random() < 0.4:
        film = film * (1 + _noise(3, 0.15, rng)) + _noise(3, 0.08, rng)
    film = np.clip(film, 0, 1)
    if rng.random() < 0.15:
        clahe = cv2.createCLAHE(float(rng.uniform(1, 6)), (8, 8))
        film = _floats(clahe.apply(np.rint(255 * film).astype(np.uint8)) / 255)
    if rng.random() < 0.25:
        film = _floats(cv2.GaussianBlur(film, (0, 0), rng.uniform(0.4, 1.6)))
    if rng.random() < 0.3:
        film = film + rng.uniform(0, 0.08) * rng.standard_normal(film.shape, np.float32)
    # A bright border takes the upper end of the thumbnail's range.
    if rng.random() < 0.3:
        film = rng.uniform(0, 0.25) + film * rng.uniform(0.5, 1)
    return _floats(np.clip(film, 0, 1))


def _add_frame(film: Floats, lungs: Floats, rng: Rng) -> tuple[Floats, Floats]:
    """Cover some of the edges in black or white, as a scanner's frame does."""
    film, lungs = film.copy(), lungs.copy()
    top, bottom, left, right = rng.integers(2, 12, 4) * (rng.random(4) < 0.4)
    grey = float(rng.choice([0, 0, 1]))
    for strip in (
        np.s_[:top],
        np.s_[SIDE - bottom :],
        np.s_[:, :left],
        np.s_[:, SIDE - right :],
    ):
        film[strip], lungs[strip] = grey, 0
    return film, lungs


def _noise(knots: int, deviation: float, rng: Rng) -> Floats:
    """Smooth noise over the film: `knots` random values each way and a curve through them."""
    coarse = rng.normal(0, deviation, (knots, knots)).astype(np.float32)
    return _floats(cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))


def _floats(plane: NDArray[np.generic]) -> Floats:
    return np.asarray(plane, np.float32)
