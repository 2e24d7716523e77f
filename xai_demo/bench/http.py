"""What a request costs besides the network: the real page in its own process, called over HTTP.

Every round calls, one after the other, the page through the Gradio client, the page through plain
HTTP on one connection, an endpoint that does nothing in both ways, and a ResNet-50 in this process
as the unit of comparison.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_demo import networks
from xai_demo.errors import XaiDemoError
from xai_demo.examples import EXAMPLES, example_path
from xai_demo.records import Model, Raster

if TYPE_CHECKING:
    import httpx2
    from gradio_client import Client

    from xai_demo.records import Progress
    from xai_demo.settings import Settings

ROUNDS = 30
TASK = "chest_xray"
_WARM_UP_ROUNDS = 3
# The steps of a report's `timing_ms` in which the network runs, and those in which it does not.
_NETWORK_STEPS = ("predict", "uncertainty", "explain", "faithfulness")
_OTHER_STEPS = ("read", "gate", "prepare", "render")
_START_TIMEOUT_S = 180.0
_EXPORT_TIMEOUT_S = 120.0
# The threads of the previous call keep spinning for a while, which would slow down the next one.
_REST_S = 0.05
# In the order in which they happen.
PARTS = {
    "upload": "sending and storing the file",
    "queue": "Gradio's queue and its event stream",
    "read": "reading the image",
    "gate": "checking that it is a frontal chest X-ray",
    "prepare": "preparing it for the network",
    "render": "drawing the result",
    "respond": "drawing the figure and encoding it as JPEG, and the report as JSON",
    "download": "downloading the figure",
    "client": "the Gradio client's own share: a connection for each call, and polling every 50 ms",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One round, in milliseconds."""

    # ResNet-50, 224x224, torch, in this process.
    forward: float
    client: float  # a request through the Gradio client
    client_timing: Mapping[str, float]  # `timing_ms` of that report
    # The same through plain HTTP, step by step.
    upload: float
    call: float
    call_timing: Mapping[str, float]
    download: float
    # An endpoint that only returns a list, through plain HTTP.
    empty: float
    client_empty: float  # the same through the Gradio client

    @property
    def network(self) -> float:
        """What the network took of the Gradio client's request."""
        return _network(self.client_timing)

    @property
    def rest(self) -> float:
        """What everything else took of the Gradio client's request."""
        return self.client - self.network

    @property
    def plain(self) -> float:
        """What everything else took of the request through plain HTTP."""
        return self.upload + self.call + self.download - _network(self.call_timing)

    @property
    def ours(self) -> float:
        """`plain` without what Gradio itself takes: what this project could save."""
        return self.plain - self.upload - self.empty - self.download

    def parts(self) -> dict[str, float]:
        """`rest` in parts that add up to it."""
        steps = {k: self.call_timing.get(k, 0.0) for k in _OTHER_STEPS}
        # What a call takes beyond the timed steps and what Gradio takes for an empty one.
        respond = self.call - sum(self.call_timing.values()) - self.empty
        parts = {"upload": self.upload, "queue": self.empty, **steps, "respond": respond}
        # The remainder, so that the parts add up to `rest`.
        return parts | {"download": self.download, "client": self.rest - self.plain}


