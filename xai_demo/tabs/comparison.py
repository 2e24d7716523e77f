"""Two heat maps of one file side by side, by two explainers or of two models (pure)."""

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

# Spearman's coefficient from here on, and what is said of it.
_AGREEMENT = (
    (0.8, "they agree closely"),
    (0.5, "they agree in the main"),
    (0.2, "they agree in part"),
    (-0.2, "they have hardly anything in common"),
    (-1.0, "they contradict each other"),
)


def comparison_html(one: Analysis, other: Analysis) -> str:
    """Both overlays, and one sentence."""
    first, second = one.report.explanations[0], other.report.explanations[0]
    models = one.report.model.name != other.report.model.name
    title = "Two models, one file" if models else "Two explainers, one label"
    names = [
        _model_caption(each) if models else each.report.explanations[0].explainer
        for each in (one, other)
    ]
    # The page's script fills in the picture that is there already.
    bases = (None, image_uri(other.view.pixels) if models else None)
    panes = "".join(
        heatmap_pane(each.view, explanation, name, base=base)
        for each, explanation, name, base in zip(
            (one, other), (first, second), names, bases, strict=True
        )
    )
    said = model_agreement(one, other) if models else explainer_agreement(first, second)
    return (
        f'<section class="xai-comparison"><h3 class="xai-title">{title}</h3>'
        f'<p class="xai-agreement">{escape(said)}</p>'
        f'<div class="xai-pair">{panes}</div></section>'
    )


def explainer_agreement(one: Explanation, other: Explanation) -> str:
    """How far two heat maps of one size rank the places alike, with what that does not mean."""
    label = phrases.mid_sentence(phrases.display_label(one.target))
    names = f"{one.explainer} and {other.explainer}"
    if min(float(one.heatmap.max()), float(other.heatmap.max())) <= 0:
        return f"{names} cannot be compared for {label}: one of them found no heat."
    said = agreement_phrase(rank_correlation(one.heatmap, other.heatmap))
    return f"{names} on {label}: {said}. That two agree does not make them right."


def model_agreement(one: Analysis, other: Analysis) -> str:
    """How far the heat of two models ranks the places alike, where both saw them."""
    first, second = one.report.explanations[0], other.report.explanations[0]
    names = f"{one.report.model.name} and {other.report.model.name}"
    label = phrases.mid_sentence(phrases.display_label(first.target))
    if first.target != second.target:
        return (
            f"{other.report.model.name} has no label {label}: its heat is for its own answer, "
            f"{phrases.mid_sentence(phrases.display_label(second.target))}, and is not compared."
        )
    pair = resample_to_shared_grid((one.view, first.heatmap), (other.view, second.heatmap))
    if pair is None or min(float(each.max()) for each in pair) <= 0:
        return f"{names} cannot be compared for {label}: one of them found no heat."
    said = agreement_phrase(rank_correlation(*pair))
    shared = ", over the frequencies that both hear" if one.view.duration_s is not None else ""
    return (
        f"{names} on {label}, {_percent(first)} and {_percent(second)}: {said}{shared}. That two "
        "agree does not make them right."
    )


def resample_to_shared_grid(
    one: tuple[View, Floats], other: tuple[View, Floats]
) -> tuple[Floats, Floats] | None:
    """Two heat maps, (rows, columns), of one file at the places of the first that both saw.

    Of sounds, rows are read by frequency and columns by time; of pictures, both show all of it.
    None where they share no frequency.
    """
    (view, first), (from_view, second) = one, other
    if view.duration_s is None:
        return first, heatmap.resized(second, *first.shape)
    mine = np.asarray(view.row_frequencies_hz)
    theirs = np.asarray(from_view.row_frequencies_hz)
    shared = (mine >= theirs[0]) & (mine <= theirs[-1])
    if not shared.any():
        return None
    rows = np.interp(mine[shared], theirs, np.arange(len(theirs)))
    low = np.floor(rows).astype(int)
    share = (rows - low)[:, None]
    read = second[low] * (1 - share) + second[np.minimum(low + 1, len(theirs) - 1)] * share
    return first[shared], heatmap.resized(read.astype(np.float32), len(rows), first.shape[1])


def agreement_phrase(rho: float) -> str:
    """Spearman's coefficient with what it means."""
    said = next(text for least, text in _AGREEMENT if rho >= least - 1e-9)
    number = f"{rho:.2f}".replace("-", "\u2212")
    return (
        f"{said} (rank correlation {number}, where 1 is the same order of places from cold to hot "
        "and 0 is chance)"
    )


def heatmap_pane(
    view: View, explanation: Explanation, title: str, *, base: str | None = None
) -> str:
    """One overlay under its title; `base` is the picture, None that of the figure above."""
    rows, columns = view.pixels.shape
    ratio = "" if view.duration_s is not None else f' style="aspect-ratio:{columns}/{rows}"'
    kind = "film" if view.duration_s is None else "sound"
    alternative = f"Heat of {title}. {phrases.heatmap_location(view, explanation)}"
    believed = phrases.faithfulness_sentence(explanation)
    picture = (
        '<img class="xai-copy" alt="">'
        if base is None
        else f'<img class="xai-base" alt="" src="{base}">'
    )
    return (
        f'<div class="xai-pane"><p class="xai-pane-title">{escape(title)}</p>'
        f'<div class="xai-plot xai-pair-{kind}" role="img" '
        f'aria-label="{escape(alternative)}"{ratio}>'
        f"{picture}{heatmap_layer(view, explanation, 0)}</div>"
        f'<p class="xai-quiet">{escape(believed)}</p></div>'
    )


def _model_caption(analysis: Analysis) -> str:
    first = analysis.report.explanations[0]
    used = analysis.report.model
    return (
        f"{used.name}: {phrases.display_label(first.target)} {_percent(first)}, {first.explainer} at "
        f"{first.layer}"
    )


def _percent(explanation: Explanation) -> str:
    return phrases.percent(explanation.probability)
