"""What goes out with every answer: headers that protect the page, errors that reveal nothing."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit

from xai_demo.service.logs import hide_paths
from xai_demo.service.multipart import Receive
from xai_demo.service.visitors import HTTPRefusalError

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

API = "/gradio_api"
# What is let through: method, path as a regular expression, and what it is called in the log.
_ROUTES = tuple(
    (method, re.compile(pattern), name)
    for method, pattern, name in (
        ("GET", r"/(healthz|readyz|metrics)", "health"),
        ("GET", r"/", "page"),
        ("GET", r"/(assets|static|svelte)/.+", "asset"),
        ("GET", r"/(favicon\.ico|theme\.css|robots\.txt|manifest\.json)", "asset"),
        ("GET", r"/pwa_icon(/\d+)?", "asset"),
        ("GET", rf"{API}/(theme\.css|custom_component/.+)", "asset"),
        ("GET", r"/config/?", "config"),
        ("GET", rf"{API}/(info/?|openapi\.json|app_id/?|login_check/?|user/?)", "config"),
        ("GET", rf"{API}/startup-events", "startup"),
        ("GET", rf"{API}/heartbeat/[\w-]+", "heartbeat"),
        ("GET", rf"{API}/queue/status", "status"),
        ("GET", rf"{API}/queue/data", "listen"),
        ("GET", rf"{API}/call/(v2/)?\w+/\w+", "listen"),
        ("GET", rf"{API}/upload_progress", "progress"),
        ("GET", rf"{API}/file(=|/).+", "file"),
        ("POST", rf"{API}/upload", "upload"),
        ("POST", rf"{API}/queue/join", "ask"),
        ("POST", rf"{API}/call/(v2/)?\w+/?", "ask"),
        ("POST", rf"{API}/(run|api)/\w+/?", "ask"),
        ("POST", rf"{API}/stream/\w+", "ask"),
        ("POST", rf"{API}/stream/\w+/close", "control"),
        ("POST", rf"{API}/(cancel|reset)/?", "control"),
    )
)
_MAX_MESSAGE = 300
# Of an error of Gradio's; a longer one is not worth reading.
_MAX_ERROR_BYTES = 200_000
_SCRIPT = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script", re.DOTALL | re.IGNORECASE)
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), payment=(), usb=(), "
    "display-capture=(), browsing-topics=()",
    "X-Permitted-Cross-Domain-Policies": "none",
}
# An upload that is opened by itself must not act as a page of this server.
_FILE_POLICY = "default-src 'none'; sandbox"
# A refused client may go on sending for this long, so that it hears the answer before the end.
_LINGER_S = 2.0
_MAX_QUERY_ID = 64
_DEFAULT_ERROR = "The server did not understand the request."


def route_name(method: str, path: str) -> str:
    """Return the name of the route, empty if there is none."""
    for wanted, pattern, name in _ROUTES:
        fits = method in ("OPTIONS", wanted) or (method == "HEAD" and wanted == "GET")
        if fits and pattern.fullmatch(path):
            return name
    return ""


def response_headers(route: str, request_id: str) -> Headers:
    """Return the headers of every answer; those for files and answers forbid to store them."""
    headers = {**_ALWAYS, "X-Request-Id": request_id}
    if route not in ("asset", "page"):
        headers["Cache-Control"] = "no-store"
    if route == "file":
        headers |= {
            "Content-Security-Policy": _FILE_POLICY,
            "Cross-Origin-Resource-Policy": "same-origin",
        }
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


def page_policy(html: bytes, frame_ancestors: tuple[str, ...]) -> str:
    """Return the content security policy of the page, which allows nothing from elsewhere.

    The page's own inline scripts are allowed by their hashes. Gradio compiles the small scripts
    that belong to events when they are needed, hence 'unsafe-eval', and its components set styles
    on elements, hence 'unsafe-inline' for styles only. The microphone's encoder is made from blobs.
    """
    hashes = sorted(
        {
            f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'"
            for script in _SCRIPT.findall(html)
        }
    )
    directives = {
        "default-src": "'self'",
        "script-src": " ".join(["'self' 'unsafe-eval' blob:", *hashes]),
        "style-src": "'self' 'unsafe-inline'",
        "img-src": "'self' data: blob:",
        "media-src": "'self' data: blob:",
        "font-src": "'self' data:",
        "connect-src": "'self' data: blob:",
        "worker-src": "'self' blob:",
        "object-src": "'none'",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-src": "'none'",
        "frame-ancestors": " ".join(frame_ancestors),
    }
    return "; ".join(f"{name} {value}" for name, value in directives.items())


class PagePolicy:
    """An ASGI application that gives the page of another one its content security policy.

    It has to see the page before it is compressed.
    """

    def __init__(self, app: Application, frame_ancestors: tuple[str, ...], head: str) -> None:
        """Allow the inline scripts of `head` too, which Gradio adds to the page in the browser."""
        self._app, self._frame_ancestors = app, frame_ancestors
        self._head = head.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and hold the page back until it is whole."""
        if scope["type"] != "http" or scope["path"] != "/":
            await self._app(scope, receive, send)
            return
        start: Message = {}
        body = bytearray()

        async def collect(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            policy = page_policy(bytes(body) + self._head, self._frame_ancestors)
            headers = [
                (b"content-security-policy", policy.encode()),
                (b"cache-control", b"no-cache"),
            ]
            if self._frame_ancestors == ("'self'",):
                headers.append((b"x-frame-options", b"SAMEORIGIN"))
            await send({**start, "headers": [*start["headers"], *headers]})
            await send({"type": "http.response.body", "body": bytes(body)})

        await self._app(scope, receive, collect)


class ErrorFilter:
    """Sends an answer on; the text of an error loses paths and what a visitor sent at length."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message = {}
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        """Send a message on, or keep it until the error is whole."""
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._start = message
            return
        if not self._start:
            await self._send(message)
            return
        self._body += message.get("body", b"")[:_MAX_ERROR_BYTES]
        if message.get("more_body"):
            return
        body = clean_error(bytes(self._body))
        replaced = (b"content-length", b"content-type", b"content-encoding")
        headers = [(k, v) for k, v in self._start["headers"] if k.lower() not in replaced]
        headers += [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
        ]
        await self._send({**self._start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def clean_error(body: bytes) -> bytes:
    """Return the JSON of an error with short texts and without paths.

    >>> clean_error(b'{"detail": "File not allowed: /root/secret/a.wav."}')
    b'{"detail": "File not allowed: (a path of the server)"}'
    >>> clean_error(b'{"detail": [{"input": "all that was sent"}]}')
    b'{"detail": "The server did not understand the request."}'
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        value = {"detail": _DEFAULT_ERROR}
    if not isinstance(value.get("detail", ""), str):
        value["detail"] = _DEFAULT_ERROR
    cleaned = {k: clean_message(v) if isinstance(v, str) else v for k, v in value.items()}
    return json.dumps(cleaned).encode()


def clean_message(text: str, *, most: int = _MAX_MESSAGE) -> str:
    """Return a message of Gradio's without paths, and with at most so many characters.

    >>> clean_message("Value: " + "x" * 1000 + " is not in the list of choices: ['a', 'b']")
    'One of the choices is not among those that are offered.'
    """
    if text.startswith("Value: "):
        return "One of the choices is not among those that are offered."
    return hide_paths(text)[:most]


def file_entries(value: Any) -> Iterator[tuple[str, str]]:
    """Yield every "path" and "url" in a JSON value, however deep, with its key.

    >>> list(file_entries([{"data": [{"path": "/a"}, {"url": None}]}]))
    [('path', '/a')]
    """
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            for key, entry in each.items():
                if key in ("path", "url") and isinstance(entry, str):
                    yield key, entry
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)


