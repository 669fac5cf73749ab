"""Payments through Braintree: the real package against a gateway that keeps books (I2)."""

from __future__ import annotations

import random
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
from pydantic import SecretStr
from tests.support.braintree_fake.server import (
    MERCHANT_ID,
    PRIVATE_KEY,
    PUBLIC_KEY,
    BraintreeFake,
    running,
)
from tests.support.payments import PaymentRig, payment_rig
from tests.support.vendor_faults import Fault, Kind

from penstock_billing.adapters.braintree_client import BraintreeAccount, BraintreeClient
from penstock_billing.adapters.braintree_gateway import BraintreeGateway
from penstock_billing.ports.payments import (
    Charge,
    Payer,
    PaymentStatus,
    Provider,
    RefundOrder,
)
from penstock_shared.contracts.errors import (
    ConflictError,
    NotFoundError,
    PermanentError,
    SchemaError,
    UnavailableError,
)

FAILED, PENDING, SUCCEEDED = PaymentStatus.FAILED, PaymentStatus.PENDING, PaymentStatus.SUCCEEDED
LOST = [
    (kind, effect) for kind in (Kind.ERROR, Kind.RESET, Kind.TIMEOUT) for effect in (True, False)
] + [(Kind.RATE_LIMIT, False)]


@pytest.fixture
def fake() -> Iterator[BraintreeFake]:
    """Braintree, with books of this test's own."""
    with running() as made:
        yield made


def _account(fake: BraintreeFake, private_key: str = PRIVATE_KEY) -> BraintreeAccount:
    return BraintreeAccount(
        "sandbox",
        MERCHANT_ID,
        PUBLIC_KEY,
        SecretStr(private_key),
        timeout_s=0.3,
        url=fake.url,
    )


@pytest.fixture
def gateway(fake: BraintreeFake) -> Iterator[BraintreeGateway]:
    """Ours, in front of it."""
    account = _account(fake)
    client = BraintreeClient(account)
    yield BraintreeGateway(client, account)
    client.close()


async def _charge(
    fake: BraintreeFake, gateway: BraintreeGateway, cents: int = 1234, decline: str | None = None
) -> Charge:
    customer = await gateway.add_customer("acme", "Acme, Inc.")
    method = await gateway.add_method(customer, fake.nonce())
    fake.set_decline(method, decline)
    payer = Payer("acme", Provider.BRAINTREE, customer, method)
    return Charge(str(uuid.uuid4()), payer, date(2026, 7, 1), "acme-2026-07", cents)


def _sales(fake: BraintreeFake) -> list[str]:
    return [
        one["amount"]
        for one in fake.books.transactions.values()
        if one["type"] == "sale" and one["status"] != "gateway_rejected"
    ]


async def test_a_customer_and_a_method_are_made_once(
    fake: BraintreeFake, gateway: BraintreeGateway
) -> None:
    """Asked again, also with a nonce that is used up: the same; of another tenant another."""
    customer = await gateway.add_customer("acme", "Acme <&> Söhne")
    assert await gateway.add_customer("acme", "Acme under another name") == customer
    assert await gateway.add_customer("globex", "Globex") != customer
    nonce = fake.nonce()
    method = await gateway.add_method(customer, nonce)
    assert await gateway.add_method(customer, nonce) == method
    assert fake.books.card(method)["default"] is True
    with pytest.raises(SchemaError):
        await gateway.add_method(customer, "no-such-nonce")
    with pytest.raises(SchemaError):
        await gateway.add_method(customer, fake.nonce(decline="2000"))
    with pytest.raises(SchemaError):
        await gateway.add_method(await gateway.add_customer("globex", "Globex"), nonce)


@pytest.mark.parametrize("lost", LOST)
async def test_a_sale_whose_answer_is_lost_is_made_once(
    fake: BraintreeFake, gateway: BraintreeGateway, lost: tuple[Kind, bool]
) -> None:
    """Whether it took effect or not: asked again it is one sale, of the right amount."""
    kind, effect = lost
    charge = await _charge(fake, gateway, cents=100_005)
    fake.faults.plan(Fault(kind, "/transactions", effect=effect, skip=1))
    with pytest.raises(UnavailableError):
        await gateway.collect(charge)
    first = await gateway.collect(charge)
    assert await gateway.collect(charge) == first
    assert (first.status, first.cents, first.failure) == (PENDING, 100_005, None)
    assert _sales(fake) == ["1000.05"]
    assert fake.faults.struck, "the fault did not strike"


async def test_what_the_search_does_not_show_yet_is_not_sold_again(
    fake: BraintreeFake, gateway: BraintreeGateway
) -> None:
    """While the search lags behind, duplicate checking keeps it one sale, and we stay in doubt."""
    fake.books.search_lag_s = 25
    charge = await _charge(fake, gateway)
    fake.faults.plan(Fault(Kind.RESET, "/transactions", effect=True, skip=1))
    with pytest.raises(UnavailableError):
        await gateway.collect(charge)
    with pytest.raises(UnavailableError) as doubt:
        await gateway.collect(charge)
    assert doubt.value.code == "payment_in_doubt"
    fake.clock.advance(26)
    assert (await gateway.collect(charge)).status is PENDING
    assert len(_sales(fake)) == 1


