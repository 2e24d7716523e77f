"""A server with as much of the Hub's protocol as its client needs to download or upload files.

Revisions, `resolve` with its headers, ranges, and files in large file storage behind a redirect to
another server; xet is not offered. It can also break, stall and lie, as a network does.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LATER = "f" * 40
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>[^?]+)")
_INFO = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/?]+)")
_STORED = re.compile(r"/stored/(?P<sha256>[0-9a-f]{64})")
_SENT = re.compile(r"/api/(?P<kind>\w+)/(?P<repo>[^/]+/[^/]+)/(?P<what>preupload|commit)/main")
_BATCH = re.compile(r"/(?:\w+/)?(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch")
_TREE = re.compile(r"/api/\w+/(?P<repo>[^/]+/[^/]+)/tree/main")
_PIECE_BYTES = 65_536


@dataclass
class HubServer:
    """What the server has and how it behaves; may be changed while it runs."""

    files: dict[tuple[str, str, str], bytes] = field(default_factory=dict)  # repo, commit, name
    branches: dict[str, str] = field(default_factory=lambda: {"main": COMMIT})
    requests: list[str] = field(default_factory=list)
    status: int | None = None  # of every response
    statuses: list[int] = field(default_factory=list)  # of the next responses
    headers: dict[str, str] = field(default_factory=dict)  # of an error response
    token: str | None = None  # required; None: everybody may read
    redirects: bool = False  # files are on the other server
    cuts: list[int] = field(default_factory=list)  # bytes after which the next bodies break off
    pause_s: float = 0.0  # after every piece of a body
    announced_size: int | None = None  # if not the true one
    storage_requests: list[dict[str, str]] = field(default_factory=list)  # headers
    storage_statuses: list[int] = field(
        default_factory=list
    )  # of the responses to the next uploads
    page: bytes | None = None  # what every question is answered with, as a login page does
    large: str | None = None  # files with this suffix are to be uploaded to the other server
    uploaded: dict[str, bytes] = field(default_factory=dict)  # to large file storage, by sha256
    verified: list[dict[str, Any]] = field(
        default_factory=list
    )  # what clients claim to have uploaded
    made: list[dict[str, Any]] = field(default_factory=list)  # requests to create repositories
    commits: list[list[dict[str, Any]]] = field(default_factory=list)  # lines of each
    url: str = ""
    storage_url: str = ""

    def put(self, name: str, content: bytes, *, commit: str = COMMIT) -> None:
        self.files["owner/name", commit, name] = content

    def bodies(self) -> int:
        """How many GET requests asked for a file."""
        return sum(r.startswith("GET") and "/resolve/" in r for r in self.requests)


class Server(ThreadingHTTPServer):
    """Prints nothing when a client disconnects, as it does where it receives too much."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serve_hub() -> Iterator[HubServer]:
    hub_server = HubServer()
    servers = [Server(("127.0.0.1", 0), _handler(hub_server)) for _ in range(2)]
    threads = [
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        for server in servers
    ]
    for thread in threads:
        thread.start()
    hub_server.url, hub_server.storage_url = (
        f"http://127.0.0.1:{s.server_address[1]}" for s in servers
    )
    try:
        yield hub_server
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


