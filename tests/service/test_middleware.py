"""The door: what is let in, what is refused in which words, and which headers go out."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from xai_demo.service import http_server, multipart
from xai_demo.service.health import Metrics, Readiness
from xai_demo.service.http_server import bind_port, server_config
from xai_demo.service.middleware import Door, Service
from xai_demo.service.policy import PagePolicy, clean_error, page_policy
from xai_demo.service.uploads import UploadFolder
from xai_demo.service.visitors import AddressLimits
from xai_demo.settings import ServerSettings

MOST = 100_000
FORM = "multipart/form-data; boundary=b"
PAGE = b"<html><script>let a = 1;</script><script src='x.js'></script></html>"


class Inner:
    """What stands for Gradio behind the door: it echoes, and remembers what it was asked."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        self.scopes.append(scope)
        self.bodies.append((await receive()).get("body", b"") if scope["method"] == "POST" else b"")
        status, body = 200, b"inner"
        if scope["path"] == "/":
            body = PAGE
        if scope["path"].endswith("/call/fail"):
            status, body = 500, json.dumps({"detail": f"/srv/secret/a.wav {'x' * 999}"}).encode()
        headers = [(b"content-type", b"text/plain"), (b"access-control-allow-origin", b"*")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@dataclasses.dataclass
class Served:
    url: str
    port: int
    inner: Inner
    service: Service
    client: httpx.Client

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.client.post(self.url + path, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(self.url + path, **options)

    def upload(self, content: bytes, name: str = "a.wav", **options: Any) -> httpx.Response:
        return self.post("/gradio_api/upload", files={"files": (name, content)}, **options)

    def files(self) -> list[Path]:
        return [path for path in self.service.folder.path.rglob("*") if path.is_file()]


@pytest.fixture
def settings() -> ServerSettings:
    return ServerSettings(trusted_proxies=("127.0.0.9",), allowed_origins=("https://friend.org",))


@pytest.fixture
def served(settings: ServerSettings, tmp_path: Path) -> Iterator[Served]:
    inner = Inner()
    service = Service(
        settings=settings,
        max_upload_bytes=MOST,
        folder=UploadFolder(tmp_path, quota_bytes=10**6, min_free_bytes=1),
        limits=AddressLimits(requests_per_minute=100, max_upload_bytes=MOST),
        readiness=Readiness({"models": lambda: ""}),
        metrics=Metrics(),
        public_folders=(Path(__file__).parent,),
    )
    service.metrics.start()
    bound = bind_port("127.0.0.1", 0)
    page = PagePolicy(inner, settings.frame_ancestors, head="<script>let b = 2;</script>")
    server = uvicorn.Server(server_config(Door(page, service), settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = bound.getsockname()[1]
    with httpx.Client(timeout=30) as client:
        yield Served(f"http://127.0.0.1:{port}", port, inner, service, client)
    server.should_exit = True
    thread.join(timeout=10)
    bound.close()
    service.metrics.stop()


def refusals(served: Served, kind: str) -> float:
    value = served.service.metrics.registry.get_sample_value(
        "xai_demo_refusals_total", {"kind": kind}
    )
    return value or 0.0


# Uploads


def test_an_upload_lies_under_a_random_name(served: Served) -> None:
    answer = served.upload(b"sound" * 9, "Max Muster 1950.wav")
    (path,) = answer.json()
    assert answer.status_code == 200
    assert Path(path).read_bytes() == b"sound" * 9
    assert Path(path).suffix == ".wav"
    assert "Muster" not in path
    assert served.files() == [Path(path)]
    assert served.inner.scopes == []


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_upload_ends_at_the_limit_and_leaves_nothing(served: Served, chunked: bool) -> None:
    sent = 0

    def body() -> Iterator[bytes]:
        nonlocal sent
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(400):
            sent += 10_000
            yield bytes(10_000)

    if chunked:
        answer = served.post("/gradio_api/upload", content=body(), headers={"content-type": FORM})
    else:
        answer = served.upload(bytes(2 * MOST))
    assert answer.status_code == 413
    assert "larger than 100 kB" in answer.json()["detail"]
    assert served.files() == []
    assert refusals(served, "too large") == 1
    assert served.upload(b"1").status_code == 200


def test_an_upload_that_is_broken_off_leaves_nothing(served: Served) -> None:
    head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\n"
    part = '--b\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\n'
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(f"{head}Content-Length: 50000\r\n\r\n{part}abc".encode())
            time.sleep(0.01)
    assert wait_for(lambda: refusals(served, "client left") == 20)
    assert served.files() == []
    assert served.service.limits.n_uploads == 0


def wait_for(check: Any, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("path", ["upload", "queue/join"])
def test_a_body_that_stops_is_ended(
    served: Served, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multipart, "IDLE_S", 0.3)
    head = f"POST /gradio_api/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\n"
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(f"{head}Content-Length: 50000\r\n\r\n--b\r\n".encode())
        client.settimeout(10)
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"stopped coming" in answer
    assert served.files() == []


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ([("files", ("a", b"1")), ("files", ("b", b"2"))], "more than one file"),
        ([("files", (None, b"1"))], "no whole file"),
    ],
)
def test_a_form_has_one_file(served: Served, form: Any, says: str) -> None:
    answer = served.post("/gradio_api/upload", files=form)
    assert answer.status_code == 400
    assert says in answer.json()["detail"]
    assert served.files() == []


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/plain", b"x"),
        ("multipart/form-data", b"x"),
        (FORM, b"--c\r\n\r\n"),
        (FORM, b""),
        (FORM, b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nabc'),
        (FORM, b"--b\r\n" + b"A: " + b"x" * 100_000),
        (FORM, b'--b\r\nContent-Disposition: form-data; filename="\xff\0\xfe"\r\n\r\nabc\r\n--b'),
    ],
)
def test_what_is_no_form_is_refused_in_words(
    served: Served, content_type: str, body: bytes
) -> None:
    answer = served.post("/gradio_api/upload", content=body, headers={"content-type": content_type})
    assert answer.status_code == 400
    assert "not a form with one file" in answer.json()["detail"]
    assert served.files() == []


def test_a_full_folder_refuses_and_another_upload_is_taken_later(served: Served) -> None:
    served.service.folder.quota_bytes = 10
    answer = served.upload(bytes(100))
    assert answer.status_code == 507
    assert answer.headers["retry-after"] == "600"
    assert served.files() == []
    served.service.folder.quota_bytes = 10**6
    assert served.upload(bytes(100)).status_code == 200


def test_the_page_hears_how_far_its_upload_is(served: Served) -> None:
    served.upload(bytes(50_000), "Käse.wav", params={"upload_id": "one"})
    events = served.get("/gradio_api/upload_progress?upload_id=one").text
    messages = [json.loads(line[6:]) for line in events.splitlines() if line]
    assert messages[-1] == {"msg": "done"}
    assert sum(each["chunk_size"] for each in messages[:-1]) == 50_000
    assert {each["orig_name"] for each in messages[:-1]} == {"Käse.wav"}
    assert served.get("/gradio_api/upload_progress?upload_id=two").status_code == 404


# Files in requests


def data(path: str, **more: Any) -> dict[str, Any]:
    return {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}, **more}]}


