"""Sending meter events: v1 and v2 one by one, v2's stream in batches, and taking them back.

https://docs.stripe.com/api/billing/meter-event, https://docs.stripe.com/api/v2/billing/meter-event,
https://docs.stripe.com/api/v2/billing/meter-event-stream and
https://docs.stripe.com/api/billing/meter-event-adjustment.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from stripe.params import billing
from stripe.params.v2 import billing as billing_v2
from tests.support.stripe_fake.account import Account, public
from tests.support.stripe_fake.call import STREAM, Call, Rule
from tests.support.stripe_fake.failures import Failure, invalid
from tests.support.stripe_fake.metering import accept, cancel, draft, judge_later
from tests.support.stripe_fake.store import Object
from tests.support.vendor_clock import iso

SESSION_S: Final = 15 * 60
MOST_EVENTS: Final = 100


def create(account: Account, call: Call) -> Object:
    """Take one event."""
    event = accept(account, call.params, call.params.get("timestamp"))
    sent = public(event)
    del sent["id"]  # the object has none: its identifier is its name
    return sent


def create_v2(account: Account, call: Call) -> Object:
    """The same in v2's dress: "validated synchronously, but processed asynchronously"."""
    event = accept(account, call.params, _seconds(call.params))
    return {
        "object": "v2.billing.meter_event",
        "created": iso(event["created"]),
        "event_name": event["event_name"],
        "identifier": event["identifier"],
        "livemode": False,
        "payload": dict(event["payload"]),
        "timestamp": iso(event["timestamp"]),
    }


def open_session(account: Account, _call: Call) -> Object:
    """A token for the stream, for 15 minutes."""
    now = account.clock.exactly()
    session = account.store.put(
        {
            "id": account.store.new_id("mes_test"),
            "object": "v2.billing.meter_event_session",
            "authentication_token": account.store.new_id("token_test", 48),
            "created": iso(now),
            "expires_at": iso(now + SESSION_S),
            "livemode": False,
            "_ends": now + SESSION_S,
        }
    )
    return public(session)


def stream(account: Account, call: Call) -> Object:
    """Up to 100 events, of which nothing is checked before they are processed."""
    _check_session(account, call.token)
    events = call.params["events"]
    if not 1 <= len(events) <= MOST_EVENTS:
        message = f"events must have between 1 and 100 members, not {len(events)}."
        raise invalid(message, param="events")
    for given in events:
        judge_later(account, draft(account, given, _seconds(given)))
    return {}


def adjust(account: Account, call: Call) -> Object:
    """Cancel an event of the last 24 hours."""
    given = call.params
    identifier = given.get("cancel", {}).get("identifier")
    if identifier is None:
        message = "Missing required param: cancel[identifier]."
        raise invalid(message, code="parameter_missing", param="cancel[identifier]")
    cancel(account, given["event_name"], identifier)
    answer: Object = {
        "object": "billing.meter_event_adjustment",
        "cancel": {"identifier": identifier},
        "event_name": given["event_name"],
        "livemode": False,
        "status": "pending",
        "type": "cancel",
    }
    if call.path.startswith("/v2/"):
        named = {"id": account.store.new_id("mtr_event_adj"), "created": iso(account.now())}
        answer |= {"object": "v2.billing.meter_event_adjustment", **named}
    return answer


def lane(call: Call) -> str:
    """One call at a time for a customer and a meter (recording-usage-api, "Rate limits")."""
    customer = call.params["payload"].get("stripe_customer_id")
    return f"meter-event {call.params['event_name']} {customer}"


def _check_session(account: Account, token: str) -> None:
    session = account.store.first(
        "v2.billing.meter_event_session", lambda one: one["authentication_token"] == token
    )
    if session is None:
        raise Failure(401, "Invalid meter event session token.", saved=False)
    if account.clock.exactly() >= session["_ends"]:
        message = "The meter event session expired: create a new one."
        code = "billing_meter_event_session_expired"
        raise Failure(401, message, code, kind="temporary_session_expired", saved=False)


def _seconds(given: dict[str, Any]) -> int | None:
    if "timestamp" not in given:
        return None
    try:
        return int(datetime.fromisoformat(given["timestamp"]).timestamp())
    except ValueError:
        message = "Invalid timestamp: expected an RFC 3339 date-time."
        raise invalid(message, param="timestamp") from None


_V1: Final = "/v1/billing"
_V2: Final = "/v2/billing"
RULES: Final = (
    Rule("POST", f"{_V1}/meter_events", create, billing.MeterEventCreateParams, lane=lane),
    Rule(
        "POST", f"{_V1}/meter_event_adjustments", adjust, billing.MeterEventAdjustmentCreateParams
    ),
    Rule("POST", f"{_V2}/meter_events", create_v2, billing_v2.MeterEventCreateParams, lane=lane),
    Rule(
        "POST",
        f"{_V2}/meter_event_adjustments",
        adjust,
        billing_v2.MeterEventAdjustmentCreateParams,
    ),
    Rule(
        "POST", f"{_V2}/meter_event_session", open_session, billing_v2.MeterEventSessionCreateParams
    ),
    Rule(
        "POST",
        f"{STREAM}{_V2}/meter_event_stream",
        stream,
        billing_v2.MeterEventStreamCreateParams,
    ),
)
