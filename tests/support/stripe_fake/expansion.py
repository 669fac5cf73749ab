"""`expand`: ids in an answer replaced by their objects (https://docs.stripe.com/api/expanding_objects)."""

from __future__ import annotations

from typing import Any, Final

from tests.support.stripe_fake.account import Account, public
from tests.support.stripe_fake.failures import invalid
from tests.support.stripe_fake.listing import sublist
from tests.support.stripe_fake.store import Object

_DEPTH: Final = 4


def expand(account: Account, body: Object, paths: list[str]) -> Object:
    """Follow each path: at most four levels."""
    for path in paths:
        steps = path.split(".")
        if len(steps) > _DEPTH:
            message = "You cannot expand more than 4 levels of a property."
            raise invalid(message, param="expand")
        _follow(account, body, steps, path)
    return body


def _follow(account: Account, node: Any, steps: list[str], path: str) -> None:
    if not steps:
        return
    if isinstance(node, list):
        for item in node:
            _follow(account, item, steps, path)
        return
    if not isinstance(node, dict):
        return
    if steps[0] == "payments" and node.get("object") == "invoice":
        node["payments"] = _payments(account, node["id"])
    if steps[0] not in node:
        message = f"This property cannot be expanded ({path})."
        raise invalid(message, param="expand")
    value = node[steps[0]]
    if isinstance(value, str) and (found := account.store.any(value)) is not None:
        value = node[steps[0]] = public(found)
    _follow(account, value, steps[1:], path)


def _payments(account: Account, invoice: str) -> Object:
    """An invoice's payments are part of it only where they are asked for."""
    found = [
        public(one) for one in account.store.all("invoice_payment") if one["invoice"] == invoice
    ]
    return sublist(found, "/v1/invoice_payments")
