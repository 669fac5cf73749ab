"""Bodies that are nearly right, for whoever has to judge them."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from penstock_realtime.domain.generation_request import GenerationRequest
from penstock_shared.contracts.errors import PermanentError

JUNK: list[Any] = [
    None, True, False, 0, -1, 7, 0.5, 1e300, 10**30, "", "x", "function", "auto", "required",
    "json_schema", "\x00", "ü" * 70, "a" * 300, [], [[]], [None], {}, {"type": "function"},
    {"type": "mcp"}, {"$ref": "#"}, {"a": {"b": {}}}, [{"type": "item_reference", "id": "x"}],
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value within a body."""
    below = (
        value.items() if isinstance(value, dict) else
        enumerate(value) if isinstance(value, list) else ()
    )  # fmt: skip
    return ([path] if path else []) + [
        found for name, child in below for found in places(child, (*path, name))
    ]


def change(body: Any, path: tuple[Any, ...], how: str, junk: Any) -> None:
    """Replace, drop, double or misname what stands at `path`."""
    *way, last = path
    for step in way:
        body = body[step]
    if isinstance(body, dict):
        value = body.pop(last)
        if how != "drop":
            body[f"{last}_" if how == "misname" else last] = junk if how == "replace" else value
    elif how == "double":
        body.append(copy.deepcopy(body[last]))
    else:
        body[last] = junk


def spoilt(rng: random.Random, right: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One of the right bodies with up to three changes anywhere in it."""
    body = copy.deepcopy(rng.choice(right))
    for _ in range(rng.randrange(4)):
        path = rng.choice(places(body) or [("input",)])
        how = rng.choice(["replace", "drop", "double", "misname"])
        change(body, path, how, copy.deepcopy(rng.choice(JUNK)))
    return body


def judge_all(
    seed: int, count: int, right: Sequence[dict[str, Any]], judge: Callable[[dict[str, Any]], bool]
) -> None:
    """Judge as many bodies, and find both kinds among them; an error names body and seed."""
    rng = random.Random(seed)
    served = 0
    for number in range(count):
        body = spoilt(rng, right)
        try:
            served += judge(body)
        except Exception as error:
            error.add_note(f"body {number} of seed {seed}: {json.dumps(body)}")
            raise
    assert 0.1 < served / count < 0.9  # neither side is untried


def parsed(
    parse: Callable[[bytes], GenerationRequest], body: dict[str, Any]
) -> GenerationRequest | None:
    """The request that it is; None where it is refused with a 4xx that names its field."""
    refusal: PermanentError
    try:
        return parse(json.dumps(body).encode())
    except PermanentError as error:
        refusal = error
    assert 400 <= refusal.http_status < 500
    assert refusal.param
    assert refusal.message
    return None
