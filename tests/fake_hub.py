"""A server that speaks as much of the Hub's protocol as its client needs to fetch a file."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LATER = "f" * 40
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>[^?]+)")
_INFO = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/?]+)")


@dataclass
class Shelf:
    """What the server has; change it while it runs."""

    files: dict[tuple[str, str, str], bytes] = field(default_factory=dict)  # repo, commit, name
    branches: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    requests: list[str] = field(default_factory=list)
    status: int | None = None  # answer everything with this
    url: str = ""

    def put(self, name: str, content: bytes, *, commit: str = COMMIT) -> None:
        self.files["owner/name", commit, name] = content


@contextmanager
def serving() -> Iterator[Shelf]:
    shelf = Shelf()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(shelf))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    shelf.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield shelf
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(shelf: Shelf) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def log_message(self, *_args: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.replace("%3D", "=")
            shelf.requests.append(f"{self.command} {path}")
            if shelf.status:
                return self._send(shelf.status, {}, b"", with_body)
            if info := _INFO.fullmatch(path):
                return self._repository(info, with_body)
            if file := _FILE.fullmatch(path):
                return self._file(file, with_body)
            return self._send(404, {}, b"", with_body)

        def _repository(self, match: re.Match[str], with_body: bool) -> None:
            commit = shelf.branches.get(match["revision"])
            if not any(repo == match["repo"] for repo, _, _ in shelf.files):
                return self._send(404, {"X-Error-Code": "RepoNotFound"}, b"", with_body)
            if commit is None:
                return self._send(404, {"X-Error-Code": "RevisionNotFound"}, b"", with_body)
            body = json.dumps({"id": match["repo"], "sha": commit, "siblings": []}).encode()
            return self._send(200, {"Content-Type": "application/json"}, body, with_body)

        def _file(self, match: re.Match[str], with_body: bool) -> None:
            content = shelf.files.get((match["repo"], match["revision"], match["file"]))
            headers = {"X-Repo-Commit": match["revision"]}
            if content is None:
                headers["X-Error-Code"] = "EntryNotFound"
                return self._send(404, headers, b"", with_body)
            etag = hashlib.sha256(content).hexdigest()
            headers |= {"ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"'}
            headers |= {"X-Linked-Size": str(len(content)), "Accept-Ranges": "bytes"}
            status = 200
            if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
                start = int(wanted[1])
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                status, content = 206, content[start:]
            return self._send(status, headers, content, with_body)

        def _send(self, status: int, headers: dict[str, str], body: bytes, with_body: bool) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if with_body:
                self.wfile.write(body)

    return Handler
