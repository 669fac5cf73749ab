"""Two attempts at one request on the whole stack: one checked answer, both attempts billed."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import nats
import pytest
from nats.aio.client import Client
from openai import AsyncOpenAI
from openai.types.responses import Response
from tests.e2e.conftest import openai_client
from tests.support.escalating import FORMAT, HARD, SHOP, cautious_key, checked
from tests.support.ledger import read_requests
from tests.support.operator import operate
from tests.support.stack import Stack

from penstock_shared.contracts import subjects
from penstock_shared.contracts.feedback import ResponseFeedback
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.contracts.usage import Usage
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import IdSource, SystemClock

pytestmark = pytest.mark.xdist_group("stack")
TENANT: Final = "cautious"
IDS: Final = IdSource(SystemClock())


@dataclass
class Cautious:
    """A tenant whose requests try the cheapest model first."""

    key: str
    broker: Broker
    client: AsyncOpenAI

    async def usage_of(self, answer_id: str) -> tuple[Usage, Usage]:
        """What each of the two attempts used, by the facts that bill it."""
        found = await read_requests(self.broker)
        request_id = parse_request_id(answer_id)
        (failed,), (ended,) = found.failed[request_id], found.ended[request_id]
        assert (failed.model, ended.model) == ("penstock-small", "penstock-large")
        assert (failed.attempt, ended.attempt, failed.reason) == (1, 2, "schema")
        return failed.usage, ended.usage


@pytest.fixture(scope="module")
def secret() -> dict[str, str]:
    """The tenant's key, once it is made."""
    return {}


@pytest.fixture
async def cautious(stack: Stack, secret: dict[str, str]) -> AsyncIterator[Cautious]:
    broker = await Broker.connect(stack.addresses["nats_url"], name="check")
    if not secret:
        secret["key"] = await cautious_key(stack, TENANT)
    client = openai_client(stack, secret["key"])
    yield Cautious(secret["key"], broker, client)
    await client.close()
    await broker.close()


def told(response: Response) -> Usage:
    assert response.usage is not None
    return Usage(
        input_tokens=response.usage.input_tokens, output_tokens=response.usage.output_tokens
    )


async def test_plain_and_in_the_background(cautious: Cautious) -> None:
    """The strong model's answer, checked; the usage is that of both attempts (I2, I3)."""
    client = cautious.client
    plain = await client.responses.create(input=HARD, text=FORMAT)
    later = await client.responses.create(input=HARD, text=FORMAT, background=True)
    async with asyncio.timeout(30):
        while (later := await client.responses.retrieve(later.id)).status != "completed":
            await asyncio.sleep(0.1)
    for response in (plain, later):
        checked(response.output_text)
        assert response.model == "penstock-large"
        first, second = await cautious.usage_of(response.id)
        assert told(response) == first + second
        assert first.output_tokens > 0


async def test_streamed_and_judged(cautious: Cautious) -> None:
    """No word of the first answer, in order, once; what is said of it names the second (I6)."""
    stream = await cautious.client.responses.create(input=HARD, text=FORMAT, stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    final = events[-1]
    assert final.type == "response.completed"
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == final.response.output_text
    checked(final.response.output_text)
    made = await cautious.client.post(
        f"/responses/{final.response.id}/feedback", body={"score": 1}, cast_to=dict[str, object]
    )
    assert made["score"] == 1
    subject = subjects.feedback_event(TENANT, final.response.id)
    message = await cautious.broker.last_message(EVENTS, subject)
    assert message is not None
    fact = ResponseFeedback.model_validate_json(message.data)
    assert (fact.model, fact.attempt) == ("penstock-large", 2)


async def test_over_nats(stack: Stack, cautious: Cautious) -> None:
    """One final frame, and no other; judged over NATS, too."""
    client: Client = await nats.connect(
        stack.ready["nats"],
        token=cautious.key,
        inbox_prefix=subjects.inbox_prefix(TENANT),
        allow_reconnect=False,
    )
    request_id = IDS.new()
    frames = await client.subscribe(subjects.responses(TENANT, request_id))
    submission = json.dumps({"input": HARD, "output_schema": SHOP}).encode()
    headers = {
        "ce-specversion": "1.0",
        "ce-id": request_id,
        "ce-source": "/test",
        "ce-type": "penstock.request.submit.v1",
    }
    reply = await client.request(subjects.submit(TENANT), submission, timeout=5, headers=headers)
    assert json.loads(reply.data)["reply"]["status"] == "accepted"
    final = json.loads((await frames.next_msg(timeout=30)).data)
    assert final["t"] == "final"
    checked(final["text"])
    first, second = await cautious.usage_of(request_id)
    assert Usage(**final["usage"]) == first + second
    judgement = json.dumps({"request_id": request_id, "score": 0.5}).encode()
    given = await client.request(subjects.request_feedback(TENANT), judgement, timeout=5)
    assert json.loads(given.data)["score"] == 0.5
    await client.close()


async def test_what_is_billed_is_what_the_facts_say(stack: Stack, cautious: Cautious) -> None:
    """`penstock usage`: each attempt once, under the model that made it, at its price (I2, I3)."""
    await cautious.client.responses.create(input=HARD, text=FORMAT)
    found = await read_requests(cautious.broker)
    expected: Counter[tuple[str, str]] = Counter()
    for fact in (fact for fact in found.attempts() if fact.tenant == TENANT):
        expected[fact.model, "requests"] += fact.attempt == 1  # an escalated one is one request
        expected[fact.model, "input_tokens"] += fact.usage.input_tokens
        expected[fact.model, "output_tokens"] += fact.usage.output_tokens
    async with asyncio.timeout(30):
        report = await operate(stack, "usage", "--tenant", TENANT)
        while report["events_seq"] < found.last_seq:
            report = await operate(stack, "usage", "--tenant", TENANT)
    billed = {
        (row["model"], name): row[name]
        for row in report["rows"]
        for name in ("requests", "input_tokens", "output_tokens")
    }
    assert billed == expected