def _handler(hub_server: HubServer) -> type[BaseHTTPRequestHandler]:
    def _upload_mode(path: str) -> dict[str, Any]:
        """Whether a file belongs into the commit or, if it is large, on the other server."""
        is_large = hub_server.large is not None and path.endswith(hub_server.large)
        return {
            "path": path,
            "uploadMode": "lfs" if is_large else "regular",
            "shouldIgnore": False,
        }

    def _upload(wanted: dict[str, Any]) -> dict[str, Any]:
        """Where to upload a large file, unless it is there already."""
        facts = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] in hub_server.uploaded:
            return facts
        put = {"href": f"{hub_server.storage_url}/upload/{wanted['oid']}"}
        return facts | {"actions": {"upload": put, "verify": {"href": f"{hub_server.url}/verify"}}}

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            hub_server.requests.append(f"POST {self.path}")
            if hub_server.status:
                return self._json({}, hub_server.status)
            if (
                hub_server.token
                and self.headers.get("Authorization") != f"Bearer {hub_server.token}"
            ):
                return self._json({}, 401)
            if self.path == "/api/validate-yaml":
                return self._json({"errors": [], "warnings": []})
            if self.path == "/api/repos/create":
                hub_server.made.append(json.loads(body))
                return self._json({"url": f"{hub_server.url}/owner/name"})
            sent = _SENT.fullmatch(self.path.partition("?")[0])
            if sent and sent["what"] == "preupload":
                paths = [file["path"] for file in json.loads(body)["files"]]
                return self._json({"files": [_upload_mode(path) for path in paths]})
            if _BATCH.fullmatch(self.path):
                objects = [_upload(each) for each in json.loads(body)["objects"]]
                return self._json({"transfer": "basic", "objects": objects})
            if self.path == "/verify":
                claim = json.loads(body)
                hub_server.verified.append(claim)
                there = len(hub_server.uploaded.get(claim["oid"], b"")) == claim["size"]
                return self._json({}, 200 if there else 422)
            if sent:
                hub_server.commits.append([json.loads(line) for line in body.splitlines()])
                url = f"{hub_server.url}/{sent['repo']}/commit/{LATER}"
                return self._json({"commitUrl": url, "commitOid": LATER})
            return self._json({}, 404)

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            hub_server.storage_requests.append(dict(self.headers))
            status = hub_server.storage_statuses.pop(0) if hub_server.storage_statuses else 200
            if status == 200:
                hub_server.uploaded[hashlib.sha256(content).hexdigest()] = content
            self._send(status, {}, b"", True)

        def _json(self, value: Any, status: int = 200) -> None:
            body = json.dumps(value).encode()
            self._send(status, {"Content-Type": "application/json"}, body, True)

        def _tree(self, match: re.Match[str], with_body: bool) -> None:
            rows = [
                {"type": "file", "path": name, "oid": "0" * 40, "size": len(content)}
                for (repo, commit, name), content in hub_server.files.items()
                if (repo, commit) == (match["repo"], COMMIT)
            ]
            headers = {"Content-Type": "application/json"}
            self._send(200, headers, json.dumps(rows).encode(), with_body)

        def log_message(self, *_args: object) -> None:
            pass

        def _answer(self, *, with_body: bool) -> None:
            path = self.path.replace("%3D", "=")
            if stored := _STORED.fullmatch(path):
                return self._stored(stored, with_body)
            hub_server.requests.append(f"{self.command} {path}")
            if hub_server.page is not None:
                html = {"Content-Type": "text/html"}
                return self._send(200, html, hub_server.page, with_body)
            if hub_server.status or hub_server.statuses:
                status = (
                    hub_server.statuses.pop(0) if hub_server.statuses else hub_server.status or 0
                )
                if status != 200:
                    return self._send(status, hub_server.headers, b"", with_body)
            if (
                hub_server.token
                and self.headers.get("Authorization") != f"Bearer {hub_server.token}"
            ):
                return self._send(401, {}, b"", with_body)
            if tree := _TREE.fullmatch(path.partition("?")[0]):
                return self._tree(tree, with_body)
            if info := _INFO.fullmatch(path):
                return self._repository(info, with_body)
            if file := _FILE.fullmatch(path):
                return self._file(file, with_body)
            return self._send(404, {}, b"", with_body)

        def _repository(self, match: re.Match[str], with_body: bool) -> None:
            commit = hub_server.branches.get(match["revision"])
            if not any(repo == match["repo"] for repo, _, _ in hub_server.files):
                return self._send(404, {"X-Error-Code": "RepoNotFound"}, b"", with_body)
            if commit is None:
                return self._send(404, {"X-Error-Code": "RevisionNotFound"}, b"", with_body)
            body = json.dumps({"id": match["repo"], "sha": commit, "siblings": []}).encode()
            return self._send(200, {"Content-Type": "application/json"}, body, with_body)

        def _file(self, match: re.Match[str], with_body: bool) -> None:
            commit = hub_server.branches.get(match["revision"], match["revision"])
            if commit not in {commit for _, commit, _ in hub_server.files}:
                return self._send(404, {"X-Error-Code": "RevisionNotFound"}, b"", with_body)
            content = hub_server.files.get((match["repo"], commit, match["file"]))
            headers = {"X-Repo-Commit": commit}
            if content is None:
                headers["X-Error-Code"] = "EntryNotFound"
                return self._send(404, headers, b"", with_body)
            etag = hashlib.sha256(content).hexdigest()
            size = len(content) if hub_server.announced_size is None else hub_server.announced_size
            headers |= {"ETag": f'"{etag}"', "X-Linked-Etag": f'"{etag}"'}
            headers |= {"X-Linked-Size": str(size), "Accept-Ranges": "bytes"}
            if hub_server.redirects:
                headers["Location"] = f"{hub_server.storage_url}/stored/{etag}"
                return self._send(302, headers, b"", with_body)
            return self._content(headers, content, with_body)

        def _stored(self, match: re.Match[str], with_body: bool) -> None:
            hub_server.storage_requests.append(dict(self.headers))
            kept = {
                hashlib.sha256(content).hexdigest(): content
                for content in hub_server.files.values()
            }
            self._content({"Accept-Ranges": "bytes"}, kept[match["sha256"]], with_body)

        def _content(self, headers: dict[str, str], content: bytes, with_body: bool) -> None:
            status = 200
            if wanted := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
                start = int(wanted[1])
                if start >= len(content):
                    return self._send(416, headers, b"", with_body)
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                status, content = 206, content[start:]
            return self._send(status, headers, content, with_body)

        def _send(self, status: int, headers: dict[str, str], body: bytes, with_body: bool) -> None:
            self.send_response(status)
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if not with_body or not body:
                return
            cut = hub_server.cuts.pop(0) if hub_server.cuts else None
            for start in range(0, len(body[:cut]), _PIECE_BYTES):
                self.wfile.write(body[:cut][start : start + _PIECE_BYTES])
                self.wfile.flush()
                time.sleep(hub_server.pause_s)
            if cut is not None:
                self.close_connection = True
                self.connection.shutdown(2)

    return Handler
