"""Operator commands about accounts: one method per verb."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from penstock_billing import metrics
from penstock_billing.domain.accounts import (
    Act,
    new_key,
    new_tenant,
    revoked,
    tell_key_created,
    tell_key_revoked,
    tell_tenant_created,
)
from penstock_billing.ports import AccountStore
from penstock_shared.contracts.accounts import (
    CreatedKey,
    CreateKey,
    CreateTenant,
    KeyList,
    KeyRecord,
    ListAccounts,
    RevokeKey,
    TenantList,
    TenantRecord,
    make_api_key,
)
from penstock_shared.contracts.errors import NotFoundError, PenstockError, SchemaError
from penstock_shared.runtime.clock import Clock, IdSource
from penstock_shared.runtime.telemetry import child_traceparent, log

C = TypeVar("C", bound=BaseModel)


class Relay(Protocol):
    """Publishes what the outbox holds."""

    async def flush(self) -> None:
        """After this returns everything committed before is published."""
        ...


class AccountCommands:
    """Answers operator commands. An answer is sent after its effect is visible everywhere."""

    def __init__(
        self,
        store: AccountStore,
        relay: Relay,
        clock: Clock,
        ids: IdSource,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._relay = relay
        self._clock = clock
        self._ids = ids
        self._random_bytes = random_bytes
        self._verbs: dict[str, Callable[[bytes, Act], Awaitable[BaseModel]]] = {
            "create-tenant": self._create_tenant,
            "create-key": self._create_key,
            "revoke-key": self._revoke_key,
            "list-tenants": self._list_tenants,
            "list-keys": self._list_keys,
        }

    async def on_command(self, verb: str, payload: bytes, traceparent: str | None) -> BaseModel:
        """Carry out one command and return the answer.

        Raises:
            PenstockError: what was wrong, in a form that is meant for the caller.
        """
        handle = self._verbs.get(verb)
        if handle is None:
            msg = f"There is no command '{verb[:40]}': use one of {', '.join(self._verbs)}."
            raise NotFoundError(msg, code="unknown_command")
        act = Act(self._clock.now(), child_traceparent(traceparent), self._ids.new)
        try:
            answer = await handle(payload, act)
        except PenstockError as error:
            metrics.ACTS.labels(verb, error.code).inc()
            raise
        metrics.ACTS.labels(verb, "done").inc()
        return answer

    async def _create_tenant(self, payload: bytes, act: Act) -> TenantRecord:
        record = new_tenant(_parse(CreateTenant, payload), act.at)
        async with self._store.transaction() as transaction:
            await transaction.add_tenant(record)
            await transaction.enqueue(tell_tenant_created(record, act))
        log().info("tenant.created", tenant=record.tenant)
        await self._relay.flush()
        return record

    async def _create_key(self, payload: bytes, act: Act) -> CreatedKey:
        secret = make_api_key(self._random_bytes)
        key = new_key(_parse(CreateKey, payload), secret, act.at, self._random_bytes)
        async with self._store.transaction() as transaction:
            await transaction.add_key(key)
            await transaction.enqueue(tell_key_created(key, act))
        log().info("key.created", tenant=key.record.tenant, key_id=key.record.key_id)
        await self._relay.flush()
        return CreatedKey(key=key.record, secret=secret)

    async def _revoke_key(self, payload: bytes, act: Act) -> KeyRecord:
        key_id = _parse(RevokeKey, payload).key_id
        async with self._store.transaction() as transaction:
            key = await transaction.lock_key(key_id)
            if key is None:
                msg = f"There is no key '{key_id}': the list of keys shows their ids."
                raise NotFoundError(msg, code="key_not_found", param="key_id")
            if key.record.revoked_at is None:
                key = revoked(key, act.at)
                await transaction.mark_revoked(key_id, act.at)
                await transaction.enqueue(tell_key_revoked(key, act))
                log().info("key.revoked", tenant=key.record.tenant, key_id=key_id)
        # Also when it was revoked before: its entry may still wait in the outbox.
        await self._relay.flush()
        return key.record

    async def _list_tenants(self, payload: bytes, _: Act) -> TenantList:
        query = _parse(ListAccounts, payload)
        return TenantList(tenants=tuple(await self._store.tenants(query.tenant)))

    async def _list_keys(self, payload: bytes, _: Act) -> KeyList:
        query = _parse(ListAccounts, payload)
        return KeyList(keys=tuple(key.record for key in await self._store.keys(query.tenant)))


def _parse(command: type[C], payload: bytes) -> C:
    try:
        return command.model_validate_json(payload or b"{}")
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        msg = f"'{field}': {first['msg']}." if field else f"{first['msg']}."
        raise SchemaError(msg, param=field or None) from error