def test_an_uploaded_file_may_be_named_and_no_other(served: Served) -> None:
    (path,) = served.upload(b"1").json()
    good = served.post("/gradio_api/call/stethoscope", json=data(path, url=None))
    assert good.status_code == 200
    assert json.loads(served.inner.bodies[-1])["data"][0]["path"] == path
    own = f"{served.url}/gradio_api/file={path}"
    assert served.post("/gradio_api/queue/join", json=data(path, url=own)).status_code == 200
    count = len(served.inner.scopes)
    for other in ("/etc/passwd", f"{path}/../../../../etc/passwd", "relative", "", f"{path}x"):
        for route in ("queue/join", "call/x", "call/v2/x", "run/x", "api/x", "stream/ab12"):
            answer = served.post(f"/gradio_api/{route}", json=data(other))
            assert answer.status_code == 400
            assert "not on the server, or no longer" in answer.json()["detail"]
    assert len(served.inner.scopes) == count


@pytest.mark.parametrize(
    "remote",
    ["http://evil.org/a", "HTTPS://evil.org", "//evil.org/a", "file:///etc/passwd", "data:,a"],
)
def test_nothing_is_fetched_from_elsewhere(served: Served, remote: str) -> None:
    (path,) = served.upload(b"1").json()
    for body in (data(remote), data(path, url=remote), {"deep": [[data(remote)]]}):
        answer = served.post("/gradio_api/call/x", json=body)
        assert answer.status_code == 400
        assert "not fetched from an address" in answer.json()["detail"]
    assert served.get(f"/gradio_api/file={remote}").status_code in (403, 404)
    assert served.inner.scopes == []


