"""A running edge, the official SDK in front of it, and the accounts that billing would write."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from openai import AsyncOpenAI
from tests.support.realtime_backend import Backend

from penstock_realtime.app import App
from penstock_shared.contracts.accounts import (
    KeyRecord,
    Role,
    SuspensionReason,
    TenantRecord,
    TenantStatus,
    hash_api_key,
    make_api_key,
)
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.kv import put


@dataclass
class Account:
    """A tenant with one key."""

    tenant: TenantRecord
    record: KeyRecord
    secret: str


@dataclass
class Edge:
    """A running edge and what stands behind it."""

    app: App
    backend: Backend
    broker: Broker
    account: Account

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.app.http_port}/v1"

    def client(self, secret: str | None = None) -> Any:
        """The official SDK, unchanged; its unions of some 60 event types help nobody here."""
        return AsyncOpenAI(
            base_url=self.base_url, api_key=secret or self.account.secret, max_retries=0
        )

    def http(self, secret: str | None = None) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {secret or self.account.secret}"}
        return httpx.AsyncClient(base_url=f"{self.base_url}/", headers=headers, timeout=30)

    async def add_account(self, tenant: str, per_minute: int = 60_000, **limits: int) -> Account:
        return await add_account(self.broker, tenant, per_minute, Role.MEMBER, **limits)


async def add_account(
    broker: Broker,
    tenant: str,
    per_minute: int = 60_000,
    role: Role = Role.MEMBER,
    **limits: int,
) -> Account:
    """What billing writes to the buckets."""
    now = datetime.now(UTC)
    record = TenantRecord(
        tenant=tenant,
        name=tenant,
        requests_per_minute=per_minute,
        created_at=now,
        **limits,
    )
    secret = make_api_key(os.urandom)
    key = KeyRecord(
        key_id=f"key_{os.urandom(4).hex()}",
        tenant=tenant,
        name="test",
        hint=secret[-4:],
        role=role,
        created_at=now,
    )
    await put(broker, Bucket.TENANTS, tenant, record.model_dump_json().encode())
    await put(broker, Bucket.KEYS, hash_api_key(secret), key.model_dump_json().encode())
    return Account(record, key, secret)


async def revoke(broker: Broker, account: Account) -> None:
    """What billing writes when a key is revoked."""
    gone = account.record.model_copy(update={"revoked_at": datetime.now(UTC)})
    await put(broker, Bucket.KEYS, hash_api_key(account.secret), gone.model_dump_json().encode())


async def suspend(
    broker: Broker, account: Account, reason: SuspensionReason = SuspensionReason.OPERATOR
) -> None:
    """What a suspension writes."""
    ended = {"status": TenantStatus.SUSPENDED, "suspended_reason": reason}
    gone = account.tenant.model_copy(update=ended)
    await put(broker, Bucket.TENANTS, gone.tenant, gone.model_dump_json().encode())


StartEdge = Callable[..., Awaitable["Edge"]]
