"""A provider with its books in memory, a clock that is set, and billing's side of payments."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

from pydantic import BaseModel, SecretStr

from penstock_billing.adapters.postgres_accounts import PostgresAccounts
from penstock_billing.adapters.postgres_payments import PostgresPayments
from penstock_billing.adapters.postgres_roles import connect_platform, migrate_billing
from penstock_billing.domain.announcements import Act
from penstock_billing.domain.dunning import DunningTerms
from penstock_billing.handlers.collecting import Collector
from penstock_billing.handlers.payments import PaymentCommands
from penstock_billing.handlers.settling import Settling
from penstock_billing.ports.payments import (
    Charge,
    Notice,
    PaymentGateway,
    PaymentState,
    PaymentStatus,
    Provider,
    RefundOrder,
    RefundState,
)
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.errors import NotFoundError, UnavailableError
from penstock_shared.runtime.clock import IdSource
from penstock_shared.runtime.postgres import Postgres

S = TypeVar("S", PaymentState, RefundState)
JULY = date(2026, 7, 1)
ISSUED_AT = datetime(2026, 8, 1, 3, tzinfo=UTC)
TERMS = DunningTerms(grace_after=timedelta(days=7), suspend_after=timedelta(days=14))


class SetClock:
    """Stands still until it is moved."""

    def __init__(self, at: datetime = ISSUED_AT) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at

    def monotonic_s(self) -> float:
        return self.at.timestamp()

    def advance(self, **by: float) -> None:
        self.at += timedelta(**by)


@dataclass
class BookedProvider:
    """A `PaymentGateway` that says what it is told to say, and counts what it really did."""

    provider: Provider = Provider.BRAINTREE
    outcome: PaymentStatus = PaymentStatus.SUCCEEDED
    """Of the payments to come."""
    loses_answers: int = 0
    """So many calls take effect and are not answered."""
    is_away: bool = False
    payments: dict[str, PaymentState] = field(default_factory=dict)
    """By reference."""
    charges: dict[str, str] = field(default_factory=dict)
    """Reference by payment id: what was asked for twice is there once."""
    calls: int = 0
    busy: set[str] = field(default_factory=set)
    """Invoices and refunds that somebody is asking for: one at a time, as the port says."""

    async def add_customer(self, tenant: str, name: str) -> str:
        return f"cus_{tenant}_{len(name)}"

    async def add_method(self, customer: str, token: str) -> str:
        return f"{customer}_{token}"

    async def collect(self, charge: Charge) -> PaymentState:
        await self._alone(charge.number)
        self._answers()
        reference = self.charges.setdefault(charge.payment_id, f"tx_{len(self.charges) + 1}")
        failure = "2001" if self.outcome is PaymentStatus.FAILED else None
        made = PaymentState(reference, self.outcome, charge.cents, failure)
        return self._told(self.payments.setdefault(reference, made))

    async def refetch(self, reference: str) -> PaymentState:
        self._answers()
        if reference not in self.payments:
            msg = "no such payment"
            raise NotFoundError(msg)
        return self.payments[reference]

    async def refund(self, order: RefundOrder) -> RefundState:
        await self._alone(order.refund_id)
        self._answers()
        payment = self.payments[order.reference]
        known = [one for one in payment.refunds if one.refund_id == order.refund_id]
        state = RefundState(
            f"re_{len(payment.refunds) + 1}", order.refund_id, self.outcome, order.cents
        )
        if not known:
            refunds = (*payment.refunds, state)
            self.payments[order.reference] = replace(payment, refunds=refunds)
        return self._told(known[0] if known else state)

    def read_notice(self, headers: Mapping[str, str], body: bytes, at: datetime) -> Notice:
        raise NotImplementedError

    def becomes(self, reference: str, status: PaymentStatus) -> Notice:
        """The payment has another state now, and this is told of it."""
        self.payments[reference] = replace(self.payments[reference], status=status)
        return Notice(self.provider, f"evt_{reference}_{status}", str(status), reference, ISSUED_AT)

    async def _alone(self, name: str) -> None:
        assert name not in self.busy, "two at once"
        self.busy.add(name)
        await asyncio.sleep(0.001)
        self.busy.remove(name)

    def _answers(self) -> None:
        self.calls += 1
        if self.is_away:
            msg = "the provider does not answer"
            raise UnavailableError(msg)

    def _told(self, state: S) -> S:
        if self.loses_answers:
            self.loses_answers -= 1
            msg = "the answer was lost"
            raise UnavailableError(msg)
        return state


class NoRelay:
    """Leaves the outbox to be looked at."""

    async def flush(self) -> None:
        return


@dataclass
class PaymentRig:
    """Billing's side, and the provider's."""

    postgres: Postgres
    provider: BookedProvider
    gateways: dict[Provider, PaymentGateway]
    clock: SetClock
    book: PostgresPayments
    collector: Collector
    commands: PaymentCommands
    settling: Settling

    def another_replica(self) -> Collector:
        return Collector(
            PostgresPayments(self.postgres),
            self.gateways,
            self.settling,
            NoRelay(),
        )

    async def tenant(self, name: str = "acme", *, pays: bool = True) -> None:
        record = TenantRecord(tenant=name, name=name, created_at=ISSUED_AT)
        async with PostgresAccounts(self.postgres).transaction() as transaction:
            await transaction.add_tenant(record)
        if pays:
            await self.ask("set-payer", tenant=name, provider="braintree", token="nonce-1")

    async def record(self, name: str = "acme") -> TenantRecord:
        return (await PostgresAccounts(self.postgres).tenants(name))[0]

    async def change(self, record: TenantRecord) -> None:
        async with PostgresAccounts(self.postgres).transaction() as transaction:
            await transaction.change_tenant(record)

    async def issue(self, due_microusd: int, period: date = JULY, tenant: str = "acme") -> None:
        """What the closing of a month leaves behind."""
        await self.postgres.fetch(
            """insert into billing.invoices (tenant, period, number, usage_microusd,
                   subtotal_microusd, credit_microusd, due_microusd, events_seq, issued_at)
               values ($1, $2, $3, $4, $4, 0, $4, 1, $5)""",
            tenant,
            period,
            f"{tenant}-{period:%Y-%m}",
            due_microusd,
            self.clock.at,
        )

    async def ask(self, verb: str, **fields: Any) -> BaseModel:
        act = Act(self.clock.at, None, IdSource(self.clock, os.urandom).new)
        return await self.commands.verbs[verb](json.dumps(fields, default=str).encode(), act)

    async def balance(self, account: str) -> int:
        """Debit minus credit, over all months."""
        query = "select coalesce(sum(debit - credit), 0) from billing.balances where account = $1"
        return int(await self.postgres.fetchval(query, account))

    async def facts(self, event_type: str) -> list[dict[str, Any]]:
        rows = await self.postgres.fetch(
            "select payload from billing.outbox where event_type = $1 order by id", event_type
        )
        return [json.loads(row["payload"]) for row in rows]

    async def standings(self) -> list[str]:
        """As they were told, in order."""
        told = await self.facts("penstock.billing.standing_changed.v1")
        return [fact["standing"] for fact in told]


@contextlib.asynccontextmanager
async def payment_rig(postgres_dsn: str) -> AsyncIterator[PaymentRig]:
    """A database of its own, migrated."""
    dsn = SecretStr(postgres_dsn)
    await migrate_billing(dsn)
    postgres = await connect_platform(dsn, 8)
    try:
        provider, clock, relay = BookedProvider(), SetClock(), NoRelay()
        ids = IdSource(clock, os.urandom)
        book = PostgresPayments(postgres)
        gateways: dict[Provider, PaymentGateway] = {provider.provider: provider}
        settling = Settling(book, TERMS, lambda: Act(clock.now(), None, ids.new))
        collector = Collector(book, gateways, settling, relay)
        commands = PaymentCommands(book, gateways, collector, settling, TERMS, relay)
        yield PaymentRig(postgres, provider, gateways, clock, book, collector, commands, settling)
    finally:
        await postgres.close()
