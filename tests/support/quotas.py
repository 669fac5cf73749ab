"""Tenants with quotas in a real database, requests that use them, and the sums done again."""

from __future__ import annotations

import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import SecretStr
from tests.support.billing import PRICE, STORED_AT, terminal

from penstock_billing.adapters.postgres_accounts import PostgresAccounts
from penstock_billing.adapters.postgres_roles import connect_platform, migrate_billing
from penstock_billing.adapters.postgres_usage import PostgresUsage
from penstock_billing.domain.metering import meter
from penstock_billing.ports.usage import MeteredUsage
from penstock_router.adapters.postgres_quotas import PostgresQuotas
from penstock_shared.contracts import subjects
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.errors import NotFoundError
from penstock_shared.contracts.quotas import Quota, QuotaState, Reserve
from penstock_shared.contracts.requests import (
    AttemptFailed,
    Decision,
    NextAttempt,
    RequestEnded,
    RequestRouted,
    Sampling,
    terminal_type,
)
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.postgres import Postgres


def quota(text: str) -> Quota:
    """`tokens/day=1000`, as on the command line."""
    name, _, limit = text.partition("=")
    unit, _, period = name.partition("/")
    return Quota.model_validate({"unit": unit, "period": period, "limit": int(limit)})


def tenant(name: str = "acme", *quotas: str) -> TenantRecord:
    """As routers know it."""
    return TenantRecord(
        tenant=name,
        name=name,
        quotas=tuple(map(quota, quotas)),
        created_at=datetime.now(UTC),
    )


def routed(*tokens: int, of: str = "acme", **fields: Any) -> RequestRouted:
    """A request that reserves so many tokens for its attempts, and as many micro-dollars."""
    now = fields.pop("accepted_at", None) or datetime.now(UTC)
    values: dict[str, Any] = {
        "request_id": str(uuid.uuid4()),
        "tenant": of,
        "key_id": "key_1",
        "data_subject": "somebody",
        "lane": Lane.STANDARD,
        "attempt": 1,
        "decision": Decision(
            policy="named", model="small", probability=1, reason="named", features={}
        ),
        "price": PRICE,
        "sampling": Sampling(),
        "content": "1.c2VhbGVk",
        "accepted_at": now,
        "deadline": now + timedelta(seconds=60),
        "plan": tuple(NextAttempt(model="large", price=PRICE) for _ in tokens[1:]),
        "reserves": tuple(
            Reserve(attempt=n, tokens=count, microusd=count) for n, count in enumerate(tokens, 1)
        ),
        **fields,
    }
    return RequestRouted(**values)


def ended(request: RequestRouted, used: int, attempt: int = 1) -> RequestEnded:
    """Its terminal."""
    return terminal(
        tenant=request.tenant,
        request_id=request.request_id,
        attempt=attempt,
        tokens=(0, used),
        routed_at=request.accepted_at,
        ended_at=request.accepted_at + timedelta(seconds=1),
    )


def metered(fact: RequestEnded | AttemptFailed) -> MeteredUsage:
    """As billing reads it."""
    kind = fact.TYPE if isinstance(fact, AttemptFailed) else terminal_type(fact.status)
    subject = subjects.request_event(fact.tenant, fact.request_id)
    return meter(kind, subject, 1, STORED_AT, fact.model_dump_json().encode())


@dataclass(frozen=True)
class QuotaRig:
    """Billing's database with nothing to rebuild, and both who work on it."""

    postgres: Postgres
    gate: PostgresQuotas
    ledger: PostgresUsage
    accounts: PostgresAccounts

    async def set_quotas(self, record: TenantRecord) -> TenantRecord:
        """As the operator's command does."""
        now = datetime.now(UTC)
        async with self.accounts.transaction() as transaction:
            try:
                await transaction.lock_tenant(record.tenant)
                await transaction.change_tenant(record)
            except NotFoundError:
                await transaction.add_tenant(record)
            await transaction.recount_quotas(record.tenant, now)
        return record

    async def end(self, *facts: RequestEnded | AttemptFailed) -> None:
        """Meter them in one batch."""
        await self.ledger.record([metered(fact) for fact in facts])

    async def state(self, name: str = "acme", at: datetime | None = None) -> QuotaState:
        """Of a tenant that has one quota."""
        (state,) = await self.accounts.quotas(name, at or datetime.now(UTC))
        return state

    async def open_rows(self) -> int:
        """How many attempts have a reservation."""
        return int(await self.postgres.fetchval("select count(*) from billing.reservations"))

    async def check_sums(self) -> None:
        """What is counted is what the rows add up to, tenant by tenant and day by day."""
        settled: Counter[tuple[str, Any, str]] = Counter()
        reserved: Counter[tuple[str, Any, str]] = Counter()
        for row in await self.postgres.fetch("select * from billing.usage"):
            place = row["tenant"], row["accepted_on"]
            settled[*place, "requests"] += row["attempt"] == 1
            settled[*place, "tokens"] += row["input_tokens"] + row["output_tokens"]
            settled[*place, "microusd"] += row["cost_microusd"]
        for row in await self.postgres.fetch("select * from billing.reservations"):
            place = row["tenant"], row["accepted_on"]
            reserved[*place, "requests"] += row["attempt"] == 1
            reserved[*place, "tokens"] += row["tokens"]
            reserved[*place, "microusd"] += row["microusd"]
        for row in await self.postgres.fetch("select * from billing.quota_use"):
            sums = row["tenant"], row["day"], row["unit"]
            assert (row["settled"], row["reserved"]) == (settled[sums], reserved[sums]), sums


@contextlib.asynccontextmanager
async def quota_rig(dsn: str) -> AsyncIterator[QuotaRig]:
    """On a fresh database; billing and the router work as what they are in production."""
    address = SecretStr(dsn)
    await migrate_billing(address)
    owner = await Postgres.connect(address, name="test", connections=2)
    billing = await connect_platform(address, 6)
    ledger = PostgresUsage(billing)
    await ledger.rebuild_begun(0)
    await ledger.rebuild_ended(0)
    own = await Postgres.prepare(address, name="router", connections=2, role="penstock_router")
    gate = PostgresQuotas(own, SystemClock())
    try:
        yield QuotaRig(owner, gate, ledger, PostgresAccounts(billing))
    finally:
        await gate.stop()
        await billing.close()
        await owner.close()
