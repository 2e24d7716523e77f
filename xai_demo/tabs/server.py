"""The web server: how the page is served to visitors."""

from __future__ import annotations

import importlib
import sys
import threading
from typing import Any, cast

import gradio as gr

from xai_demo.analysis import Analyser
from xai_demo.analysis.zerogpu import ZeroGPUAnalyser, wrap_for_zerogpu
from xai_demo.examples import EXAMPLES, example_path
from xai_demo.settings import Settings
from xai_demo.tabs import build, theme

# Requests in the queue; further ones are turned away with a message.
_MAX_QUEUED = 32
# Analyses that run at the same time.
_CONCURRENT = 2


def launch(settings: Settings, *, host: str | None = None, port: int | None = None) -> None:
    """Serve the page until the process is stopped; models are loaded once it is up.

    Without `host` and `port`, Gradio takes GRADIO_SERVER_NAME and GRADIO_SERVER_PORT, and failing
    these, this machine only and the first free port from 7860.
    """
    # timm imports wandb where it is installed, which takes two seconds; the page never uses it.
    # None in sys.modules makes an import raise ImportError, which timm expects.
    cast(Any, sys.modules).setdefault("wandb", None)
    analyser = wrap_for_zerogpu(Analyser(settings))
    page = serve(build(analyser), settings, host=host, port=port)
    # A daemon, so that a slow start does not delay the end of the process.
    threading.Thread(target=_warm_up, args=(analyser,), name="warm-up", daemon=True).start()
    page.block_thread()


def serve(
    page: gr.Blocks, settings: Settings, *, host: str | None = None, port: int | None = None
) -> gr.Blocks:
    """Start serving and return at once; the address is the page's `local_url`."""
    page.queue(max_size=_MAX_QUEUED, default_concurrency_limit=_CONCURRENT)
    page.launch(
        theme=theme.theme(),
        css=theme.CSS,
        head=theme.HEAD,
        server_name=host,
        server_port=port,
        footer_links=["api"],
        run_history=False,
        # Details of unexpected errors stay on the server.
        show_error=False,
        max_file_size=settings.max_upload_bytes,
        # The examples are in the package, which Gradio does not serve by itself.
        allowed_paths=[str(example_path(next(iter(EXAMPLES))).parent)],
        enable_monitoring=False,
        # Rendering on the server would need Node.
        ssr_mode=False,
        pwa=False,
        # A public link would send visitors' files through Gradio's own servers.
        share=False,
        # `launch` blocks by itself, after it has started the warm-up.
        prevent_thread_lock=True,
    )
    return page


def _warm_up(analyser: Analyser | ZeroGPUAnalyser) -> None:
    # Gradio imports it at the first request, which would take a third of a second longer.
    importlib.import_module("matplotlib.pyplot")
    analyser.warm_up()
