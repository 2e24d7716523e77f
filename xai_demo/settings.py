"""The settings of a deployment, read from environment variables.

Nothing else in the package reads `os.environ`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from xai_demo.errors import RequestError

PRECISIONS = ("float32", "bfloat16", "float16")
# Usage reports that libraries send by default. A value that is already set is left alone.
_NO_TELEMETRY = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a deployment may choose; the defaults suit a machine with two cores."""

    weights_dir: Path  # bundled models
    # Downloaded checkpoints and exported networks.
    cache_dir: Path
    offline: bool = False
    max_models: int = 3  # networks held in memory at once
    max_upload_bytes: int = 200_000_000
    max_duration_s: float = 3600.0
    max_pixels: int = 100_000_000
    background_export: bool = True  # to ONNX, once per weights file
    # What a slow explainer may take, roughly.
    explain_seconds: float = 8.0
    # Whether visitors may name a model of their own on the Hub.
    own_models: bool = True
    # In which a network computes on a GPU: one of `PRECISIONS`.
    precision: str = "float32"
    # The Hub client's own cache; a Space's preloads are there.
    hub_cache_dir: Path | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings; raises RequestError for a value that is not allowed.

        The variables are XAI_DEMO_WEIGHTS, XAI_DEMO_CACHE, XAI_DEMO_MAX_MODELS,
        XAI_DEMO_MAX_UPLOAD_MB, XAI_DEMO_MAX_MINUTES, XAI_DEMO_MAX_MEGAPIXELS, XAI_DEMO_EXPORT,
        XAI_DEMO_EXPLAIN_SECONDS, XAI_DEMO_OWN_MODELS (off by default on a Space, which sets
        SPACE_ID), XAI_DEMO_PRECISION, and the Hub's own HF_HOME, HF_HUB_CACHE and HF_HUB_OFFLINE.
        """
        home = Path(environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        return cls(
            weights_dir=Path(environ.get("XAI_DEMO_WEIGHTS") or _ROOT / "weights"),
            cache_dir=Path(environ.get("XAI_DEMO_CACHE") or home / "xai_demo"),
            offline=_switch(environ, "HF_HUB_OFFLINE", False),
            max_models=int(_number(environ, "XAI_DEMO_MAX_MODELS", 3, minimum=1)),
            max_upload_bytes=int(1e6 * _number(environ, "XAI_DEMO_MAX_UPLOAD_MB", 200, minimum=1)),
            max_duration_s=60 * _number(environ, "XAI_DEMO_MAX_MINUTES", 60, minimum=1),
            max_pixels=int(1e6 * _number(environ, "XAI_DEMO_MAX_MEGAPIXELS", 100, minimum=1)),
            background_export=_switch(environ, "XAI_DEMO_EXPORT", True),
            explain_seconds=_number(environ, "XAI_DEMO_EXPLAIN_SECONDS", 8, minimum=1),
            # On a public Space any visitor could make it download arbitrary checkpoints.
            own_models=_switch(environ, "XAI_DEMO_OWN_MODELS", not environ.get("SPACE_ID")),
            precision=_choice(environ, "XAI_DEMO_PRECISION", PRECISIONS),
            hub_cache_dir=Path(environ.get("HF_HUB_CACHE") or home / "hub"),
        )


def disable_telemetry(environ: MutableMapping[str, str] = os.environ) -> None:
    """Turn off the libraries' usage reports; call it before they are imported."""
    for name, value in _NO_TELEMETRY.items():
        environ.setdefault(name, value)


def _choice(environ: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    value = environ.get(name) or known[0]
    if value not in known:
        raise RequestError(f"{name} is {value!r}; it must be one of {', '.join(known)}.")
    return value


def _switch(environ: Mapping[str, str], name: str, default: bool) -> bool:
    # The same spellings as the Hub's client reads in HF_HUB_OFFLINE.
    text = environ.get(name, "").upper()
    if default:
        return text not in {"0", "FALSE", "NO", "OFF"}
    return text in {"1", "TRUE", "YES", "ON"}


def _number(environ: Mapping[str, str], name: str, default: float, *, minimum: float) -> float:
    text = environ.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = minimum - 1
    # The comparison also rejects NaN, which is neither above nor below anything.
    if not minimum <= value < float("inf"):
        raise RequestError(f"{name} is {text!r}; it must be a number of at least {minimum:g}.")
    return value
