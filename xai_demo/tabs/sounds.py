"""How sounds and files pass between our records and Gradio's widgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gradio as gr
import numpy as np

if TYPE_CHECKING:
    from xai_demo.records import Floats


def playable(samples: Floats, sample_rate_hz: int | None) -> tuple[int, Any]:
    """A sound as a player takes it: 16 bit, so that quiet stays quiet (floats are made louder)."""
    scaled = np.clip(np.rint(32767 * samples), -32768, 32767).astype(np.int16)
    return sample_rate_hz or 16000, scaled


def as_path(file: gr.File) -> gr.File:
    """A box for files that hands on where the upload lies.

    So does Gradio's own way, which leaves an empty file on the server each time besides.
    """
    file.preprocess = lambda payload: payload.path if payload else None  # type: ignore[method-assign,union-attr]
    return file
