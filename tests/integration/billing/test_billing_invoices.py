"""Invoices over the bus: metered from EVENTS, previewed, closed and told, as in production."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TypeVar

from pydantic import BaseModel
from tests.integration.billing.test_billing_commands import Terminal
from tests.support.billing import Operator, StartBilling, eventually, terminal

from penstock_shared.contracts import subjects
from penstock_shared.contracts.account_commands import CreateTenant
from penstock_shared.contracts.billing_facts import InvoiceIssued
from penstock_shared.contracts.errors import ErrorReply
from penstock_shared.contracts.invoice_commands import (
    ClosePeriod,
    InvoiceList,
    ListInvoices,
    PeriodClosed,
    PreviewInvoice,
)
from penstock_shared.contracts.invoices import Invoice
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import Broker

A = TypeVar("A", bound=BaseModel)
MAY = "2026-05"


async def ask(operator: Operator, verb: str, question: BaseModel, answer: type[A]) -> A:
    return answer.model_validate_json(await operator.ask(subjects.billing(verb), question))


async def test_a_month_from_its_facts_to_its_invoice(
    start_billing: StartBilling, operator: Operator, broker: Broker
) -> None:
    """Preview and invoice are the same figures; what comes later is not in it (I2, I3)."""
    async with start_billing():
        await operator.command("create-tenant", CreateTenant(tenant="acme", name="Acme"))
        for _ in range(3):
            await operator.publish(terminal(tokens=(1_000, 2_000)))
        await operator.caught_up()
        preview = await ask(
            operator, "preview-invoice", PreviewInvoice(tenant="acme", month=MAY), Invoice
        )
        assert preview.due_microusd == 3 * (500 + 2 * 1_500)

        closing = ClosePeriod(tenant="acme", month=MAY)

        async def closed() -> bool:
            return (await ask(operator, "close-period", closing, PeriodClosed)).closed

        await eventually(closed)
        await operator.publish(terminal(tokens=(1_000, 0)))
        await operator.caught_up()
        [invoice] = (
            await ask(operator, "list-invoices", ListInvoices(tenant="acme"), InvoiceList)
        ).invoices
        assert invoice.lines == preview.lines
        assert (invoice.number, invoice.due_microusd) == ("acme-2026-05", preview.due_microusd)
        june = await ask(
            operator, "preview-invoice", PreviewInvoice(tenant="acme", month="2026-06"), Invoice
        )
        assert [(line.kind.value, line.amount_microusd) for line in june.lines] == [("late", 500)]

        async def told() -> bool:
            subject = subjects.topic_event("acme", "billing", InvoiceIssued.FACT)
            return await broker.last_message(EVENTS, subject) is not None

        await eventually(told)


async def test_an_operators_month(
    start_billing: StartBilling, operator: Operator, nats_url: str
) -> None:
    """`penstock invoice`: preview, close, show and list say the same amount."""
    run = Terminal(nats_url).run
    async with start_billing():
        await operator.command("create-tenant", CreateTenant(tenant="acme", name="Acme"))
        await operator.publish(terminal(tokens=(1_000, 2_000)))
        await operator.caught_up()
        _, preview, _ = await run("invoice", "preview", "acme", "--month", MAY)
        assert "acme, 2026-05: a preview" in preview
        assert "small: input tokens 1,000, output tokens 2,000, requests 1" in preview
        assert "$0.003500" in preview
        status, closed, _ = await run("invoice", "close", "acme", MAY)
        assert (status, "acme-2026-05" in closed) == (0, True)
        _, shown, _ = await run("invoice", "show", "acme", MAY, "--json")
        assert Invoice.model_validate_json(shown).due_microusd == 3_500
        _, listed, _ = await run("invoice", "list", "acme")
        assert listed.splitlines()[1].split()[:2] == ["acme-2026-05", MAY]
        _, empty, _ = await run("invoice", "close", "acme", "2026-06")
        assert "nothing to invoice" in empty
        status, _, refused = await run("invoice", "close", "acme", "2026-08")
        assert (status, "Close 2026-07 first." in refused) == (1, True)


async def test_questions_that_make_no_sense(
    start_billing: StartBilling, operator: Operator, broker: Broker
) -> None:
    """Each is refused with a code and the field, and costs nothing else."""
    present = f"{datetime.now(UTC):%Y-%m}"
    async with start_billing():
        await operator.command("create-tenant", CreateTenant(tenant="acme", name="Acme"))
        for verb, question, code, param in (
            ("preview-invoice", {"tenant": "nobody"}, "tenant_not_found", "tenant"),
            ("preview-invoice", {"tenant": "acme", "month": "2999-01"}, "month_not_begun", "month"),
            ("preview-invoice", {"tenant": "acme", "month": "0000-01"}, "invalid_schema", "month"),
            ("preview-invoice", {"tenant": "acme", "month": "2026-13"}, "invalid_schema", "month"),
            ("preview-invoice", {"tenant": "../etc"}, "invalid_schema", "tenant"),
            ("list-invoices", {"tenant": "acme", "limit": 10**9}, "invalid_schema", "limit"),
            ("show-invoice", {"tenant": "acme", "month": "2020-01"}, "invoice_not_found", "month"),
            ("close-period", {"tenant": "acme", "month": present}, "month_not_over", "month"),
            ("close-period", {"tenant": "acme"}, "invalid_schema", "month"),
        ):
            asked = json.dumps(question).encode()
            reply = await broker.request(subjects.billing(verb), asked, timeout_s=10)
            refused = ErrorReply.model_validate_json(reply.data).error
            assert (refused.code, refused.param) == (code, param), question
