"""Fetches small JSON documents from addresses that tenants name, and from nowhere else.

Server-side request forgery (OWASP SSRF prevention): the name is resolved here, every address that
it has must be a public one, and the connection goes to the address that was looked at, so a
second answer of the resolver changes nothing. No redirects, no proxy of the environment's, no
content encoding; bounded in bytes and in time.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from typing import Any, Final

import httpx
from pydantic_core import from_json

from penstock_shared.contracts.accounts import LOOPBACK
from penstock_shared.contracts.errors import UnavailableError

_MAX_BYTES: Final = 128 * 1024
_UNICAST: Final = ipaddress.ip_network("2000::/3")
"""All of IPv6 that is given out to anybody (IANA): outside are translated, local and old forms."""
_OK: Final = 200


class GuardedFetch:
    """GET of JSON objects. `allow_insecure` admits private addresses, and HTTP on loopback."""

    def __init__(
        self, *, allow_insecure: bool, timeout_s: float, tls: ssl.SSLContext | None = None
    ) -> None:
        self._allow_insecure = allow_insecure
        self._timeout_s = timeout_s
        self._tls = tls or httpx.create_ssl_context()

    async def json(self, url: str) -> dict[str, Any]:
        """The object at `url`.

        Raises:
            UnavailableError: it cannot be had: refused address, no answer in time, not 200, too
                long, no JSON object.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._get(httpx.URL(url))
            value = from_json(body)
        except (httpx.HTTPError, OSError, TimeoutError, ValueError) as error:
            raise _unavailable(type(error).__name__) from error
        if not isinstance(value, dict):
            raise _unavailable("no JSON object")
        return value

    async def _get(self, url: httpx.URL) -> bytes:
        if url.scheme != "https" and not (self._allow_insecure and url.host in LOOPBACK):
            raise _unavailable("not https")
        port = url.port or (443 if url.scheme == "https" else 80)
        address = await self._resolve(url.host, port)
        headers = {"host": url.netloc.decode(), "accept-encoding": "identity"}
        # A client per fetch: connections are pooled by address, and one that was made for another
        # name at the same address would skip the check of this name's certificate.
        async with (
            httpx.AsyncClient(verify=self._tls, trust_env=False, timeout=self._timeout_s) as client,
            client.stream(
                "GET",
                url.copy_with(host=address, port=port),
                headers=headers,
                # The name that the certificate must have (httpx, "Request extensions").
                extensions={"sni_hostname": url.host},
            ) as response,
        ):
            return await _read(response)

    async def _resolve(self, host: str, port: int) -> str:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses:
            raise _unavailable("no address")
        if not self._allow_insecure and not all(is_public(address) for address in addresses):
            raise _unavailable("private address")
        return addresses[0]


def is_public(address: str) -> bool:
    """Whether anybody on the internet could reach it: no private, local or translated address."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and (ip not in _UNICAST or ip.sixtofour or ip.teredo):
        return False
    return ip.is_global and not ip.is_multicast


async def _read(response: httpx.Response) -> bytes:
    if response.status_code != _OK:
        raise _unavailable(f"status {response.status_code}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _unavailable("encoded")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > _MAX_BYTES:
            raise _unavailable("too long")
    return bytes(body)


def _unavailable(why: str) -> UnavailableError:
    msg = f"The identity provider's keys cannot be fetched at the moment ({why}): try again."
    return UnavailableError(msg, code="identity_provider_unavailable", retry_after_s=30)
