"""Months that are metered, previewed and closed in a real database, clock and log in hand."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

import asyncpg
from pydantic import BaseModel, SecretStr

from penstock_billing.adapters.postgres_accounts import PostgresAccounts
from penstock_billing.adapters.postgres_credits import PostgresCredits
from penstock_billing.adapters.postgres_invoices import PostgresInvoices
from penstock_billing.adapters.postgres_plans import PostgresPlans
from penstock_billing.adapters.postgres_roles import (
    TenantPostgres,
    connect_platform,
    migrate_billing,
)
from penstock_billing.adapters.postgres_usage import PostgresUsage
from penstock_billing.domain.accounts import new_tenant
from penstock_billing.domain.announcements import Act
from penstock_billing.domain.credits import adjustment_transfer, grant_transfer, new_grant
from penstock_billing.handlers.closing import Closing
from penstock_billing.handlers.invoices import InvoiceQuestions
from penstock_billing.ports.usage import MeteredUsage, Position
from penstock_shared.contracts.account_commands import CreateTenant
from penstock_shared.contracts.credits import AdjustmentMade, CreditKind, GrantCredit
from penstock_shared.contracts.invoice_commands import ClosePeriod, PeriodClosed, PreviewInvoice
from penstock_shared.contracts.invoices import Invoice
from penstock_shared.contracts.plans import PlanTerms, Subscription
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_shared.runtime.postgres import Postgres

GRACE = timedelta(hours=2)
BORN = datetime(2026, 11, 1, tzinfo=UTC)
A = TypeVar("A", bound=BaseModel)


class HandClock:
    """A clock that is set by hand."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return self.at.timestamp()


@dataclass
class HandLog:
    """An `EventLog` of which the end, and how far it is read, are set by hand."""

    end: int = 0
    read_up_to: int = 0

    async def read(self) -> Position:
        return Position(events_seq=self.read_up_to, lag=self.end - self.read_up_to)

    async def last_seq(self) -> int:
        return self.end


class HandBook(PostgresInvoices):
    """An `InvoiceBook` in a database whose clock is set by hand, too."""

    clock: HandClock

    async def now(self) -> datetime:
        return self.clock.at


def metered(
    accepted_at: datetime, cost: int, *, tenant: str = "acme", seq: int = 1, **fields: Any
) -> MeteredUsage:
    """One attempt that cost so much."""
    values: dict[str, Any] = {
        "tenant": tenant,
        "request_id": str(uuid.uuid4()),
        "attempt": 1,
        "event_seq": seq,
        "model": "small",
        "key_id": "key_1",
        "data_subject": "somebody",
        "kind": "text",
        "status": "completed",
        "input_tokens": 10,
        "cached_input_tokens": 2,
        "output_tokens": 20,
        "tool_calls": 0,
        "cost_microusd": cost,
        "accepted_at": accepted_at,
        "ended_at": accepted_at,
        **fields,
    }
    return MeteredUsage(**values)


@dataclass
class InvoiceRig:
    """Billing's parts around months, without its consumer."""

    postgres: Postgres
    tenants: TenantPostgres
    clock: HandClock = field(default_factory=lambda: HandClock(BORN))
    log: HandLog = field(default_factory=HandLog)

    def __post_init__(self) -> None:
        self.usage = PostgresUsage(self.postgres)
        self.book = HandBook(self.postgres, self.tenants)
        self.book.clock = self.clock
        self.new_id = IdSource(SystemClock()).new
        self.closing = Closing(self.book, self.log, self.clock, self.new_id, GRACE)
        self.questions = InvoiceQuestions(self.book, self.log)

    def act(self) -> Act:
        return Act(self.clock.at, None, self.new_id)

    async def ask(self, verb: str, question: BaseModel, answer: type[A]) -> A:
        """As whoever asks billing, without the bus."""
        verbs = self.questions.verbs | self.closing.verbs
        given = await verbs[verb](question.model_dump_json(exclude_unset=True).encode(), self.act())
        assert isinstance(given, answer)
        return given

    async def preview(self, month: str | None = None, tenant: str = "acme") -> Invoice:
        question = PreviewInvoice(tenant=tenant, month=month)
        return await self.ask("preview-invoice", question, Invoice)

    async def close(self, month: str, tenant: str = "acme") -> PeriodClosed:
        question = ClosePeriod(tenant=tenant, month=month)
        return await self.ask("close-period", question, PeriodClosed)

    async def create(self, tenant: str = "acme", at: datetime = BORN) -> None:
        record = new_tenant(CreateTenant(tenant=tenant, name=tenant), at)
        async with PostgresAccounts(self.postgres).transaction() as transaction:
            await transaction.add_tenant(record)

    async def subscribe(self, from_day: date, *, tenant: str = "acme", **terms: Any) -> None:
        held = Subscription(
            tenant=tenant,
            from_day=from_day,
            plan="pay-as-you-go",
            version=1,
            terms=PlanTerms(title="Team", **terms),
        )
        async with PostgresPlans(self.postgres).transaction() as transaction:
            await transaction.put_subscription(held, self.clock.at)

    async def grant(
        self, microusd: int, expires_on: date | None = None, reference: str = "a grant"
    ) -> str:
        command = GrantCredit(
            tenant="acme",
            kind=CreditKind.PREPAID,
            microusd=microusd,
            expires_on=expires_on,
            reference=reference,
        )
        made = new_grant(command, self.clock.at)
        async with PostgresCredits(self.postgres).transaction() as transaction:
            await transaction.add_grant(made)
            await transaction.post([grant_transfer(made)])
        return made.grant_id

    async def adjust(self, microusd: int, month: str = "2026-11", reason: str = "Outage") -> None:
        made = AdjustmentMade(
            tenant="acme",
            month=month,
            microusd=microusd,
            reason=reason,
            reference=reason,
            made_at=self.clock.at,
        )
        async with PostgresCredits(self.postgres).transaction() as transaction:
            await transaction.add_adjustment(made)
            await transaction.post([adjustment_transfer(made)])

    async def receivable(self, period: date, tenant: str = "acme") -> int:
        """Debit less credit."""
        found = await self.postgres.fetchval(
            "select coalesce(sum(debit - credit), 0) from billing.balances"
            " where tenant = $1 and period = $2 and account = 'receivable'",
            tenant,
            period,
        )
        return int(found)

    async def balanced(self) -> bool:
        """Over all accounts debit and credit are equal."""
        query = "select coalesce(sum(debit) - sum(credit), 0) = 0 from billing.balances"
        return bool(await self.postgres.fetchval(query))


@contextlib.asynccontextmanager
async def invoice_rig(dsn: str, timezone: str = "UTC") -> AsyncIterator[InvoiceRig]:
    """In a fresh database that has nothing to read again, and thinks in this time zone."""
    await migrate_billing(SecretStr(dsn))
    owner = await asyncpg.connect(dsn)
    name = dsn.rpartition("/")[2]
    await owner.execute(f"alter database \"{name}\" set timezone to '{timezone}'")
    await owner.close()
    postgres = await connect_platform(SecretStr(dsn), 4)
    tenants = await TenantPostgres.connect(SecretStr(dsn), 2)
    await postgres.fetch("delete from billing.rebuild")
    try:
        yield InvoiceRig(postgres, tenants)
    finally:
        await tenants.close()
        await postgres.close()
