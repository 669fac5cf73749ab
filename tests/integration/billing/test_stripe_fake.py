"""The fake of Stripe's API: faults on demand, limits, and what it does not let pass."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import stripe
from tests.support import stripe_fake as fakes
from tests.support.stripe_asking import (
    NOON,
    event,
    new_meter,
    package_client,
)
from tests.support.stripe_fake import Fault, Kind, StripeFake


@pytest.fixture
def fake(stripe_fake: StripeFake) -> StripeFake:
    """At a moment that a test moves."""
    stripe_fake.clock.freeze(NOON)
    return stripe_fake


@pytest.fixture
async def client(fake: StripeFake) -> AsyncIterator[stripe.StripeClient]:
    """The real package."""
    async with package_client(fake) as made:
        yield made


_SEEN = {
    Kind.RATE_LIMIT: stripe.RateLimitError,
    Kind.ERROR: stripe.APIError,
    Kind.TIMEOUT: stripe.APIConnectionError,
    Kind.RESET: stripe.APIConnectionError,
}


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("effect", [False, True])
async def test_a_fault_shows_and_its_effect_happens_or_not(
    fake: StripeFake, client: stripe.StripeClient, kind: Kind, *, effect: bool
) -> None:
    """Before or after the effect, the client sees the same; the second try under the key goes well.

    Except a 500 after the effect: its key replays it (https://docs.stripe.com/api/idempotent_requests,
    "including 500 errors"), and only another look shows that the customer is there.
    """
    fake.faults.plan(Fault(kind, "/v1/customers", effect=effect, skip=1))
    await client.v1.customers.create_async({"name": "before"})
    with pytest.raises(_SEEN[kind]):
        await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "k"})
    happened = effect and kind is not Kind.RATE_LIMIT
    assert len((await client.v1.customers.list_async()).data) == 1 + happened
    if happened and kind is Kind.ERROR:
        with pytest.raises(stripe.APIError):
            await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "k"})
    else:
        await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "k"})
    assert len((await client.v1.customers.list_async()).data) == 2
    assert len(fake.faults.struck) == 1


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_under_random_faults_a_key_makes_one_object(
    fake: StripeFake, client: stripe.StripeClient, seed: int
) -> None:
    """Whatever is struck how often, the same key never has two effects (I2)."""
    fake.faults.at_random(0.5, seed)
    http = client._requestor._client
    assert http is not None
    http._timeout = 0.05  # type: ignore[attr-defined]
    for name in map(str, range(12)):
        for _ in range(8):
            try:
                await client.v1.customers.create_async({"name": name}, {"idempotency_key": name})
            except stripe.StripeError:
                continue
            break
    fake.faults.clear()
    found = await client.v1.customers.list_async({"limit": 100})
    names = [one.name for one in found.data]
    assert len(names) == len(set(names))
    assert len(fake.faults.struck) > 6


async def test_v2_does_not_replay_a_failure(fake: StripeFake, client: stripe.StripeClient) -> None:
    """https://docs.stripe.com/api-v2-overview#idempotency: what succeeded is answered as such."""
    fake.faults.plan(Fault(Kind.ERROR, "/v2/", effect=True))
    sessions = client.v2.billing.meter_event_session
    with pytest.raises(stripe.APIError):
        await sessions.create_async({}, {"idempotency_key": "k"})
    session = await sessions.create_async({}, {"idempotency_key": "k"})
    again = await sessions.create_async({}, {"idempotency_key": "k"})
    assert session.authentication_token == again.authentication_token


async def test_a_key_in_use_is_refused(fake: StripeFake, client: stripe.StripeClient) -> None:
    """https://docs.stripe.com/error-codes#idempotency-key-in-use: 409 while the first runs."""
    await new_meter(client)
    customer = (await client.v1.customers.create_async({})).id
    fake.front.service_s = 0.2
    sent = event(customer)
    first = asyncio.create_task(
        client.v1.billing.meter_events.create_async(sent, {"idempotency_key": "k"})
    )
    await asyncio.sleep(0.05)
    with pytest.raises(stripe.StripeError) as refusal:
        await client.v1.billing.meter_events.create_async(sent, {"idempotency_key": "k"})
    assert (refusal.value.http_status, (await first).identifier) == (409, sent["identifier"])


