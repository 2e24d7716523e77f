"""The settings: their defaults, every environment variable, and which values are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from xai_demo.errors import RequestError
from xai_demo.settings import (
    PRECISIONS,
    ServerSettings,
    Settings,
    disable_telemetry,
    set_upload_folder,
)

ROOT = Path(__file__).resolve().parent.parent


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = Settings.from_env({})
    assert settings.weights_dir == ROOT / "weights"
    assert settings.cache_dir == Path.home() / ".cache" / "huggingface" / "xai_demo"
    assert settings.offline is False
    assert settings.max_models == 5
    assert settings.max_upload_bytes == 200_000_000
    assert settings.max_duration_s == 3600
    assert settings.max_pixels == 100_000_000
    assert settings.background_export is True
    assert settings.explain_seconds == 8
    assert settings.own_models is None
    assert settings.server == ServerSettings()
    assert settings.hub_cache_dir == Path.home() / ".cache" / "huggingface" / "hub"


def test_everything_can_be_chosen() -> None:
    settings = Settings.from_env(
        {
            "XAI_DEMO_WEIGHTS": "/w",
            "XAI_DEMO_CACHE": "/c",
            "HF_HUB_OFFLINE": "1",
            "XAI_DEMO_MAX_MODELS": "1",
            "XAI_DEMO_MAX_UPLOAD_MB": "2.5",
            "XAI_DEMO_MAX_MINUTES": "2",
            "XAI_DEMO_MAX_MEGAPIXELS": "4",
            "XAI_DEMO_EXPORT": "off",
            "XAI_DEMO_EXPLAIN_SECONDS": "2.5",
            "XAI_DEMO_OWN_MODELS": "off",
            "HF_HUB_CACHE": "/hub",
            "XAI_DEMO_PRECISION": "bfloat16",
            "XAI_DEMO_OWN_MODEL_MB": "3",
            "XAI_DEMO_OWN_CACHE_MB": "5",
            "GRADIO_SERVER_NAME": "0.0.0.0",
            "GRADIO_SERVER_PORT": "7861",
            "XAI_DEMO_UPLOADS": "/u",
            "XAI_DEMO_UPLOADS_MB": "6",
            "XAI_DEMO_MIN_FREE_MB": "7",
            "XAI_DEMO_KEEP_MINUTES": "0.5",
            "XAI_DEMO_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
            "XAI_DEMO_ALLOWED_HOSTS": "demo.example.org",
            "XAI_DEMO_ALLOWED_ORIGINS": "https://example.org",
            "XAI_DEMO_FRAME_ANCESTORS": "'self' https://example.org",
            "XAI_DEMO_QUEUE": "8",
            "XAI_DEMO_RATE": "9",
            "XAI_DEMO_CONNECTIONS": "10",
            "XAI_DEMO_LOG": "json",
        }
    )
    assert settings == Settings(
        weights_dir=Path("/w"),
        cache_dir=Path("/c"),
        offline=True,
        max_models=1,
        max_upload_bytes=2_500_000,
        max_duration_s=120,
        max_pixels=4_000_000,
        background_export=False,
        explain_seconds=2.5,
        own_models=False,
        hub_cache_dir=Path("/hub"),
        precision="bfloat16",
        max_own_model_bytes=3_000_000,
        own_cache_bytes=5_000_000,
        server=ServerSettings(
            host="0.0.0.0",
            port=7861,
            uploads_dir=Path("/u"),
            uploads_quota_bytes=6_000_000,
            min_free_bytes=7_000_000,
            keep_seconds=30,
            trusted_proxies=("10.0.0.0/8", "::1"),
            allowed_hosts=("demo.example.org",),
            allowed_origins=("https://example.org",),
            frame_ancestors=("'self'", "https://example.org"),
            max_queued=8,
            max_requests_per_minute=9,
            max_connections=10,
            log_format="json",
        ),
    )


def test_the_hubs_own_home_holds_the_cache() -> None:
    settings = Settings.from_env({"HF_HOME": "/h"})
    assert settings.cache_dir == Path("/h/xai_demo")
    assert settings.hub_cache_dir == Path("/h/hub")


def test_a_space_runs_no_visitors_models_unless_it_is_switched_on() -> None:
    space = {"SPACE_ID": "owner/name"}
    assert Settings.from_env(space).own_models is False
    assert Settings.from_env(space | {"XAI_DEMO_OWN_MODELS": "on"}).own_models is True
    assert Settings.from_env({"XAI_DEMO_OWN_MODELS": "off"}).own_models is False
    assert "https://huggingface.co" in Settings.from_env(space).server.frame_ancestors
    assert "10.0.0.0/8" in Settings.from_env(space).server.trusted_proxies


@pytest.mark.parametrize(
    ("variables", "host", "allowed"),
    [
        ({}, None, True),
        ({}, "127.0.0.1", True),
        ({}, "localhost", True),
        ({}, "[::1]", True),
        ({}, "0.0.0.0", False),
        ({}, "192.168.1.2", False),
        ({"GRADIO_SERVER_NAME": "0.0.0.0"}, None, False),
        ({"XAI_DEMO_TRUSTED_PROXIES": "127.0.0.1"}, None, False),
        ({"XAI_DEMO_ALLOWED_HOSTS": "demo.example.org"}, None, False),
        ({"XAI_DEMO_OWN_MODELS": "on"}, "0.0.0.0", True),
        ({"XAI_DEMO_OWN_MODELS": "off"}, None, False),
        ({"SPACE_ID": "owner/name"}, "127.0.0.1", False),
    ],
)
def test_own_models_are_for_home(
    variables: dict[str, str], host: str | None, allowed: bool
) -> None:
    assert Settings.from_env(variables).at(host, None).own_models is allowed


def test_an_address_that_is_given_goes_before_the_environment() -> None:
    settings = Settings.from_env({"GRADIO_SERVER_PORT": "7861"})
    assert settings.at(None, None).server.port == 7861
    assert settings.at("::1", 99).server == ServerSettings(host="::1", port=99)


def test_a_proxy_that_is_no_network_is_refused() -> None:
    with pytest.raises(RequestError, match=r"XAI_DEMO_TRUSTED_PROXIES has 'caddy'; it must be"):
        Settings.from_env({"XAI_DEMO_TRUSTED_PROXIES": "127.0.0.1 caddy"})


def test_gradio_is_told_where_uploads_lie() -> None:
    environ: dict[str, str] = {}
    set_upload_folder(Path("/u"), environ)
    assert environ == {"GRADIO_TEMP_DIR": "/u"}


@pytest.mark.parametrize(
    ("value", "offline"),
    [("", False), ("0", False), ("no", False), ("1", True), ("true", True), ("YES", True)],
)
def test_offline_is_read_as_the_hubs_client_reads_it(value: str, offline: bool) -> None:
    assert Settings.from_env({"HF_HUB_OFFLINE": value}).offline is offline


@pytest.mark.parametrize("value", ["none", "0", "-1", "nan", "inf", "1e999"])
@pytest.mark.parametrize(
    "name",
    [
        "XAI_DEMO_MAX_MODELS",
        "XAI_DEMO_MAX_UPLOAD_MB",
        "XAI_DEMO_MAX_MINUTES",
        "XAI_DEMO_MAX_MEGAPIXELS",
        "XAI_DEMO_EXPLAIN_SECONDS",
    ],
)
def test_an_invalid_limit_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(
        RequestError, match=rf"{name} is '{value}'; it must be a number of at least 1"
    ):
        Settings.from_env({name: value})


def test_an_unknown_precision_is_refused() -> None:
    assert Settings.from_env({}).precision == PRECISIONS[0] == "float32"
    with pytest.raises(
        RequestError, match="XAI_DEMO_PRECISION is 'int8'; it must be one of float32, bfl"
    ):
        Settings.from_env({"XAI_DEMO_PRECISION": "int8"})


def test_telemetry_is_off_unless_somebody_has_switched_it_on() -> None:
    environ: dict[str, str] = {}
    disable_telemetry(environ)
    assert environ == {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
    environ = {"GRADIO_ANALYTICS_ENABLED": "True"}
    disable_telemetry(environ)
    assert environ["GRADIO_ANALYTICS_ENABLED"] == "True"


def test_telemetry_is_off_before_the_libraries_are_imported() -> None:
    program = (
        "import sys, xai_demo.settings as s; s.disable_telemetry();"
        "from gradio.analytics import analytics_enabled;"
        "from huggingface_hub.constants import HF_HUB_DISABLE_TELEMETRY as quiet;"
        "print(analytics_enabled(), quiet)"
    )
    command = ["env", "-u", "GRADIO_ANALYTICS_ENABLED", "-u", "HF_HUB_DISABLE_TELEMETRY"]
    command += [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["False", "True"], done.stderr
    for name in ("app.py", "xai_demo/cli/__init__.py"):
        text = (ROOT / name).read_text()
        assert text.index("disable_telemetry()") < text.index("xai_demo.tabs.server import")
