"""Who a client is, seen through proxies: its address, as far as it can be believed."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import Final, TypeAlias

Networks: TypeAlias = tuple[IPv4Network | IPv6Network, ...]

_SITE_BITS: Final = 64
"""What one subscriber gets of IPv6 (RFC 6177 §2): within it addresses cost nothing."""


def is_trusted(peer: str, trusted: Networks) -> bool:
    """Whether a connection comes from a proxy that is believed."""
    found = _parse(peer) if trusted else None
    return found is not None and any(found in network for network in trusted)


def client_of(peer: str, forwarded_for: Sequence[str], trusted: Networks) -> str:
    """The client's address, in the form in which it is counted: an IPv6 one as its /64.

    `forwarded_for` are the values of `X-Forwarded-For`. Each proxy appends whom it heard, so they
    are read from the right, and only as long as a trusted proxy said so: what stands further left
    is whatever the client made up.
    """
    if not trusted and ":" not in peer:
        return peer
    found = _parse(peer)
    if found is None:
        return peer
    hops = [hop for value in forwarded_for for hop in value.split(",")] if trusted else []
    while hops and any(found in network for network in trusted):
        heard = _parse(hops.pop().strip())
        if heard is None:
            break
        found = heard
    if isinstance(found, IPv4Address):
        return str(found)
    return str(IPv6Network((found, _SITE_BITS), strict=False))


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """An address, with or without a port; one of IPv4 in IPv6's clothes counts as what it is."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
