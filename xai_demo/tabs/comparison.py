"""Two heatmaps of one file side by side, by two explainers or two models. Pure."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from xai_demo.analysis import heatmap
from xai_demo.analysis.faithfulness import rank_correlation
from xai_demo.records import Analysis, Explanation, View
from xai_demo.tabs import phrases
from xai_demo.tabs.figure import heatmap_layer, image_uri

if TYPE_CHECKING:
    from xai_demo.records import Floats

# Spearman's rank correlation from which on each phrase holds, from high to low: the first one that
# is reached is used.
_AGREEMENT = (
    (0.8, "they agree closely"),
    (0.5, "they mostly agree"),
    (0.2, "they agree in part"),
    (-0.2, "they have little in common"),
    (-1.0, "they contradict each other"),
)
_CAVEAT = "Agreement does not make either of them right."


def comparison_html(one: Analysis, other: Analysis) -> str:
    """Return both overlays, and one sentence on how far they agree."""
    first, second = one.report.explanations[0], other.report.explanations[0]
    is_of_models = one.report.model.name != other.report.model.name
    title = "Two models, one file" if is_of_models else "Two explainers, one label"
    names = [
        _model_caption(each) if is_of_models else each.report.explanations[0].explainer
        for each in (one, other)
    ]
    # figure.js fills in the image that the page already has.
    # Two models may prepare the file differently, so the second one brings its own image.
    bases = (None, image_uri(other.view.pixels) if is_of_models else None)
    panes = "".join(
        heatmap_pane(each.view, explanation, name, base=base)
        for each, explanation, name, base in zip(
            (one, other), (first, second), names, bases, strict=True
        )
    )
    sentence = model_agreement(one, other) if is_of_models else explainer_agreement(first, second)
    return (
        f'<section class="xai-comparison"><h2 class="xai-title">{title}</h2>'
        f'<p class="xai-agreement">{escape(sentence)}</p>'
        f'<div class="xai-pair">{panes}</div></section>'
    )


def explainer_agreement(one: Explanation, other: Explanation) -> str:
    """Return how similarly two heatmaps of one size rank the regions, as a sentence."""
    label = phrases.mid_sentence(phrases.display_label(one.target))
    names = f"{one.explainer} and {other.explainer}"
    # A heatmap that is the same everywhere ranks nothing.
    if min(float(one.heatmap.max()), float(other.heatmap.max())) <= 0:
        return f"{names} cannot be compared for {label}: one of the heatmaps is empty."
    agreement = agreement_phrase(rank_correlation(one.heatmap, other.heatmap))
    return f"{names} for {label}: {agreement}. {_CAVEAT}"


def model_agreement(one: Analysis, other: Analysis) -> str:
    """Return how similarly the heatmaps of two models rank the regions, as a sentence.

    Sounds are compared over the frequencies that both models use.
    """
    first, second = one.report.explanations[0], other.report.explanations[0]
    names = f"{one.report.model.name} and {other.report.model.name}"
    label = phrases.mid_sentence(phrases.display_label(first.target))
    if first.target != second.target:
        return (
            f"{other.report.model.name} has no label {label}; its heatmap explains its own answer, "
            f"{phrases.mid_sentence(phrases.display_label(second.target))}, and is not compared."
        )
    # Heatmaps of two networks may differ in size and, for sounds, in their frequencies.
    pair = resample_to_shared_grid((one.view, first.heatmap), (other.view, second.heatmap))
    if pair is None or min(float(each.max()) for each in pair) <= 0:
        return f"{names} cannot be compared for {label}: one of the heatmaps is empty."
    agreement = agreement_phrase(rank_correlation(*pair))
    shared = ", over the frequencies that both use" if one.view.duration_s is not None else ""
    return (
        f"{names} for {label}, {_percent(first)} and {_percent(second)}: {agreement}{shared}. "
        f"{_CAVEAT}"
    )


def resample_to_shared_grid(
    one: tuple[View, Floats], other: tuple[View, Floats]
) -> tuple[Floats, Floats] | None:
    """Return two heatmaps (rows, columns) of one file on the first one's grid.

    Of sounds, only rows at frequencies that both cover are kept; None if there are none. Images are
    covered entirely by both.
    """
    (view, first), (other_view, second) = one, other
    if view.duration_s is None:
        return first, heatmap.resize(second, *first.shape)
    hz = np.asarray(view.row_frequencies_hz)
    other_hz = np.asarray(other_view.row_frequencies_hz)
    # Outside this range np.interp would only repeat the other heatmap's outermost row.
    is_shared = (hz >= other_hz[0]) & (hz <= other_hz[-1])
    if not is_shared.any():
        return None
    # Linear interpolation between the two nearest rows of the other heatmap.
    rows = np.interp(hz[is_shared], other_hz, np.arange(len(other_hz)))
    below = np.floor(rows).astype(int)
    above = np.minimum(below + 1, len(other_hz) - 1)
    weight = (rows - below)[:, None]
    resampled = (second[below] * (1 - weight) + second[above] * weight).astype(np.float32)
    # Both cover the same stretch of time, so the columns need no more than a new width.
    return first[is_shared], heatmap.resize(resampled, len(rows), first.shape[1])


def agreement_phrase(rho: float) -> str:
    """Return a rank correlation, -1..1, with what it means."""
    # The small addition keeps a coefficient that is -1 up to rounding within the table.
    phrase = next(text for least, text in _AGREEMENT if rho >= least - 1e-9)
    number = f"{rho:.2f}".replace("-", "\u2212")
    return (
        f"{phrase} (rank correlation {number}; 1 means that they rank all regions alike, 0 is "
        "chance)"
    )


def heatmap_pane(
    view: View, explanation: Explanation, title: str, *, base: str | None = None
) -> str:
    """Return one overlay with its title; `base` is the image's URI, None for the figure's own."""
    rows, columns = view.pixels.shape
    ratio = "" if view.duration_s is not None else f' style="aspect-ratio:{columns}/{rows}"'
    kind = "image" if view.duration_s is None else "sound"
    alternative = f"Heatmap: {title}. {phrases.heatmap_location(view, explanation)}"
    sentences = (
        phrases.lungs_sentence(view, explanation),
        phrases.faithfulness_sentence(explanation),
    )
    below = " ".join(filter(None, sentences))
    image = (
        '<img class="xai-copy" alt="">'
        if base is None
        else f'<img class="xai-base" alt="" src="{base}">'
    )
    return (
        f'<div class="xai-pane"><p class="xai-pane-title">{escape(title)}</p>'
        f'<div class="xai-plot xai-pair-{kind}" role="img" '
        f'aria-label="{escape(alternative)}"{ratio}>'
        f"{image}{heatmap_layer(view, explanation, 0)}</div>"
        f'<p class="xai-quiet">{escape(below)}</p></div>'
    )


def _model_caption(analysis: Analysis) -> str:
    first = analysis.report.explanations[0]
    label = phrases.display_label(first.target)
    return (
        f"{analysis.report.model.name}: {label} {_percent(first)}, {first.explainer} at "
        f"{first.layer}"
    )


def _percent(explanation: Explanation) -> str:
    return phrases.percent(explanation.probability)
