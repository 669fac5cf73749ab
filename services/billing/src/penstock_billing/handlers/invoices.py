"""Questions about invoices: what a month will come to, and what past ones came to."""

from __future__ import annotations

from datetime import date
from typing import Final

from penstock_billing.domain.announcements import Act
from penstock_billing.domain.invoicing import draw_up_last
from penstock_billing.domain.plans import month_start, next_month
from penstock_billing.handlers.commands import Verb, parse_command
from penstock_billing.ports.invoices import EventLog, InvoiceBook, MonthReader
from penstock_shared.contracts.errors import ConflictError, NotFoundError
from penstock_shared.contracts.invoice_commands import (
    InvoiceList,
    ListInvoices,
    PreviewInvoice,
    ShowInvoice,
)
from penstock_shared.contracts.invoices import Invoice, first_day

_FAR: Final = date(9999, 12, 1)


class InvoiceQuestions:
    """Answers from what is metered and closed now."""

    def __init__(self, book: InvoiceBook, log: EventLog) -> None:
        self._book = book
        self._log = log
        self.verbs: dict[str, Verb] = {
            "preview-invoice": self._preview,
            "list-invoices": self._list,
            "show-invoice": self._show,
        }

    async def _preview(self, payload: bytes, act: Act) -> Invoice:
        """Of a closed month its invoice; else what it comes to with what is known now.

        The position is read first: everything up to it is in the preview.
        """
        query = parse_command(PreviewInvoice, payload)
        present = month_start(act.at.date())
        period = first_day(query.month) if query.month else present
        if period > present:
            msg = f"The month {query.month} has not begun."
            raise ConflictError(msg, code="month_not_begun", param="month")
        position = await self._log.read()
        async with self._book.reading(query.tenant) as months:
            await require_known(months, query.tenant)
            for invoice in await issued_in(months, period):
                return invoice
            earlier = await months.open_months(period)
            records = [await months.records(month) for month in (*earlier, period)]
            grants = await months.grants()
        return draw_up_last(records, grants, position.events_seq).invoice

    async def _list(self, payload: bytes, _: Act) -> InvoiceList:
        query = parse_command(ListInvoices, payload)
        before = first_day(query.before) if query.before else _FAR
        async with self._book.reading(query.tenant) as months:
            await require_known(months, query.tenant)
            return InvoiceList(invoices=tuple(await months.issued(before, query.limit)))

    async def _show(self, payload: bytes, _: Act) -> Invoice:
        query = parse_command(ShowInvoice, payload)
        async with self._book.reading(query.tenant) as months:
            await require_known(months, query.tenant)
            for invoice in await issued_in(months, first_day(query.month)):
                return invoice
        msg = f"There is no invoice of {query.month} for '{query.tenant}': preview it."
        raise NotFoundError(msg, code="invoice_not_found", param="month")


async def require_known(months: MonthReader, tenant: str) -> None:
    """Raises NotFoundError where there is no such tenant."""
    if not await months.known():
        msg = f"There is no tenant '{tenant}': create it first."
        raise NotFoundError(msg, code="tenant_not_found", param="tenant")


async def issued_in(months: MonthReader, period: date) -> list[Invoice]:
    """The month's invoice, or none."""
    last = await months.issued(next_month(period), 1)
    return [invoice for invoice in last if first_day(invoice.month) == period]