async def test_declines_are_states(fake: BraintreeFake, gateway: BraintreeGateway) -> None:
    """A processor's no, a method that is gone, a settlement that is declined, a void."""
    declined = await gateway.collect(await _charge(fake, gateway, decline="2001"))
    assert (declined.status, declined.failure) == (FAILED, "2001")
    charge = await _charge(fake, gateway)
    gone = replace(charge, payer=replace(charge.payer, method="gone"))
    state = await gateway.collect(gone)
    assert (state.status, state.failure) == (FAILED, "payment_method_invalid")
    sold = await gateway.collect(charge)
    fake.settle(sold.reference, "settlement_declined")
    state = await gateway.refetch(sold.reference)
    assert (state.status, state.failure) == (FAILED, "settlement_declined")
    with pytest.raises(NotFoundError):
        await gateway.refetch("nothing")


async def test_money_has_moved_when_it_has_settled(
    fake: BraintreeFake, gateway: BraintreeGateway
) -> None:
    """Submitted for settlement is a promise; settled is money."""
    sold = await gateway.collect(await _charge(fake, gateway))
    assert (await gateway.refetch(sold.reference)).status is PENDING
    fake.settle(sold.reference)
    assert (await gateway.refetch(sold.reference)).status is SUCCEEDED


@pytest.mark.parametrize("lost", LOST)
async def test_a_refund_whose_answer_is_lost_is_made_once(
    fake: BraintreeFake, gateway: BraintreeGateway, lost: tuple[Kind, bool]
) -> None:
    """Not before the sale has settled; then once, however often it is asked for."""
    kind, effect = lost
    sold = await gateway.collect(await _charge(fake, gateway))
    order = RefundOrder(str(uuid.uuid4()), sold.reference, 1_000)
    with pytest.raises(UnavailableError) as early:
        await gateway.refund(order)
    assert early.value.code == "not_settled"
    fake.settle(sold.reference)
    fake.faults.plan(Fault(kind, f"/transactions/{sold.reference}/refund", effect=effect))
    with pytest.raises(UnavailableError):
        await gateway.refund(order)
    first = await gateway.refund(order)
    assert await gateway.refund(order) == first
    assert (first.refund_id, first.cents, first.status) == (order.refund_id, 1_000, PENDING)
    with pytest.raises(ConflictError):
        await gateway.refund(RefundOrder(str(uuid.uuid4()), sold.reference, 235))
    fake.gateway().transaction.refund(sold.reference, "2.34")
    fake.settle()
    refunds = (await gateway.refetch(sold.reference)).refunds
    assert {(one.refund_id, one.cents, one.status) for one in refunds} == {
        (order.refund_id, 1_000, SUCCEEDED),
        (None, 234, SUCCEEDED),
    }


async def test_wrong_keys_are_nobodys_decline(fake: BraintreeFake) -> None:
    """Keys that Braintree refuses are our mistake: nothing is held against the tenant."""
    account = _account(fake, private_key="wrong")
    client = BraintreeClient(account)
    with pytest.raises(PermanentError) as refused:
        await BraintreeGateway(client, account).add_customer("acme", "Acme")
    assert refused.value.code == "provider_refused"
    client.close()


async def test_notices_name_what_to_ask_for(fake: BraintreeFake, gateway: BraintreeGateway) -> None:
    """As Braintree signs and posts them."""
    sold = await gateway.collect(await _charge(fake, gateway))
    fake.settle(sold.reference)
    told = fake.notice("transaction_settled", sold.reference)
    notice = gateway.read_notice(told.headers, told.body, datetime.now(UTC))
    assert (notice.kind, notice.reference) == ("transaction_settled", sold.reference)


@pytest.fixture
async def rig(postgres_dsn: str) -> AsyncIterator[PaymentRig]:
    """Billing's side, in a database of its own."""
    async with payment_rig(postgres_dsn) as made:
        yield made


@pytest.mark.parametrize(
    "seed", [*range(2), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 30))]
)
async def test_invoices_are_paid_once_through_faults_of_every_kind(
    rig: PaymentRig, fake: BraintreeFake, gateway: BraintreeGateway, seed: int
) -> None:
    """Lost answers, errors, refusals at random: in the end each invoice is paid once, in cents."""
    rig.gateways[Provider.BRAINTREE] = gateway
    rng = random.Random(seed)
    dues = [rng.randrange(10_000, 900_000) for _ in range(4)]
    await rig.tenant(pays=False)
    await rig.ask("set-payer", tenant="acme", provider="braintree", token=fake.nonce())
    for month, due in enumerate(dues, start=1):
        await rig.issue(due, date(2026, month, 1))
    fake.faults.at_random(0.5, seed)
    for _ in range(6):
        await rig.collector.look()
        rig.clock.advance(minutes=3)
    fake.faults.clear()
    for _ in range(3):
        await rig.collector.look()
        fake.settle()
        rig.clock.advance(minutes=9)
    collected = sum(dues) // 10_000
    assert sum(int(amount.replace(".", "")) for amount in _sales(fake)) == collected
    assert len(_sales(fake)) == len(dues)
    assert await rig.balance("payments") == collected * 10_000
