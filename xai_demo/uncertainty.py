"""How steady an answer is: the same radiograph slightly shifted, turned and brightened. Pure.

Test-time augmentation (Wang et al. 2019, https://doi.org/10.1016/j.neucom.2019.01.103): what no
radiologist would call another film should get no other answer. The interval is from the lowest to
the highest of the answers; it says how steady the answer is, not how right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from xai_demo.records import Floats

LOOKS = 12
SEED = 0
MOST_SHIFT = 0.04  # of a side, either way
MOST_TURN_DEG = 5.0
MOST_BRIGHTER = 0.08  # of white, either way
MOST_CONTRAST = 0.1


def looks(framed: Floats) -> Floats:
    """The picture in its variations, always the same: (rows, columns), 0..1 -> (n, rows, columns).

    Drawn evenly between the limits above; what comes in at an edge repeats the edge.
    """
    import cv2

    rows, columns = framed.shape
    rng = np.random.default_rng(SEED)
    varied = []
    for _ in range(LOOKS):
        right, down, turn, brighter, contrast = rng.uniform(-1, 1, 5)
        matrix = cv2.getRotationMatrix2D(
            ((columns - 1) / 2, (rows - 1) / 2), MOST_TURN_DEG * turn, 1
        )
        matrix[:, 2] += MOST_SHIFT * right * columns, MOST_SHIFT * down * rows
        moved = cv2.warpAffine(
            framed, matrix, (columns, rows), borderMode=cv2.BORDER_REPLICATE
        ).astype(np.float32)
        mean = moved.mean()
        toned = mean + (1 + MOST_CONTRAST * contrast) * (moved - mean) + MOST_BRIGHTER * brighter
        varied.append(np.clip(toned, 0, 1))
    return np.stack(varied).astype(np.float32)


def intervals(overall: Floats, varied: Floats) -> Floats:
    """Lowest and highest of the answer itself and those to its variations.

    (labels,) and (n, labels) -> (labels, 2).
    """
    every = np.concatenate([overall[None], varied])
    return np.stack([every.min(axis=0), every.max(axis=0)], axis=1)


def method() -> Mapping[str, Any]:
    """For the report: how the intervals were made."""
    return {
        "method": "test-time augmentation",
        "passes": LOOKS,
        "seed": SEED,
        "interval": "lowest and highest probability",
        "shift": MOST_SHIFT,
        "turn_deg": MOST_TURN_DEG,
        "brightness": MOST_BRIGHTER,
        "contrast": MOST_CONTRAST,
    }
