"""Test clocks: time for those who stand on them (https://docs.stripe.com/api/test_clocks)."""

from __future__ import annotations

from typing import Final

from stripe.params import test_helpers
from tests.support.stripe_fake.account import Account, public
from tests.support.stripe_fake.call import Call, Rule
from tests.support.stripe_fake.ending import end_all
from tests.support.stripe_fake.failures import refused
from tests.support.stripe_fake.listing import page
from tests.support.stripe_fake.schedule import catch_up
from tests.support.stripe_fake.store import Object

_KIND: Final = "test_helpers.test_clock"


def create(account: Account, call: Call) -> Object:
    """A clock that stands still."""
    clock = account.store.put(
        {
            "id": account.store.new_id("clock"),
            "object": _KIND,
            "created": account.now(),
            "deletes_after": account.now() + 30 * 86_400,
            "frozen_time": call.params["frozen_time"],
            "livemode": False,
            "name": call.params.get("name"),
            "status": "ready",
            "status_details": {},
        }
    )
    account.emit("test_helpers.test_clock.created", clock)
    return public(clock)


def advance(account: Account, call: Call) -> Object:
    """Forward only. The answer says `advancing`; here it is ready when it is asked for next."""
    clock = account.store.get(_KIND, call.id)
    target = call.params["frozen_time"]
    if target <= clock["frozen_time"]:
        message = "A test clock can only be advanced to a time after its current frozen time."
        raise refused(message, code="test_clock_time_invalid", param="frozen_time")
    answer = {**public(clock), "status": "advancing"}
    account.emit("test_helpers.test_clock.advancing", answer)
    catch_up(account, clock["id"], target)
    clock["frozen_time"] = target
    account.emit("test_helpers.test_clock.ready", clock)
    return answer


def retrieve(account: Account, call: Call) -> Object:
    """One clock."""
    return public(account.store.get(_KIND, call.id))


def list_all(account: Account, call: Call) -> Object:
    """All clocks."""
    return page(call, account.store.all(_KIND))


def delete(account: Account, call: Call) -> Object:
    """Its customers go with it, and their subscriptions end."""
    clock = account.store.get(_KIND, call.id)
    for customer in account.store.all("customer"):
        if customer.get("test_clock") == clock["id"]:
            end_all(account, customer["id"])
            account.store.put({"id": customer["id"], "object": "customer", "deleted": True})
    account.store.drop(clock["id"])
    return {"id": clock["id"], "object": _KIND, "deleted": True}


_CLOCKS: Final = "/v1/test_helpers/test_clocks"
RULES: Final = (
    Rule("POST", _CLOCKS, create, test_helpers.TestClockCreateParams, "frozen_time name"),
    Rule("GET", _CLOCKS, list_all, test_helpers.TestClockListParams),
    Rule("GET", _CLOCKS + "/{id}", retrieve, test_helpers.TestClockRetrieveParams),
    Rule("POST", _CLOCKS + "/{id}/advance", advance, test_helpers.TestClockAdvanceParams),
    Rule("DELETE", _CLOCKS + "/{id}", delete, test_helpers.TestClockDeleteParams),
)
