"""The door of the server, around Gradio's application: what is let in, and with which headers out.

Only what the page and its clients need is let through. Uploads are received here instead of by
Gradio, and what is sent to Gradio as JSON is looked through for files that nobody uploaded.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from xai_demo.files import display_name
from xai_demo.service.health import Metrics, Readiness
from xai_demo.service.logs import bind_request, hide_paths, log_refusal
from xai_demo.service.multipart import (
    ClientLeftError,
    Receive,
    UploadStatus,
    body_chunks,
    receive_upload,
    too_large,
)
from xai_demo.service.policy import (
    API,
    Application,
    ErrorFilter,
    Scope,
    Send,
    file_entries,
    host_name,
    matches,
    own_places,
    place_of,
    query_value,
    response_headers,
    route_name,
    send_body,
    send_refusal,
    send_start,
)
from xai_demo.service.uploads import UploadFolder
from xai_demo.service.visitors import (
    AddressLimits,
    HTTPRefusalError,
    Listeners,
    client_address,
    is_local,
    visitor_network,
)
from xai_demo.settings import ServerSettings

# New work, of which a server that shuts down takes none.
_WORK = {"upload", "ask"}
_MAX_JSON_BYTES = 1_000_000
_MAX_JSON_S = 30.0
_FORM_BYTES = 64_000
_CORS = b"access-control-"
_OWN_NAMES = ("localhost", "127.0.0.1", "[::1]", "::1")
_NOT_FETCHED = (
    "Files are not fetched from an address. Please download the file and send the file itself."
)
_log = logging.getLogger("xai_demo.access")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What the door needs to know and to tell."""

    settings: ServerSettings
    max_upload_bytes: int
    folder: UploadFolder
    limits: AddressLimits
    readiness: Readiness
    metrics: Metrics
    listeners: Listeners = field(default_factory=Listeners)
    # Besides uploads: folders whose files may be fetched.
    public_folders: tuple[Path, ...] = ()
    # Is called with every upload and the name that its visitor gave it, in a thread.
    prepare_upload: Callable[[Path, str], None] = lambda path, name: None


@dataclass(slots=True, kw_only=True)
class _Request:
    id: str
    route: str  # its name, empty if there is none
    address: str
    network: str
    headers: dict[str, str]
    started_at: float = field(default_factory=time.monotonic)
    status: int = 0
    is_read: bool = False  # all of its body


