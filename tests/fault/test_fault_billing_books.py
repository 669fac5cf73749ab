"""`kill -9` at commit points of metering, closing and pushing: all books agree (I2, I3, I9).

`PENSTOCK_FAULT_SEED=<n>` replays a run's choices: facts, copies, which deaths, and when.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import random
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
from tests.support.billing import Operator, failed_attempt, terminal
from tests.support.service_process import ServiceProcess
from tests.support.stack import Stack
from tests.support.stripe_fake import API_KEY, running

from penstock_shared.contracts import subjects
from penstock_shared.contracts.account_commands import CreateTenant
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.invoice_commands import (
    InvoiceList,
    ListInvoices,
    PreviewInvoice,
)
from penstock_shared.contracts.invoices import Invoice
from penstock_shared.contracts.reconciliation import Reconcile, ReconciliationReport
from penstock_shared.contracts.requests import AttemptFailed, RequestEnded
from penstock_shared.contracts.usage import cost_microusd
from penstock_shared.runtime.broker import Broker

TENANTS = ("acme", "globex")
MONTHS = 3
"""Past ones, that are closed while it goes on; and the present one, that is not."""
A_YEAR_AGO = f"{datetime.now(UTC).year - 1}-01"
METERING = r"insert into billing\.usage"
COMMIT = r"(?i)^commit"
CUT = r"insert into billing\.periods"
ISSUE = r"insert into billing\.invoices"
COMPARED = r"update billing\.reconciled"
PUSHED = r"(insert into|update) billing\.meter_pushes"
METER_EVENT = "billing.meter_event"
CENTS = """
select sum(div(credit - debit, 10000))::bigint from billing.balances
where account = 'usage' and period = $1"""
DEATHS = [
    (moment, pattern)
    for pattern in (METERING, COMMIT, CUT, ISSUE, COMPARED)
    for moment in ("before", "after")
]


@dataclass
class Books:
    """Billing in processes of its own, and what all facts together come to."""

    operator: Operator
    servers: Stack
    settings: dict[str, object]
    rng: random.Random
    log_file: Path
    used: Counter[str] = field(default_factory=Counter)
    facts: list[RequestEnded] = field(default_factory=list)

    def process(self, moment: str, at: int, victim: int, pattern: str) -> ServiceProcess:
        """Billing that kills at the n-th statement of a kind; n = 0: it lives."""
        command = ("tests.support.fatal_billing", moment, str(at), str(victim), pattern)
        return ServiceProcess(*command, log_file=self.log_file, settings=self.settings)

    async def use(self, count: int) -> None:
        """Facts of every month, most of which come late, some of them again."""
        for _ in range(count):
            at = datetime.now(UTC) - timedelta(days=31 * self.rng.randrange(MONTHS + 1))
            fact = terminal(
                tenant=self.rng.choice(TENANTS),
                model=self.rng.choice(("small", "large")),
                tokens=(self.rng.randrange(1, 90_000), self.rng.randrange(90_000)),
                routed_at=at,
                ended_at=at,
            )
            if self.rng.random() < 0.3:
                fact = fact.model_copy(update={"attempt": 2})
                failed = failed_attempt(fact, (5, self.rng.randrange(99)))
                failed = failed.model_copy(update={"routed_at": at})
                await self.operator.publish_failed(failed)
                self._expect(failed)
            self._expect(fact)
            self.facts.append(fact)
            await self.operator.publish(fact)
        for fact in self.rng.sample(self.facts, len(self.facts) // 4):
            await self.operator.publish(fact)

    def _expect(self, fact: RequestEnded | AttemptFailed) -> None:
        self.used[fact.tenant] += cost_microusd(fact.usage, fact.price)

    async def live(self, moment: str, at: int, pattern: str, *, victim: int = 0) -> bool:
        """One life of billing with something to do; whether it was killed."""
        process = self.process(moment, at, victim, pattern)
        await self.use(self.rng.randrange(2, 9))
        await process.start()
        died = asyncio.create_task(process.died())
        done = asyncio.create_task(self._done())
        await asyncio.wait({died, done}, return_when=asyncio.FIRST_COMPLETED)
        done.cancel()
        await asyncio.gather(done, return_exceptions=True)
        await process.stop()
        return await died == signal.SIGKILL

    async def _done(self) -> None:
        """There is hardly anything left to die of."""
        await self.caught_up()
        await asyncio.sleep(1)

    async def agree(self) -> None:
        """Let billing live, and ask it for everything."""
        process = self.process("before", 0, 0, "nothing")
        await process.start()
        try:
            await self.caught_up()
            for tenant in TENANTS:
                await self._invoiced(tenant)
            async with asyncio.timeout(30):  # until Stripe's meter has been told all of it
                while (report := await self._reconciled(A_YEAR_AGO)).differences or report.behind:
                    assert report.drift == 0, report.differences
                    await asyncio.sleep(0.1)
            assert report.months > len(TENANTS)
            assert (await self._reconciled(None)).drift == 0  # by what was summed in between
        finally:
            await process.stop()

    async def caught_up(self) -> None:
        """All that is in EVENTS is metered, as soon as billing answers."""
        async with asyncio.timeout(40):
            while True:
                with contextlib.suppress(PenstockError, ValueError, TimeoutError):
                    await self.operator.caught_up(2)
                    return
                await asyncio.sleep(0.1)

    async def _invoiced(self, tenant: str) -> None:
        """Wait until all usage is in invoices and in the preview of this month, each once."""
        async with asyncio.timeout(20):
            while (found := await self._in_invoices(tenant)) != self.used[tenant]:
                assert found < self.used[tenant]
                await asyncio.sleep(0.1)

    async def _in_invoices(self, tenant: str) -> int:
        answer = await self.operator.ask(
            subjects.billing("list-invoices"), ListInvoices(tenant=tenant)
        )
        invoices = InvoiceList.model_validate_json(answer).invoices
        answer = await self.operator.ask(
            subjects.billing("preview-invoice"), PreviewInvoice(tenant=tenant)
        )
        preview = Invoice.model_validate_json(answer)
        return sum(invoice.usage_microusd for invoice in (*invoices, preview))

    async def _reconciled(self, since: str | None) -> ReconciliationReport:
        answer = await self.operator.ask(subjects.billing("reconcile"), Reconcile(since=since))
        return ReconciliationReport.model_validate_json(answer)


@pytest.fixture
async def books(
    broker: Broker, nats_url: str, postgres_dsn: str, servers: Stack, tmp_path: Path
) -> AsyncIterator[Books]:
    """Two tenants with usage in each month, which is metered and closed in little steps."""
    key = tmp_path / "root.key"
    key.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
    seed = int(os.environ.get("PENSTOCK_FAULT_SEED") or random.SystemRandom().randrange(2**31))
    print(f"PENSTOCK_FAULT_SEED={seed}")
    settings: dict[str, object] = {
        "nats_url": nats_url,
        "postgres_dsn": postgres_dsn,
        "root_key_file": key,
        "batch_limit": 3,
        "batch_linger_s": 0,
        "closing_interval_s": 0.1,
        "reconciliation_interval_s": 0.1,
        "position_interval_s": 0.1,
    }
    made = Books(Operator(broker), servers, settings, random.Random(seed), tmp_path / "billing.log")
    made.settings |= {"closing_interval_s": 3600}
    first = made.process("before", 0, 0, "nothing")
    made.settings |= {"closing_interval_s": 0.1}
    await first.start()
    await made.caught_up()
    for tenant in TENANTS:
        await made.operator.command("create-tenant", CreateTenant(tenant=tenant, name=tenant))
    await first.stop()
    yield made
    print(made.process("before", 0, 0, "nothing").log_text())


@pytest.mark.timeout(180)
async def test_billing_dies_at_commit_points(books: Books) -> None:
    """Before and after what it commits, one death after the other; Redis dies, too."""
    await books.use(20)
    deaths = [*books.rng.sample(DEATHS, 2), ("after", METERING)]
    books.rng.shuffle(deaths)
    died = [await books.live(moment, books.rng.randint(1, 3), kind) for moment, kind in deaths]
    assert any(died), deaths
    books.servers.kill("redis")
    await books.agree()


@pytest.mark.timeout(180)
async def test_postgres_dies_at_commit_points(books: Books) -> None:
    """Under the statement that meters, and between its commit and its answer."""
    await books.use(20)
    for moment in books.rng.sample(("before", "after"), 2):
        victim = books.servers.ready["pids"]["postgres"]
        await books.live(moment, books.rng.randint(1, 2), METERING, victim=victim)
        assert books.servers.ready["pids"]["postgres"] != victim
    await books.agree()


@pytest.mark.timeout(180)
async def test_billing_dies_while_it_tells_stripe(books: Books, postgres_dsn: str) -> None:
    """Around rows written ahead, sent and acknowledged: its meter has every cent once (I2)."""
    with running() as fake:
        books.settings |= {
            "stripe_api_key": API_KEY,
            "stripe_api_base": fake.url,
            "stripe_events_base": fake.url,
            "stripe_sync_interval_s": 0.1,
            "push_interval_s": 0.1,
        }
        await books.use(20)
        deaths = [(m, books.rng.randint(1, 5)) for m in books.rng.sample(("before", "after"), 2)]
        died = [await books.live(moment, at, PUSHED) for moment, at in deaths]
        assert any(died), deaths
        await books.agree()
        fake.catch_up()
        told = sum(int(event["payload"]["value"]) for event in fake.account.store.all(METER_EVENT))
    connection = await asyncpg.connect(postgres_dsn)
    used = await connection.fetchval(CENTS, datetime.now(UTC).date().replace(day=1))
    await connection.close()
    assert told == used > 0


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("at", range(1, 7))
async def test_death_at_each_of_them(books: Books, at: int) -> None:
    """The n-th of every kind, before and after it, in a random order."""
    await books.use(40)
    for moment, kind in books.rng.sample(DEATHS, len(DEATHS)):
        await books.live(moment, at, kind)
    await books.agree()
