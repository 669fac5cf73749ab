"""The router on a real nats-server: every door, repetition, refusal and the sweeper."""

from __future__ import annotations

import asyncio

import pytest
from tests.support.router import IDS, admit, count, submit

from penstock_router.app import App
from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.requests import (
    Accepted,
    Content,
    Rejected,
    RequestEnded,
    RequestRouted,
    Status,
)
from penstock_shared.contracts.responses import FinalFrame
from penstock_shared.contracts.streams import DEAD, EVENTS, JOBS
from penstock_shared.contracts.submissions import conversation
from penstock_shared.runtime.broker import Broker


async def test_accepted_means_routed_and_job_are_durable(broker: Broker, router: App) -> None:
    """When the reply comes, `routed` and the job derived from it are in their streams (I1)."""
    request_id = IDS.new()
    reply = await admit(broker, request_id)
    assert isinstance(reply, Accepted)
    assert (reply.model, reply.ended) == ("small", False)
    stored = await broker.last_message(EVENTS, subjects.request_event("acme", request_id))
    assert stored is not None
    routed = RequestRouted.model_validate_json(stored.data)
    assert routed.decision.policy == "rule-v1"
    assert b"hello there" not in stored.data
    assert await count(broker, JOBS) == 1


async def test_a_repeated_submission_publishes_no_second_fact(broker: Broker, router: App) -> None:
    """Twenty concurrent repetitions of one id: one `routed`, one job, twenty acceptances (I2)."""
    request_id = IDS.new()
    replies = await asyncio.gather(*(admit(broker, request_id) for _ in range(20)))
    assert all(isinstance(reply, Accepted) for reply in replies)
    assert await count(broker, EVENTS) == 1
    assert await count(broker, JOBS) == 1


async def test_the_sweeper_ends_what_nobody_ended(broker: Broker, router: App) -> None:
    """Past the deadline there is one `failed (expired)`, a frame, and a late repeat is told."""
    request_id = IDS.new()
    frames = await broker.client.subscribe(subjects.responses("acme", request_id))
    await admit(broker, request_id, deadline_s=0.5)
    frame = FinalFrame.model_validate_json((await frames.next_msg(timeout=10)).data)
    assert (frame.status, frame.reason) == (Status.FAILED, "expired")
    stored = await broker.last_message(EVENTS, subjects.request_event("acme", request_id))
    assert stored is not None
    ended = RequestEnded.model_validate_json(stored.data)
    assert ended.usage.output_tokens == 0
    again = await admit(broker, request_id)
    assert isinstance(again, Accepted)
    assert again.ended


async def test_a_nats_client_is_an_equal(broker: Broker, router: App) -> None:
    """A CloudEvent on `submit` is sealed, routed and accepted; its key makes it idempotent."""
    first = await submit(broker, "order-7", {"input": "hi", "max_output_tokens": 5})
    second = await submit(broker, "order-7", {"input": "hi", "max_output_tokens": 5})
    assert isinstance(first, Accepted)
    assert isinstance(second, Accepted)
    assert first.request_id == second.request_id
    assert await count(broker, JOBS) == 1


@pytest.mark.parametrize(
    ("payload", "code", "status"),
    [
        (b"{not json", "invalid_json", 400),
        ({"input": ""}, "empty_input", 400),
        ({"input": "hi", "model": "nope"}, "model_not_found", 404),
        ({"input": "hi", "max_output_tokens": -1}, "invalid_value", 400),
        ({"input": "hi", "max_output_tokens": 10**9}, "invalid_value", 400),
        ({"input": "hi", "surprise": 1}, "unknown_parameter", 400),
        ({"input": "x" * 300_000}, "input_too_large", 413),
        ({}, "missing_required_parameter", 400),
    ],
)
async def test_bad_submissions_are_refused_and_leave_no_trace(
    broker: Broker, router: App, payload: object, code: str, status: int
) -> None:
    """Each gets its error in the API's format; nothing reaches the log."""
    reply = await submit(broker, IDS.new(), payload)
    assert isinstance(reply, Rejected)
    assert (reply.error.code, reply.http_status) == (code, status)
    assert await count(broker, EVENTS) == 0


@pytest.mark.parametrize("headers", [None, {"ce-specversion": "1.0", "ce-id": "x"}])
async def test_poison_on_the_queue_is_buried(
    broker: Broker, router: App, headers: dict[str, str] | None
) -> None:
    """What is no CloudEvent goes to DEAD and is not delivered again."""
    await broker.client.publish(subjects.queue("acme"), b"\xff\xfe no json", headers=headers)
    async with asyncio.timeout(10):
        while await count(broker, DEAD) == 0:
            await asyncio.sleep(0.05)
    stored = await broker.last_message(DEAD, subjects.dead("acme", "ingress"))
    assert stored is not None
    assert b"not_a_cloudevent" in stored.data


async def test_the_queue_admits_without_a_reply(broker: Broker, router: App) -> None:
    """Fire and forget: a job appears, and the work queue is empty again."""
    envelope = Envelope(id="job-1", source="/client", type="penstock.request.submit.v1")
    await broker.client.publish(
        subjects.queue("acme"), b'{"input":"hi"}', headers=envelope.headers()
    )
    async with asyncio.timeout(10):
        while await count(broker, JOBS) == 0 or await count(broker, "INGRESS") > 0:
            await asyncio.sleep(0.05)


async def test_an_unreadable_content_is_refused(broker: Broker, router: App) -> None:
    """Content sealed for another request cannot be admitted (I8)."""
    reply = await admit(broker, IDS.new(), content="1.AAAA")
    assert isinstance(reply, Rejected)
    assert reply.error.code == "content_unreadable"


def test_content_round_trips() -> None:
    """What is sealed is the conversation, nothing else."""
    content = conversation("hi", "be brief")
    assert Content.model_validate_json(content.to_seal()) == content
