"""Billing's own port: what is not Stripe's has no effect, what is counts once (I2, I8)."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from unittest.mock import AsyncMock

import httpx
import pytest
from prometheus_client import REGISTRY
from stripe import WebhookSignature
from tests.support.billing import eventually
from tests.support.stripe_fake import running
from tests.support.stripe_rig import CENT, SECRET, StripeRig, stripe_rig

from penstock_billing.adapters.stripe_notices import METER_ERRORS
from penstock_billing.domain.payments import CLAIM
from penstock_billing.handlers.webhooks import AboutInvoices, CatchUp, NoticeDesk, WebhookDesk
from penstock_billing.http.webhooks import MAX_BODY_BYTES, create_webhook_app
from penstock_billing.ports.payments import Notice, Provider
from penstock_shared.contracts.errors import PermanentError, UnavailableError
from penstock_shared.runtime.http_server import HttpServer

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)


@dataclass
class Heard:
    """A handler that writes down what it is handed, and fails as often as it is told."""

    notices: list[Notice] = field(default_factory=list)
    fails: list[Exception] = field(default_factory=list)

    async def on_notice(self, notice: Notice) -> None:
        if self.fails:
            raise self.fails.pop()
        self.notices.append(notice)


@dataclass
class Port:
    """The port, listening, and what is behind it."""

    rig: StripeRig
    url: str
    heard: Heard
    desk: WebhookDesk
    notices: NoticeDesk

    async def post(self, body: str, **headers: str) -> httpx.Response:
        async with httpx.AsyncClient(timeout=10) as client:
            return await client.post(self.url, content=body.encode(), headers=headers)

    def signed(self, body: str, by: timedelta = timedelta()) -> dict[str, str]:
        at = int((self.rig.clock.now() + by).timestamp())
        header = WebhookSignature.generate_signature_header(body, SECRET, at)
        return {"stripe-signature": header}

    async def stored(self) -> int:
        return int(await self.rig.postgres.fetchval("select count(*) from billing.notices"))

    async def handle(self) -> int:
        """Handle all that is due; how many that was."""
        handled = 0
        while await self.notices.handle_one():
            handled += 1
        return handled


@pytest.fixture
async def port(postgres_dsn: str) -> AsyncIterator[Port]:
    """Registered with the fake as its endpoint."""
    with running(seed=1) as fake:
        async with stripe_rig(fake, postgres_dsn, NOON) as rig:
            heard = Heard()
            desk = WebhookDesk({Provider.STRIPE: rig.gateway}, rig.inbox, rig.clock)
            about = AboutInvoices(rig.missed.about_invoice, heard)
            special = dict.fromkeys(METER_ERRORS, rig.meter_errors())
            others = {Provider.STRIPE: about}
            notices = NoticeDesk(rig.inbox, special, others, desk.arrived, rig.clock)
            app = create_webhook_app(desk, frozenset({Provider.STRIPE}), body_within_s=0.5)
            server = HttpServer(app, "127.0.0.1", 0)
            await server.start()
            url = f"http://127.0.0.1:{server.port}/webhooks/stripe"
            fake.webhooks.register(url, SECRET)
            yield Port(rig, url, heard, desk, notices)
            await server.stop()


def counted(outcome: str) -> float:
    labels = {"provider": "stripe", "outcome": outcome}
    return REGISTRY.get_sample_value("billing_webhooks_total", labels) or 0.0


def paid(number: int = 1) -> str:
    return json.dumps(
        {
            "id": f"evt_{number}",
            "object": "event",
            "type": "invoice.paid",
            "created": int(NOON.timestamp()),
            "data": {"object": {"id": f"in_{number}", "object": "invoice"}},
        }
    )


async def test_bad_deliveries_are_4xx_without_effect_and_counted(port: Port) -> None:
    """Unsigned, wrongly signed, stale, future, oversized, malformed; other methods, other paths."""
    body, large = paid(), "x" * (MAX_BODY_BYTES + 1)
    bad: list[tuple[str, dict[str, str], int, str]] = [
        (body, {}, 401, "webhook_unsigned"),
        (body, {"stripe-signature": "t=1,v1=aa"}, 401, "webhook_bad_signature"),
        (body + " ", port.signed(body), 401, "webhook_bad_signature"),
        (body, port.signed(body, -timedelta(seconds=301)), 401, "webhook_stale"),
        (body, port.signed(body, timedelta(seconds=301)), 401, "webhook_future"),
        (large, port.signed(large), 413, "webhook_too_large"),
        ("{}", port.signed("{}"), 422, "webhook_malformed"),
        ("[" * 9_000, port.signed("[" * 9_000), 422, "webhook_malformed"),
    ]
    for sent, headers, status, code in bad:
        before = counted(code)
        answer = await port.post(sent, **headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert counted(code) == before + 1
    async with httpx.AsyncClient() as client:
        assert (await client.get(port.url)).status_code == 405
        assert (await client.post(port.url.replace("stripe", "other"))).status_code == 404
    assert await port.stored() == 0


async def test_the_very_same_delivery_again_is_refused_another_one_is_a_copy(port: Port) -> None:
    """A replay within the bounds is 409 and counted; Stripe signs each of its attempts anew."""
    body = paid()
    first = port.signed(body)
    assert (await port.post(body, **first)).status_code == 200
    replayed, copies = counted("replayed"), counted("duplicate")
    assert (await port.post(body, **first)).status_code == 409
    again = port.signed(body, timedelta(seconds=1))
    assert (await port.post(body, **again)).status_code == 200
    assert (await port.post(body, **again)).status_code == 409
    assert (counted("replayed"), counted("duplicate")) == (replayed + 2, copies + 1)
    assert await port.handle() == 1
    assert [notice.reference for notice in port.heard.notices] == ["in_1"]


async def test_a_header_that_was_added_to_is_no_error_of_ours(port: Port) -> None:
    """What the signature's check passes over is passed over; copies do not add up for ever."""
    header = port.signed(paid())["stripe-signature"]
    for number in range(70):
        added = header.replace(",", f"={number},", 1)
        assert (await port.post(paid(), **{"stripe-signature": added})).status_code == 200
    query = "select cardinality(signatures) from billing.notices"
    assert await port.rig.postgres.fetchval(query) == 64


