"""Meters (https://docs.stripe.com/api/billing/meter): how events become a quantity."""

from __future__ import annotations

from typing import Final

from stripe.params import billing
from tests.support.stripe_fake.account import Account, public
from tests.support.stripe_fake.call import Call, Rule
from tests.support.stripe_fake.customers import living
from tests.support.stripe_fake.failures import invalid, refused
from tests.support.stripe_fake.listing import page
from tests.support.stripe_fake.metering import usage
from tests.support.stripe_fake.store import Object

_DAY: Final = 86_400
_WINDOWS: Final = {"hour": 3_600, "day": _DAY}


def create(account: Account, call: Call) -> Object:
    """A new meter; only its name can change afterwards.

    An event name belongs to one active meter
    (https://docs.stripe.com/billing/subscriptions/usage-based/meters/configure).
    """
    given = call.params
    name = given["event_name"]
    taken = account.store.first(
        "billing.meter", lambda one: one["event_name"] == name and one["status"] == "active"
    )
    if taken is not None:
        message = f"An active meter with event name '{name}' already exists: {taken['id']}."
        raise refused(message, code="resource_already_exists", param="event_name")
    now = account.now()
    meter = account.store.put(
        {
            "id": account.store.new_id("mtr_test", 32),
            "object": "billing.meter",
            "created": now,
            "customer_mapping": given.get(
                "customer_mapping", {"event_payload_key": "stripe_customer_id", "type": "by_id"}
            ),
            "default_aggregation": given["default_aggregation"],
            "display_name": given["display_name"],
            "event_name": name,
            "event_time_window": given.get("event_time_window"),
            "livemode": False,
            "status": "active",
            "status_transitions": {"deactivated_at": None},
            "updated": now,
            "value_settings": given.get("value_settings", {"event_payload_key": "value"}),
        }
    )
    account.emit("billing.meter.created", meter)
    return public(meter)


def retrieve(account: Account, call: Call) -> Object:
    """One meter."""
    return public(account.store.get("billing.meter", call.id))


def list_all(account: Account, call: Call) -> Object:
    """All, or those of a status."""
    return page(call, account.store.all("billing.meter"))


def update(account: Account, call: Call) -> Object:
    """A new display name."""
    meter = account.store.get("billing.meter", call.id)
    meter.update(display_name=call.params.get("display_name", meter["display_name"]))
    meter["updated"] = account.now()
    account.emit("billing.meter.updated", meter)
    return public(meter)


def deactivate(account: Account, call: Call) -> Object:
    """From now on it takes no events and no new prices."""
    meter = account.store.get("billing.meter", call.id)
    if meter["status"] == "inactive":
        raise refused("This meter is already inactive.")
    meter.update(status="inactive", updated=account.now())
    meter["status_transitions"] = {"deactivated_at": account.now()}
    account.emit("billing.meter.deactivated", meter)
    return public(meter)


def reactivate(account: Account, call: Call) -> Object:
    """It takes events again."""
    meter = account.store.get("billing.meter", call.id)
    if meter["status"] == "active":
        raise refused("This meter is already active.")
    meter.update(status="active", updated=account.now())
    meter["status_transitions"] = {"deactivated_at": None}
    account.emit("billing.meter.reactivated", meter)
    return public(meter)


def summaries(account: Account, call: Call) -> Object:
    """What a customer's events come to, whole or by hour or day, newest first.

    Bounds must align with minutes, with hours or days where the value is grouped
    (https://docs.stripe.com/api/billing/meter-event_summary/list).
    """
    meter = account.store.get("billing.meter", call.id)
    given = call.params
    customer = living(account, given["customer"])
    start, end = given["start_time"], given["end_time"]
    step = _WINDOWS.get(given.get("value_grouping_window", ""))
    for name, bound in (("start_time", start), ("end_time", end)):
        if bound % (step or 60):
            raise invalid(f"{name} must align with the grouping window.", param=name)
    if end <= start:
        raise invalid("end_time must be after start_time.", param="end_time")
    windows = range(start, end, step) if step else (start,)
    found = []
    for begin in windows:
        until = begin + step if step else end
        value = usage(account, meter, customer["id"], begin, until)
        if value or not step:
            found.append(_summary(account, meter["id"], begin, until, value))
    return page(
        call, found, handled=["customer", "start_time", "end_time", "value_grouping_window"]
    )


def _summary(account: Account, meter: str, start: int, end: int, value: int) -> Object:
    return {
        "id": account.store.new_id("mtrusg_test"),
        "object": "billing.meter_event_summary",
        "aggregated_value": float(value),
        "end_time": end,
        "livemode": False,
        "meter": meter,
        "start_time": start,
    }


_METERS: Final = "/v1/billing/meters"
RULES: Final = (
    Rule("POST", _METERS, create, billing.MeterCreateParams),
    Rule("GET", _METERS, list_all, billing.MeterListParams),
    Rule("GET", _METERS + "/{id}", retrieve, billing.MeterRetrieveParams),
    Rule("POST", _METERS + "/{id}", update, billing.MeterUpdateParams),
    Rule("POST", _METERS + "/{id}/deactivate", deactivate, billing.MeterDeactivateParams),
    Rule("POST", _METERS + "/{id}/reactivate", reactivate, billing.MeterReactivateParams),
    Rule(
        "GET", _METERS + "/{id}/event_summaries", summaries, billing.MeterListEventSummariesParams
    ),
)
