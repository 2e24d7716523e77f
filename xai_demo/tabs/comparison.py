"""Two explainers on one label, side by side, and in words how far they agree (pure)."""

from __future__ import annotations

from html import escape

from xai_demo.faithfulness import rank_correlation
from xai_demo.records import Explanation, View
from xai_demo.tabs import words
from xai_demo.tabs.figure import layer

# Spearman's coefficient from here on, and what is said of it.
_AGREEMENT = (
    (0.8, "they agree closely"),
    (0.5, "they agree in the main"),
    (0.2, "they agree in part"),
    (-0.2, "they have hardly anything in common"),
    (-1.0, "they contradict each other"),
)


def side_by_side(view: View, one: Explanation, other: Explanation) -> str:
    """Both overlays, and one sentence."""
    panes = "".join(_pane(view, each) for each in (one, other))
    return (
        '<section class="xai-comparison"><h3 class="xai-title">Two explainers, one label</h3>'
        f'<p class="xai-agreement">{escape(agreement(one, other))}</p>'
        f'<div class="xai-pair">{panes}</div></section>'
    )


def agreement(one: Explanation, other: Explanation) -> str:
    """How far two heat maps of one size rank the places alike, with what that does not mean."""
    label = words.plain(one.target).lower()
    names = f"{one.explainer} and {other.explainer}"
    if min(float(one.heatmap.max()), float(other.heatmap.max())) <= 0:
        return f"{names} cannot be compared for {label}: one of them found no heat."
    rho = rank_correlation(one.heatmap, other.heatmap)
    said = next(text for least, text in _AGREEMENT if rho >= least - 1e-9)
    number = f"{rho:.2f}".replace("-", "\u2212")
    return (
        f"{names} on {label}: {said} (rank correlation {number}, where 1 is the same order of "
        "places from cold to hot and 0 is chance). That two agree does not make them right."
    )


def _pane(view: View, explanation: Explanation) -> str:
    rows, columns = view.pixels.shape
    ratio = "" if view.duration_s is not None else f' style="aspect-ratio:{columns}/{rows}"'
    kind = "film" if view.duration_s is None else "sound"
    alternative = f"Heat of {explanation.explainer}. {words.where(view, explanation)}"
    believed = words.believed(explanation)
    return (
        f'<div class="xai-pane"><p class="xai-pane-title">{escape(explanation.explainer)}</p>'
        f'<div class="xai-plot xai-pair-{kind}" role="img" '
        f'aria-label="{escape(alternative)}"{ratio}>'
        f'<img class="xai-copy" alt="">{layer(view, explanation, 0)}</div>'
        f'<p class="xai-quiet">{escape(believed)}</p></div>'
    )
