"""The look of the page: one accent colour, the system's fonts, nothing loaded from elsewhere."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio.themes.utils.colors import Color

_HERE = Path(__file__).parent
CSS = (_HERE / "page.css").read_text(encoding="utf-8")
FIGURE_JS = (_HERE / "figure.js").read_text(encoding="utf-8")
# The script is part of the page, so it must not contain the end tag of a script. Without a
# referrer, other sites do not learn the page's address from a link.
HEAD = (
    '<meta name="referrer" content="no-referrer">'
    f"<script>{(_HERE / 'page.js').read_text(encoding='utf-8')}</script>"
)

_PETROL = Color(
    name="petrol",
    c50="#eef7f9",
    c100="#d5ebf0",
    c200="#aed8e1",
    c300="#7bbccb",
    c400="#459cb0",
    c500="#257f95",
    c600="#14677c",
    c700="#125466",
    c800="#134554",
    c900="#133a47",
    c950="#072530",
)
# Gradio's variables; a star refers to a shade of the hues below.
_COLOURS = {
    "body_background_fill": "#f7f9fa",
    "body_background_fill_dark": "#0d1417",
    "background_fill_primary_dark": "#121b1f",
    "background_fill_secondary_dark": "#162126",
    "block_background_fill": "#ffffff",
    "block_background_fill_dark": "#121b1f",
    "block_border_color": "#dde4e8",
    "block_border_color_dark": "#26343a",
    "border_color_primary": "#dde4e8",
    "border_color_primary_dark": "#26343a",
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
    "button_primary_background_fill_dark": "*primary_500",
    "button_primary_background_fill_hover_dark": "*primary_400",
    "button_primary_text_color": "#ffffff",
    "button_primary_text_color_dark": "#ffffff",
    "button_secondary_background_fill": "#ffffff",
    "button_secondary_background_fill_dark": "#162126",
    "button_secondary_background_fill_hover": "*primary_50",
    "button_secondary_background_fill_hover_dark": "#1c2a30",
    "button_secondary_border_color": "#dde4e8",
    "button_secondary_border_color_dark": "#26343a",
    "button_border_width": "1px",
    "block_shadow": "none",
    "table_odd_background_fill_dark": "#162126",
    "table_even_background_fill_dark": "#162126",
    "body_text_color": "*neutral_800",
    "body_text_color_dark": "*neutral_100",
    "body_text_color_subdued": "*neutral_600",
    "body_text_color_subdued_dark": "*neutral_300",
    "block_label_text_color": "*neutral_600",
    "block_label_text_color_dark": "*neutral_300",
}
_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace"


def theme() -> gr.themes.Base:
    """Return the colours, fonts and sizes of the page."""
    look = gr.themes.Base(
        primary_hue=_PETROL,
        secondary_hue=_PETROL,
        neutral_hue=gr.themes.colors.slate,
        text_size=gr.themes.sizes.text_md,
        radius_size=gr.themes.sizes.radius_md,
        font=["sans-serif"],
        font_mono=["monospace"],
    ).set(**_COLOURS)
    # Set here because the constructor quotes every name, and a quoted system-ui is no keyword.
    look.font, look.font_mono = _FONTS, _MONO
    return look
