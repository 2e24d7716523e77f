"""What a request costs beside the network: the real page in a process of its own, asked over HTTP.

Asked in turn, in every round: the page through the Gradio client, the page through plain HTTP on
one connection, an endpoint that does nothing in both ways, and a ResNet-50 in this process to
compare with.
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
    import httpx
    from gradio_client import Client

    from xai_demo.records import Progress
    from xai_demo.settings import Settings

ROUNDS = 30
TASK = "chest_xray"
_WARM = 3  # rounds before anything counts
_NETWORK = ("predict", "uncertainty", "explain", "faithfulness")  # the network works in these
_READING = ("read", "gate", "prepare", "render")  # steps of a report in which it does not
_UP_WITHIN_S = 180.0
_SETTLED_WITHIN_S = 120.0
_REST_S = 0.05  # lets the threads of the one before stop
# What each part is, in the order in which it happens.
PARTS = {
    "upload": "the file, sent and stored",
    "queue": "Gradio's queue and its stream of events",
    "read": "reading the picture",
    "gate": "looking whether it is a frontal chest X-ray",
    "prepare": "preparing it for the network",
    "render": "what is drawn of the answer",
    "respond": "the figure, drawn and saved as JPEG, and the report as JSON",
    "download": "the figure, fetched",
    "client": "the Gradio client's own: a connection for each call, a look every 50 ms",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One round, in milliseconds."""

    forward: float  # ResNet-50, 224x224, torch, in this process
    client: float  # a request through the Gradio client
    client_timing: Mapping[str, float]  # what the report says of that request
    upload: float  # the same through plain HTTP, step by step
    call: float
    call_timing: Mapping[str, float]
    download: float
    nothing: float  # a call of an endpoint that only lists
    client_nothing: float  # the same through the Gradio client

    @property
    def network(self) -> float:
        """What the network worked for the Gradio client's request."""
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
        """What is left of that when Gradio's own is taken off: what this project could save."""
        return self.plain - self.upload - self.nothing - self.download

    def parts(self) -> dict[str, float]:
        """`rest` in parts that add up to it."""
        told = {k: self.call_timing.get(k, 0.0) for k in _READING}
        respond = self.call - sum(self.call_timing.values()) - self.nothing
        parts = {"upload": self.upload, "queue": self.nothing, **told, "respond": respond}
        return parts | {"download": self.download, "client": self.rest - self.plain}


def run(
    settings: Settings, *, rounds: int = ROUNDS, progress: Progress | None = None
) -> dict[str, Any]:
    """Ask the served page so many times; see `figures`. Its settings are the environment's."""
    tell = progress or (lambda done, doing: None)
    forward = _resnet50()
    with tempfile.TemporaryDirectory() as folder, served() as address:
        from gradio_client import Client

        tell(0.0, "asking the page for the first time")
        client = Client(address, verbose=False, download_files=folder, analytics_enabled=False)
        asked = []
        try:
            if settings.background_export:
                _settle(client)
            blanks = _blanks(address)
            for i in range(_WARM + rounds):
                asked.append(_round(client, address, forward, blanks))
                tell((i + 1) / (_WARM + rounds), f"round {i + 1}")
        finally:
            client.close()
    return figures(asked[_WARM:])


def figures(asked: Sequence[Asked]) -> dict[str, Any]:
    """Medians in milliseconds and as ratios to ResNet-50's forward pass; each median is its own."""
    forward = statistics.median(a.forward for a in asked)
    parts = [a.parts() for a in asked]
    ms = {name: statistics.median(p[name] for p in parts) for name in PARTS}
    totals = {
        "network": statistics.median(a.network for a in asked),
        "rest": statistics.median(a.rest for a in asked),
        "rest_plain_http": statistics.median(a.plain for a in asked),
        "rest_ours": statistics.median(a.ours for a in asked),
        "empty_http": statistics.median(a.nothing for a in asked),
        "empty_client": statistics.median(a.client_nothing for a in asked),
        "rest_command_line": statistics.median(
            sum(a.call_timing.get(k, 0.0) for k in _READING) for a in asked
        ),
    }
    return {
        "rounds": len(asked),
        "forward_ms": forward,
        "parts_ms": ms,
        "parts": {name: value / forward for name, value in ms.items()},
        "totals_ms": totals,
        "ratios": {name: value / forward for name, value in totals.items()},
    }


