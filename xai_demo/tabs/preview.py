"""What was brought, before anything is asked about it: the film, small, and what it is."""

from __future__ import annotations

from html import escape

import numpy as np

from xai_demo.errors import XaiDemoError
from xai_demo.records import Radiograph
from xai_demo.tabs import words
from xai_demo.tabs.ask import Analyser
from xai_demo.tabs.figure import grey_uri
from xai_demo.tabs.uploads import forget_patient

_HIGH = 512  # pixels: more than twice what is shown


def preview(analyser: Analyser, path: str | None) -> str:
    """The film in the box as the reader has it; why not, where it cannot be read."""
    if not path:
        return ""
    forget_patient(path)
    try:
        film = analyser.radiograph(path)
    except XaiDemoError as error:
        return f'<p class="xai-notice xai-refused" role="alert">{escape(str(error))}</p>'
    doubt = f'<p class="xai-notice xai-warning">{escape(film.doubt)}</p>' if film.doubt else ""
    return (
        f'<figure><img alt="Your picture" src="{_uri(film)}">'
        f'<figcaption class="xai-quiet">{escape(words.film(film.facts))}</figcaption></figure>'
        f"{doubt}"
    )


def _uri(film: Radiograph) -> str:
    from PIL import Image

    step = max(1, min(film.pixels.shape) // _HIGH)  # 100 megapixels need not be made bytes of
    thin = np.rint(255 * film.pixels[::step, ::step]).astype(np.uint8)
    picture = Image.fromarray(thin)
    picture.thumbnail((2 * _HIGH, _HIGH))
    return grey_uri(np.asarray(picture))
