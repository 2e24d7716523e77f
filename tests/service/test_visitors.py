"""Who sends a request: addresses behind proxies, and what one address may send."""

from __future__ import annotations

import time

import pytest

from xai_demo.service.visitors import (
    AddressLimits,
    HTTPRefusalError,
    Listeners,
    client_address,
    is_local,
    visitor_network,
)

PROXIES = ["10.0.0.0/8", "::1"]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("1.2.3.4", [], "1.2.3.4"),
        ("1.2.3.4", ["9.9.9.9"], "1.2.3.4"),  # nobody whom we believe
        ("10.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["6.6.6.6, 9.9.9.9"], "9.9.9.9"),  # the first is what the visitor claims
        ("10.0.0.1", ["6.6.6.6, 9.9.9.9, 10.0.0.2"], "9.9.9.9"),  # two proxies
        ("10.0.0.1", ["6.6.6.6", "9.9.9.9"], "9.9.9.9"),  # in two headers
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["nonsense"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("::1", ["2001:db8::5"], "2001:db8::5"),
        ("::ffff:10.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("unknown", ["9.9.9.9"], "unknown"),
    ],
)
def test_the_address_is_what_the_last_trusted_proxy_saw(
    peer: str, forwarded: list[str], address: str
) -> None:
    assert client_address(peer, forwarded, PROXIES) == address


def test_a_household_is_one_visitor_and_a_router_another() -> None:
    assert visitor_network("2001:db8:1:2:3::4") == visitor_network("2001:db8:1:2:ff::9")
    assert visitor_network("1.2.3.4") != visitor_network("1.2.3.5")
    assert is_local("127.0.0.1")
    assert is_local("192.168.1.7")
    assert not is_local("9.9.9.9")
    assert not is_local("unknown")


def test_one_address_is_limited_and_another_is_not() -> None:
    limits = AddressLimits(requests_per_minute=3, max_upload_bytes=1000)
    for _ in range(3):
        limits.count_request("a")
    with pytest.raises(HTTPRefusalError, match="more than 3 requests a minute") as refusal:
        limits.count_request("a")
    assert (refusal.value.status, refusal.value.retry_after_s) == (429, 60)
    limits.count_request("b")
    for _ in range(10):
        limits.count_upload("a", 1000)
    with pytest.raises(HTTPRefusalError, match="uploaded from your address"):
        limits.count_upload("a", 1)
    limits.count_upload("b", 1000)


def test_open_requests_and_uploads_are_counted_and_given_back() -> None:
    limits = AddressLimits(requests_per_minute=3, max_upload_bytes=1000)
    uploads = [limits.upload("a") for _ in range(16)]
    for upload in uploads:
        upload.__enter__()
    with pytest.raises(HTTPRefusalError, match="already: 16 from your address"), limits.upload("a"):
        pass
    with limits.upload("b"):
        assert limits.n_uploads == 17
    for upload in uploads:
        upload.__exit__(None, None, None)
    assert limits.n_uploads == 0
    assert not limits._uploads
    streams = [limits.request("a") for _ in range(300)]
    for stream in streams:
        stream.__enter__()
    with pytest.raises(HTTPRefusalError, match="more than 300 open requests"), limits.request("a"):
        pass
    for stream in streams:
        stream.__exit__(None, None, None)
    assert not limits._open


def test_a_listener_who_leaves_is_noticed() -> None:
    listeners, long_ago = Listeners(), time.monotonic() - 100
    assert listeners.silence_s(["a"], since=long_ago) >= 100
    with listeners.listen("a"), listeners.listen("a"):
        assert listeners.silence_s(["b", "a"], since=long_ago) == 0
    assert listeners.silence_s(["a"], since=long_ago) < 50
    assert listeners.silence_s(["b"], since=long_ago) >= 100
