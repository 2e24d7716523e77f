"""Pictures that are no radiographs, made to try the gate on: (height, width), 0..1. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xai_demo.audio import spectrogram as spectrum

if TYPE_CHECKING:
    from collections.abc import Callable

    from xai_demo.records import Floats, LogMel

_DECIBELS = 80.0  # of a spectrogram, from its loudest down to black
_WORDS = ("lung", "rib", "heart", "left", "right", "clear", "no", "acute", "finding", "normal")


def page(rng: np.random.Generator) -> Floats:
    """A page of black words on white, or of white on black."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (600, int(rng.integers(500, 850))), 255)
    draw, size = ImageDraw.Draw(picture), float(rng.uniform(9, 26))
    top = float(rng.uniform(10, 60))
    while top < picture.height - size:
        words = " ".join(rng.choice(_WORDS, int(rng.integers(3, 14))))
        draw.text(
            (float(rng.uniform(10, 60)), top), words, fill=int(rng.integers(0, 60)), font_size=size
        )
        top += size * float(rng.uniform(1.1, 2.2))
    shown = np.asarray(picture, np.float32) / np.float32(255)
    return shown if rng.random() < 0.7 else 1 - shown


def chart(rng: np.random.Generator) -> Floats:
    """Axes with bars and a line."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (640, 480), int(rng.integers(220, 256)))
    draw = ImageDraw.Draw(picture)
    draw.line((60, 30, 60, 430, 610, 430), fill=20, width=2)
    count = int(rng.integers(4, 12))
    width = 540 / count
    for i, height in enumerate(rng.uniform(20, 380, count)):
        left = 65 + i * width
        draw.rectangle(
            (left, 430 - height, left + 0.7 * width, 429), fill=int(rng.integers(40, 190))
        )
    points = [(60 + 11 * i, 430 - y) for i, y in enumerate(rng.uniform(40, 380, 50))]
    draw.line(points, fill=0, width=int(rng.integers(1, 4)))
    return np.asarray(picture, np.float32) / np.float32(255)


def noise(rng: np.random.Generator) -> Floats:
    """Grain, fine to coarse."""
    from PIL import Image

    side = int(rng.choice((4, 8, 16, 64, 256)))
    grain = (255 * rng.random((side, side))).astype(np.uint8)
    smooth = Image.fromarray(grain).resize((256, 256), Image.Resampling.BICUBIC)
    return np.asarray(smooth, np.float32) / np.float32(255)


def ramp(rng: np.random.Generator) -> Floats:
    """From dark to light, straight or round."""
    y, x = np.mgrid[-1:1:200j, -1:1:240j]
    angle = rng.uniform(0, 2 * np.pi)
    straight = np.cos(angle) * x + np.sin(angle) * y
    shown = straight if rng.random() < 0.5 else np.hypot(x - rng.uniform(-1, 1), y)
    spread = float(np.ptp(shown))
    return np.asarray((shown - shown.min()) / spread, np.float32)


def spectrogram(samples: Floats, spec: LogMel) -> Floats:
    """As the page draws it: high frequencies at the top, 0..1."""
    decibels = spectrum.log_mel(samples, spec)
    shown = np.clip((decibels - decibels.max()) / _DECIBELS + 1, 0, 1)
    return np.ascontiguousarray(shown[::-1], np.float32)


DRAWN: dict[str, Callable[[np.random.Generator], Floats]] = {
    "text pages": page,
    "charts": chart,
    "noise": noise,
    "gradients": ramp,
}
