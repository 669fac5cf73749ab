"""Whose connection it is, and how many of them one may have."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_realtime.domain.forwarding import client_of
from penstock_realtime.http.connections import Connections
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.errors import RateLimitedError

PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def tenant(name: str = "acme", most: int | None = None) -> TenantRecord:
    return TenantRecord(
        tenant=name, name=name, max_connections=most, created_at=datetime(2026, 5, 1, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.7"], "203.0.113.9"),  # no proxy of ours: its own invention
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["1.1.1.1", "198.51.100.7, 10.0.0.2"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("10.0.0.1", ["[2001:db8:0:7::9]:443"], "2001:db8:0:7::/64"),
        ("10.0.0.1", ["2001:db8:0:7::9"], "2001:db8:0:7::/64"),
        ("10.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7, unknown"], "10.0.0.1"),  # nothing left of it is believed
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("fd00::1", ["198.51.100.7"], "198.51.100.7"),
        ("2001:db8:0:7:1:2:3:4", ["1.1.1.1"], "2001:db8:0:7::/64"),
        ("::ffff:203.0.113.9", ["1.1.1.1"], "203.0.113.9"),
        ("fe80::1%eth0", [], "fe80::/64"),
        ("testclient", ["1.1.1.1"], "testclient"),
    ],
)
def test_the_client_behind_proxies(peer: str, forwarded: list[str], client: str) -> None:
    """From the right, as far as trusted proxies tell; an IPv6 address counts as its /64."""
    assert client_of(peer, forwarded, PROXIES) == client


@given(st.lists(st.text(max_size=30), max_size=4))
def test_no_header_breaks_it_or_makes_up_a_client(forwarded: list[str]) -> None:
    """Whatever is sent: without a trusted proxy it changes nothing, with one it is an address."""
    assert client_of("203.0.113.9", forwarded, PROXIES) == "203.0.113.9"
    ip_network(client_of("10.0.0.1", forwarded, PROXIES))


@given(st.integers(0, 255), st.text(max_size=20))
def test_what_a_client_prepends_changes_nothing(last: int, made_up: str) -> None:
    """The proxy appends; nothing before that counts."""
    heard = f"198.51.100.{last}"
    assert client_of("10.0.0.1", [f"{made_up}, {heard}"], PROXIES) == heard


def test_places_of_tenants_and_addresses() -> None:
    """Each has its number, the record's before the setting's; who leaves makes room."""
    connections = Connections(per_tenant=2, per_address=3)
    for address in ("a", "b"):
        connections.enter(tenant(), address)
    with pytest.raises(RateLimitedError, match="2 WebSockets") as caught:
        connections.enter(tenant(), "c")
    assert caught.value.code == "too_many_connections"
    connections.leave(tenant(), "a")
    connections.enter(tenant(), "c")
    connections.enter(tenant("other", most=1), None)
    with pytest.raises(RateLimitedError, match="1 WebSockets"):
        connections.enter(tenant("other", most=1), None)
    with pytest.raises(RateLimitedError):
        connections.enter(tenant("none", most=0), "z")


def test_who_is_refused_takes_no_place() -> None:
    """An address over its limit does not use up its tenants' places, however often it tries."""
    connections = Connections(per_tenant=2, per_address=1)
    connections.enter(tenant("first"), "a")
    for _ in range(5):
        with pytest.raises(RateLimitedError, match="address has 1"):
            connections.enter(tenant("second"), "a")
    for address in ("b", "c"):
        connections.enter(tenant("second"), address)
