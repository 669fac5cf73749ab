"""Deaths, losses and repetitions behind the edge: an answer or a clear error, never a hang."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from tests.support.realtime import Edge, StartEdge
from tests.support.realtime_backend import Backend, echo, new_run, split, until_cancelled

from penstock_realtime.serving import following
from penstock_shared.contracts.errors import ErrorBody
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import Rejected, Status

CLOCK = {"type": "function", "name": "clock"}


async def stream(edge: Edge, text: str, **fields: Any) -> tuple[str, Any]:
    """The assembled deltas, and the last event."""
    deltas, last = [], None
    async with edge.client() as client:
        async for event in await client.responses.create(input=text, stream=True, **fields):
            if event.type == "response.output_text.delta":
                deltas.append(event.delta)
            last = event
    return "".join(deltas), last


async def test_no_router(start_edge: StartEdge) -> None:
    """Without a router the client hears 503 and when to come back, within seconds."""
    edge = await start_edge(router=False)
    async with edge.client() as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await asyncio.wait_for(client.responses.create(input="x"), 5)
    assert caught.value.status_code == 503
    assert caught.value.code == "router_unavailable"
    assert caught.value.response.headers["retry-after"] == "1"


async def test_a_router_that_dies_before_it_answers(start_edge: StartEdge) -> None:
    """The second ask finds what the dead router made durable: one run, one answer (I1, I2)."""
    edge = await start_edge(admission_timeout_s=2.0)
    edge.backend.lose_replies = 1
    text, last = await stream(edge, "told late")
    assert text == last.response.output_text == "told late"
    assert len(edge.backend.jobs) == 1


async def test_the_routers_refusal_is_passed_on(edge: Edge) -> None:
    """Status, code and waiting time are the router's own."""
    body = ErrorBody(message="No quota.", type="rate_limit_error", code="insufficient_quota")
    edge.backend.rejection = Rejected(http_status=429, error=body, retry_after_s=7.2)
    async with edge.client() as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.responses.create(input="x")
    assert caught.value.code == "insufficient_quota"
    assert caught.value.response.headers["retry-after"] == "8"


async def test_a_lost_final_frame(edge: Edge) -> None:
    """A worker that dies between fact and frame: the event log has the end (I6)."""

    async def die_before_the_frame(backend: Backend, job: Job, prompt: str) -> None:
        run = new_run()
        await backend.delta(job, run, 0, prompt[:3])
        await backend.end(job, run, split(prompt), frame=False)

    edge.backend.generate = die_before_the_frame
    text, last = await stream(edge, "found in the log")
    assert text == last.response.output_text == "found in the log"


async def test_a_redelivered_job_continues_after_its_prefix(edge: Edge) -> None:
    """A second run repeats the beginning; the client gets every character once (I2, I6)."""

    async def crash_and_rerun(backend: Backend, job: Job, prompt: str) -> None:
        first, second, pieces = new_run(), new_run(), split(prompt)
        for n, piece in enumerate(pieces[:3]):
            await backend.delta(job, first, n, piece)
        halves = [prompt[:5], prompt[5:11], prompt[11:]]
        for n, piece in enumerate(halves):
            await backend.delta(job, second, n, piece)
        await backend.end(job, second, halves)

    edge.backend.generate = crash_and_rerun
    text, last = await stream(edge, "once and only once")
    assert text == last.response.output_text == "once and only once"


async def test_a_rerun_that_says_something_else_is_an_error(edge: Edge) -> None:
    """A prefix that cannot be kept is said, and the answer can still be retrieved (I6)."""

    async def change_the_story(backend: Backend, job: Job, _: str) -> None:
        await backend.delta(job, new_run(), 0, "The answer is")
        run = new_run()
        await backend.delta(job, run, 0, "Something else")
        await backend.end(job, run, ["Something else"])

    edge.backend.generate = change_the_story
    text, last = await stream(edge, "x")
    assert text == "The answer is"
    assert (last.type, last.code) == ("error", "stream_diverged")
    async with edge.client() as client:
        found = await client.responses.retrieve(f"resp_{edge.backend.jobs[0].request_id}")
    assert found.output_text == "Something else"


async def test_a_failed_request(edge: Edge) -> None:
    """`response.failed` carries the fact's own error."""

    async def fail(backend: Backend, job: Job, _: str) -> None:
        run = new_run()
        await backend.delta(job, run, 0, "so far")
        error = ErrorBody(message="Poison.", type="server_error", code="poison")
        await backend.end(job, run, [], status=Status.FAILED, reason="error", error=error)

    edge.backend.generate = fail
    _, last = await stream(edge, "x")
    assert (last.type, last.response.error.type) == ("response.failed", "poison")