def test_files_are_served_from_the_folder_and_public_places_only(served: Served) -> None:
    (path,) = served.upload(b"1").json()
    answer = served.get(f"/gradio_api/file={path}")
    assert answer.text == "inner"
    assert answer.headers["cache-control"] == "no-store"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert served.get(f"/gradio_api/file={__file__}").status_code == 200
    for other in ("/etc/passwd", f"{Path(__file__).parent}/../conftest.py", "http://a.org/b"):
        answer = served.get(f"/gradio_api/file={other}")
        assert answer.status_code == 403
        assert answer.json()["detail"] == "This file is not available."


@pytest.mark.parametrize(
    "body", [b"{", b"[" * 200_000, b"\xff", b'{"a": ' + b'"' + b"x" * 2_000_000 + b'"}']
)
def test_a_request_that_is_no_json_or_too_much_is_refused(served: Served, body: bytes) -> None:
    answer = served.post("/gradio_api/queue/join", content=body)
    assert answer.status_code == (413 if len(body) > 10**6 else 400)
    assert served.inner.scopes == []


# Names, origins, routes


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:99", 200),
        ("[::1]:7", 200),
        ("evil.org", 421),
        ("", 421),
        ("localhost.evil.org", 421),
    ],
)
def test_other_hosts_are_refused(served: Served, host: str, status: int) -> None:
    answer = served.get("/config", headers={"host": host})
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("{url}", True),
        ("https://friend.org", True),
        ("https://evil.org", False),
        ("null", False),
        ("http://[", False),
        ("http://127.0.0.1:1", False),
    ],
)
def test_pages_of_others_cannot_send_or_read(
    served: Served, origin: str | None, allowed: bool
) -> None:
    headers = {} if origin is None else {"origin": origin.format(url=served.url)}
    answer = served.post("/gradio_api/call/x", json={}, headers=headers)
    assert answer.status_code == (200 if allowed else 403)
    read = served.get("/config", headers=headers)
    assert ("access-control-allow-origin" in read.headers) is allowed
    assert len(answer.text) < 300


@pytest.mark.parametrize(
    "path",
    [
        "/monitoring",
        "/monitoring/summary",
        "/login",
        "/gradio_api/deep_link?session_hash=a",
        "/gradio_api/proxy=http://evil.org",
        "/gradio_api/dev/reload",
        "/gradio_api/stream/a/b/1/playlist.m3u8",
        "/gradio_api/mcp/sse",
        "/gradio_api/vibe-code",
        "/docs",
        "/../etc/passwd",
    ],
)
def test_what_the_page_does_not_need_is_not_there(served: Served, path: str) -> None:
    assert served.get(path).status_code == 404
    assert served.post("/gradio_api/component_server", json={}).status_code == 404
    assert served.inner.scopes == []


