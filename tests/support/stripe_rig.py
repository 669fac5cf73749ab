"""Billing's side of Stripe against the fake and a real database, at a time that the test sets."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from pydantic import SecretStr
from tests.support.stripe_fake import API_KEY, StripeFake

from penstock_billing.adapters.postgres_invoices import PostgresInvoices
from penstock_billing.adapters.postgres_mirror import PostgresMirror
from penstock_billing.adapters.postgres_notices import PostgresNotices
from penstock_billing.adapters.postgres_pushes import PostgresPushes
from penstock_billing.adapters.postgres_roles import (
    TenantPostgres,
    connect_platform,
    migrate_billing,
)
from penstock_billing.adapters.stripe_client import StripeConnection
from penstock_billing.adapters.stripe_gateway import StripeGateway
from penstock_billing.adapters.stripe_meter import EVENT_NAME, StripeMeter, StripeMeterErrors
from penstock_billing.adapters.stripe_mirror import StripeMirror
from penstock_billing.adapters.stripe_notices import StripeMissedNotices, StripeNoticeReader
from penstock_billing.handlers.meter_errors import MeterErrorDesk
from penstock_billing.handlers.pushing import UsagePusher
from penstock_billing.handlers.stripe_sync import StripeSync
from penstock_shared.runtime.postgres import Postgres

CENT = 10_000
"""Micro-dollars."""
SECRET = "whsec_of_the_rig"
_TENANT = """
insert into billing.tenants (tenant, name, status, requests_per_minute, created_at)
values ($1, $1, 'active', 100, $2)"""
_USE = """
insert into billing.transfers (tenant, period, kind, debit, credit, microusd, reference, at)
values ($1, $2, 'usage', 'receivable', 'usage', $3, $4, $5)"""


class SetClock:
    """Stands where the test puts it, together with the fake's."""

    def __init__(self, fake: StripeFake, at: datetime) -> None:
        self._fake = fake
        self._now = at
        self.set(at)

    def now(self) -> datetime:
        return self._now

    def monotonic_s(self) -> float:
        return self._now.timestamp()

    def set(self, at: datetime) -> None:
        """Both clocks stand there now."""
        self._now = at
        self._fake.clock.freeze(at)

    def advance(self, by: timedelta) -> None:
        """So much later."""
        self.set(self._now + by)


@dataclass
class StripeRig:
    """What app.py puts together, in pieces."""

    fake: StripeFake
    clock: SetClock
    postgres: Postgres
    connection: StripeConnection
    mirror: StripeMirror
    book: PostgresMirror
    pushes: PostgresPushes
    inbox: PostgresNotices
    gateway: StripeGateway
    missed: StripeMissedNotices
    sync: StripeSync

    async def add_tenant(self, tenant: str) -> None:
        """As a command would."""
        await self.postgres.fetch(_TENANT, tenant, self.clock.now())

    async def use(self, tenant: str, microusd: int, period: date | None = None) -> None:
        """Metered usage, as the ledger has it."""
        month = period or self.clock.now().date().replace(day=1)
        await self.postgres.fetch(
            _USE, tenant, month, microusd, str(uuid.uuid4()), self.clock.now()
        )

    def meter(self, stream_from: int = 50) -> StripeMeter:
        """The adapter."""
        return StripeMeter(self.connection, self.book, self.clock, stream_from=stream_from)

    def pusher(self, stream_from: int = 50) -> UsagePusher:
        """As it runs in billing."""
        return UsagePusher(self.pushes, self.meter(stream_from), self.clock)

    def meter_errors(self) -> MeterErrorDesk:
        """Who hears of what the meter dropped."""
        return MeterErrorDesk(StripeMeterErrors(self.connection), self.pushes, self.clock)

    def counted(self) -> int:
        """Cents that Stripe has of all customers."""
        self.fake.catch_up()
        events = self.fake.account.store.all("billing.meter_event")
        return sum(int(e["payload"]["value"]) for e in events if e["event_name"] == EVENT_NAME)

    async def rows(self) -> list[tuple[str, int, int, str | None]]:
        """Every push: tenant, number, cents, outcome."""
        found = await self.postgres.fetch(
            "select tenant, number, cents, outcome from billing.meter_pushes order by 1, period, 2"
        )
        return [tuple(row) for row in found]


@contextlib.asynccontextmanager
async def stripe_rig(fake: StripeFake, dsn: str, at: datetime) -> AsyncIterator[StripeRig]:
    """A rig on a fresh database."""
    await migrate_billing(SecretStr(dsn))
    postgres = await connect_platform(SecretStr(dsn), 4)
    tenants = await TenantPostgres.connect(SecretStr(dsn), 2)
    connection = StripeConnection(
        SecretStr(API_KEY),
        api_base=fake.addresses["api"],
        events_base=fake.addresses["meter_events"],
    )
    clock = SetClock(fake, at.astimezone(UTC))
    book, pushes = PostgresMirror(postgres), PostgresPushes(postgres)
    mirror = StripeMirror(connection, book, clock)
    gateway = StripeGateway(
        connection,
        mirror,
        pushes,
        PostgresInvoices(postgres, tenants),
        StripeNoticeReader((SecretStr(SECRET),)),
        clock,
    )
    try:
        yield StripeRig(
            fake=fake,
            clock=clock,
            postgres=postgres,
            connection=connection,
            mirror=mirror,
            book=book,
            pushes=pushes,
            inbox=PostgresNotices(postgres),
            gateway=gateway,
            missed=StripeMissedNotices(connection),
            sync=StripeSync(book, mirror, gateway),
        )
    finally:
        await connection.close()
        await tenants.close()
        await postgres.close()