class Door:
    """An ASGI application that lets requests through to another one."""

    def __init__(self, app: Application, service: Service) -> None:
        self._app, self._service = app, service
        self._uploads = UploadStatus()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = self._identify(scope)
        receive = _watch_body(request, receive)
        respond = self._with_headers(request, scope, send)
        with bind_request(request.id):
            try:
                await self._admit(request, scope, receive, respond)
            except HTTPRefusalError as refusal:
                log_refusal(refusal.kind, route=request.route)
                if not request.status:
                    await send_refusal(refusal, None if request.is_read else receive, respond)
            except ClientLeftError:
                log_refusal("client left", route=request.route)
            finally:
                _log_request(request, scope)

    def _identify(self, scope: Scope) -> _Request:
        """Find out who asks for what, and write it where Gradio will look for it."""
        trusted = self._service.settings.trusted_proxies
        forwarded = [v.decode("latin-1") for k, v in scope["headers"] if k == b"x-forwarded-for"]
        peer, port = scope.get("client") or ("unknown", 0)
        address = client_address(peer, forwarded, trusted)
        request = _Request(
            id=uuid.uuid4().hex,
            route=route_name(scope["method"], scope["path"]),
            address=address,
            network=visitor_network(address),
            headers={k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]},
        )
        # Gradio believes these headers whoever sent them.
        removed = {b"x-request-id", b"x-gradio-server"}
        if client_address(peer, ["192.0.2.1"], trusted) != "192.0.2.1":
            removed |= {b"x-forwarded-host", b"x-forwarded-proto", b"x-forwarded-for"}
        kept = [(k, v) for k, v in scope["headers"] if k not in removed]
        scope["headers"] = [*kept, (b"x-request-id", request.id.encode())]
        scope["client"] = (address, port)
        return request

    async def _admit(self, request: _Request, scope: Scope, receive: Receive, send: Send) -> None:
        service = self._service
        if request.route == "health":
            await self._report_health(request, scope["path"], send)
            return
        if not request.route or (request.route == "startup" and not is_local(request.address)):
            raise _nothing_here()
        self._check_host(request)
        self._check_origin(request, scope)
        if request.route in _WORK:
            if service.readiness.is_draining:
                raise HTTPRefusalError(
                    503,
                    "draining",
                    "The server is being restarted. Please try again in a minute.",
                    retry_after_s=60,
                )
            service.limits.count_request(request.network)
        with ExitStack() as stack:
            stack.enter_context(service.limits.request(request.network))
            if scope["method"] == "OPTIONS":
                await self._app(scope, receive, send)
            elif request.route == "upload":
                stack.enter_context(service.limits.upload(request.network))
                await self._store(request, scope, receive, send)
            elif request.route == "progress":
                await self._tell_progress(scope, receive, send)
            else:
                if request.route == "listen":
                    session = query_value(scope, "session_hash") or scope["path"].rpartition("/")[2]
                    stack.enter_context(service.listeners.listen(session))
                elif request.route == "file":
                    self._check_file(scope["path"])
                if scope["method"] == "POST":
                    receive = await self._check_json(scope, receive)
                await self._app(scope, receive, ErrorFilter(send))

    def _check_host(self, request: _Request) -> None:
        """Refuse other hosts: another site's page could point its own name at this server."""
        settings = self._service.settings
        hosts = settings.allowed_hosts or (_OWN_NAMES if settings.is_loopback else ("*",))
        # The server itself, and who looks after it, use this machine's own names.
        known = (*hosts, *_OWN_NAMES) if is_local(request.address) else hosts
        name = host_name(request.headers.get("host", ""))
        if not matches(name, known):
            raise HTTPRefusalError(
                421,
                "host",
                f"This server does not answer to the name {name[:60]!r}; XAI_DEMO_ALLOWED_HOSTS "
                "lists the names that it has.",
            )

    def _check_origin(self, request: _Request, scope: Scope) -> None:
        """Refuse what another site's page makes its visitor send."""
        origin = request.headers.get("origin")
        if origin is None or scope["method"] in ("GET", "HEAD") or self._is_own(origin, scope):
            return
        raise HTTPRefusalError(
            403,
            "origin",
            f"Pages of {hide_paths(origin[:60])} may not send requests to this server; "
            "XAI_DEMO_ALLOWED_ORIGINS lists those that may.",
        )

    def _is_own(self, origin: str, scope: Scope) -> bool:
        """Whether an origin is the page's own or an allowed one."""
        settings = self._service.settings
        place = place_of(origin)
        return (
            origin in settings.allowed_origins
            or "*" in settings.allowed_origins
            or place in own_places(scope)
            or matches(host_name(place), settings.allowed_hosts)
        )

    def _check_file(self, path: str) -> None:
        """Refuse a file that is neither an upload or a result, nor public."""
        place = "/" + path.removeprefix(f"{API}/file")[1:].lstrip("/")
        try:
            resolved = Path(place).resolve()
            is_public = any(resolved.is_relative_to(p) for p in self._service.public_folders)
        except (OSError, ValueError, RuntimeError):
            is_public = False
        if not is_public and not self._service.folder.contains(place):
            raise HTTPRefusalError(403, "path", "This file is not available.")

    async def _check_json(self, scope: Scope, receive: Receive) -> Receive:
        """Read a JSON body, refuse files in it that were not uploaded here, and offer it again."""
        chunks = body_chunks(receive, max_bytes=_MAX_JSON_BYTES, what="request")
        try:
            body = await asyncio.wait_for(_join(chunks), _MAX_JSON_S)
        except TimeoutError:
            raise HTTPRefusalError(
                408, "idle body", f"The request took more than {_MAX_JSON_S:g} seconds to come."
            ) from None
        try:
            value = json.loads(body) if body else None
        except (ValueError, RecursionError):
            raise HTTPRefusalError(400, "malformed", "The request is not JSON.") from None
        for key, entry in file_entries(value):
            self._check_entry(key, entry, scope)
        is_sent = False

        async def receive_again() -> MutableMapping[str, Any]:
            nonlocal is_sent
            if is_sent:
                return await receive()
            is_sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        return receive_again

    def _check_entry(self, key: str, entry: str, scope: Scope) -> None:
        is_address = "//" in entry[:10] or entry.lower().startswith(("http:", "data:", "file:"))
        if key == "url":
            # The page sends back the address that this server gave a file.
            if is_address and not (place_of(entry) in own_places(scope) and f"{API}/" in entry):
                raise HTTPRefusalError(400, "remote file", _NOT_FETCHED)
        elif is_address:
            raise HTTPRefusalError(400, "remote file", _NOT_FETCHED)
        elif not self._service.folder.contains(entry):
            raise HTTPRefusalError(
                400,
                "path",
                "This file is not on the server, or no longer: files are deleted after an hour. "
                "Please add it again.",
            )

    async def _store(self, request: _Request, scope: Scope, receive: Receive, send: Send) -> None:
        """Receive an upload and answer with its path, as Gradio's own route does."""
        service = self._service
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > service.max_upload_bytes + _FORM_BYTES:
            raise too_large("file", service.max_upload_bytes)
        progress = self._uploads.add(query_value(scope, "upload_id"))
        path = await receive_upload(
            receive,
            request.headers.get("content-type", ""),
            service.folder,
            max_bytes=service.max_upload_bytes,
            progress=progress,
        )
        try:
            service.limits.count_upload(request.network, progress.n_bytes)
            shown = display_name(PureWindowsPath(progress.name).name)
            await asyncio.to_thread(service.prepare_upload, path, shown)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        await send_body(send, 200, "application/json", json.dumps([str(path)]).encode())

    async def _tell_progress(self, scope: Scope, receive: Receive, send: Send) -> None:
        left, is_started = asyncio.ensure_future(_wait_until_left(receive)), False
        try:
            async for event in self._uploads.events(query_value(scope, "upload_id")):
                if left.done():
                    return
                if not is_started:
                    await send_start(send, 200, "text/event-stream")
                    is_started = True
                await send({"type": "http.response.body", "body": event, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            left.cancel()

    async def _report_health(self, request: _Request, path: str, send: Send) -> None:
        status, content_type, body = 200, "application/json", b'{"alive": true}'
        if path == "/readyz":
            status, body = await asyncio.to_thread(self._service.readiness.to_json)
        elif path == "/metrics":
            # Nothing secret, but nothing that strangers need.
            if not is_local(request.address):
                raise _nothing_here()
            content_type, body = await asyncio.to_thread(self._service.metrics.to_text)
        await send_body(send, status, content_type, body)

    def _with_headers(self, request: _Request, scope: Scope, send: Send) -> Send:
        origin = request.headers.get("origin")
        is_foreign = origin is not None and not self._is_own(origin, scope)
        own = response_headers(request.route, request.id)
        replaced = {name for name, _ in own}

        async def respond(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                request.status = message["status"]
                headers = [(k, v) for k, v in message["headers"] if k.lower() not in replaced]
                if is_foreign:
                    # Gradio allows every site to read unless the server is at home.
                    headers = [(k, v) for k, v in headers if not k.lower().startswith(_CORS)]
                message = {**message, "headers": [*headers, *own]}
            await send(message)

        return respond


def _nothing_here() -> HTTPRefusalError:
    return HTTPRefusalError(404, "route", "There is nothing at this address.")


async def _join(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def _watch_body(request: _Request, receive: Receive) -> Receive:
    async def receive_and_watch() -> MutableMapping[str, Any]:
        message = await receive()
        request.is_read = not message.get("more_body", False)
        return message

    return receive_and_watch


async def _wait_until_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _log_request(request: _Request, scope: Scope) -> None:
    # These are many, and say nothing.
    if request.route == "health" or (request.route == "asset" and request.status < 400):
        return
    facts = {
        "method": scope["method"],
        "route": request.route or "none",
        "status": request.status,
        "ms": round(1000 * (time.monotonic() - request.started_at)),
    }
    _log.info("request", extra={"facts": facts})
