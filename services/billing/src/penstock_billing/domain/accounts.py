"""What an act on an account changes; `domain/announcements.py` says what the world learns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from penstock_billing.ports.accounts import StoredKey
from penstock_shared.contracts.account_commands import CreateKey, CreateTenant, UpdateTenant
from penstock_shared.contracts.accounts import (
    KeyRecord,
    Role,
    SuspensionReason,
    TenantRecord,
    TenantStatus,
    hash_api_key,
)
from penstock_shared.contracts.errors import ConflictError
from penstock_shared.contracts.ids import PLATFORM

MAX_WORKING_KEYS: Final = 1_000
"""Of one tenant: every service holds all keys in memory."""
_HINT_CHARS: Final = 4
_KEY_ID_BYTES: Final = 8


def new_tenant(command: CreateTenant, at: datetime) -> TenantRecord:
    """The tenant that `command` asks for.

    Raises:
        ConflictError: the name is the platform's own.
    """
    if command.tenant == PLATFORM:
        msg = f"'{PLATFORM}' is the platform's own name: choose another for the tenant."
        raise ConflictError(msg, code="reserved_name", param="tenant")
    return TenantRecord.model_validate({**command.model_dump(), "created_at": at})


def updated_tenant(
    record: TenantRecord, command: UpdateTenant
) -> tuple[TenantRecord, tuple[str, ...]]:
    """The tenant as `command` wants it, and the names of the fields that this changes.

    An operator's word on the status holds against any other reason to suspend a tenant.
    """
    before = record.model_dump()
    wanted = command.model_dump(exclude_unset=True)
    if "status" in wanted:
        suspends = command.status is TenantStatus.SUSPENDED
        wanted["suspended_reason"] = SuspensionReason.OPERATOR if suspends else None
    after = TenantRecord.model_validate(before | wanted)
    changed = sorted(name for name, value in after.model_dump().items() if value != before[name])
    return after, tuple(changed)


def new_key(
    command: CreateKey, secret: str, at: datetime, random_bytes: Callable[[int], bytes]
) -> StoredKey:
    """The key that `command` asks for; of the secret only hash and last characters are kept."""
    lifetime_s = command.expires_in_s
    return _key(command.tenant, command.name, command.role, lifetime_s, secret, at, random_bytes)


def rotated(
    old: StoredKey,
    overlap_s: int,
    secret: str,
    at: datetime,
    random_bytes: Callable[[int], bytes],
) -> tuple[StoredKey, StoredKey]:
    """The old key, which ends after the overlap or earlier, and the one in its place.

    Raises:
        ConflictError: the old key works no more.
    """
    record = old.record
    if not works(record, at):
        msg = f"The key '{record.key_id}' is revoked or has expired: create a new one."
        raise ConflictError(msg, code="key_has_ended", param="key_id")
    end = at + timedelta(seconds=overlap_s)
    ending = record.model_copy(update={"expires_at": min(end, record.expires_at or end)})
    successor = _key(
        record.tenant, record.name, record.role, record.lifetime_s, secret, at, random_bytes
    )
    return StoredKey(old.sha256, ending), successor


def works(key: KeyRecord, at: datetime) -> bool:
    """Whether a key lets anybody in, as far as it itself is concerned."""
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > at)


def revoked(key: StoredKey, at: datetime) -> StoredKey:
    """The key, revoked."""
    return StoredKey(key.sha256, key.record.model_copy(update={"revoked_at": at}))


def _key(
    tenant: str,
    name: str,
    role: Role,
    lifetime_s: int | None,
    secret: str,
    at: datetime,
    random_bytes: Callable[[int], bytes],
) -> StoredKey:
    record = KeyRecord(
        key_id=f"key_{random_bytes(_KEY_ID_BYTES).hex()}",
        tenant=tenant,
        name=name,
        hint=secret[-_HINT_CHARS:],
        role=role,
        created_at=at,
        lifetime_s=lifetime_s,
        expires_at=None if lifetime_s is None else at + timedelta(seconds=lifetime_s),
    )
    return StoredKey(sha256=hash_api_key(secret), record=record)
