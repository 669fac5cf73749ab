"""The messages of NATS's auth callout: JWTs signed with Ed25519 nkeys.

Source: NATS docs, "Auth Callout"; ADR-26 of nats-architecture-and-design; the claim types of
nats-io/jwt v2 (`AuthorizationRequestClaims`, `AuthorizationResponseClaims`, `UserClaims`).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any, Final

import nkeys

from penstock_realtime.ports import LoginRequest
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.subjects import TenantPermissions
from penstock_shared.runtime.access import Identity

_HEADER: Final = {"typ": "JWT", "alg": "ed25519-nkey"}
_REQUEST_AUDIENCE: Final = "nats-authorization-request"
_VERSION: Final = 2
_MAX_SUBSCRIPTIONS: Final = 1_000
_UNLIMITED: Final = -1

Sign = Callable[[bytes], bytes]


def base64url(data: bytes) -> str:
    """Base64 for URLs, without padding (RFC 7515 §2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def encode_jwt(claims: dict[str, Any], sign: Sign) -> str:
    """A JWT whose `jti` is the hash of its other claims, as nats-io/jwt makes it."""
    digest = hashlib.sha256(json.dumps(claims, separators=(",", ":")).encode()).digest()
    claims = {"jti": base64.b32encode(digest).rstrip(b"=").decode(), **claims}
    parts = (json.dumps(part, separators=(",", ":")).encode() for part in (_HEADER, claims))
    signed = ".".join(base64url(part) for part in parts)
    return f"{signed}.{base64url(sign(signed.encode()))}"


def decode_claims(token: str) -> dict[str, Any]:
    """The claims of a JWT; its signature is not verified.

    Raises:
        PermanentError: it is no JWT.
    """
    try:
        _, body, _ = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except ValueError as error:
        raise _malformed() from error
    if not isinstance(claims, dict):
        raise _malformed()
    return claims


def user_claims(
    request: LoginRequest, issuer: str, account: str, name: str, permissions: TenantPermissions
) -> dict[str, Any]:
    """A user of `account` that may do what `permissions` says, and nothing else (I8)."""
    return {
        "iss": issuer,
        "aud": account,
        "name": name,
        "sub": request.user_nkey,
        "nats": {
            "pub": {"allow": list(permissions.publish)},
            "sub": {"allow": list(permissions.subscribe)},
            "subs": _MAX_SUBSCRIPTIONS,
            "data": _UNLIMITED,
            "payload": _UNLIMITED,
            "type": "user",
            "version": _VERSION,
        },
    }


def user_name(tenant: str, key_id: str) -> str:
    """The name under which the server lists a caller's connections."""
    return f"{tenant}/{key_id}"


def parse_user_name(name: str) -> tuple[str, str]:
    """Tenant and key id of what `user_name` made; services' own users have no tenant."""
    tenant, _, key_id = name.rpartition("/")
    return tenant, key_id


class CalloutCodec:
    """`LoginCodec` with an account's seed."""

    def __init__(self, seed: str, account: str, now_unix_s: Callable[[], float]) -> None:
        try:
            pair = nkeys.from_seed(bytearray(seed.encode()))
            self._issuer = bytes(pair.public_key).decode()
        except (nkeys.NkeysError, ValueError) as error:
            msg = "PENSTOCK_AUTH_CALLOUT_SEED is no account seed (SA…)."
            raise PermanentError(msg, code="callout_seed_malformed") from error
        self._sign: Sign = pair.sign
        self._account = account
        self._now_unix_s = now_unix_s

    def parse(self, raw: bytes) -> LoginRequest:
        """Read one request of the server."""
        try:
            claims = decode_claims(raw.decode())
            if claims.get("aud") != _REQUEST_AUDIENCE:
                raise _malformed()
            asked = claims["nats"]
            options = asked.get("connect_opts", {})
            return LoginRequest(
                user_nkey=str(asked["user_nkey"]),
                server_id=str(asked["server_id"]["id"]),
                secret=options.get("auth_token") or options.get("pass"),
            )
        except (UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise _malformed() from error

    def grant(
        self, request: LoginRequest, identity: Identity, permissions: TenantPermissions
    ) -> bytes:
        """Let the caller in; the server itself ends the connection when the time has come."""
        name = user_name(identity.tenant.tenant, identity.key_id)
        user = user_claims(request, self._issuer, self._account, name, permissions)
        if identity.expires_at is not None:
            user["exp"] = int(identity.expires_at.timestamp())
        return self._answer(request, {"jwt": self._encode(user)})

    def refuse(self, request: LoginRequest, reason: str) -> bytes:
        """Keep the user out; the reason goes to the server's log, not to the user."""
        return self._answer(request, {"error": reason})

    def _answer(self, request: LoginRequest, outcome: dict[str, Any]) -> bytes:
        claims = {
            "iss": self._issuer,
            "aud": request.server_id,
            "sub": request.user_nkey,
            "nats": {**outcome, "type": "authorization_response", "version": _VERSION},
        }
        return self._encode(claims).encode()

    def _encode(self, claims: dict[str, Any]) -> str:
        return encode_jwt({"iat": int(self._now_unix_s()), **claims}, self._sign)


def _malformed() -> PermanentError:
    return PermanentError("Not an authorization request.", code="callout_malformed")
