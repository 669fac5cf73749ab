"""Tenants, API keys and identity providers: the bucket records, and the key format.

API keys follow GitHub's token format (a type prefix, a random part, a checksum that refuses typos
without a look-up) and are stored as SHA-256 only.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from penstock_shared.contracts.errors import PermissionDeniedError
from penstock_shared.contracts.ids import KeyId, TenantId
from penstock_shared.contracts.quotas import Quota

API_KEY_PREFIX: Final = "psk_"
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARS: Final = 32
_CHECK_CHARS: Final = 6
Name = Annotated[str, StringConstraints(min_length=1, max_length=120)]
PRINTABLE: Final = r"^[^\x00-\x1f\x7f]+$"
"""What a new name may hold: PostgreSQL stores no NUL, and no terminal should obey a name."""


def _base62(value: int, width: int) -> str:
    digits = []
    for _ in range(width):
        value, digit = divmod(value, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def make_api_key(random_bytes: Callable[[int], bytes]) -> str:
    """A new API key: prefix, 190 random bits, CRC-32 checksum."""
    body = _base62(int.from_bytes(random_bytes(24), "big"), _RANDOM_CHARS)
    return f"{API_KEY_PREFIX}{body}{_base62(zlib.crc32(body.encode()), _CHECK_CHARS)}"


def looks_like_api_key(secret: str) -> bool:
    """Whether prefix, length and checksum fit: a typo is refused before any look-up."""
    body = secret.removeprefix(API_KEY_PREFIX)
    if body == secret or len(body) != _RANDOM_CHARS + _CHECK_CHARS or not body.isascii():
        return False
    checksum = _base62(zlib.crc32(body[:_RANDOM_CHARS].encode()), _CHECK_CHARS)
    return body[_RANDOM_CHARS:] == checksum


def hash_api_key(secret: str) -> str:
    """The SHA-256 (hex) under which a key is stored and looked up."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Role(StrEnum):
    """What a tenant's people and programs may do (I8: always within their tenant)."""

    ADMIN = "admin"  # what members may; the tenant's keys, usage and invoices
    MEMBER = "member"  # make, read, cancel and delete responses
    READ_ONLY = "read-only"


class SigningAlgorithm(StrEnum):
    """How an identity provider may sign: never with a shared secret (RFC 7518 §3.1, RFC 9864)."""

    RS256 = "RS256"
    RS384 = "RS384"
    RS512 = "RS512"
    PS256 = "PS256"
    PS384 = "PS384"
    PS512 = "PS512"
    ES256 = "ES256"
    ES384 = "ES384"
    ES512 = "ES512"
    EDDSA = "EdDSA"
    ED25519 = "Ed25519"


LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def _provider_url(value: str) -> str:
    parts = urlsplit(value)
    local = parts.scheme == "http" and parts.hostname in LOOPBACK
    if not parts.hostname or not (parts.scheme == "https" or local):
        msg = "an identity provider's address begins with https://"
        raise ValueError(msg)
    if parts.username or parts.password or parts.query or parts.fragment:
        msg = "an identity provider's address has neither user, query nor fragment"
        raise ValueError(msg)
    return value


ProviderUrl = Annotated[
    str,
    StringConstraints(min_length=8, max_length=512, pattern=r"^[\x21-\x7e]+$"),
    AfterValidator(_provider_url),
]
_Audience = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=PRINTABLE)]
_Claim = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=PRINTABLE)]


class IdentityProvider(BaseModel):
    """A tenant's own OpenID provider: whose tokens it is that we take, and what they allow."""

    model_config = ConfigDict(frozen=True)

    issuer: ProviderUrl
    """Compared with `iss` character by character (OpenID Connect Core §3.1.3.7)."""
    audiences: Annotated[tuple[_Audience, ...], Field(min_length=1, max_length=8)]
    """One of them must be in `aud`. No two tenants have the same issuer and audience."""
    algorithms: Annotated[tuple[SigningAlgorithm, ...], Field(min_length=1)] = (
        SigningAlgorithm.RS256,
        SigningAlgorithm.ES256,
    )
    jwks_uri: ProviderUrl | None = None
    """Its keys; None: as its discovery document says (OpenID Connect Discovery §4)."""
    role_claim: _Claim | None = None
    """A claim that holds one role or several, or a path to it: `realm_access.roles`."""
    roles: Annotated[dict[_Claim, Role], Field(max_length=100)] = {}
    """What the claim's values mean here; of several the one that may most."""
    default_role: Role | None = None
    """Of whoever has none of these; None keeps them out."""
    clock_skew_s: Annotated[int, Field(ge=0, le=300)] = 60

    @model_validator(mode="after")
    def _somebody_may_come_in(self) -> Self:
        if self.default_role is None and not (self.role_claim and self.roles):
            msg = "give 'role_claim' and 'roles', or a 'default_role'"
            raise ValueError(msg)
        return self


class TenantStatus(StrEnum):
    """Whether a tenant may use the platform."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class SuspensionReason(StrEnum):
    """Why a tenant may not use the platform."""

    OPERATOR = "operator"  # until an operator resumes it, whatever is paid
    PAST_DUE = "past_due"  # until its invoices are paid


class TenantRecord(BaseModel):
    """The value of `tenants/<tenant>`."""

    model_config = ConfigDict(frozen=True)

    tenant: TenantId
    name: Name
    status: TenantStatus = TenantStatus.ACTIVE
    suspended_reason: SuspensionReason | None = None
    """Of a suspended tenant; None there: a release that knew no reasons suspended it."""
    requests_per_minute: int = 60_000
    tokens_per_minute: int | None = None
    """Input and output together; None does not limit them."""
    user_requests_per_minute: int | None = None
    """Of each user: an API key, or a subject of the tenant's identity provider."""
    user_tokens_per_minute: int | None = None
    max_connections: int | None = None
    """WebSockets at once on one instance; None leaves it to the platform's setting."""
    weight: int = 1
    """Its share of the machines where tenants compete, relative to the others'."""
    identity_providers: tuple[IdentityProvider, ...] = ()
    quotas: tuple[Quota, ...] = ()
    """At most one hard and one soft for each unit and period."""
    limited_from: date | None = None
    """From this UTC day on a plan of the tenant limits its use (quotas, or prepaid): whatever
    it may use is reserved, and Postgres knows by which plan. None: no plan does."""
    created_at: datetime

    @property
    def reserves(self) -> bool:
        """Whether anything may limit its use, so that a request is reserved for first (I4)."""
        return self.limited_from is not None or any(not quota.soft for quota in self.quotas)

    def refusal(self) -> PermissionDeniedError | None:
        """What a suspended tenant is told; None: it is active."""
        if self.status is TenantStatus.ACTIVE:
            return None
        if self.suspended_reason is SuspensionReason.PAST_DUE:
            msg = "This tenant is suspended because a payment is past due: pay the open invoices."
            return PermissionDeniedError(msg, code="tenant_past_due")
        msg = "This tenant is suspended: ask your operator."
        return PermissionDeniedError(msg, code="tenant_suspended")


class KeyRecord(BaseModel):
    """The value of `keys/<sha256>`."""

    model_config = ConfigDict(frozen=True)

    key_id: KeyId
    tenant: TenantId
    name: Name
    hint: str
    """The key's last four characters, to recognise it by."""
    role: Role = Role.MEMBER
    created_at: datetime
    lifetime_s: int | None = None
    """How long it was made for, and each that a rotation puts in its place; None: for ever."""
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
