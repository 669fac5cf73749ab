"""The standing reconciliation: event log = usage rows = sums = ledger = invoice = Stripe.

The log is read a second time, behind metering, and each fact compared with its row. Where one
differs the comparison stays, and says so at every look until it is put right.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import date, timedelta
from typing import Final

from penstock_billing import metrics
from penstock_billing.domain.announcements import Act
from penstock_billing.domain.metering import METERED_TYPES, meter
from penstock_billing.domain.plans import month_start
from penstock_billing.domain.reconciliation import (
    compare_credit,
    compare_facts,
    compare_month,
    compare_preview,
    unknown_tenant,
)
from penstock_billing.handlers.commands import Verb, parse_command
from penstock_billing.handlers.periodic import tolerated
from penstock_billing.ports.rebuild import EventLog
from penstock_billing.ports.reconciliation import (
    DeadFacts,
    MonthSums,
    ReconciliationBook,
    Snapshot,
)
from penstock_billing.ports.usage import EventPosition, MeteredUsage
from penstock_shared.contracts.dead import dead_id
from penstock_shared.contracts.errors import SchemaError, UnavailableError
from penstock_shared.contracts.invoices import first_day
from penstock_shared.contracts.reconciliation import (
    Check,
    Difference,
    Reconcile,
    ReconciliationReport,
)
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import StoredMessage
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.telemetry import log

_FACTS_AT_ONCE: Final = 500
_GONE_AT_ONCE: Final = 1_000_000
_READING_S: Final = 4.0
"""So that a look ends, however much there is to compare: the next one goes on."""
_PATIENCE_S: Final = 60.0
_TOLD: Final = 200
"""Differences in one answer, at most."""
_LOOKING_BACK: Final = timedelta(days=62)
_RECENTLY: Final = timedelta(days=1)
"""Of minutes and users there are too many for every look."""


class Reconciliation:
    """Compares on a schedule, and when an operator asks."""

    def __init__(
        self,
        book: ReconciliationBook,
        event_log: EventLog,
        dead: DeadFacts,
        position: EventPosition,
        clock: Clock,
    ) -> None:
        self._book = book
        self._log = event_log
        self._dead = dead
        self._position = position
        self._clock = clock
        self.verbs: dict[str, Verb] = {"reconcile": self._reconcile}

    async def run(self, interval_s: float) -> None:
        """Look for ever."""
        compared, pause_s = 0, interval_s
        while True:
            await asyncio.sleep(pause_s)
            pause_s = interval_s
            with tolerated("reconciliation"):
                report = await self.look(None)
                if report.behind and report.events_seq > compared:
                    pause_s = 0  # it reads faster than anybody writes, if it does not rest
                compared = report.events_seq

    async def look(self, since: date | None) -> ReconciliationReport:
        """Compare the months from `since` on, and the log from where the last look ended.

        None: from the month before the last on, without a second look at what was summed before;
        else everything is read again.

        Raises:
            UnavailableError: Postgres or NATS does not answer, or usage is being read again.
        """
        at = self._clock.now()
        present = month_start(at.date())
        recent = at.date() - _RECENTLY if since is None else None
        since = since or month_start(present - _LOOKING_BACK)
        until = (await self._position.read()).events_seq
        compared, found = await self._compare_log(until)
        await self._book.sum_transfers()
        async with self._book.snapshot() as snapshot:
            months = await snapshot.months(since, recent)
            found += [one for month in months for one in compare_month(month)]
            for left in await snapshot.credits():
                found += compare_credit(left, present)
            found += await _compare_open(snapshot, months, since)
        _publish(found, compared, at.timestamp())
        found.sort(key=lambda one: one.explained is not None)
        return ReconciliationReport(
            at=at,
            events_seq=compared,
            behind=max(until - compared, 0),
            months=len(months),
            differences=tuple(found[:_TOLD]),
            truncated=len(found) > _TOLD,
        )

    async def _reconcile(self, payload: bytes, _: Act) -> ReconciliationReport:
        command = parse_command(Reconcile, payload)
        return await self.look(first_day(command.since) if command.since else None)

    async def _compare_log(self, until: int) -> tuple[int, list[Difference]]:
        """How far facts and rows agree, and where they do not, what differs."""
        if await self._book.rebuilding():
            msg = "Usage is being read from the event log again: compare when it is."
            raise UnavailableError(msg, code="rebuilding")
        compared = await self._book.compared_seq()
        # What has left the log cannot be compared any more: its rows are taken as they are.
        gone = min((await self._log.span()).first_seq - 1, until)
        while compared < gone:
            until_here = min(compared + _GONE_AT_ONCE, gone)
            if not await self._book.advance(compared, until_here):
                break
            log().warning("reconciliation.not_compared", after=compared, until=until_here)
            compared = until_here
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await self._read_log(compared, until)
        except TimeoutError as error:
            msg = "The event log does not answer: is NATS up?"
            raise UnavailableError(msg, code="event_log_unavailable") from error

    async def _read_log(self, compared: int, until: int) -> tuple[int, list[Difference]]:
        batch: list[StoredMessage] = []
        enough_s = self._clock.monotonic_s() + _READING_S
        async with contextlib.aclosing(self._log.facts(until, compared)) as logged:
            async for message in logged:
                batch.append(message)
                if len(batch) < _FACTS_AT_ONCE:
                    continue
                compared, found = await self._compare(batch, compared, message.sequence)
                late = self._clock.monotonic_s() > enough_s
                if found or late or compared < message.sequence:
                    return compared, found
                batch = []
        return await self._compare(batch, compared, until)

    async def _compare(
        self, logged: Sequence[StoredMessage], after: int, until: int
    ) -> tuple[int, list[Difference]]:
        """Where the comparison stands now, and what differs."""
        if until <= after:
            return after, []
        facts = _metered(logged)
        rows = [*await self._book.rows_of(facts), *await self._book.rows_between(after, until)]
        found = list(compare_facts(facts, rows, after, until))
        if found:
            facts = await self._without_dead(facts, {one.tenant for one in found})
            found = list(compare_facts(facts, rows, after, until))
        if found:
            return after, [] if await self._book.rebuilding() else found
        return (until if await self._book.advance(after, until) else after), []

    async def _without_dead(
        self, facts: Sequence[MeteredUsage], tenants: Collection[str]
    ) -> list[MeteredUsage]:
        """Without those that could be read and not be stored: they lie in DEAD."""
        dead = {letter for tenant in tenants for letter in await self._dead.letters(tenant)}
        return [fact for fact in facts if dead_id(EVENTS, fact.event_seq) not in dead]


async def _compare_open(
    snapshot: Snapshot, months: Sequence[MonthSums], since: date
) -> list[Difference]:
    """What open months will come to, of every tenant that has used something in them."""
    by_tenant: defaultdict[str, dict[date, MonthSums]] = defaultdict(dict)
    for month in months:
        by_tenant[month.tenant][month.period] = month
    found: list[Difference] = []
    for tenant, by_period in by_tenant.items():
        unclosed = [month for month in by_period.values() if not month.closed]
        if not unclosed:
            continue
        last = max(month.period for month in unclosed)
        open_months = await snapshot.open_months(tenant, last)
        if open_months is None:
            found += [one for month in unclosed for one in unknown_tenant(month)]
        else:
            found += compare_preview(open_months, by_period, since)
    return found


def _metered(logged: Sequence[StoredMessage]) -> list[MeteredUsage]:
    """What these facts are worth; what is malformed has gone to DEAD, and is worth nothing."""
    facts = []
    for one in logged:
        if one.event_type in METERED_TYPES and one.time is not None:
            with contextlib.suppress(SchemaError):
                facts.append(meter(one.event_type, one.subject, one.sequence, one.time, one.data))
    return facts


def _publish(found: Sequence[Difference], compared: int, at_s: float) -> None:
    """Tell the metrics, and the log of what nothing explains."""
    drift = [one for one in found if one.explained is None]
    for check in Check:
        metrics.DRIFT.labels(check.value).set(sum(one.check is check for one in drift))
    metrics.COMPARED_SEQ.set(compared)
    metrics.RECONCILED_AT.set(at_s)
    for one in drift[:_TOLD]:
        log().error("reconciliation.drift", **one.model_dump(exclude={"explained"}))
