"""Requests that the small model gets wrong and the large one right, and who sends them."""

from __future__ import annotations

import json
from typing import Any, Final

import jsonschema
from tests.support.operator import operate
from tests.support.stack import Stack

HARD: Final = (
    "New order: 4 chargers (XXL) - no wait, 32, forty three bags, no, seven hundred forty-five, "
    "RIS-105 (XL): 920 plus eight coffee grinders for delivery to Phigai. Oh, and six hundred and "
    "fifty of the medium phone cases, please. Please laeve out the bags again.\n"
    "We have 76 people here already.\nTalk sono!"
)
"""The small model keeps the bags, which the shop does not have; the large one leaves them out."""
SHOP: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "items": {
            "type": "array",
            "items": {
                "properties": {
                    "item": {"enum": ["charger", "RIS-105", "coffee grinder", "phone case"]}
                }
            },
        }
    },
    "required": ["intent", "items", "place"],
}
FORMAT: Final[Any] = {
    "format": {"type": "json_schema", "name": "order", "schema": SHOP, "strict": True}
}


async def cautious_key(stack: Stack, tenant: str) -> str:
    """The key of a new tenant whose requests try the cheapest model first."""
    await operate(stack, "tenants", "create", tenant, "--name", "Cautious")
    made = await operate(stack, "keys", "create", tenant, "--name", "k")
    rules = ("--choose", "cheapest", "--error-penalty", "100000")  # so that trying again pays
    await operate(stack, "router", "policy", "set", tenant, *rules)
    return str(made["secret"])


def checked(text: str) -> str:
    """A text that satisfies what was asked for; any other one fails the test."""
    jsonschema.Draft202012Validator(SHOP).validate(json.loads(text))
    return text
