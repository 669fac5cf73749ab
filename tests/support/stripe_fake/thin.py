"""Thin events: a notice without data, which is fetched (https://docs.stripe.com/event-destinations)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from stripe.params.v2 import core
from tests.support.stripe_fake.account import Account, public
from tests.support.stripe_fake.call import Call, Rule
from tests.support.stripe_fake.failures import missing
from tests.support.stripe_fake.listing import matches
from tests.support.stripe_fake.store import Object
from tests.support.vendor_clock import iso

_KEPT_S: Final = 30 * 86_400
_EVENTS: Final = "/v2/core/events"


def emit_thin(account: Account, kind: str, data: Object, related: Object | None) -> None:
    """Record one and owe its notification to the endpoints for thin events."""
    event = account.store.put(
        {
            "id": account.store.new_id("evt_test", 32),
            "object": "v2.core.event",
            "context": None,
            "created": iso(account.now()),
            "livemode": False,
            "reason": None,
            "related_object": related,
            "type": kind,
            "_at": account.now(),
            "_data": data,
        }
    )
    account.webhooks.owe(public(event))


def retrieve(account: Account, call: Call) -> Object:
    """With its data, for 30 days."""
    event = account.store.get("v2.core.event", call.id)
    if account.now() - event["_at"] > _KEPT_S:
        raise missing("event", call.id)
    return {**public(event), "data": public(event["_data"])}


def list_all(account: Account, call: Call) -> Object:
    """Newest first, in v2's pages (https://docs.stripe.com/api-v2-overview#list-pagination)."""
    given = call.params
    bounds = {name: _seconds(bound) for name, bound in given.get("created", {}).items()}
    found = [
        event
        for event in account.store.all("v2.core.event")
        if matches(event["_at"], bounds)
        and event["type"] in given.get("types", [event["type"]])
        and _about(event) == given.get("object_id", _about(event))
        and account.now() - event["_at"] <= _KEPT_S
    ]
    return page_v2(call, list(reversed(found)))


def page_v2(call: Call, found: list[Object]) -> Object:
    """A page with the addresses of its neighbours; `page` holds where it begins."""
    start, limit = int(call.params.get("page", 0)), call.params.get("limit", 20)
    rest = start + limit < len(found)
    return {
        "data": [public(one) for one in found[start : start + limit]],
        "next_page_url": _address(call, start + limit, limit) if rest else None,
        "previous_page_url": _address(call, max(0, start - limit), limit) if start else None,
    }


def _address(call: Call, start: int, limit: int) -> str:
    return f"{call.path}?{'&'.join([*_query(call.params), f'page={start}', f'limit={limit}'])}"


def _query(params: dict[str, Any]) -> Iterable[str]:
    for name, value in params.items():
        if name in {"page", "limit"}:
            continue
        if isinstance(value, dict):
            yield from (f"{name}[{key}]={one}" for key, one in value.items())
        elif isinstance(value, list):
            yield from (f"{name}[{place}]={one}" for place, one in enumerate(value))
        else:
            yield f"{name}={value}"


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _about(event: Object) -> str | None:
    return (event["related_object"] or {}).get("id")


RULES: Final = (
    Rule("GET", _EVENTS, list_all, core.EventListParams),
    Rule("GET", _EVENTS + "/{id}", retrieve, core.EventRetrieveParams),
)
