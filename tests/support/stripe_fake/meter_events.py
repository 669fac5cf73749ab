"""v1's meter events, one for each call (https://docs.stripe.com/api/billing/meter-event)."""

from __future__ import annotations

from typing import Final

from stripe.params import billing
from tests.support.stripe_fake.account import Account, public
from tests.support.stripe_fake.call import Call, Rule
from tests.support.stripe_fake.metering import accept
from tests.support.stripe_fake.store import Object


def create(account: Account, call: Call) -> Object:
    """Take one event."""
    event = accept(account, call.params, call.params.get("timestamp", account.now()))
    sent = public(event)
    del sent["id"]  # the object has none: its identifier is its name
    return sent


def lane(call: Call) -> str:
    """One call at a time for a customer and a meter (recording-usage-api, "Rate limits")."""
    customer = call.params["payload"].get("stripe_customer_id")
    return f"meter-event {call.params['event_name']} {customer}"


RULES: Final = (
    Rule("POST", "/v1/billing/meter_events", create, billing.MeterEventCreateParams, lane=lane),
)