def test_a_proxy_is_believed_if_it_is_trusted(served: Served) -> None:
    headers = {"x-forwarded-for": "9.9.9.9", "x-forwarded-host": "evil.org", "x-request-id": "1"}
    served.get("/config", headers=headers)
    scope = served.inner.scopes[-1]
    sent = dict(scope["headers"])
    assert scope["client"][0] == "127.0.0.1"
    assert b"x-forwarded-host" not in sent
    assert len(sent[b"x-request-id"]) == 32
    transport = httpx.HTTPTransport(local_address="127.0.0.9")
    with httpx.Client(transport=transport) as proxy:
        headers = {**headers, "host": "evil.org"}
        assert proxy.get(f"{served.url}/config", headers=headers).status_code == 421
        headers["host"] = "localhost"
        assert proxy.get(f"{served.url}/config", headers=headers).status_code == 200
        assert served.inner.scopes[-1]["client"][0] == "9.9.9.9"
        assert (b"x-forwarded-host", b"evil.org") in served.inner.scopes[-1]["headers"]
        # A stranger has no business with the metrics.
        assert proxy.get(f"{served.url}/metrics", headers=headers).status_code == 404
        assert proxy.get(f"{served.url}/healthz", headers=headers).status_code == 200


def test_too_many_requests_are_told_when_to_come_back(served: Served) -> None:
    answers = [served.post("/gradio_api/call/x", json={}) for _ in range(101)]
    assert [each.status_code for each in answers[-2:]] == [200, 429]
    assert answers[-1].headers["retry-after"] == "60"
    assert served.get("/").status_code == 200


# Headers, errors, health


def test_the_page_allows_its_own_scripts_and_nothing_from_elsewhere(served: Served) -> None:
    answer = served.get("/")
    policy = answer.headers["content-security-policy"]
    assert answer.content == PAGE
    for script in (b"let a = 1;", b"let b = 2;"):
        digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert policy.count("sha256-") == 2
    assert "'unsafe-inline'" not in policy.partition("style-src")[0]
    assert "http" not in policy
    assert "frame-ancestors 'self'" in policy
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert "microphone=(self)" in answer.headers["permissions-policy"]
    assert "server" not in answer.headers


def test_a_space_may_be_framed_by_the_hub() -> None:
    policy = page_policy(PAGE, ("'self'", "https://huggingface.co"))
    assert policy.endswith("frame-ancestors 'self' https://huggingface.co")


def test_errors_of_gradio_lose_paths_and_length(served: Served) -> None:
    answer = served.post("/gradio_api/call/fail", json={})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert "x" * 81 not in answer.text
    assert clean_error(b"Internal Server Error") == clean_error(b'{"detail": [{"input": 1}]}')


def test_health_is_told_and_a_server_that_ends_takes_nothing_new(served: Served) -> None:
    assert served.get("/healthz").json() == {"alive": True}
    assert served.get("/readyz").json()["ready"] is True
    served.service.readiness.drain()
    answer = served.get("/readyz")
    assert (answer.status_code, list(answer.json()["problems"])) == (503, ["draining"])
    assert served.get("/healthz").status_code == 200
    for answer in (served.post("/gradio_api/call/x", json={}), served.upload(b"1")):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "60"
    # Who waits for an answer still gets it.
    assert served.get("/gradio_api/queue/data?session_hash=a").status_code == 200


def test_metrics_count_what_was_refused(served: Served) -> None:
    served.get("/nothing")
    text = served.get("/metrics").text
    assert 'xai_demo_refusals_total{kind="route"} 1.0' in text
    assert "process_resident_memory_bytes" in text


# Connections


def test_headers_that_do_not_come_end_the_connection(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_HEADERS_S", 0.2)
    for sent in (b"", b"GET / HTTP/1.1\r\nHost: local"):
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(sent)
            client.settimeout(10)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(1) == b""


def test_a_port_that_is_named_and_taken_is_an_error() -> None:
    with bind_port("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(http_server.RequestError, match=f"Port {port} is taken"):
            bind_port("127.0.0.1", port)
    with pytest.raises(http_server.RequestError, match=r"cannot listen on '203\.0\.113\.1'"):
        bind_port("203.0.113.1", 1)