def host_name(host: str) -> str:
    """Return a Host header without its port.

    >>> host_name("Localhost:7860"), host_name("[::1]:7860")
    ('localhost', '[::1]')
    """
    name = host.strip().lower()
    return name if name.endswith("]") else name.rpartition(":")[0] or name


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a host's name is one of the patterns: a name, "*.a.org" for all below it, or "*".

    >>> matches("x.hf.space", ("*.hf.space",)), matches("hf.space", ("*.hf.space",))
    (True, False)
    """
    return any(
        pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:]))
        for pattern in (each.lower() for each in patterns)
    )


def query_value(scope: Scope, name: str) -> str:
    """Return one value of the query, cut short; empty if there is none."""
    values: list[str] = parse_qs(scope["query_string"].decode("latin-1")).get(name, [""])
    return values[0][:_MAX_QUERY_ID]


def place_of(address: str) -> str:
    """Return host and port of an address, empty if it has none."""
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return ""


def own_places(scope: Scope) -> set[str]:
    """Return the hosts and ports under which this server was asked."""
    names = (b"host", b"x-forwarded-host")
    return {v.decode("latin-1").strip().lower() for k, v in scope["headers"] if k in names and v}


async def send_start(send: Send, status: int, content_type: str, *more: tuple[str, str]) -> None:
    """Send the status and the headers of an answer."""
    headers = [("content-type", content_type), *more]
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def send_body(send: Send, status: int, content_type: str, body: bytes) -> None:
    """Send a whole answer."""
    await send_start(send, status, content_type, ("content-length", str(len(body))))
    await send({"type": "http.response.body", "body": body})


async def send_refusal(refusal: HTTPRefusalError, receive: Receive | None, send: Send) -> None:
    """Send a refusal at once; what `receive` still brings is thrown away for a moment.

    If the connection were closed at once, the client would meet an error in place of the answer.
    """
    body = json.dumps({"detail": str(refusal)}).encode()
    more = [("content-length", str(len(body))), ("connection", "close")]
    if refusal.retry_after_s is not None:
        more.append(("retry-after", str(refusal.retry_after_s)))
    await send_start(send, refusal.status, "application/json", *more)
    await send({"type": "http.response.body", "body": body, "more_body": True})

    with suppress(TimeoutError):
        if receive is not None:
            await asyncio.wait_for(_read_rest(receive), _LINGER_S)
    await send({"type": "http.response.body", "body": b""})


async def _read_rest(receive: Receive) -> None:
    more_body = True
    while more_body:
        message = await receive()
        more_body = message["type"] == "http.request" and message.get("more_body", False)