async def test_a_key_is_forgotten_after_a_day(
    fake: StripeFake, client: stripe.StripeClient
) -> None:
    """Keys are removed after "at least 24 hours": then one acts again (idempotent_requests)."""
    made = [(await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "k"})).id]
    for wait, count in ((86_399, 1), (1, 2)):
        fake.clock.advance(wait)
        again = await client.v1.customers.create_async({"name": "x"}, {"idempotency_key": "k"})
        made.append(again.id)
        assert len(set(made)) == count


async def test_more_requests_than_the_rate_are_refused(
    fake: StripeFake, client: stripe.StripeClient
) -> None:
    """https://docs.stripe.com/rate-limits: 429, the reason in a header, and later it goes on."""
    fake.limits.monotonic = lambda: 0.0
    fake.limits.per_second = 3
    for _ in range(3):
        await client.v1.customers.create_async({})
    with pytest.raises(stripe.RateLimitError) as refusal:
        await client.v1.customers.create_async({})
    assert (refusal.value.headers or {})["stripe-rate-limited-reason"] == "global-rate"
    fake.limits.monotonic = lambda: 1.0
    await client.v1.customers.create_async({})


async def test_a_meter_takes_one_call_at_a_time_of_a_customer(
    fake: StripeFake, client: stripe.StripeClient
) -> None:
    """As recording-usage-api has it, "one concurrent call per customer per meter"; others may.

    The limit is met before the endpoint runs: the same key serves for the second try.
    """
    fake.front.service_s = 0.1
    await new_meter(client)
    customers = [(await client.v1.customers.create_async({})).id for _ in range(2)]
    sent = [event(customer) for customer in (*customers, customers[0])]

    async def send(number: int) -> Any:
        options: Any = {"idempotency_key": str(number)}
        return await client.v1.billing.meter_events.create_async(sent[number], options)

    outcomes = await asyncio.gather(*map(send, range(3)), return_exceptions=True)
    refused = [n for n, one in enumerate(outcomes) if isinstance(one, stripe.RateLimitError)]
    assert len(refused) == 1
    assert refused != [1]
    assert (await send(refused[0])).identifier == sent[refused[0]]["identifier"]


def test_no_endpoint_takes_a_parameter_that_stripe_does_not_have(fake: StripeFake) -> None:
    """Every rule of the fake, asked with a name that nobody knows."""
    auth = {"authorization": f"Bearer {fakes.API_KEY}", "stripe-version": stripe.api_version}
    with httpx.Client(base_url=fake.url, headers=auth) as http:
        for rule in fake.front.reader.rules:
            path = rule.path.replace("{id}", "x")
            if rule.method == "POST" and "/v2/" in path:
                answer = http.post(path, json={"bogus": "1"})
            elif rule.method == "POST":
                answer = http.post(path, data={"bogus": "1"})
            else:
                answer = http.request(rule.method, path, params={"bogus": "1"})
            error = answer.json()["error"]
            assert answer.status_code == 400, rule
            assert error["code"] == "parameter_unknown", rule


async def test_what_the_fake_does_not_model_it_refuses(client: stripe.StripeClient) -> None:
    """501, never a parameter that is taken and does nothing."""
    with pytest.raises(stripe.APIError) as refusal:
        await client.v1.customers.create_async({"tax_exempt": "exempt"})
    assert refusal.value.http_status == 501
    with pytest.raises(stripe.InvalidRequestError):
        await client.raw_request_async("get", "/v1/payouts")


async def test_keys_and_versions_are_checked(fake: StripeFake) -> None:
    """401 for a wrong key; 400 for a version whose shapes the fake does not have."""
    http = stripe.HTTPXClient(timeout=5)
    wrong = stripe.StripeClient("sk_test_wrong", base_addresses=fake.addresses, http_client=http)
    with pytest.raises(stripe.AuthenticationError):
        await wrong.v1.customers.list_async()
    old = stripe.StripeClient(
        fakes.API_KEY,
        base_addresses=fake.addresses,
        stripe_version="2024-06-20",
        http_client=http,
    )
    with pytest.raises(stripe.InvalidRequestError):
        await old.v1.customers.list_async()
    await http.close_async()  # type: ignore[no-untyped-call]
