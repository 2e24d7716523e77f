"""The web server itself: its port, its connections and how long they may be silent."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from collections import Counter
from typing import Any, ClassVar

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from xai_demo.errors import RequestError
from xai_demo.settings import ServerSettings

FIRST_PORT, _TRY_PORTS = 7860, 100
# For the headers of a request to be complete.
_HEADERS_S = 10.0
# Longer than a proxy waits between two requests on a connection that it keeps.
_KEEP_ALIVE_S = 75
# Of one peer, unless it is this machine or a trusted proxy: of all connections this share.
_PEER_SHARE = 4
_BACKLOG = 512


def bind_port(host: str, port: int | None) -> socket.socket:
    """Return a socket that is bound to the port, or to the first free one from 7860.

    Raises RequestError if a port that is named, or every one of these, is taken.
    """
    ports = range(FIRST_PORT, FIRST_PORT + _TRY_PORTS) if port is None else [port]
    for each in ports:
        try:
            return _bind(host, each)
        except OSError as error:
            if port is not None and error.errno == errno.EADDRINUSE:
                raise RequestError(
                    f"Port {port} is taken by another program; choose a free one with --port or "
                    "GRADIO_SERVER_PORT, or end that program."
                ) from error
            if error.errno not in (errno.EADDRINUSE, errno.EACCES) or port is not None:
                raise RequestError(
                    f"The server cannot listen on {host!r} port {each}: {error.strerror or error}."
                ) from error
    raise RequestError(f"Every port from {ports[0]} to {ports[-1]} is taken; name a free one.")


def _bind(host: str, port: int) -> socket.socket:
    name = host.strip("[]")
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    with contextlib.ExitStack() as stack:
        # Without the protocol asyncio does not set TCP_NODELAY, and an answer takes 40 ms longer.
        bound = stack.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
        # A port that a server has just left can be taken at once.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((name, port))
        # Another program that listens on all addresses is only noticed when listening starts.
        bound.listen(_BACKLOG)
        stack.pop_all()
    return bound


def server_config(app: Any, settings: ServerSettings) -> uvicorn.Config:
    """Return how uvicorn is to serve an application; the door writes the log of requests."""
    return uvicorn.Config(
        app=app,
        host=settings.host.strip("[]"),
        http=connection_protocol(settings),
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        # The door does this, for trusted proxies only.
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        limit_concurrency=settings.max_connections,
        backlog=_BACKLOG,
        # Event streams stay open until the page is closed: do not wait for them.
        timeout_graceful_shutdown=1,
    )


def connection_protocol(settings: ServerSettings) -> type[H11Protocol]:
    """Return uvicorn's protocol with a deadline for headers and a bound for each peer."""
    most = max(1, settings.max_connections // _PEER_SHARE)
    trusted = [ipaddress.ip_network(each) for each in settings.trusted_proxies]

    class Connection(H11Protocol):
        """One connection; its class counts those of each peer."""

        peers: ClassVar[Counter[str]] = Counter()
        _deadline: asyncio.TimerHandle | None = None
        _peer = ""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            """Close the connection at once if its peer has too many."""
            super().connection_made(transport)
            self._peer = str(self.client[0]) if self.client else ""
            self.peers[self._peer] += 1
            if self.peers[self._peer] > most and not _is_exempt(self._peer, trusted):
                transport.abort()
                return
            self._await_headers()

        def connection_lost(self, exc: Exception | None) -> None:
            """Forget the connection."""
            self._cancel_deadline()
            self.peers[self._peer] -= 1
            if self.peers[self._peer] <= 0:
                del self.peers[self._peer]
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            """Start or end the time that the headers of a request may take."""
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:
                self._await_headers()
            else:
                self._cancel_deadline()

        def _await_headers(self) -> None:
            if self._deadline is None:
                self._deadline = self.loop.call_later(_HEADERS_S, self._end_if_idle)

        def _cancel_deadline(self) -> None:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None

        def _end_if_idle(self) -> None:
            self._deadline = None
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self.transport.abort()

    return Connection


def _is_exempt(peer: str, trusted: list[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    return address.is_loopback or any(address in network for network in trusted)