async def test_a_sender_who_stops_midway_or_goes_has_no_effect(port: Port) -> None:
    """A body that never ends is not waited for by anybody else."""
    host, _, number = port.url.partition("//")[2].partition("/")[0].partition(":")
    head = b"POST /webhooks/stripe HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{"
    before = counted("webhook_incomplete")
    with socket.create_connection((host, int(number))) as sender:
        sender.sendall(head)
        answer = await asyncio.to_thread(sender.recv, 4_096)
        assert answer.startswith(b"HTTP/1.1 400 ")
    with socket.create_connection((host, int(number))) as sender:
        sender.sendall(head)
        assert (await port.post(paid(), **port.signed(paid()))).status_code == 200

    async def noticed() -> bool:
        return counted("webhook_incomplete") == before + 2

    await eventually(noticed)
    assert await port.stored() == 1


async def test_what_cannot_be_stored_is_asked_for_again(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres is away, or something is broken: 5xx, and Stripe delivers again (I1)."""
    body = paid()
    for failure, status in ((UnavailableError("away"), 503), (RuntimeError("broken"), 500)):
        with monkeypatch.context() as broken:
            broken.setattr(port.rig.inbox, "store", AsyncMock(side_effect=failure))
            answer = await port.post(body, **port.signed(body))
        assert answer.status_code == status
        assert ("retry-after" in answer.headers) == (status == 503)
        assert "broken" not in answer.text
    assert await port.stored() == 0
    assert (await port.post(body, **port.signed(body))).status_code == 200


async def test_notices_may_come_twice_late_and_in_any_order(port: Port) -> None:
    """Sent by the fake: reversed, in copies; each is handed on once, with what it is about."""
    await port.rig.add_tenant("acme")
    customer = await port.rig.mirror.put_customer("acme", "Acme")
    client = port.rig.connection.client.v1
    for _ in range(2):
        await client.invoices.create_async({"customer": customer})
    await client.customers.update_async(customer, {"name": "Acme & Sons"})
    owed = len(port.rig.fake.webhooks.pending)
    assert owed >= 4
    answers = await port.rig.fake.webhooks.send(order=lambda due: list(reversed(due)), copies=1)
    assert answers == [200] * owed
    assert await port.handle() == owed
    port.rig.clock.advance(
        timedelta(seconds=30)
    )  # Stripe's next attempts, of what it had all along
    answers = await port.rig.fake.webhooks.send(port.rig.fake.webhooks.deliveries, copies=1)
    assert answers == [200] * owed
    assert await port.handle() == 0
    assert len({notice.notice_id for notice in port.heard.notices}) == owed
    created = [n for n in port.heard.notices if n.kind == "invoice.created"]
    assert all(str(notice.reference).startswith("in_") for notice in created)


async def test_a_notice_whose_handling_fails_comes_again_or_is_parked(port: Port) -> None:
    """Postgres or Stripe may be away for days; what never succeeds waits for a person (I7)."""
    await port.post(paid(1), **port.signed(paid(1)))
    port.heard.fails = [UnavailableError("away") for _ in range(20)]
    for _ in range(20):
        assert await port.handle() == 1
        assert await port.handle() == 0
        port.rig.clock.advance(timedelta(hours=1))
    assert await port.handle() == 1
    assert [notice.notice_id for notice in port.heard.notices] == ["evt_1"]
    await port.post(paid(2), **port.signed(paid(2)))
    port.heard.fails = [PermanentError("never") for _ in range(20)]
    for _ in range(9):
        assert await port.handle() == 1
        port.rig.clock.advance(timedelta(hours=1))
    assert await port.handle() == 0
    outcomes = await port.rig.postgres.fetch("select outcome from billing.notices order by 1")
    assert [row["outcome"] for row in outcomes] == ["done", "parked"]


async def test_who_dies_between_effect_and_mark_handles_it_again(port: Port) -> None:
    """Also cancelled in the middle: the notice is nobody's, and comes again (I7)."""
    await port.post(paid(), **port.signed(paid()))
    port.heard.fails = [asyncio.CancelledError()]  # type: ignore[list-item]
    with pytest.raises(asyncio.CancelledError):
        await port.notices.handle_one()
    assert await port.handle() == 0
    port.rig.clock.advance(CLAIM)
    assert await port.handle() == 1
    assert len(port.heard.notices) == 1


async def test_two_replicas_handle_different_notices(port: Port) -> None:
    """One that is in hand is passed over, not waited for."""
    for number in (1, 2):
        await port.post(paid(number), **port.signed(paid(number)))
    now = port.rig.clock.now()
    one, other, none = [await port.rig.inbox.due(now, now + CLAIM) for _ in range(3)]
    assert one is not None
    assert other is not None
    assert one.waiting.notice.notice_id != other.waiting.notice.notice_id
    assert none is None


async def test_a_notice_in_hand_holds_no_connection_and_no_row(port: Port) -> None:
    """Its provider does not answer: another delivery of the same is stored at once."""
    await port.post(paid(), **port.signed(paid()))
    now = port.rig.clock.now()
    assert await port.rig.inbox.due(now, now + CLAIM) is not None
    async with asyncio.timeout(2):
        answer = await port.post(paid(), **port.signed(paid(), timedelta(seconds=1)))
    assert answer.status_code == 200


async def test_what_was_not_delivered_is_found_by_listing(port: Port) -> None:
    """Stripe gives up after three days: what it could not deliver is asked for, once (I2)."""
    rig = port.rig
    await rig.add_tenant("acme")
    customer = await rig.mirror.put_customer("acme", "Acme")
    client = rig.connection.client.v1
    made = await client.invoices.create_async({"customer": customer})
    await client.invoices.finalize_invoice_async(made.id)  # over nothing: paid at once
    catch_up = CatchUp(rig.missed, rig.inbox, port.desk.arrived, rig.clock)
    assert await catch_up.look() == 1
    assert await catch_up.look() == 0
    await port.handle()
    assert [(n.kind, n.reference) for n in port.heard.notices] == [("invoice.paid", made.id)]
    statuses = await rig.fake.webhooks.send()  # Stripe comes after all
    assert set(statuses) == {200}
    await port.handle()
    assert sum(n.kind == "invoice.paid" for n in port.heard.notices) == 1


async def test_what_the_meter_dropped_is_pushed_again(port: Port) -> None:
    """A 2xx is no proof: the error report comes as a thin event, and its data is fetched (I2)."""
    rig = port.rig
    rig.fake.webhooks.register(port.url, SECRET, thin=True)
    await rig.add_tenant("acme")
    await rig.sync.look()
    customer = await rig.postgres.fetchval("select customer_id from billing.stripe_customers")
    pusher = rig.pusher()
    await rig.use("acme", 7 * CENT)
    known = rig.fake.account.store.get("customer", customer)
    known["deleted"] = True
    await pusher.look()
    assert [row[3] for row in await rig.rows()] == ["accepted"]
    assert rig.counted() == 0
    del known["deleted"]
    assert set(await rig.fake.webhooks.send()) == {200}
    await port.handle()
    await pusher.look()
    assert [(row[1], row[3]) for row in await rig.rows()] == [(1, "refused"), (2, "accepted")]
    assert rig.counted() == 7
    assert not any(notice.kind in METER_ERRORS for notice in port.heard.notices)
