"""What the sweeper ends, and what cannot end the sweeper."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from tests.support.router import IDS, StartRouter, admit, fail_attempt, last_of, routed_of

from penstock_router.adapters.nats_request_log import NatsRequestLog
from penstock_router.adapters.sweeper import Sweeper
from penstock_router.app import App
from penstock_router.domain.open_requests import OpenRequests
from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.requests import (
    Accepted,
    AttemptFailed,
    RequestEnded,
    RequestRouted,
)
from penstock_shared.contracts.streams import JOBS
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.request_log import (
    DEADLINE_HEADER,
    RequestLogReader,
    UnreadableFactError,
)


async def until_ended(broker: Broker, request_id: str) -> RequestEnded:
    async with asyncio.timeout(15):
        while (await last_of(broker, request_id)).event_type != "penstock.request.failed.v1":
            await asyncio.sleep(0.05)
    return RequestEnded.model_validate_json((await last_of(broker, request_id)).data)


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_failed_attempt_is_no_end(
    broker: Broker,
    acme: None,
    start_router: StartRouter,
    restarted: bool,  # noqa: FBT001  parametrised
) -> None:
    """It goes on until its deadline; then the *next* attempt expires, unbilled (I2, I3).

    Also for a replica that was not there when it was routed: the deadline is in the header.
    """
    request_id = IDS.new()
    async with start_router():
        await admit(broker, request_id, deadline_s=1.5)
        await fail_attempt(broker, request_id)
        again = await admit(broker, request_id)
        assert isinstance(again, Accepted)
        assert not again.ended
        assert (await broker.jetstream.stream_info(JOBS)).state.last_seq == 1
        if not restarted:
            ended = await until_ended(broker, request_id)
    if restarted:
        async with start_router():
            ended = await until_ended(broker, request_id)
    assert (ended.attempt, ended.reason, ended.usage.output_tokens) == (2, "expired", 0)


@pytest.mark.parametrize("deadline", [None, "soon", "nan", "1.0"])
async def test_malformed_facts_do_not_end_the_sweeper(
    broker: Broker, router: App, deadline: str | None
) -> None:
    """They are logged and passed over; the requests beside them still expire."""
    headers = Envelope(id="x", source="/t", type=RequestRouted.TYPE).headers()
    if deadline is not None:
        headers[DEADLINE_HEADER] = deadline
    await broker.jetstream.publish(
        subjects.request_event("acme", IDS.new()), b"not even JSON", headers=headers
    )
    await broker.jetstream.publish(subjects.request_event("acme", IDS.new()), b"no headers")
    request_id = IDS.new()
    await admit(broker, request_id, deadline_s=0.5)
    assert (await until_ended(broker, request_id)).reason == "expired"
    assert router.problems() == []


async def test_the_counts_are_whole_before_anybody_is_admitted(broker: Broker) -> None:
    """When `start` returns, what EVENTS holds is counted: a restart opens no gate (I9)."""
    headers = Envelope(id="x", source="/t", type=RequestRouted.TYPE).headers()
    headers[DEADLINE_HEADER] = str(datetime.now(UTC).timestamp() + 600)
    for _ in range(50):
        subject = subjects.request_event("acme", IDS.new())
        await broker.jetstream.publish(subject, b"{}", headers=headers)
    counts = OpenRequests(grace_s=30)
    sweeper = Sweeper(broker, NatsRequestLog(broker), counts, SystemClock(), source="/t")
    await sweeper.start()
    assert counts.of_tenant("acme") == 50
    await sweeper.stop()


async def test_a_task_that_is_gone_is_told(broker: Broker, router: App) -> None:
    """A router that no longer sweeps is not ready, and says why."""
    (task,) = [each for each in asyncio.all_tasks() if each.get_name() == "sweeper-sweep"]
    task.cancel()
    await asyncio.wait([task])
    assert router.problems() == ["the task sweeper-sweep has ended"]


async def test_the_last_fact_is_told_apart(broker: Broker, router: App) -> None:
    """Nothing, routed, a failed attempt, a terminal, and what cannot be read."""
    reader, request_id = RequestLogReader(broker), IDS.new()
    assert await reader.last_fact("acme", request_id) is None
    await admit(broker, request_id, deadline_s=1.0)
    found = await reader.last_fact("acme", request_id)
    assert found is not None
    assert found.fact == await routed_of(broker, request_id)
    sequence = await fail_attempt(broker, request_id)
    found = await reader.last_fact("acme", request_id)
    assert found is not None
    assert isinstance(found.fact, AttemptFailed)
    assert found.sequence == sequence
    ended = await until_ended(broker, request_id)
    found = await reader.last_fact("acme", request_id)
    assert found is not None
    assert found.fact == ended
    strange = IDS.new()
    for event_type in (RequestRouted.TYPE, "penstock.request.paused.v9"):
        await broker.jetstream.publish(
            subjects.request_event("acme", strange), b"{}", headers={"ce-type": event_type}
        )
        with pytest.raises(UnreadableFactError):
            await reader.last_fact("acme", strange)
