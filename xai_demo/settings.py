"""The environment, read once: nothing else in the package reads `os.environ`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from xai_demo.errors import RequestError

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
    hub_cache_dir: Path | None = None  # the Hub client's own: what a Space preloads lies there

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read XAI_DEMO_WEIGHTS, XAI_DEMO_CACHE, XAI_DEMO_MAX_MODELS, XAI_DEMO_MAX_UPLOAD_MB,
        XAI_DEMO_MAX_MINUTES, XAI_DEMO_MAX_MEGAPIXELS, XAI_DEMO_EXPORT,
        XAI_DEMO_EXPLAIN_SECONDS, and the Hub's own HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE."""
        home = Path(environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        return cls(
            weights_dir=Path(environ.get("XAI_DEMO_WEIGHTS") or _ROOT / "weights"),
            cache_dir=Path(environ.get("XAI_DEMO_CACHE") or home / "xai_demo"),
            offline=environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "TRUE", "YES", "ON"},
            max_models=int(_number(environ, "XAI_DEMO_MAX_MODELS", 3, least=1)),
            max_upload_bytes=int(1e6 * _number(environ, "XAI_DEMO_MAX_UPLOAD_MB", 200, least=1)),
            max_duration_s=60 * _number(environ, "XAI_DEMO_MAX_MINUTES", 60, least=1),
            max_pixels=int(1e6 * _number(environ, "XAI_DEMO_MAX_MEGAPIXELS", 100, least=1)),
            background_export=environ.get("XAI_DEMO_EXPORT", "").upper()
            not in {"0", "FALSE", "NO", "OFF"},
            explain_seconds=_number(environ, "XAI_DEMO_EXPLAIN_SECONDS", 8, least=1),
            hub_cache_dir=Path(environ.get("HF_HUB_CACHE") or home / "hub"),
        )


def _number(environ: Mapping[str, str], name: str, default: float, *, least: float) -> float:
    text = environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = least - 1
    if not least <= value < float("inf"):
        raise RequestError(f"{name} is {text!r}, wanted: a number of at least {least:g}.")
    return value