async def test_a_deltas_gap_is_filled_while_it_runs(edge: Edge) -> None:
    """A delta that was missed live comes from RESPONSES before the end (I6)."""
    release = asyncio.Event()

    async def pause(backend: Backend, job: Job, _: str) -> None:
        run = new_run()
        for n, piece in enumerate(["a", "b", "c"]):
            await backend.delta(job, run, n, piece)
        await release.wait()
        await backend.delta(job, run, 3, "d")
        await backend.end(job, run, ["a", "b", "c", "d"])

    edge.backend.generate = pause
    key = {"Idempotency-Key": "gap"}
    first = asyncio.create_task(stream(edge, "x", extra_headers=key))
    await asyncio.sleep(0.3)
    # Attached late: n = 0…2 were never heard live by this one.
    second = asyncio.create_task(stream(edge, "x", extra_headers=key))
    await asyncio.sleep(0.3)
    release.set()
    results = await asyncio.gather(first, second)
    assert [text for text, _ in results] == ["abcd", "abcd"]
    assert len(edge.backend.jobs) == 1


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_same_key_is_the_same_answer(edge: Edge, streamed: bool) -> None:  # noqa: FBT001
    """A repeated request with an idempotency key runs once and is answered twice (I2)."""
    key = {"Idempotency-Key": "once"}
    async with edge.client() as client:
        first = await client.responses.create(input="only once", extra_headers=key)
        if streamed:
            text, last = await stream(edge, "only once", extra_headers=key)
            second = last.response
            assert text == "only once"
        else:
            second = await client.responses.create(input="only once", extra_headers=key)
    assert first.id == second.id
    assert first.output_text == second.output_text == "only once"
    assert len(edge.backend.jobs) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"input": "another"},
        {"temperature": 0.5},
        {"store": False},
        {"tools": [{**CLOCK, "name": "calendar"}]},
    ],
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_the_same_key_with_another_body_is_a_conflict(
    edge: Edge,
    other: dict[str, Any],
    streamed: bool,  # noqa: FBT001
) -> None:
    """Nobody gets the answer to another question, nor a call of a function under another's name."""

    async def call(backend: Backend, job: Job, _: str) -> None:
        await backend.end(job, new_run(), ["{}"], called=0)

    edge.backend.generate = call
    asked: dict[str, Any] = {"input": "x", "tools": [CLOCK], "stream": streamed}
    key = {"Idempotency-Key": "once"}
    async with edge.client() as client:
        await client.responses.create(**asked, extra_headers=key)
        await client.responses.create(**asked, extra_headers=key)
        with pytest.raises(openai.ConflictError) as caught:
            await client.responses.create(**(asked | other), extra_headers=key)
    assert caught.value.code == "idempotency_key_reused"
    assert len(edge.backend.jobs) == 1


@pytest.mark.parametrize("keyed", [True, False])
async def test_what_was_accepted_is_not_repeated_by_itself(
    edge: Edge,
    keyed: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No end is known: SDKs may ask again under the same key only, or it is billed twice (I3)."""
    monkeypatch.setattr(following, "_SLACK_S", -1000.0)
    edge.backend.generate = until_cancelled
    key = {"Idempotency-Key": "once"} if keyed else {}
    async with edge.http() as http:
        answer = await http.post("responses", json={"input": "x"}, headers=key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "response_overdue")
    assert answer.headers.get("x-should-retry") == (None if keyed else "false")


async def test_redis_away_costs_no_request(start_edge: StartEdge) -> None:
    """Without Redis each instance limits alone; requests are served (I9)."""
    edge = await start_edge(redis_url="redis://127.0.0.1:1/0", per_minute=2)
    async with edge.client() as client:
        for _ in range(2):
            assert (await client.responses.create(input="x")).output_text == "x"
        with pytest.raises(openai.RateLimitError):
            await client.responses.create(input="x")
    assert edge.app.problems() == []


async def test_an_orphaned_run_does_not_hang_the_client(edge: Edge) -> None:
    """A worker that dies without a successor: the sweeper's fact ends the response (I2)."""

    async def die(backend: Backend, job: Job, prompt: str) -> None:
        await backend.delta(job, new_run(), 0, prompt)
        await asyncio.sleep(0.3)
        await backend.end(job, new_run(), [], status=Status.FAILED, reason="expired", frame=False)

    edge.backend.generate = die
    _, last = await asyncio.wait_for(stream(edge, "x"), 5)
    assert last.type == "response.failed"
    edge.backend.generate = echo
    assert (await stream(edge, "next"))[0] == "next"