def table(result: dict[str, Any]) -> str:
    """The figures as a Markdown table, with what they are."""
    lines = ["| part of a request | ms | of a ResNet-50 |", "| --- | --- | --- |"]
    for name, what in PARTS.items():
        lines.append(_line(f"{name}: {what}", result["parts_ms"][name], result["parts"][name]))
    for name, what in (
        ("rest", "**all of these, through the Gradio client**"),
        ("rest_plain_http", "**without the client's own, through plain HTTP**"),
        ("rest_ours", "**without the upload, the download and Gradio's queue: what is ours**"),
        (
            "rest_command_line",
            "**reading, looking, preparing, drawing: the command line's report**",
        ),
        ("network", "the network beside them: answer, its interval, heat and its trial"),
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
    return sum(timing.get(step, 0.0) for step in _NETWORK)


@contextmanager
def served() -> Iterator[str]:
    """The page, served from a process of its own on a free port; its address, once it answers."""
    import httpx

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
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
    root = Path(__file__).resolve().parents[2]
    silent = subprocess.DEVNULL
    with subprocess.Popen(program, cwd=root, stdout=silent, stderr=silent) as process:  # noqa: S603
        try:
            end = time.monotonic() + _UP_WITHIN_S
            while not _answers(httpx, address):
                if process.poll() is not None or time.monotonic() > end:
                    raise XaiDemoError(
                        f"The page on port {port} does not answer (exit status "
                        f"{process.returncode}), wanted: an answer within {_UP_WITHIN_S:.0f} s."
                    )
                time.sleep(0.2)
            yield address
        finally:
            process.terminate()


def _answers(http: Any, address: str) -> bool:
    try:
        return bool(http.get(f"{address}/config", timeout=5).is_success)
    except http.TransportError:
        return False


def _settle(client: Client) -> None:
    """Wait until no export works in the background any more, or it is clear that none comes."""
    end = time.monotonic() + _SETTLED_WITHIN_S
    while time.monotonic() < end:
        report = client.predict(_handled(), api_name=f"/{TASK}")[0]
        if report["model"]["backend"] == "onnx":
            return
        time.sleep(2)


def _handled() -> Any:
    """The first example of the task, as the Gradio client takes a file."""
    from gradio_client import handle_file

    return handle_file(str(_example()))


def _example() -> Path:
    return example_path(next(name for name, e in EXAMPLES.items() if e.task == TASK))


def _blanks(address: str) -> list[Any]:
    """What stands for the arguments after the file: plain HTTP has no defaults."""
    import httpx

    said = httpx.get(f"{address}/gradio_api/info", timeout=60).raise_for_status().json()
    parameters = said["named_endpoints"][f"/{TASK}"]["parameters"]
    return [parameter.get("parameter_default") for parameter in parameters[1:]]


def _round(client: Client, address: str, forward: Callable[[], object], blanks: list[Any]) -> Asked:
    import httpx

    path = _example()
    with httpx.Client(base_url=f"{address}/gradio_api/", timeout=600) as http:
        _call(http, "explainers", [])  # opens the connection
        forward_ms, _ = _timed(forward)
        client_ms, answer = _timed(lambda: client.predict(_handled(), api_name=f"/{TASK}"))
        upload_ms, stored = _timed(lambda: _upload(http, path))
        file = {"path": stored, "meta": {"_type": "gradio.FileData"}}
        call_ms, (report, figure) = _timed(lambda: _call(http, TASK, [file, *blanks]))
        download_ms, _ = _timed(lambda: http.get(f"file={figure['path']}").raise_for_status())
        nothing_ms, _ = _timed(lambda: _call(http, "explainers", []))
        client_nothing_ms, _ = _timed(lambda: client.predict(api_name="/explainers"))
    return Asked(
        forward=forward_ms,
        client=client_ms,
        client_timing=answer[0]["timing_ms"],
        upload=upload_ms,
        call=call_ms,
        call_timing=report["timing_ms"],
        download=download_ms,
        nothing=nothing_ms,
        client_nothing=client_nothing_ms,
    )


def _upload(http: httpx.Client, path: Path) -> str:
    with path.open("rb") as file:
        response = http.post("upload", files={"files": (path.name, file)})
    stored: list[str] = response.raise_for_status().json()
    return stored[0]


def _call(http: httpx.Client, name: str, data: list[Any]) -> Any:
    """One call of an endpoint as the page's own documentation shows it for curl."""
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
    raise XaiDemoError(f"The page answered /{name} with {kind or 'nothing'}, wanted: complete.")


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
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
    whole = networks.architecture(model).whole(model).eval().requires_grad_(False)
    inputs = torch.from_numpy(np.zeros((1, 1, 224, 224), np.float32))

    def forward() -> object:
        with torch.inference_mode():
            return whole(inputs)

    return forward
