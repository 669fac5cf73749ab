"""Billing as it runs, with Stripe's fake for Stripe: from the event log to the meter and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from stripe import WebhookSignature
from tests.support.billing import Operator, StartBilling, eventually, terminal
from tests.support.stripe_fake import API_KEY, StripeFake, running

from penstock_billing.adapters.stripe_meter import EVENT_NAME
from penstock_billing.app import App
from penstock_shared.contracts import subjects
from penstock_shared.contracts.account_commands import CreateTenant
from penstock_shared.contracts.invoice_commands import ClosePeriod
from penstock_shared.contracts.payments import ListPayments, PaymentList, SetPayer

_SECRET = "whsec_service"


def _settings(fake: StripeFake) -> dict[str, object]:
    return {
        "stripe_api_key": API_KEY,
        "stripe_api_base": fake.addresses["api"],
        "stripe_events_base": fake.addresses["meter_events"],
        "stripe_webhook_secrets": f"whsec_older,{_SECRET}",
        "stripe_sync_interval_s": 0.1,
        "push_interval_s": 0.1,
        "notice_interval_s": 0.1,
        "payments_interval_s": 0.1,
    }


def _port(app: App) -> int:
    assert app._webhooks is not None
    return app._webhooks.server.port


async def test_usage_reaches_the_meter_and_webhooks_reach_billing(
    start_billing: StartBilling, operator: Operator
) -> None:
    """A tenant is told to Stripe, its usage is pushed in whole cents, its events come in (I2)."""
    with running(seed=3) as fake:
        async with start_billing(**_settings(fake)) as app:
            await operator.command("create-tenant", CreateTenant(tenant="acme", name="Acme"))
            now = datetime.now(UTC)
            used = terminal(tokens=(100_000, 20_005), routed_at=now, ended_at=now)
            await operator.publish(used)

            async def counted() -> bool:
                fake.catch_up()
                events = fake.account.store.all("billing.meter_event")
                told = [e["payload"]["value"] for e in events if e["event_name"] == EVENT_NAME]
                return told == ["8"]  # 0.05 + 0.0300075 dollars

            await eventually(counted, 20)
            body = json.dumps(
                {
                    "id": "evt_1",
                    "object": "event",
                    "type": "invoice.paid",
                    "created": int(now.timestamp()),
                    "data": {"object": {"id": "in_unknown", "object": "invoice"}},
                }
            )
            header = WebhookSignature.generate_signature_header(body, _SECRET)
            url = f"http://127.0.0.1:{_port(app)}/webhooks/stripe"
            async with httpx.AsyncClient() as client:
                assert (await client.post(url, content=body)).status_code == 401
                signed = {"stripe-signature": header}
                assert (await client.post(url, content=body, headers=signed)).status_code == 200
            assert app._postgres is not None
            postgres = app._postgres

            async def handled() -> bool:
                rows = await postgres.fetch("select outcome from billing.notices")
                return [row["outcome"] for row in rows] == ["done"]

            await eventually(handled)


async def test_a_month_is_closed_collected_and_told_of_by_webhook(
    start_billing: StartBilling, operator: Operator
) -> None:
    """From facts to money: the invoice at Stripe is ours to the cent, and paid once (I2, I3)."""
    with running(seed=4) as fake:
        async with start_billing(**_settings(fake)) as app:
            fake.webhooks.register(f"http://127.0.0.1:{_port(app)}/webhooks/stripe", _SECRET)
            await operator.command("create-tenant", CreateTenant(tenant="acme", name="Acme"))
            month = datetime.now(UTC).replace(day=1) - timedelta(days=10)
            used = terminal(tokens=(2_000_000, 20_005), routed_at=month, ended_at=month)
            await operator.publish(used)
            await operator.caught_up()
            card = SetPayer(tenant="acme", provider="stripe", token="pm_card_visa")
            await operator.ask(subjects.billing("set-payer"), card)
            closing = ClosePeriod(tenant="acme", month=f"{month:%Y-%m}")
            await operator.ask(subjects.billing("close-period"), closing)

            async def listed() -> PaymentList:
                asked = ListPayments(tenant="acme")
                answer = await operator.ask(subjects.billing("list-payments"), asked)
                return PaymentList.model_validate_json(answer)

            async def paid() -> bool:
                return [one.paid_cents for one in (await listed()).collections] == [103]

            await eventually(paid, 20)  # 1 + 0.0300075 dollars
            invoices = fake.account.store.all("invoice")
            assert [one["total"] for one in invoices if one["total"]] == [103]
            assert set(await fake.webhooks.send(copies=1)) == {200}
            assert app._postgres is not None
            postgres = app._postgres

            async def handled() -> bool:
                left = "select count(*) from billing.notices where outcome is distinct from 'done'"
                return not await postgres.fetchval(left)

            await eventually(handled)
            assert await paid()
            assert len((await listed()).payments) == 1


@pytest.mark.parametrize("with_key", [False, True])
async def test_billing_needs_neither_a_key_nor_stripe(
    start_billing: StartBilling, operator: Operator, *, with_key: bool
) -> None:
    """Without a key there is no port and no task; with one, Stripe may be away (I9)."""
    away = {"stripe_api_key": API_KEY, "stripe_api_base": "http://127.0.0.1:9"}
    async with start_billing(**(away if with_key else {})) as app:
        await operator.command("create-tenant", CreateTenant(tenant="acme", name="Acme"))
        assert app.problems() == []
        names = {task.get_name() for task in app._tasks}
        stripes = {"stripe-sync", "stripe-push", "catch-up", "notices"}
        assert names & stripes == (stripes if with_key else set())
        assert (app._webhooks is not None) == with_key
        assert not any(task.done() for task in app._tasks)
