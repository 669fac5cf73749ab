"""Snapshot events (https://docs.stripe.com/api/events): kept for 30 days."""

from __future__ import annotations

from typing import Final

from stripe import params
from tests.support.stripe_fake.account import Account, public
from tests.support.stripe_fake.call import Call, Rule
from tests.support.stripe_fake.failures import invalid, missing
from tests.support.stripe_fake.listing import page
from tests.support.stripe_fake.store import Object

KEPT_S: Final = 30 * 86_400
_MOST_TYPES: Final = 20


def retrieve(account: Account, call: Call) -> Object:
    """One event, for 30 days."""
    event = account.store.get("event", call.id)
    if account.now() - event["created"] > KEPT_S:
        raise missing("event", call.id)
    return public(event)


def list_all(account: Account, call: Call) -> Object:
    """Those of 30 days, newest first; `type` may end in `*`.

    `delivery_success=false` gives those that an endpoint still lacks: "pending or have failed all
    delivery attempts" (https://docs.stripe.com/api/events/list; how to catch up with them:
    https://docs.stripe.com/webhooks/process-undelivered-events).
    """
    given = call.params
    wanted = given.get("types", [given["type"]] if "type" in given else [])
    if "type" in given and "types" in given:
        raise invalid("You may pass either `type` or `types`, but not both.", param="types")
    if len(wanted) > _MOST_TYPES:
        raise invalid("`types` takes up to 20 types.", param="types")
    success = given.get("delivery_success")
    found = (
        event
        for event in account.store.all("event")
        if account.now() - event["created"] <= KEPT_S
        and (not wanted or any(_fits(kind, event["type"]) for kind in wanted))
        and (success is None or success is not account.webhooks.undelivered(event))
    )
    return page(call, found, handled=["type", "types", "delivery_success"])


def _fits(pattern: str, kind: str) -> bool:
    return kind.startswith(pattern[:-1]) if pattern.endswith("*") else kind == pattern


RULES: Final = (
    Rule("GET", "/v1/events", list_all, params.EventListParams),
    Rule("GET", "/v1/events/{id}", retrieve, params.EventRetrieveParams),
)
