"""A request that takes two attempts: clients see one answer, and pay for both (I2, I3, I6)."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from tests.support.realtime import Edge, StartEdge
from tests.support.realtime_backend import PRICE, Backend, new_run, split
from tests.support.response_store import ResponseStore, purge_events
from tests.support.retrieving import completed, create, follow

from penstock_shared.contracts import subjects
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import NextAttempt, Status
from penstock_shared.contracts.responses import RequestGet, RequestState

ANSWER = "an answer in words"
PLAN = (NextAttempt(model="strong", price=PRICE),)
FIRST_TOKENS, SECOND_TOKENS = len(split("refused")), len(split(ANSWER))
USED = {
    "input_tokens": 6,
    "output_tokens": FIRST_TOKENS + SECOND_TOKENS,
    "total_tokens": 6 + FIRST_TOKENS + SECOND_TOKENS,
}
"""Three input tokens of each attempt."""


async def escalated(backend: Backend, job: Job, _: str) -> None:
    """The first answer fails its check, unseen; the second streams."""
    second = await backend.fail(job, new_run(), "refused")
    run, pieces = new_run(), split(ANSWER)
    for n, piece in enumerate(pieces):
        await backend.delta(second, run, n, piece)
    await backend.end(second, run, pieces)


@pytest.fixture
async def edge(start_edge: StartEdge, postgres_dsn: str) -> Edge:
    """An edge with a store, before a router that plans two attempts."""
    made = await start_edge(postgres_dsn=postgres_dsn)
    made.backend.plan, made.backend.generate = PLAN, escalated
    return made


def used(response: dict[str, Any]) -> dict[str, int]:
    return {name: response["usage"][name] for name in USED}


async def test_the_answer_is_the_second_and_the_usage_is_both(
    edge: Edge, postgres_dsn: str
) -> None:
    """Plain, streamed, retrieved, followed again and from the store: one and the same object."""
    async with edge.http() as http:
        plain = (await http.post("responses", json={"input": "x"})).json()
        told = await create(http, input="x")
        streamed = completed(told)
        for response in (plain, streamed):
            assert response["output"][0]["content"][0]["text"] == ANSWER
            assert (response["model"], used(response)) == ("strong", USED)
        deltas = [event for event in told if event["type"] == "response.output_text.delta"]
        assert "".join(event["delta"] for event in deltas) == ANSWER
        numbers = [event["sequence_number"] for event in told]
        assert numbers == list(range(len(told)))
        place = f"responses/{streamed['id']}"
        assert (await http.get(place)).json() == streamed
        assert await follow(http, streamed["id"], starting_after=4) == told[5:]
        await ResponseStore(postgres_dsn).whole(2)
        await purge_events(edge.broker, edge.account.tenant.tenant, streamed["id"])
        assert (await http.get(place)).json() == streamed


async def test_chat_completions_tell_the_same_usage(edge: Edge) -> None:
    """Whole, and in a stream's last chunk."""
    asked: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "x"}]}
    async with edge.client() as client:
        whole = await client.chat.completions.create(**asked)
        stream = await client.chat.completions.create(
            **asked, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content == ANSWER
    assert whole.model == chunks[-1].model == "strong"
    for usage in (whole.usage, chunks[-1].usage):
        assert (usage.prompt_tokens, usage.completion_tokens) == (6, USED["output_tokens"])


async def test_between_attempts_it_is_in_progress(edge: Edge) -> None:
    """Neither retrieved as ended, nor gone on with, nor judged; a stream waits on."""
    failed, go_on = asyncio.Event(), asyncio.Event()

    async def held(backend: Backend, job: Job, _: str) -> None:
        second = await backend.fail(job, new_run(), "refused")
        failed.set()
        await go_on.wait()
        await backend.end(second, new_run(), split(ANSWER), frame=False)

    edge.backend.generate = held
    async with edge.client() as client, edge.http() as http:
        key = {"extra_headers": {"Idempotency-Key": "once"}}
        made = await client.responses.create(input="x", background=True, **key)
        await failed.wait()
        assert (await client.responses.retrieve(made.id)).status == "in_progress"
        asked = RequestGet(request_id=made.id).model_dump_json().encode()
        reply = await edge.broker.client.request(
            subjects.request_get(edge.account.tenant.tenant), asked, timeout=5
        )
        state = RequestState.model_validate_json(reply.data)
        assert (state.status, state.final) == ("in_progress", None)
        judged = await http.post(f"responses/{made.id}/feedback", json={"score": 1})
        assert judged.json()["error"]["code"] == "response_not_ended"
        with pytest.raises(openai.ConflictError):
            await client.responses.create(input="y", previous_response_id=made.id)
        stream = await client.responses.create(input="x", background=True, stream=True, **key)
        following = asyncio.create_task(follow(http, made.id))
        await asyncio.sleep(1.2)  # the log was asked, and says `attempt.failed`
        assert not following.done()
        go_on.set()
        told = await following
        repeated = [event async for event in stream]
    for response in (completed(told), repeated[-1].response.to_dict()):
        assert (response["output"][0]["content"][0]["text"], used(response)) == (ANSWER, USED)


async def test_a_cancellation_between_attempts_reaches_the_next(edge: Edge) -> None:
    """Nobody holds a job then: who gets the next one ends it; the first attempt is billed (I3)."""

    async def held(backend: Backend, job: Job, _: str) -> None:
        second = await backend.fail(job, new_run(), "refused")
        failed.set()
        await backend.cancelled(second)
        await backend.end(second, new_run(), [], status=Status.CANCELLED, reason="cancelled")

    failed = asyncio.Event()
    edge.backend.generate = held
    async with edge.http() as http:
        made = (await http.post("responses", json={"input": "x", "background": True})).json()
        await failed.wait()
        cancelled = (await http.post(f"responses/{made['id']}/cancel")).json()
        retrieved = (await http.get(f"responses/{made['id']}")).json()
    assert retrieved == cancelled
    assert cancelled["status"] == "cancelled"
    assert cancelled["usage"]["output_tokens"] == FIRST_TOKENS
