"""Billing with Braintree behind it, as operators, the provider and other services meet it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import pytest
from tests.integration.billing.test_billing_commands import Terminal
from tests.support.billing import Operator, StartBilling, eventually
from tests.support.braintree_fake.server import (
    MERCHANT_ID,
    PRIVATE_KEY,
    PUBLIC_KEY,
    BraintreeFake,
    running,
)

from penstock_billing.app import App
from penstock_shared.contracts import subjects
from penstock_shared.contracts.account_commands import CreateTenant
from penstock_shared.contracts.payments import ListPayments

MONTH = "2026-07"


@pytest.fixture
def fake() -> Iterator[BraintreeFake]:
    """Braintree, with books of this test's own."""
    with running() as made:
        yield made


def _settings(fake: BraintreeFake) -> dict[str, Any]:
    return {
        "braintree_merchant_id": MERCHANT_ID,
        "braintree_public_key": PUBLIC_KEY,
        "braintree_private_key": PRIVATE_KEY,
        "braintree_url": fake.url,
        "payments_interval_s": 0.05,
    }


async def _issue(postgres_dsn: str) -> None:
    connection = await asyncpg.connect(postgres_dsn)
    await connection.execute(
        """insert into billing.invoices (tenant, period, number, usage_microusd,
               subtotal_microusd, credit_microusd, due_microusd, events_seq, issued_at)
           values ('acme', '2026-07-01', 'acme-2026-07', 12345678, 12345678, 0, 12345678, 1, $1)""",
        datetime.now(UTC),
    )
    await connection.close()


def _webhooks(app: App) -> str:
    assert app._webhooks is not None
    return f"http://127.0.0.1:{app._webhooks.server.port}/webhooks/braintree"


async def test_from_a_nonce_to_money_and_back(
    start_billing: StartBilling,
    operator: Operator,
    fake: BraintreeFake,
    nats_url: str,
    postgres_dsn: str,
) -> None:
    """`penstock payments`: payer, collected, settled by a notice, refunded; once each (I2)."""
    run = Terminal(nats_url).run

    async def listed() -> dict[str, Any]:
        query = ListPayments(tenant="acme")
        answer = await operator.ask(subjects.billing("list-payments"), query)
        found: dict[str, Any] = json.loads(answer)
        return found

    async with start_billing(**_settings(fake)) as app:
        await operator.command("create-tenant", CreateTenant(tenant="acme", name="Acme"))
        await _issue(postgres_dsn)
        status, _, refused = await run("payments", "collect", "acme", MONTH)
        assert (status, "set a payer first" in refused) == (1, True)
        status, said, _ = await run("payments", "payer", "acme", "braintree", fake.nonce())
        assert (status, "acme pays through braintree" in said) == (0, True)

        async def is_sold() -> bool:
            return any(one["progress"] == "pending" for one in (await listed())["payments"])

        await eventually(is_sold)
        sold = (await listed())["payments"][0]
        fake.settle(sold["reference"])
        told = fake.notice("transaction_settled", sold["reference"])
        assert await told.send(_webhooks(app), copies=3) == [200, 200, 200]

        async def is_paid() -> bool:
            return bool((await listed())["collections"][0]["paid_cents"] == 1_234)

        await eventually(is_paid)
        status, said, _ = await run(
            "payments", "refund", "acme", sold["payment_id"], "--cents", "234", "--reason", "sorry"
        )
        assert (status, "Giving $2.34 back to acme" in said) == (0, True)

        async def is_refunded() -> bool:
            return bool((await listed())["payments"][0]["refunds"][0]["progress"] == "pending")

        await eventually(is_refunded)
        _, table, _ = await run("payments", "list", "acme")
        assert "$12.34" in table
        assert "-$2.34" in table
        status, _, refused = await run(
            "payments", "refund", "acme", sold["payment_id"], "--cents", "1001", "--reason", "more"
        )
        assert (status, "1000 cents are left" in refused) == (1, True)
    sales = [one for one in fake.books.transactions.values() if one["type"] == "sale"]
    assert [one["amount"] for one in sales] == ["12.34"]


async def test_notices_that_are_none_have_no_effect(
    start_billing: StartBilling, fake: BraintreeFake
) -> None:
    """Unsigned, altered, too old, too large, of the wrong type: 4xx, and nothing is stored."""
    async with start_billing(**_settings(fake)) as app, httpx.AsyncClient() as client:
        url = _webhooks(app)
        good = fake.check_notice()
        for body, headers, status in (
            (b"", good.headers, 401),
            (good.body.replace(b"bt_payload=", b"bt_payload=QUFB"), good.headers, 401),
            (good.body, {"content-type": "application/json"}, 401),
            (b"bt_payload=" + b"A" * 300_000, good.headers, 413),
        ):
            answer = await client.post(url, content=body, headers=headers)
            assert answer.status_code == status, body[:60]
        assert await good.send(url) == [200]
