"""Orders that are carried out with tools: one call per turn, each reading the last result.

The tools are `reserve_stock`, `charge_payment` and `create_shipment`. What a result calls its
fields varies here, as it does between the systems that answer; the calls always use one name each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock_models.messages import Task, draw_message
from penstock_models.scene import Grade

if TYPE_CHECKING:
    from random import Random

    from penstock_models.messages import Message
    from penstock_models.words import Split

TOOLS = ("reserve_stock", "charge_payment", "create_shipment")
UNRELATED_TOOLS = ("get_weather", "search_docs", "send_email", "lookup_customer", "get_time")
ALPHABETS = (
    "0123456789",
    "0123456789abcdef",
    "abcdefghijklmnopqrstuvwxyz0123456789",
    "ABCDEFGHJKLMNPQRSTUVWXYZ23456789",
)
PREFIXES = {
    "reserve_stock": ("rsv_", "res-", "r", "R-", "reservation-", "stk_", ""),
    "charge_payment": ("pay_", "ch_", "p", "P-", "txn-", "pi_", ""),
    "create_shipment": ("shp_", "s-", "S", "track-", "SHIP-", "dhl_", ""),
}
ID_FIELDS = {
    "reserve_stock": ("reservation", "reservation_id", "id"),
    "charge_payment": ("payment", "payment_id", "charge_id", "id"),
    "create_shipment": ("shipment", "shipment_id", "tracking", "id"),
}
TOTAL_FIELDS = ("total_cents", "total_cents", "amount_cents", "total")
FAILURES = {
    "reserve_stock": ("out_of_stock", "unknown_item", "warehouse_closed", "timeout"),
    "charge_payment": ("card_declined", "insufficient_funds", "expired_card", "timeout"),
    "create_shipment": ("no_carrier", "address_not_found", "carrier_unavailable", "timeout"),
}


@dataclass(frozen=True)
class Turn:
    """One turn: `role` is user, assistant, call or tool; `text` is what stands in it."""

    role: str
    text: str


@dataclass(frozen=True)
class Dialogue:
    """A conversation with the tools that were offered, and the message that it began with."""

    tools: tuple[str, ...]
    turns: tuple[Turn, ...]
    message: Message
    failed: bool


def compact(value: Any) -> str:
    """JSON without spaces, as the models write it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def draw_dialogue(random: Random, split: Split) -> Dialogue:
    """An order with tools, or another message to which the offered tools do not matter."""
    if random.random() < 0.12:  # noqa: PLR2004 - tools offered, but nothing to call
        return _without_calls(random, split)
    grade = random.choice((Grade.EASY, Grade.EASY, Grade.MEDIUM, Grade.HARD))
    message = draw_message(random, split, Task.ORDER, grade)
    while "place" not in message.answer:
        message = draw_message(random, split, Task.ORDER, grade)
    turns = [Turn("user", message.text)]
    failing = random.choice(TOOLS) if random.random() < 0.3 else None  # noqa: PLR2004
    final = _carry_out(random, message, turns, failing)
    turns.append(Turn("assistant", compact(final)))
    return Dialogue(_offer(random), tuple(turns), message, failing is not None)


def _carry_out(
    random: Random, message: Message, turns: list[Turn], failing: str | None
) -> dict[str, Any]:
    """Append calls and results to `turns` and return the final answer."""
    items, place = message.answer["items"], message.answer["place"]
    amount, currency = int(10 ** (2 + 4 * random.random())), random.choice(("EUR", "EUR", "USD"))
    ids: dict[str, str] = {}
    for tool in TOOLS:
        arguments = _arguments(tool, ids, items=items, place=place)
        if tool == "charge_payment":
            arguments |= {"amount_cents": amount, "currency": currency}
        turns.append(Turn("call", compact({"name": tool, "arguments": arguments})))
        if tool == failing:
            error = random.choice(FAILURES[tool])
            turns.append(Turn("tool", _failure(random, error)))
            return {"intent": "order", "status": "failed", "step": tool, "error": error}
        ids[tool] = _identifier(random, tool)
        turns.append(Turn("tool", _success(random, tool, ids[tool], amount, currency)))
    return {
        "intent": "order",
        "status": "shipped",
        "shipment": ids["create_shipment"],
        "total_cents": amount,
        "currency": currency,
    }


def _arguments(tool: str, ids: dict[str, str], *, items: Any, place: str) -> dict[str, Any]:
    if tool == "reserve_stock":
        return {"items": items, "place": place}
    reservation = {"reservation": ids["reserve_stock"]}
    if tool == "charge_payment":
        return reservation
    return {**reservation, "payment": ids["charge_payment"], "place": place}


def _success(random: Random, tool: str, identifier: str, amount: int, currency: str) -> str:
    fields: list[tuple[str, Any]] = [(random.choice(ID_FIELDS[tool]), identifier)]
    if tool == "reserve_stock":
        fields += [(random.choice(TOTAL_FIELDS), amount), ("currency", currency)]
    extra = (
        ("status", random.choice(("ok", "succeeded", "done", "created"))),
        ("ok", True),
        ("warehouse", random.choice(("north", "west", "main"))),
        ("eta_days", random.randrange(1, 15)),
    )
    fields += random.sample(extra, random.choice((0, 0, 1, 2)))
    if random.random() < 0.3:  # noqa: PLR2004 - systems differ in the order of fields
        random.shuffle(fields)
    return _written(random, dict(fields))


def _failure(random: Random, error: str) -> str:
    fields: dict[str, Any] = {"error": error}
    if random.random() < 0.4:  # noqa: PLR2004
        fields = {random.choice(("ok", "success")): False, **fields}
    elif random.random() < 0.4:  # noqa: PLR2004
        fields = {"status": "failed", **fields}
    if random.random() < 0.4:  # noqa: PLR2004
        fields["message"] = random.choice(
            ("Please try again later.", "The request was refused.", "Nothing was changed.")
        )
    return _written(random, fields)


def _written(random: Random, fields: dict[str, Any]) -> str:
    if random.random() < 0.3:  # noqa: PLR2004 - many systems write JSON with spaces
        return json.dumps(fields, ensure_ascii=False)
    return compact(fields)


def _identifier(random: Random, tool: str) -> str:
    alphabet, length = random.choice(ALPHABETS), random.randrange(4, 17)
    return random.choice(PREFIXES[tool]) + "".join(random.choices(alphabet, k=length))


def _offer(random: Random) -> tuple[str, ...]:
    offered = list(TOOLS)
    if random.random() < 0.3:  # noqa: PLR2004
        offered.append(random.choice(UNRELATED_TOOLS))
    if random.random() < 0.3:  # noqa: PLR2004
        random.shuffle(offered)
    return tuple(offered)


def _without_calls(random: Random, split: Split) -> Dialogue:
    """Other tasks answer as they always do; so does an order when a tool it needs is missing."""
    task = random.choice(tuple(Task))
    message = draw_message(random, split, task, random.choice(tuple(Grade)))
    if task in {Task.ORDER, Task.MULTI}:
        offered = tuple(random.sample(UNRELATED_TOOLS, random.randrange(1, 4)))
    else:
        offered = _offer(random)
    turns = (Turn("user", message.text), Turn("assistant", compact(message.answer)))
    return Dialogue(offered, turns, message, failed=False)
