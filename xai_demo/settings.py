"""The environment, read once: nothing else in the package reads `os.environ`."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from xai_demo.errors import RequestError

PRECISIONS = ("float32", "bfloat16", "float16")
# What libraries would send home unless told otherwise; who sets one of them is obeyed.
_QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a deployment may choose; all but the paths have defaults that suit two cores."""

    weights_dir: Path  # bundled models
    cache_dir: Path  # fetched checkpoints and exported networks
    offline: bool = False
    max_models: int = 3  # networks held in memory at once
    max_upload_bytes: int = 200_000_000
    max_duration_s: float = 3600.0
    max_pixels: int = 100_000_000
    background_export: bool = True  # to ONNX, once per weights file
    explain_seconds: float = 8.0  # what a slow explainer may take, about
    own_models: bool = True  # whether visitors may name a model of their own on the Hub
    precision: str = "float32"  # of a network's sums on a GPU: see `PRECISIONS`
    hub_cache_dir: Path | None = None  # the Hub client's own: what a Space preloads lies there

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read XAI_DEMO_WEIGHTS, XAI_DEMO_CACHE, XAI_DEMO_MAX_MODELS, XAI_DEMO_MAX_UPLOAD_MB,
        XAI_DEMO_MAX_MINUTES, XAI_DEMO_MAX_MEGAPIXELS, XAI_DEMO_EXPORT,
        XAI_DEMO_EXPLAIN_SECONDS, XAI_DEMO_OWN_MODELS (off by default on a Space, which sets
        SPACE_ID), XAI_DEMO_PRECISION, and the Hub's own HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE."""
        home = Path(environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        return cls(
            weights_dir=Path(environ.get("XAI_DEMO_WEIGHTS") or _ROOT / "weights"),
            cache_dir=Path(environ.get("XAI_DEMO_CACHE") or home / "xai_demo"),
            offline=_switch(environ, "HF_HUB_OFFLINE", False),
            max_models=int(_number(environ, "XAI_DEMO_MAX_MODELS", 3, least=1)),
            max_upload_bytes=int(1e6 * _number(environ, "XAI_DEMO_MAX_UPLOAD_MB", 200, least=1)),
            max_duration_s=60 * _number(environ, "XAI_DEMO_MAX_MINUTES", 60, least=1),
            max_pixels=int(1e6 * _number(environ, "XAI_DEMO_MAX_MEGAPIXELS", 100, least=1)),
            background_export=_switch(environ, "XAI_DEMO_EXPORT", True),
            explain_seconds=_number(environ, "XAI_DEMO_EXPLAIN_SECONDS", 8, least=1),
            own_models=_switch(environ, "XAI_DEMO_OWN_MODELS", not environ.get("SPACE_ID")),
            precision=_one_of(environ, "XAI_DEMO_PRECISION", PRECISIONS),
            hub_cache_dir=Path(environ.get("HF_HUB_CACHE") or home / "hub"),
        )


def disable_telemetry(environ: MutableMapping[str, str] = os.environ) -> None:
    """Turn off what libraries report of their use; to be called before they are imported."""
    for name, value in _QUIET.items():
        environ.setdefault(name, value)


def _one_of(environ: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    chosen = environ.get(name) or known[0]
    if chosen not in known:
        raise RequestError(f"{name} is {chosen!r}, wanted: {', '.join(known)}.")
    return chosen


def _switch(environ: Mapping[str, str], name: str, default: bool) -> bool:
    text = environ.get(name, "").upper()
    if default:
        return text not in {"0", "FALSE", "NO", "OFF"}
    return text in {"1", "TRUE", "YES", "ON"}


def _number(environ: Mapping[str, str], name: str, default: float, *, least: float) -> float:
    text = environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = least - 1
    if not least <= value < float("inf"):
        raise RequestError(f"{name} is {text!r}, wanted: a number of at least {least:g}.")
    return value
