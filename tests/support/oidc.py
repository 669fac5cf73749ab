"""An OpenID provider: discovery, a JWK set, keys that rotate; and the ways in which one fails."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from joserfc.jwk import ECKey, Key, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from penstock_shared.contracts.accounts import IdentityProvider

AUDIENCE = "penstock"


class Mood(StrEnum):
    """How it answers."""

    WELL = "well"
    SLOW = "slow"
    REDIRECTING = "redirecting"
    HUGE = "huge"
    ENDLESS = "endless"
    ERROR = "error"
    GARBAGE = "garbage"
    LIST = "list"
    COMPRESSED = "compressed"
    SILENT = "silent"


@functools.cache
def rsa_key(kid: str) -> RSAKey:
    """The same key for the same name: making one takes a tenth of a second."""
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig"})


@dataclass
class OidcProvider:
    """One issuer on loopback."""

    keys: list[Key] = field(default_factory=lambda: [rsa_key("first")])
    mood: Mood = Mood.WELL
    asked: list[str] = field(default_factory=list)
    issuer: str = ""
    named_issuer: str | None = None
    """What its discovery document calls it, if not by its name."""
    elsewhere: str | None = None
    """Where a redirect leads, or discovery says that the keys are."""
    _server: asyncio.Server | None = None

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        port = self._server.sockets[0].getsockname()[1]
        self.issuer = f"{'http' if tls is None else 'https'}://localhost:{port}"

    def stop(self) -> None:
        """From now on it is away."""
        if self._server is not None:
            self._server.close()

    def config(self, **fields: Any) -> IdentityProvider:
        """What a tenant's record says of it."""
        values = {"issuer": self.issuer, "audiences": (AUDIENCE,), "default_role": "member"}
        return IdentityProvider.model_validate({**values, **fields})

    def token(
        self,
        *,
        key: Key | None = None,
        alg: str = "RS256",
        header: dict[str, Any] | None = None,
        without: tuple[str, ...] = (),
        **claims: Any,
    ) -> str:
        """A signed token; any claim or header set otherwise, or left out."""
        key = key or self.keys[-1]
        now = int(time.time())
        body = {"iss": self.issuer, "aud": AUDIENCE, "sub": "alice", "exp": now + 300, "iat": now}
        body = {name: value for name, value in (body | claims).items() if name not in without}
        head = {"alg": alg, "kid": key.get("kid"), **(header or {})}
        head = {name: value for name, value in head.items() if value is not None}
        return compact(head, body, lambda signed: JWSRegistry.algorithms[alg].sign(signed, key))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            request = await reader.readuntil(b"\r\n\r\n")
            path = request.split()[1].decode()
            self.asked.append(path)
            await self._answer(path, writer)
        writer.close()

    async def _answer(self, path: str, writer: asyncio.StreamWriter) -> None:
        if self.mood is Mood.SILENT:
            await asyncio.sleep(60)
        huge = b'{"keys":[],"x":"' + b"x" * 1_000_000 + b'"}'
        body = {
            Mood.GARBAGE: b"\xff{not json",
            Mood.LIST: b"[]",
            Mood.HUGE: huge,
            Mood.ENDLESS: huge,
        }.get(self.mood) or json.dumps(self._document(path)).encode()
        status, headers = {
            Mood.REDIRECTING: ("302 Found", f"location: {self.elsewhere}\r\n"),
            Mood.ERROR: ("500 Broken", ""),
            Mood.COMPRESSED: ("200 OK", "content-encoding: gzip\r\n"),
        }.get(self.mood, ("200 OK", ""))
        length = f"content-length: {len(body)}\r\n" if self.mood is not Mood.ENDLESS else ""
        writer.write(f"HTTP/1.1 {status}\r\n{headers}{length}connection: close\r\n\r\n".encode())
        if self.mood is Mood.SLOW:
            for byte in body:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
        while True:
            writer.write(body)
            await writer.drain()
            if self.mood is not Mood.ENDLESS:
                break

    def _document(self, path: str) -> dict[str, Any]:
        if path == "/.well-known/openid-configuration":
            where = self.elsewhere or f"{self.issuer}/jwks"
            return {"issuer": self.named_issuer or self.issuer, "jwks_uri": where}
        return {"keys": [key.as_dict(private=False) for key in self.keys]}


@contextlib.asynccontextmanager
async def provider(tls: ssl.SSLContext | None = None, **fields: Any) -> AsyncIterator[OidcProvider]:
    """One that listens."""
    running = OidcProvider(**fields)
    await running.start(tls)
    try:
        yield running
    finally:
        running.stop()


def segment(value: Any) -> str:
    """One part of a compact token."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def compact(header: Any, body: Any, sign: Callable[[bytes], bytes]) -> str:
    """A compact token (RFC 7515 §7.1), of whatever header and body."""
    signed = f"{segment(header)}.{segment(body)}"
    return f"{signed}.{segment(sign(signed.encode()))}"


def every_kind() -> list[tuple[str, Key]]:
    """One key of each algorithm."""
    rsa = rsa_key("rsa")
    curves = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
    edwards = OKPKey.generate_key("Ed25519", {"kid": "ed"})
    return [
        *((alg, rsa) for alg in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")),
        *((alg, ECKey.generate_key(curve, {"kid": alg})) for alg, curve in curves.items()),
        ("EdDSA", edwards),
        ("Ed25519", edwards),
    ]
