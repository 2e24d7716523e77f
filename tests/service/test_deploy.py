"""What a deployment is made of: Dockerfile, compose file, systemd unit, lock files, nginx.

A real nginx, with the configuration that is shipped, stands before a small server.
"""

from __future__ import annotations

import configparser
import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import yaml

from tests.support import asynchronous
from xai_demo.bench.visitor import Outcome, ask, connect, open_page

if TYPE_CHECKING:
    import gradio as gr

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "docs" / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
NGINX = (DEPLOY / "nginx.conf").read_text(encoding="utf-8")
PATIENCE_S = 30


# The container


def test_the_dockerfile_has_no_fault_that_hadolint_knows() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert hadolint, "hadolint is not installed; it is one of the dev extra's packages"
    command = [hadolint, "--no-color", str(ROOT / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_base_images_are_pinned_by_digest() -> None:
    images = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    named = set(re.findall(r"^FROM .* AS (\S+)$", DOCKERFILE, re.MULTILINE))
    images = [image for image in images if image not in named]
    images += [s["image"] for s in COMPOSE["services"].values() if "build" not in s]
    assert len(images) == 2
    for image in images:
        assert re.fullmatch(r"[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}", image)


def test_the_image_has_what_it_copies_and_no_more_is_sent() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    sent = {line[1:] for line in ignored if line.startswith("!")}
    copied = set(re.findall(r"^COPY (?!--from)(\S+)", DOCKERFILE, re.MULTILINE))
    assert "*" in ignored
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)


def test_the_container_is_nobody_and_writes_nowhere_but_in_its_tmpfs() -> None:
    assert re.search(r"^USER 10001:10001$", DOCKERFILE, re.MULTILINE)
    page = COMPOSE["services"]["page"]
    for service in COMPOSE["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert all(path.startswith("/tmp:") and "noexec" in path for path in service["tmpfs"])
        assert service["mem_limit"]
        assert service["pids_limit"]
    assert COMPOSE["networks"]["inside"]["internal"] is True
    assert page["networks"] == ["inside"]
    assert "ports" not in page


def test_the_page_believes_the_proxy_of_its_own_network_alone() -> None:
    page = COMPOSE["services"]["page"]
    (pool,) = COMPOSE["networks"]["inside"]["ipam"]["config"]
    assert page["environment"]["XAI_DEMO_TRUSTED_PROXIES"] == pool["subnet"]


def test_every_setting_that_is_set_exists() -> None:
    from xai_demo.settings import Settings

    known = set(re.findall(r"[A-Z_]{4,}", Settings.from_env.__doc__ or ""))
    text = "\n".join(path.read_text(encoding="utf-8") for path in DEPLOY.iterdir()) + DOCKERFILE
    assert set(re.findall(r"\b(XAI_DEMO_[A-Z_]+|HF_[A-Z_]+)\b", text)) <= known


def test_libraries_find_a_home_and_a_name_without_asking_the_system() -> None:
    # The container's user and the unit's are in no list of users that Python could read.
    for text in (DOCKERFILE, (DEPLOY / "xai_demo.service").read_text(encoding="utf-8")):
        for name in ("HOME", "USER", "MPLCONFIGDIR", "NUMBA_CACHE_DIR", "HF_HOME"):
            assert re.search(rf"\b{name}=\S+", text)


def test_it_is_given_the_time_that_it_needs_to_end() -> None:
    unit = read_unit()
    assert int(unit["Service"]["TimeoutStopSec"]) > 25
    assert int(COMPOSE["services"]["page"]["stop_grace_period"].removesuffix("s")) > 25
    assert "STOPSIGNAL SIGTERM" in DOCKERFILE


def test_the_health_check_tells_the_living_from_the_dead() -> None:
    (line,) = re.findall(r"^    CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)
    _, *arguments = json.loads(line)
    with serve_backend() as port:
        command = [sys.executable, *(a.replace(":7860", f":{port}") for a in arguments)]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


# Without containers


def read_unit() -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "xai_demo.service")
    return unit


def test_the_unit_is_hardened() -> None:
    service = read_unit()["Service"]
    for option in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "DynamicUser", "ProtectHome"):
        assert service[option] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["MemoryMax"] == "6G"
    assert service["CapabilityBoundingSet"] == ""
    assert service["IPAddressDeny"] == "any"


def test_the_unit_is_one_that_systemd_takes() -> None:
    analyse = shutil.which("systemd-analyze")
    if analyse is None:  # Debian's container images have none; the test above is for all.
        return
    command = [analyse, "security", "--offline=true", "--threshold=20"]
    unit = DEPLOY / "xai_demo.service"
    done = subprocess.run([*command, unit], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Unknown" not in done.stderr


# The lock files


def locked(name: str) -> dict[str, set[str]]:
    """The versions of each package in a lock file; every one has a hash."""
    versions: dict[str, set[str]] = {}
    text = (ROOT / ".ci" / name).read_text(encoding="utf-8")
    for package, version, hashes in re.findall(
        r"^([\w.-]+)==(\S+)[^\n]*\\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
        text,
        re.MULTILINE,
    ):
        assert hashes
        versions.setdefault(package, set()).add(version)
    assert sum(map(len, versions.values())) == len(re.findall(r"^[\w.-]+==", text, re.MULTILINE))
    return versions


def test_both_lock_files_hold_what_is_required() -> None:
    demo, dev = locked("requirements.lock"), locked("requirements-dev.lock")
    pins = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    for pin in pins:
        name, _, version = pin.partition("==")
        assert demo[name] == {version}, "run `make lock`"
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for requirement in extra["optional-dependencies"]["dev"]:
        assert re.split(r"[=>]=", requirement)[0] in dev, "run `make lock`"
    for name, versions in demo.items():
        assert versions <= dev[name], "run `make lock`"


def test_no_lock_file_names_an_index_or_this_machine() -> None:
    for name in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / ".ci" / name).read_text(encoding="utf-8")
        assert not re.search(r"https?://|file:|index-url|find-links|/(work|root|home|opt)/", text)


# nginx


class Backend(BaseHTTPRequestHandler):
    """A small server in the page's place."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in one piece
    may_go_on = threading.Event()  # before the second event is sent
    received = threading.Event()  # the first bytes of an upload

    def do_GET(self) -> None:
        if self.headers.get("Upgrade") == "websocket":
            self.send_response(101)
            self.send_header("Upgrade", "websocket")
            self.send_header("Connection", "upgrade")
            self.end_headers()
            self.wfile.flush()
            self.connection.sendall(b"echo " + self.connection.recv(100))
            self.close_connection = True
        elif self.path == "/events":
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._send_chunk(b"data: 1\n\n")
            self.may_go_on.wait(PATIENCE_S)
            self._send_chunk(b"data: 2\n\n")
            self._send_chunk(b"")
        else:
            self._answer({"path": self.path, "headers": dict(self.headers)})

    def do_POST(self) -> None:
        left = int(self.headers["Content-Length"])
        while left and (piece := self.rfile.read1(min(left, 65536))):
            self.received.set()
            left -= len(piece)
        self._answer({"missing": left})

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""

    def _send_chunk(self, content: bytes) -> None:
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self.wfile.flush()

    def _answer(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serve_backend() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Backend)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class Proxy:
    port: int

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        with self.connect_and_close() as connection:
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            content = response.read()
            is_ours = response.status == 200
            return response.status, json.loads(content) if is_ours else content

    @contextmanager
    def connect_and_close(self) -> Iterator[http.client.HTTPConnection]:
        connection = self.connect()
        try:
            yield connection
        finally:
            connection.close()


@pytest.fixture(scope="module")
def nginx(request: pytest.FixtureRequest) -> str:
    """The program."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        missing = "No nginx here, wanted: Debian's nginx-light."
        if request.config.getoption("--require-browser"):
            pytest.fail(missing)
        pytest.skip(missing)
    return program


@pytest.fixture(scope="module")
def proxy(nginx: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Before the small server, and impatient."""
    waits = {
        "client_body_timeout 30s": "client_body_timeout 1s",
        "client_header_timeout 10s": "client_header_timeout 1s",
    }
    with (
        serve_backend() as port,
        start_nginx(nginx, tmp_path_factory.mktemp("nginx"), port, waits) as proxy,
    ):
        yield proxy


@contextmanager
def start_nginx(
    program: str, folder: Path, backend: int, waits: dict[str, str] | None = None
) -> Iterator[Proxy]:
    """Debian's nginx with the configuration that is shipped; only paths and waits are changed."""
    port = free_port()
    changes = {
        "page:7860": f"127.0.0.1:{backend}",
        "listen 8080": f"listen 127.0.0.1:{port}",
        "/tmp/": f"{folder}/",
        "/dev/stdout": f"{folder}/access.log",
        **(waits or {}),
    }
    text = NGINX
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    mine = "daemon off; user root;" if os.geteuid() == 0 else "daemon off;"
    command = [program, "-e", str(folder / "error.log"), "-g", mine]
    with subprocess.Popen([*command, "-c", str(folder / "nginx.conf")]) as process:
        try:
            wait_for_port(port, process)
            yield Proxy(port)
        finally:
            process.terminate()


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    for _ in range(20 * PATIENCE_S):
        assert process.poll() is None, "nginx ended: its configuration is at fault"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("nginx does not listen")


def test_the_proxy_says_who_asks_and_lets_nobody_else_say_it(proxy: Proxy) -> None:
    forged = {"X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X-Real-IP": "6.6.6.6"}
    status, seen = proxy.get("/any", **forged)
    assert status == 200
    assert seen["headers"]["X-Forwarded-For"] == "127.0.0.1"
    assert seen["headers"]["X-Forwarded-Proto"] == "http"
    assert seen["headers"]["Host"] == f"127.0.0.1:{proxy.port}"
    assert "6.6.6.6" not in str(seen)


def test_an_event_arrives_before_the_next_is_sent(proxy: Proxy) -> None:
    Backend.may_go_on.clear()
    with proxy.connect_and_close() as connection:
        connection.request("GET", "/events")
        response = connection.getresponse()
        assert response.readline() == b"data: 1\n"
        assert not Backend.may_go_on.is_set()
        Backend.may_go_on.set()
        assert response.read() == b"\ndata: 2\n\n"


def test_a_websocket_is_let_through(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S) as connection:
        connection.sendall(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        )
        assert b" 101 " in connection.recv(1000)
        connection.sendall(b"hello")
        assert connection.recv(100) == b"echo hello"


def test_an_upload_reaches_the_page_as_it_comes(proxy: Proxy) -> None:
    Backend.received.clear()
    with proxy.connect_and_close() as connection:
        connection.putrequest("POST", "/gradio_api/upload")
        connection.putheader("Content-Length", "2000")
        connection.endheaders()
        connection.send(bytes(1000))
        assert Backend.received.wait(PATIENCE_S)
        connection.send(bytes(1000))
        assert json.loads(connection.getresponse().read()) == {"missing": 0}


def test_an_idle_body_ends(proxy: Proxy) -> None:
    with proxy.connect_and_close() as connection:
        connection.putrequest("POST", "/gradio_api/upload")
        connection.putheader("Content-Length", "2000")
        connection.endheaders()
        connection.send(bytes(10))
        # The page, of which less than it was promised arrived, may be the first to hang up.
        with suppress(http.client.RemoteDisconnected):
            assert connection.getresponse().status in (408, 502)


def test_a_header_that_does_not_end_is_cut_off(proxy: Proxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_S) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert connection.recv(100)[:12] in (b"", b"HTTP/1.1 408")


def test_a_body_above_the_limit_is_refused_at_once(proxy: Proxy) -> None:
    with proxy.connect_and_close() as connection:
        connection.putrequest("POST", "/gradio_api/upload")
        connection.putheader("Content-Length", str(300_000_000))
        connection.endheaders()
        assert connection.getresponse().status == 413


def test_figures_are_for_this_machine_and_its_name_is_not_told(proxy: Proxy) -> None:
    assert proxy.get("/metrics")[0] == 200
    rule = NGINX[NGINX.index("location ~ ^/(metrics|readyz)$") :]
    assert "allow 127.0.0.1;" in rule
    assert "deny all;" in rule
    with proxy.connect_and_close() as connection:
        connection.request("GET", "/any")
        response = connection.getresponse()
        assert response.getheader("Server") == "nginx"


def test_a_flood_from_one_address_is_slowed(proxy: Proxy) -> None:
    statuses = []
    with proxy.connect_and_close() as connection:
        while 429 not in statuses and len(statuses) < 3000:
            connection.request("GET", "/any")
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
    assert set(statuses) == {200, 429}
    # A page and its pictures come at once.
    assert len(statuses) > 60
    # For the other tests, which come from the same address: thirty requests are free again.
    time.sleep(1)


def test_the_page_itself_answers_behind_the_proxy(
    nginx: str, served: gr.Blocks, tmp_path: Path
) -> None:
    backend = urlsplit(served.local_url).port
    assert backend

    async def visit(url: str) -> Outcome:
        page = await open_page(url)
        async with connect(page.url, 0) as http:
            # As a browser does: it says which page sends the request.
            http.headers["Origin"] = url.rstrip("/")
            return await ask(http, page, "chest_xray", visitor=0)

    with start_nginx(nginx, tmp_path, backend) as proxy:
        outcome = asynchronous.run(visit(f"http://127.0.0.1:{proxy.port}/"))
    assert outcome.kind == "answered", outcome
    log = (tmp_path / "access.log").read_text()
    assert '"POST /gradio_api/upload" 200' in log
    assert "session_hash" not in log


# The workflow


def test_the_workflow_looks_for_known_weaknesses_every_time() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert {"run": "make audit"} in workflow["jobs"]["audit"]["steps"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = makefile[makefile.index("\naudit:") :]
    assert "bandit" in recipe
    assert "pip-audit --require-hashes" in recipe


def test_bandit_finds_nothing() -> None:
    command = [sys.executable, "-m", "bandit", "--quiet", "--recursive"]
    command += ["--configfile", "pyproject.toml", "xai_demo", "app.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout


def test_every_action_is_pinned_by_its_commit() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        for use in re.findall(r"uses: (\S+)", path.read_text(encoding="utf-8")):
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", use)


def test_dependabot_follows_everything_that_is_pinned() -> None:
    config = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())
    followed = {(each["package-ecosystem"], each["directory"]) for each in config["updates"]}
    assert followed == {
        ("pip", "/"),
        ("docker", "/"),
        ("docker-compose", "/docs/deploy"),
        ("github-actions", "/"),
    }
