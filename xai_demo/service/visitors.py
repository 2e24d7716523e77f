"""Who sends a request, and how much one visitor may ask for at a time.

A visitor is known by an address, and on the page also by the session of a browser tab. Everybody
behind one router shares an address, so what is counted by address is generous; it only keeps one
address from taking everything.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from limits import RateLimitItem, RateLimitItemPerMinute, RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter

from xai_demo.errors import XaiDemoError

# Requests of one address in progress: fifty visitors with a few open streams each.
_MAX_OPEN = 300
# Uploads in progress, of one address and of all.
_MAX_UPLOADS, _MAX_ALL_UPLOADS = 16, 64
# How many of the largest uploads one address may store in ten minutes.
_LARGEST_UPLOADS, _UPLOAD_WINDOW_S = 10, 600
# A browser gets a whole network of IPv6 addresses to choose from.
_IPV6_PREFIX = 64
_MOST_HOPS = 20


class HTTPRefusalError(XaiDemoError):
    """A request that is turned away: with a status, a kind for the metrics and a sentence."""

    def __init__(
        self, status: int, kind: str, message: str, *, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.retry_after_s = status, kind, retry_after_s


def client_address(peer: str, forwarded_for: Iterable[str], trusted: Iterable[str]) -> str:
    """Return the address that a request came from.

    `forwarded_for` are the values of X-Forwarded-For. They are read from the end, for as long as
    the address that wrote one is in a trusted network: whatever stands before that is a claim.

    >>> client_address("10.0.0.1", ["6.6.6.6, 1.2.3.4"], ["10.0.0.0/8"])
    '1.2.3.4'
    >>> client_address("1.2.3.4", ["6.6.6.6"], ["10.0.0.0/8"])
    '1.2.3.4'
    """
    networks = [ipaddress.ip_network(each) for each in trusted]
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
    address = peer
    for hop in [*reversed(hops[-_MOST_HOPS:]), None]:
        parsed = _parse(address)
        if parsed is None or hop is None or not any(parsed in network for network in networks):
            break
        if _parse(hop) is None:
            break
        address = hop
    return str(_parse(address) or "unknown")


def visitor_network(address: str) -> str:
    """Return what is counted as one address: of IPv6, the network of one household.

    >>> visitor_network("2001:db8::1:2")
    '2001:db8::/64'
    """
    parsed = _parse(address)
    if parsed is None or parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, _IPV6_PREFIX), strict=False))


def is_local(address: str) -> bool:
    """Whether an address is this machine's own or of a private network."""
    parsed = _parse(address)
    return parsed is not None and (parsed.is_loopback or parsed.is_private)


def _parse(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0].strip("[]"))
    except ValueError:
        return None
    # The same visitor, however the server's socket writes the address.
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed


class AddressLimits:
    """Counts what each address sends, and turns away what is too much."""

    def __init__(self, *, requests_per_minute: int, max_upload_bytes: int) -> None:
        self._limiter = FixedWindowRateLimiter(MemoryStorage())
        self._requests: RateLimitItem = RateLimitItemPerMinute(requests_per_minute)
        # In kilobytes, so that small files count too.
        self._kilobytes: RateLimitItem = RateLimitItemPerSecond(
            max(1, _LARGEST_UPLOADS * max_upload_bytes // 1000), _UPLOAD_WINDOW_S
        )
        self._open: Counter[str] = Counter()
        self._uploads: Counter[str] = Counter()

    @property
    def n_uploads(self) -> int:
        """Uploads in progress."""
        return sum(self._uploads.values())

    def count_request(self, network: str) -> None:
        """Count a request that makes work; raises HTTPRefusalError if there are too many."""
        if not self._limiter.hit(self._requests, "requests", network):
            raise HTTPRefusalError(
                429,
                "rate",
                f"There are more than {self._requests.amount} requests a minute from your "
                "address. Please try again in a minute.",
                retry_after_s=60,
            )

    def count_upload(self, network: str, n_bytes: int) -> None:
        """Count what was uploaded; raises HTTPRefusalError if it is too much."""
        kilobytes = -(-n_bytes // 1000)
        if not self._limiter.hit(self._kilobytes, "uploads", network, cost=kilobytes):
            raise HTTPRefusalError(
                429,
                "upload rate",
                f"More than {self._kilobytes.amount / 1000:,.0f} MB were uploaded from your "
                "address within ten minutes. Please try again later.",
                retry_after_s=_UPLOAD_WINDOW_S,
            )

    @contextmanager
    def request(self, network: str) -> Iterator[None]:
        """Count the request as open for the block; raises HTTPRefusalError if there are many."""
        if self._open[network] >= _MAX_OPEN:
            raise HTTPRefusalError(
                429,
                "connections",
                f"There are more than {_MAX_OPEN} open requests from your address. Please close "
                "some pages and try again.",
                retry_after_s=30,
            )
        with _count(self._open, network):
            yield

    @contextmanager
    def upload(self, network: str) -> Iterator[None]:
        """Count the upload as running for the block; raises HTTPRefusalError if many are."""
        full = self.n_uploads >= _MAX_ALL_UPLOADS
        if full or self._uploads[network] >= _MAX_UPLOADS:
            most = f"{_MAX_ALL_UPLOADS}" if full else f"{_MAX_UPLOADS} from your address"
            raise HTTPRefusalError(
                429,
                "uploads",
                f"Too many uploads are running already: {most}. Please try again in a moment.",
                retry_after_s=10,
            )
        with _count(self._uploads, network):
            yield


@contextmanager
def _count(counter: Counter[str], key: str) -> Iterator[None]:
    counter[key] += 1
    try:
        yield
    finally:
        counter[key] -= 1
        # Otherwise it would grow with every address that ever came.
        if counter[key] <= 0:
            del counter[key]


@dataclass(slots=True)
class _Listener:
    count: int = 0
    left_at: float = field(default_factory=time.monotonic)


class Listeners:
    """Who is listening for answers: the open event streams, by session or by event.

    >>> listeners = Listeners()
    >>> with listeners.listen("session"):
    ...     listeners.silence_s(["session"], since=0.0)
    0.0
    """

    # How long it is remembered when a stream was closed.
    _MEMORY_S = 300.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[str, _Listener] = {}

    @contextmanager
    def listen(self, key: str) -> Iterator[None]:
        """Count a stream as open for the block."""
        with self._lock:
            self._forget()
            self._listeners.setdefault(key, _Listener()).count += 1
        try:
            yield
        finally:
            with self._lock:
                listener = self._listeners[key]
                listener.count -= 1
                listener.left_at = time.monotonic()

    def silence_s(self, keys: Iterable[str], *, since: float) -> float:
        """Seconds for which nobody has listened under any of the keys, 0 if somebody does.

        `since` is when it began to matter, as `time.monotonic` has it.
        """
        with self._lock:
            listeners = [self._listeners[key] for key in keys if key in self._listeners]
        if any(each.count for each in listeners):
            return 0.0
        return time.monotonic() - max([since, *(each.left_at for each in listeners)])

    def _forget(self) -> None:
        oldest = time.monotonic() - self._MEMORY_S
        gone = [
            key for key, each in self._listeners.items() if not each.count and each.left_at < oldest
        ]
        for key in gone:
            del self._listeners[key]
