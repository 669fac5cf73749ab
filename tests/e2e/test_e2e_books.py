"""`penstock billing rebuild` against a running stack: same, different, right again (I9)."""

from __future__ import annotations

import json

import asyncpg
from openai import AsyncOpenAI
from tests.support.operator import operate
from tests.support.stack import Stack


async def test_the_books_are_compared_and_put_right(stack: Stack, client: AsyncOpenAI) -> None:
    """What was served adds up; what somebody changed is printed, with status 1; then read again."""
    for _ in range(3):
        await client.responses.create(model="echo", input="three words each")
    rebuilt = await operate(stack, "billing", "rebuild")
    assert (rebuilt["same"], rebuilt["differences"]) == (True, [])
    assert rebuilt["attempts"] >= 3
    database = await asyncpg.connect(stack.addresses["postgres"])
    await database.execute("update billing.usage_days set output_tokens = output_tokens + 1")
    await database.close()
    told = await operate(stack, "billing", "rebuild", check=False)
    assert told.returncode == 1
    found = json.loads(told.stdout)["differences"]
    assert {difference["figure"] for difference in found} == {"days"}
    for difference in found:
        live, right = difference["live"], difference["rebuilt"]
        assert live["output_tokens"] == right["output_tokens"] + 1
    await operate(stack, "billing", "rebuild", "--replace")
    assert (await operate(stack, "billing", "rebuild"))["same"]
