"""Meter events: what is taken at once, what is refused, and what is found wrong later.

Sources: https://docs.stripe.com/api/billing/meter-event/create and
https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api. What the two leave
open was taken from answers that others were given by Stripe: the duplicate from
langfuse/langfuse#16292, the old timestamp from the-answerai/theanswer#624.
"""

from __future__ import annotations

import re
from typing import Any, Final

from tests.support.stripe_fake.account import Account
from tests.support.stripe_fake.failures import Failure, refused
from tests.support.stripe_fake.store import Object

PAST_S: Final = 35 * 86_400
AHEAD_S: Final = 300
UNIQUE_S: Final = 24 * 3_600
"""Identifiers are unique for "at least 24 hours"; here it is exactly that, the least promised."""
CANCEL_S: Final = 24 * 3_600
_WHOLE: Final = re.compile(r"-?\d+\Z")


def accept(account: Account, given: dict[str, Any], at: int) -> Object:
    """Take an event whose time is `at`; it counts once it was processed.

    Raises:
        Failure: the identifier was seen, or the time is outside the window.
    """
    identifier = given.get("identifier") or account.store.new_id("", 32)[1:]
    now = account.now()
    seen = account.identifiers.get(identifier)
    if seen is not None and now - seen["created"] < UNIQUE_S:
        raise duplicate(identifier)
    check_time(at, now)
    event = account.identifiers[identifier] = account.store.put(
        {
            "id": account.store.new_id("_event"),
            "object": "billing.meter_event",
            "created": now,
            "event_name": given["event_name"],
            "identifier": identifier,
            "livemode": False,
            "payload": given["payload"],
            "timestamp": at,
            "_cancelled": False,
        }
    )
    return event


def duplicate(identifier: str) -> Failure:
    """400, which Stripe marks as not to be tried again."""
    failure = refused(
        f"An event already exists with identifier {identifier}.", code="duplicate_meter_event"
    )
    failure.headers["stripe-should-retry"] = "false"
    return failure


def check_time(at: int, now: int) -> None:
    """Within the past 35 days and no more than 5 minutes ahead."""
    if at < now - PAST_S:
        message = "The event timestamp cannot be more than 35 days in past. Expected a timestamp "
        message += f"greater than or equal to {now - PAST_S}."
        raise refused(message, code="timestamp_too_far_in_past", param="timestamp")
    if at > now + AHEAD_S:
        message = "The event timestamp cannot be more than 5 minutes in the future. Expected a "
        message += f"timestamp less than or equal to {now + AHEAD_S}."
        raise refused(message, code="timestamp_in_future", param="timestamp")


def usage(account: Account, meter: Object, customer: str, start: int, end: int) -> int:
    """A customer's aggregate of [start, end)."""
    key = meter["customer_mapping"]["event_payload_key"]
    values = [
        int(event["payload"][meter["value_settings"]["event_payload_key"]])
        for event in account.store.all("billing.meter_event")
        if event["event_name"] == meter["event_name"]
        and not event["_cancelled"]
        and event["payload"].get(key) == customer
        and start <= event["timestamp"] < end
    ]
    formula = meter["default_aggregation"]["formula"]
    if formula == "count":
        return len(values)
    return sum(values) if formula == "sum" else (values or [0])[-1]
