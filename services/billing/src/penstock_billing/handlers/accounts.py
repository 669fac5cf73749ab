"""Commands about accounts: one method per verb."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from pydantic import BaseModel

from penstock_billing.domain.accounts import (
    MAX_WORKING_KEYS,
    new_key,
    new_tenant,
    revoked,
    rotated,
    updated_tenant,
)
from penstock_billing.domain.announcements import (
    Act,
    tell_key_created,
    tell_key_revoked,
    tell_key_rotated,
    tell_tenant_created,
    tell_tenant_updated,
)
from penstock_billing.handlers.commands import Verb, parse_command
from penstock_billing.ports.accounts import AccountStore, AccountTransaction, StoredKey
from penstock_shared.contracts.account_commands import (
    CreatedKey,
    CreateKey,
    CreateTenant,
    KeyList,
    KeyUseNoted,
    ListAccounts,
    ListKeys,
    ListQuotas,
    QuotaList,
    ReportKeyUse,
    RevokeKey,
    RotateKey,
    TenantList,
    UpdateTenant,
)
from penstock_shared.contracts.accounts import KeyRecord, TenantRecord, make_api_key
from penstock_shared.contracts.errors import (
    ConflictError,
    NotFoundError,
)
from penstock_shared.runtime.telemetry import log

C = TypeVar("C", bound=BaseModel)


class Relay(Protocol):
    """Publishes what the outbox holds."""

    async def flush(self) -> None:
        """After this returns everything committed before is published."""
        ...


class AccountCommands:
    """Answers commands. An answer is sent after its effect is visible everywhere."""

    def __init__(
        self,
        store: AccountStore,
        relay: Relay,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._relay = relay
        self._random_bytes = random_bytes
        self.verbs: dict[str, Verb] = {
            "create-tenant": self._create_tenant,
            "update-tenant": self._update_tenant,
            "list-tenants": self._list_tenants,
            "list-quotas": self._list_quotas,
            "create-key": self._create_key,
            "rotate-key": self._rotate_key,
            "revoke-key": self._revoke_key,
            "list-keys": self._list_keys,
            "report-key-use": self._report_key_use,
        }

    async def _create_tenant(self, payload: bytes, act: Act) -> TenantRecord:
        record = new_tenant(parse_command(CreateTenant, payload), act.at)
        async with self._store.transaction() as transaction:
            await transaction.add_tenant(record)
            if record.quotas:
                await transaction.recount_quotas(record.tenant, act.at)
            await transaction.enqueue(tell_tenant_created(record, act))
        log().info("tenant.created", tenant=record.tenant)
        await self._relay.flush()
        return record

    async def _update_tenant(self, payload: bytes, act: Act) -> TenantRecord:
        command = parse_command(UpdateTenant, payload)
        async with self._store.transaction() as transaction:
            before = await transaction.lock_tenant(command.tenant)
            record, changed = updated_tenant(before, command)
            if changed:
                await transaction.change_tenant(record)
                if "quotas" in changed and record.quotas:
                    await transaction.recount_quotas(record.tenant, act.at)
                await transaction.enqueue(tell_tenant_updated(record, changed, act))
                log().info("tenant.updated", tenant=record.tenant, changed=changed)
        # Also when nothing changed: the entry of an earlier update may still wait in the outbox.
        await self._relay.flush()
        return record

    async def _list_tenants(self, payload: bytes, _: Act) -> TenantList:
        query = parse_command(ListAccounts, payload)
        return TenantList(tenants=tuple(await self._store.tenants(query.tenant)))

    async def _list_quotas(self, payload: bytes, act: Act) -> QuotaList:
        query = parse_command(ListQuotas, payload)
        return QuotaList(quotas=tuple(await self._store.quotas(query.tenant, act.at)))

    async def _create_key(self, payload: bytes, act: Act) -> CreatedKey:
        command = parse_command(CreateKey, payload)
        secret = make_api_key(self._random_bytes)
        key = new_key(command, secret, act.at, self._random_bytes)
        async with self._store.transaction() as transaction:
            await _require_room(transaction, command.tenant, act)
            await transaction.add_key(key)
            await transaction.enqueue(tell_key_created(key, command.by, act))
        log().info("key.created", tenant=key.record.tenant, key_id=key.record.key_id)
        await self._relay.flush()
        return CreatedKey(key=key.record, secret=secret)

    async def _rotate_key(self, payload: bytes, act: Act) -> CreatedKey:
        command = parse_command(RotateKey, payload)
        secret = make_api_key(self._random_bytes)
        async with self._store.transaction() as transaction:
            old = await _lock_key(transaction, command)
            ending, successor = rotated(old, command.overlap_s, secret, act.at, self._random_bytes)
            await _require_room(transaction, old.record.tenant, act)
            await transaction.add_key(successor)
            await transaction.change_key(ending)
            await transaction.enqueue(tell_key_rotated(ending, successor, command.by, act))
        log().info("key.rotated", key_id=command.key_id, successor=successor.record.key_id)
        await self._relay.flush()
        return CreatedKey(key=successor.record, secret=secret)

    async def _revoke_key(self, payload: bytes, act: Act) -> KeyRecord:
        command = parse_command(RevokeKey, payload)
        async with self._store.transaction() as transaction:
            key = await _lock_key(transaction, command)
            if key.record.revoked_at is None:
                key = revoked(key, act.at)
                await transaction.change_key(key)
                await transaction.enqueue(tell_key_revoked(key, command.by, act))
                log().info("key.revoked", tenant=key.record.tenant, key_id=command.key_id)
        # Also when it was revoked before: its entry may still wait in the outbox.
        await self._relay.flush()
        return key.record

    async def _list_keys(self, payload: bytes, _: Act) -> KeyList:
        query = parse_command(ListKeys, payload)
        found = await self._store.page(query)
        return KeyList(keys=tuple(found[: query.limit]), has_more=len(found) > query.limit)

    async def _report_key_use(self, payload: bytes, act: Act) -> KeyUseNoted:
        report = parse_command(ReportKeyUse, payload)
        return KeyUseNoted(noted=await self._store.note_uses(report.uses, act.at))


async def _lock_key(transaction: AccountTransaction, command: RotateKey | RevokeKey) -> StoredKey:
    key = await transaction.lock_key(command.key_id)
    if key is None or command.tenant not in {None, key.record.tenant}:
        msg = f"There is no key '{command.key_id}': the list of keys shows their ids."
        raise NotFoundError(msg, code="key_not_found", param="key_id")
    return key


async def _require_room(transaction: AccountTransaction, tenant: str, act: Act) -> None:
    """Holds the tenant until the transaction ends, so that the count stays true."""
    await transaction.lock_tenant(tenant)
    if await transaction.working_keys(tenant, act.at) >= MAX_WORKING_KEYS:
        msg = f"The tenant '{tenant}' has {MAX_WORKING_KEYS} keys that work: revoke one."
        raise ConflictError(msg, code="too_many_keys", param="tenant")
