"""Tenants and API keys: the commands to billing, the bucket records, the key format.

API keys follow GitHub's token format (a type prefix, a random part, a checksum that refuses typos
without a look-up) and are stored as SHA-256 only.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from penstock_shared.contracts.ids import KeyId, TenantId

API_KEY_PREFIX: Final = "psk_"
ACCOUNT_TOPIC: Final = "account"
"""The topic of the facts below: `v1.<tenant>.events.account.<fact>`."""
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARS: Final = 32
_CHECK_CHARS: Final = 6
_Name = Annotated[str, StringConstraints(min_length=1, max_length=120)]


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


class TenantStatus(StrEnum):
    """Whether a tenant may use the platform."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


class TenantRecord(BaseModel):
    """The value of `tenants/<tenant>`."""

    model_config = ConfigDict(frozen=True)

    tenant: TenantId
    name: _Name
    status: TenantStatus = TenantStatus.ACTIVE
    requests_per_minute: int = 60_000
    weight: int = 1
    """Its share of the machines where tenants compete, relative to the others'."""
    created_at: datetime


class KeyRecord(BaseModel):
    """The value of `keys/<sha256>`."""

    model_config = ConfigDict(frozen=True)

    key_id: KeyId
    tenant: TenantId
    name: _Name
    hint: str
    """The key's last four characters, to recognise it by."""
    created_at: datetime
    revoked_at: datetime | None = None


class CreateTenant(BaseModel):
    """Verb `create-tenant`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: TenantId
    name: _Name
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000_000)] = 60_000
    weight: Annotated[int, Field(ge=1, le=100)] = 1


class CreateKey(BaseModel):
    """Verb `create-key`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: TenantId
    name: _Name


class RevokeKey(BaseModel):
    """Verb `revoke-key`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_id: KeyId


class ListAccounts(BaseModel):
    """Verbs `list-tenants` and `list-keys`; all tenants when None."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: TenantId | None = None


class CreatedKey(BaseModel):
    """Answer to `create-key`: the only time that the secret is shown."""

    model_config = ConfigDict(frozen=True)

    key: KeyRecord
    secret: str


class TenantList(BaseModel):
    """Answer to `list-tenants`."""

    model_config = ConfigDict(frozen=True)

    tenants: tuple[TenantRecord, ...]


class KeyList(BaseModel):
    """Answer to `list-keys`."""

    model_config = ConfigDict(frozen=True)

    keys: tuple[KeyRecord, ...]


class TenantCreated(BaseModel):
    """Fact `account.tenant-created`."""

    model_config = ConfigDict(frozen=True)

    TYPE: ClassVar[str] = "penstock.account.tenant_created.v1"
    FACT: ClassVar[str] = "tenant-created"

    tenant: TenantId
    name: _Name
    requests_per_minute: int
    created_at: datetime


class KeyCreated(BaseModel):
    """Fact `account.key-created`: neither the secret nor its hash."""

    model_config = ConfigDict(frozen=True)

    TYPE: ClassVar[str] = "penstock.account.key_created.v1"
    FACT: ClassVar[str] = "key-created"

    tenant: TenantId
    key_id: KeyId
    name: _Name
    created_at: datetime


class KeyRevoked(BaseModel):
    """Fact `account.key-revoked`."""

    model_config = ConfigDict(frozen=True)

    TYPE: ClassVar[str] = "penstock.account.key_revoked.v1"
    FACT: ClassVar[str] = "key-revoked"

    tenant: TenantId
    key_id: KeyId
    revoked_at: datetime
