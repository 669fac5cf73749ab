"""Lists: newest first, in pages with cursors (https://docs.stripe.com/api/pagination)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tests.support.stripe_fake.account import public
from tests.support.stripe_fake.call import Call
from tests.support.stripe_fake.failures import invalid, missing
from tests.support.stripe_fake.store import Object

_PAGING: Final = frozenset({"limit", "starting_after", "ending_before", "expand"})
_BOUNDS: Final = {
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
    "lt": lambda value, bound: value < bound,
    "lte": lambda value, bound: value <= bound,
}


def page(call: Call, objects: Iterable[Object], *, handled: Iterable[str] = ()) -> Object:
    """One page of `objects` (given oldest first).

    Parameters named like a member filter by it, ranges included; those in `handled` the caller has
    seen to.
    """
    filters = {
        name: wanted
        for name, wanted in call.params.items()
        if name not in _PAGING and name not in handled
    }
    fitting = [one for one in objects if _fits(one, filters)]
    fitting.reverse()
    chosen, more = _window(call.params, fitting)
    return {
        "object": "list",
        "data": [public(one) for one in chosen],
        "has_more": more,
        "url": call.path,
    }


def sublist(objects: list[Object], url: str) -> Object:
    """A list that is part of an object."""
    return {
        "object": "list",
        "data": objects,
        "has_more": False,
        "total_count": len(objects),
        "url": url,
    }


def _fits(one: Object, filters: dict[str, Any]) -> bool:
    return all(matches(one.get(name), wanted) for name, wanted in filters.items())


def matches(value: Any, wanted: Any) -> bool:
    """Equal, one of a list, or within bounds."""
    if isinstance(wanted, dict):
        return value is not None and all(_BOUNDS[name](value, to) for name, to in wanted.items())
    if isinstance(wanted, list):
        return value in wanted
    return bool(value == wanted)


def _window(params: dict[str, Any], found: list[Object]) -> tuple[list[Object], bool]:
    limit = params.get("limit", 10)
    if not 1 <= limit <= 100:
        raise invalid(f"This value must be between 1 and 100 (inclusive): {limit}.", param="limit")
    if before := params.get("ending_before"):
        earlier = found[: _position(found, before, "ending_before")]
        return earlier[-limit:], len(earlier) > limit
    start = 0
    if after := params.get("starting_after"):
        start = _position(found, after, "starting_after") + 1
    return found[start : start + limit], len(found) > start + limit


def _position(found: list[Object], identity: str, param: str) -> int:
    for place, one in enumerate(found):
        if one["id"] == identity:
            return place
    raise missing("object", identity, param)
