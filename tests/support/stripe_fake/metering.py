"""Meter events: what is refused at once, what is found wrong later, and what counts.

Sources: https://docs.stripe.com/api/billing/meter-event/create,
https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api, and the codes of
https://docs.stripe.com/api/v2/core/events/event-types (`v1.billing.meter.error_report_triggered`).
What they leave open was taken from answers that others were given by Stripe: the duplicate from
langfuse/langfuse#16292, the old timestamp from the-answerai/theanswer#624. Whatever may be found
wrong at once or later is found later here, which is the harder case for the caller.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final

from tests.support.stripe_fake.account import Account
from tests.support.stripe_fake.failures import Failure, refused
from tests.support.stripe_fake.store import Object
from tests.support.stripe_fake.thin import emit_thin
from tests.support.vendor_clock import iso

PAST_S: Final = 35 * 86_400
AHEAD_S: Final = 300
UNIQUE_S: Final = 24 * 3_600
"""Identifiers are unique for "at least 24 hours"; here it is exactly that, the least promised."""
CANCEL_S: Final = 24 * 3_600
_WHOLE: Final = re.compile(r"-?\d+\Z")
_DIGITS: Final = 15
_SAMPLES: Final = 5
"""Of each kind of error a report has samples, not all."""
_Fault = tuple[str, Object]


def accept(account: Account, given: dict[str, Any], at: int | None) -> Object:
    """Take an event of the time `at`; whether it counts shows when it is processed.

    Raises:
        Failure: the identifier was seen, or the time is outside the window.
    """
    event = draft(account, given, at)
    if is_duplicate(account, event):
        message = f"An event already exists with identifier {event['identifier']}."
        failure = refused(message, code="duplicate_meter_event")
        failure.headers["stripe-should-retry"] = "false"
        raise failure
    if code := _time_error(account, event):
        edge, bound = _MESSAGES[code]
        expected = _clock(account, event) + edge
        message = f"The event timestamp cannot be more than {bound} {expected}."
        raise refused(message, code=code, param="timestamp")
    return keep(account, event)


def draft(account: Account, given: dict[str, Any], at: int | None) -> Object:
    """The event as it was sent."""
    event: Object = {
        "id": account.store.new_id("_event"),
        "object": "billing.meter_event",
        "created": account.now(),
        "event_name": given["event_name"],
        "identifier": given.get("identifier") or account.store.new_id("", 32)[1:],
        "livemode": False,
        "payload": given["payload"],
        "timestamp": at,
    }
    event["timestamp"] = _clock(account, event) if at is None else at
    return event


def is_duplicate(account: Account, event: Object) -> bool:
    """Its identifier was taken within a day."""
    seen = account.identifiers.get(event["identifier"])
    return seen is not None and event["created"] - seen["created"] < UNIQUE_S


def keep(account: Account, event: Object) -> Object:
    """It will be processed."""
    account.identifiers[event["identifier"]] = event
    account.received.append(event)
    return event


def process(account: Account) -> None:
    """Count what was received long enough ago, and report what is wrong with the rest."""
    faults: defaultdict[str | None, list[_Fault]] = defaultdict(list)
    waiting = []
    for event in account.received:
        if event["created"] + account.metering_lag_s > account.now():
            waiting.append(event)
            continue
        meter = _meter(account, event["event_name"])
        code = _error(account, event, meter)
        if code is None:
            account.store.put(event)
        else:
            faults[meter["id"] if meter else None].append((code, event))
    account.received = waiting
    for identity, found in faults.items():
        _report(account, identity, found)


def usage(account: Account, meter: Object, customer: str, start: int, end: int) -> int:
    """A customer's aggregate of [start, end)."""
    key = meter["customer_mapping"]["event_payload_key"]
    values = [
        int(event["payload"][meter["value_settings"]["event_payload_key"]])
        for event in account.store.all("billing.meter_event")
        if event["event_name"] == meter["event_name"]
        and event["identifier"] not in account.cancelled
        and event["payload"].get(key) == customer
        and start <= event["timestamp"] < end
    ]
    formula = meter["default_aggregation"]["formula"]
    if formula == "count":
        return len(values)
    return sum(values) if formula == "sum" else (values or [0])[-1]


