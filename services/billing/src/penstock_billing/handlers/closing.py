"""Closing months: cut, wait until billing has read up to the cut, then issue, all or nothing.

Dying anywhere leaves a month open, cut or closed, and whoever comes next goes on from there: the
cut stays where it is, and what is issued is a function of what lies before it.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

from penstock_billing import metrics
from penstock_billing.domain.announcements import Act, tell_fact
from penstock_billing.domain.credits import adjustment_transfer
from penstock_billing.domain.invoicing import DrawnUp, carried_over, draw_up, issued, postings
from penstock_billing.domain.plans import month_start, next_month
from penstock_billing.handlers.commands import Verb, parse_command
from penstock_billing.handlers.invoices import issued_in, require_known
from penstock_billing.ports.invoices import Cut, EventLog, InvoiceBook, MonthClosing
from penstock_shared.contracts.billing_facts import InvoiceIssued
from penstock_shared.contracts.errors import ConflictError, TransientError
from penstock_shared.contracts.invoice_commands import ClosePeriod, PeriodClosed
from penstock_shared.contracts.invoices import Invoice, first_day
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.telemetry import log


class Closing:
    """Closes every tenant's months when they are over, and one when an operator asks for it."""

    def __init__(
        self,
        book: InvoiceBook,
        event_log: EventLog,
        clock: Clock,
        new_event_id: Callable[[], str],
        grace: timedelta,
    ) -> None:
        """`grace` is how long after its end a month still waits for facts of its requests."""
        self._book = book
        self._log = event_log
        self._clock = clock
        self._new_event_id = new_event_id
        self._grace = grace
        self.verbs: dict[str, Verb] = {"close-period": self._close_period}

    async def look(self) -> int:
        """Close what is due, month by month; returns how many were closed.

        Raises:
            TransientError: Postgres or NATS does not answer.
        """
        act = Act(self._clock.now(), None, self._new_event_id)
        due = month_start((await self._surely(act) - self._grace).date())
        metrics.PERIODS_HELD.set(await self._book.held(due))
        closed = 0
        while True:
            cut = await self._book.cut(due, act.at, self._log.last_seq, None)
            waiting = await self._book.cuts(None)
            done = sum([await self._close_one(one, act) for one in await self._read_up_to(waiting)])
            metrics.PERIODS_CUT.set(len(waiting) - done)
            closed += done
            if not (cut or done):
                return closed

    async def _close_period(self, payload: bytes, act: Act) -> PeriodClosed:
        """Again: the same answer."""
        command = parse_command(ClosePeriod, payload)
        period, end = first_day(command.month), next_month(first_day(command.month))
        if end > (await self._surely(act)).date():
            msg = f"The month {command.month} is not over: preview it."
            raise ConflictError(msg, code="month_not_over", param="month")
        async with self._book.reading(command.tenant) as months:
            await require_known(months, command.tenant)
            waiting = await months.open_months(end)
        if waiting and waiting[0] != period:
            msg = f"Close {waiting[0]:%Y-%m} first."
            raise ConflictError(msg, code="earlier_month_open", param="month")
        if waiting:
            await self._book.cut(end, act.at, self._log.last_seq, command.tenant)
            for cut in await self._read_up_to(await self._book.cuts(command.tenant)):
                await self._close(cut, act)
        async with self._book.reading(command.tenant) as months:
            return PeriodClosed(
                tenant=command.tenant,
                month=command.month,
                closed=not await months.open_months(end),
                invoice=next(iter(await issued_in(months, period)), None),
            )

    async def _surely(self, act: Act) -> datetime:
        """What time it is by both clocks: one that is ahead would cut months for good."""
        return min(act.at, await self._book.now())

    async def _read_up_to(self, cuts: list[Cut]) -> list[Cut]:
        """Those of the cuts up to which all is metered."""
        if not cuts:
            return []
        position = await self._log.read()
        return [cut for cut in cuts if cut.cut_seq <= position.events_seq]

    async def _close_one(self, cut: Cut, act: Act) -> bool:
        """Whether it is closed; one that is not keeps no other from it."""
        try:
            await self._close(cut, act)
        except TransientError:
            raise
        except Exception as error:  # noqa: BLE001  the month stays open, and is looked at again
            metrics.PERIODS_CLOSED.labels("failed").inc()
            log().error(
                "period.not_closed",
                tenant=cut.tenant,
                period=str(cut.period),
                kind=type(error).__name__,
                exc_info=error,
            )
            return False
        return True

    async def _close(self, cut: Cut, act: Act) -> None:
        async with self._book.closing(cut) as month:
            if month is None:
                return
            records = await month.records(cut.period)
            drawn = draw_up(records, await month.grants(), cut.cut_seq)
            if drawn.invoice.lines:
                invoice = issued(drawn.invoice, act.at)
                await month.issue(invoice)
                await month.enqueue([tell_fact(_told(invoice), act)])
            await month.use_credits(drawn.uses, drawn.expired)
            await month.credits.post(list(postings(drawn, act.at)))
            if drawn.carried_microusd:
                await _carry(month, drawn, act)
            await _require_agreement(month, drawn)
            await month.close(act.at)
        metrics.PERIODS_CLOSED.labels("invoiced" if drawn.invoice.lines else "empty").inc()
        log().info("period.closed", tenant=cut.tenant, period=str(cut.period))


async def _carry(month: MonthClosing, drawn: DrawnUp, act: Act) -> None:
    """What the tenant is still owed is on its next invoice."""
    after = next_month(first_day(drawn.invoice.month))
    to_month = await month.credits.open_month(drawn.invoice.tenant, after)
    carried = carried_over(drawn, to_month, act.at)
    await month.credits.add_adjustment(carried)
    await month.credits.post([adjustment_transfer(carried)])


async def _require_agreement(month: MonthClosing, drawn: DrawnUp) -> None:
    """What is due is what the ledger says, or the month stays open and somebody is called."""
    receivable = await month.receivable()
    if receivable != drawn.invoice.due_microusd:
        msg = (
            f"The ledger says {receivable} micro-dollars are owed, the invoice "
            f"{drawn.invoice.due_microusd}: run 'penstock billing reconcile'."
        )
        raise ConflictError(msg, code="ledger_disagrees")


def _told(invoice: Invoice) -> InvoiceIssued:
    return InvoiceIssued.model_validate(invoice.model_dump(include=set(InvoiceIssued.model_fields)))