def run(
    settings: Settings, *, rounds: int = ROUNDS, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure `rounds` requests to a served page; see `figures`.

    The page runs in another process, so that its settings are those of the environment.
    """
    report = progress or (lambda done, doing: None)
    forward = _resnet50()
    with tempfile.TemporaryDirectory() as folder, serve_page() as address:
        from gradio_client import Client

        report(0.0, "First request to the page")
        client = Client(address, verbose=False, download_files=folder, analytics_enabled=False)
        measurements = []
        try:
            # Torch answers until the export is ready, and ONNX from then on: do not mix the two.
            if settings.background_export:
                _wait_for_export(client)
            defaults = _default_arguments(address)
            for i in range(_WARM_UP_ROUNDS + rounds):
                measurements.append(_round(client, address, forward, defaults))
                report((i + 1) / (_WARM_UP_ROUNDS + rounds), f"Round {i + 1}")
        finally:
            client.close()
    # The first rounds also load networks and open connections.
    return figures(measurements[_WARM_UP_ROUNDS:])


def figures(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """Medians, each on its own, in milliseconds and as ratios to ResNet-50's forward pass."""
    forward = statistics.median(m.forward for m in measurements)
    parts = [m.parts() for m in measurements]
    ms = {name: statistics.median(p[name] for p in parts) for name in PARTS}
    totals = {
        "network": statistics.median(m.network for m in measurements),
        "rest": statistics.median(m.rest for m in measurements),
        "rest_plain_http": statistics.median(m.plain for m in measurements),
        "rest_ours": statistics.median(m.ours for m in measurements),
        "empty_http": statistics.median(m.empty for m in measurements),
        "empty_client": statistics.median(m.client_empty for m in measurements),
        # Of the timed steps, those that the command line runs as well.
        "rest_command_line": statistics.median(
            sum(m.call_timing.get(k, 0.0) for k in _OTHER_STEPS) for m in measurements
        ),
    }
    return {
        "rounds": len(measurements),
        "forward_ms": forward,
        "parts_ms": ms,
        "parts": {name: value / forward for name, value in ms.items()},
        "totals_ms": totals,
        "ratios": {name: value / forward for name, value in totals.items()},
    }


def table(result: dict[str, Any]) -> str:
    """The figures as a Markdown table, with a description of each."""
    lines = ["| part of a request | ms | of a ResNet-50 |", "| --- | --- | --- |"]
    for name, what in PARTS.items():
        lines.append(_line(f"{name}: {what}", result["parts_ms"][name], result["parts"][name]))
    for name, what in (
        ("rest", "**all of these, through the Gradio client**"),
        ("rest_plain_http", "**without the client's share, through plain HTTP**"),
        ("rest_ours", "**without upload, download and Gradio's queue: our share**"),
        (
            "rest_command_line",
            "**reading, checking, preparing, drawing: as on the command line**",
        ),
        ("network", "besides, the network: prediction, interval, heatmap and faithfulness test"),
        ("empty_client", "an endpoint that does nothing, through the Gradio client"),
        ("empty_http", "the same through plain HTTP"),
    ):
        lines.append(_line(what, result["totals_ms"][name], result["ratios"][name]))
    lines.append(
        f"\nMedians of {result['rounds']} rounds, client and server on this machine; a ResNet-50 "
        f"at 224x224 takes {result['forward_ms']:.0f} ms here (torch, forward)."
    )
    return "\n".join(lines)


def _line(what: str, ms: float, ratio: float) -> str:
    return f"| {what} | {ms:.1f} | {ratio:.2f}x |"


def _network(timing: Mapping[str, float]) -> float:
    return sum(timing.get(step, 0.0) for step in _NETWORK_STEPS)


@contextmanager
def serve_page() -> Iterator[str]:
    """The address of the page, once it answers, served by a process of its own on a free port."""
    import httpx2

    with socket.socket() as listener:
        # Port 0: the system chooses a free one, which the page takes over once this socket is
        # closed.
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    program = [
        sys.executable,
        "-m",
        "xai_demo",
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    address = f"http://127.0.0.1:{port}"
    # `-m xai_demo` must find this package, whatever the current directory.
    root = Path(__file__).resolve().parents[2]
    silent = subprocess.DEVNULL
    with subprocess.Popen(program, cwd=root, stdout=silent, stderr=silent) as process:  # noqa: S603
        try:
            end = time.monotonic() + _START_TIMEOUT_S
            while not _is_answering(httpx2, address):
                if process.poll() is not None or time.monotonic() > end:
                    raise XaiDemoError(
                        f"The page on port {port} did not answer within {_START_TIMEOUT_S:.0f} s"
                        f" (exit status {process.returncode})."
                    )
                time.sleep(0.2)
            yield address
        finally:
            # Leaving the block of Popen waits for the end of the process.
            process.terminate()


def _is_answering(http: Any, address: str) -> bool:
    try:
        return bool(http.get(f"{address}/config", timeout=5).is_success)
    except http.TransportError:
        return False


def _wait_for_export(client: Client) -> None:
    """Wait until the background export has ended: from then on the ONNX backend answers."""
    end = time.monotonic() + _EXPORT_TIMEOUT_S
    while time.monotonic() < end:
        report = client.predict(_example_upload(), api_name=f"/{TASK}")[0]
        if report["model"]["backend"] == "onnx":
            return
        time.sleep(2)


def _example_upload() -> Any:
    """The first example of the task, in the form in which the Gradio client takes files."""
    from gradio_client import handle_file

    return handle_file(str(_example()))


def _example() -> Path:
    return example_path(next(name for name, e in EXAMPLES.items() if e.task == TASK))


def _default_arguments(address: str) -> list[Any]:
    """The default of every argument after the file, which plain HTTP has to send."""
    import httpx2

    info = httpx2.get(f"{address}/gradio_api/info", timeout=60).raise_for_status().json()
    parameters = info["named_endpoints"][f"/{TASK}"]["parameters"]
    # The first parameter is the file.
    return [parameter.get("parameter_default") for parameter in parameters[1:]]


def _round(
    client: Client, address: str, forward: Callable[[], object], defaults: list[Any]
) -> Measurement:
    import httpx2

    path = _example()
    with httpx2.Client(base_url=f"{address}/gradio_api/", timeout=600) as http:
        # The first call opens the connection, which is not what is measured.
        _call(http, "explainers", [])
        forward_ms, _ = _time_ms(forward)
        client_ms, answer = _time_ms(lambda: client.predict(_example_upload(), api_name=f"/{TASK}"))
        upload_ms, stored = _time_ms(lambda: _upload(http, path))
        file = {"path": stored, "meta": {"_type": "gradio.FileData"}}
        # The file was uploaded before: the call names where the server has stored it.
        call_ms, (report, figure) = _time_ms(lambda: _call(http, TASK, [file, *defaults]))
        download_ms, _ = _time_ms(lambda: http.get(f"file={figure['path']}").raise_for_status())
        empty_ms, _ = _time_ms(lambda: _call(http, "explainers", []))
        client_empty_ms, _ = _time_ms(lambda: client.predict(api_name="/explainers"))
    return Measurement(
        forward=forward_ms,
        client=client_ms,
        client_timing=answer[0]["timing_ms"],
        upload=upload_ms,
        call=call_ms,
        call_timing=report["timing_ms"],
        download=download_ms,
        empty=empty_ms,
        client_empty=client_empty_ms,
    )


def _upload(http: httpx2.Client, path: Path) -> str:
    with path.open("rb") as file:
        response = http.post("upload", files={"files": (path.name, file)})
    stored: list[str] = response.raise_for_status().json()
    return stored[0]


def _call(http: httpx2.Client, name: str, data: list[Any]) -> Any:
    """The result of one call of an endpoint, as the page's own documentation shows for curl."""
    # Two requests: one starts the call, the other waits for its result as server-sent events.
    event = http.post(f"call/{name}", json={"data": data}).raise_for_status().json()["event_id"]
    kind = ""
    with http.stream("GET", f"call/{name}/{event}") as stream:
        for line in stream.iter_lines():
            field, _, value = line.partition(": ")
            kind = value if field == "event" else kind
            if field == "data" and kind == "complete":
                return json.loads(value)
            if field == "data" and kind == "error":
                break
    raise XaiDemoError(
        f"The page answered /{name} with {kind or 'nothing'}; expected the event 'complete'."
    )


def _time_ms(work: Callable[[], Any]) -> tuple[float, Any]:
    """How long the work took, and its result."""
    time.sleep(_REST_S)
    start = time.perf_counter()
    result = work()
    return 1000 * (time.perf_counter() - start), result


def _resnet50() -> Callable[[], object]:
    import torch

    model = Model(
        name="resnet50",
        title="",
        task="chest_xray",
        architecture="resnet50",
        labels=tuple(f"label {i}" for i in range(14)),
        preprocessing=Raster(height=224, width=224, mean=0.5, std=0.25),
        activation="sigmoid",
        licence="",
        data="",
        citation="",
    )
    whole = networks.architecture(model).build(model).eval().requires_grad_(False)
    # Zeros take as long as a radiograph: the operations are the same.
    inputs = torch.from_numpy(np.zeros((1, 1, 224, 224), np.float32))

    def forward() -> object:
        with torch.inference_mode():
            return whole(inputs)

    return forward