def cancel(account: Account, name: str, identifier: str) -> None:
    """Take an event back, within 24 hours of its receipt."""
    event = account.identifiers.get(identifier)
    if event is None or event["event_name"] != name:
        raise Failure(404, f"No such meter event: '{identifier}'", "resource_missing", "cancel")
    if account.now() - event["created"] > CANCEL_S:
        raise refused("You can only cancel events within 24 hours of Stripe receiving them.")
    account.cancelled.add(identifier)


_MESSAGES: Final = {
    "timestamp_too_far_in_past": (
        -PAST_S,
        "35 days in past. Expected a timestamp greater than or equal to",
    ),
    "timestamp_in_future": (
        AHEAD_S,
        "5 minutes in the future. Expected a timestamp less than or equal to",
    ),
}


def _clock(account: Account, event: Object) -> int:
    """The customer's time: its test clock's, if it stands on one."""
    return account.now_of(event["payload"].get("stripe_customer_id"))


def _time_error(account: Account, event: Object) -> str | None:
    now = _clock(account, event)
    if event["timestamp"] < now - PAST_S:
        return "timestamp_too_far_in_past"
    return "timestamp_in_future" if event["timestamp"] > now + AHEAD_S else None


def _meter(account: Account, name: str) -> Object | None:
    """The active meter of a name, or else a former one."""
    found = [one for one in account.store.all("billing.meter") if one["event_name"] == name]
    return next((one for one in found if one["status"] == "active"), found[-1] if found else None)


def _error(account: Account, event: Object, meter: Object | None) -> str | None:
    if event.get("_duplicate"):
        return "duplicate_meter_event"
    if meter is None:
        return "no_meter"
    if meter["status"] != "active":
        return "archived_meter"
    return _payload_error(account, event["payload"], meter) or event.get("_time_error")


def _payload_error(account: Account, payload: dict[str, str], meter: Object) -> str | None:
    customer = payload.get(meter["customer_mapping"]["event_payload_key"])
    if customer is None:
        return "meter_event_no_customer_defined"
    found = account.store.any(customer)
    if found is None or found["object"] != "customer" or found.get("deleted"):
        return "meter_event_customer_not_found"
    value = payload.get(meter["value_settings"]["event_payload_key"], "")
    if not _WHOLE.match(value):
        return "meter_event_invalid_value"
    return "meter_event_value_too_many_digits" if len(value.lstrip("-")) > _DIGITS else None


def judge_later(account: Account, event: Object) -> None:
    """Of an event that is not validated at once: what was wrong when it came."""
    event["_duplicate"] = is_duplicate(account, event)
    event["_time_error"] = _time_error(account, event)
    if event["_duplicate"]:
        account.received.append(event)
    else:
        keep(account, event)


def _report(account: Account, meter: str | None, faults: list[_Fault]) -> None:
    kind = "v1.billing.meter.error_report_triggered" if meter else "v1.billing.meter.no_meter_found"
    related = {
        "id": meter,
        "type": "billing.meter",
        "url": f"/v1/billing/meters/{meter}",
    }
    begin = min(event["created"] for _, event in faults)
    data = {
        "developer_message_summary": f"There is {len(faults)} invalid event",
        "reason": {"error_count": len(faults), "error_types": list(_kinds(faults))},
        "validation_start": iso(begin),
        "validation_end": iso(account.now()),
    }
    emit_thin(account, kind, data, related if meter else None)


def _kinds(faults: list[_Fault]) -> Iterable[Object]:
    for code in sorted({code for code, _ in faults}):
        events = [event for found, event in faults if found == code]
        yield {
            "code": code,
            "error_count": len(events),
            "sample_errors": [
                {
                    "error_message": f"The event was not counted: {code}.",
                    "request": {"identifier": event["identifier"]},
                }
                for event in events[:_SAMPLES]
            ],
        }
