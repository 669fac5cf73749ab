"""What happened to accounts: `v1.<tenant>.events.account.<fact>`. Neither secrets nor hashes."""

from __future__ import annotations

from datetime import datetime

from penstock_shared.contracts.accounts import Name, Role, TenantRecord
from penstock_shared.contracts.ids import KeyId
from penstock_shared.contracts.tenant_facts import TenantFact


class AccountFact(TenantFact):
    """What all of them have."""

    TOPIC = "account"


class TenantCreated(AccountFact):
    """Fact `account.tenant-created`."""

    TYPE = "penstock.account.tenant_created.v1"
    FACT = "tenant-created"

    name: Name
    requests_per_minute: int
    created_at: datetime


class TenantUpdated(AccountFact):
    """Fact `account.tenant-updated`: also a suspension, and its end."""

    TYPE = "penstock.account.tenant_updated.v1"
    FACT = "tenant-updated"

    changed: tuple[str, ...]
    """The fields that have another value now."""
    record: TenantRecord
    updated_at: datetime


class KeyCreated(AccountFact):
    """Fact `account.key-created`."""

    TYPE = "penstock.account.key_created.v1"
    FACT = "key-created"

    key_id: KeyId
    name: Name
    role: Role = Role.MEMBER
    expires_at: datetime | None = None
    by: KeyId | None = None
    """The tenant's admin who asked: a key or a subject; None for an operator."""
    created_at: datetime


class KeyRotated(AccountFact):
    """Fact `account.key-rotated`: the old key ends, the new one has its own `key-created`."""

    TYPE = "penstock.account.key_rotated.v1"
    FACT = "key-rotated"

    key_id: KeyId
    successor: KeyId
    expires_at: datetime
    """Of the old key."""
    by: KeyId | None = None
    rotated_at: datetime


class KeyRevoked(AccountFact):
    """Fact `account.key-revoked`."""

    TYPE = "penstock.account.key_revoked.v1"
    FACT = "key-revoked"

    key_id: KeyId
    by: KeyId | None = None
    revoked_at: datetime
