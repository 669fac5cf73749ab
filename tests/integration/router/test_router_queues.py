"""The consumers of every lane, and what happens when their queues grow."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

from tests.support.router import (
    IDS,
    StartRouter,
    admit,
    count,
    last_of,
    model_record,
    put_model,
)

from penstock_router.adapters.queue_poll import QueuePoll
from penstock_router.app import App
from penstock_router.domain.queue_load import LaneReading, QueueLoad
from penstock_shared.contracts.requests import (
    Accepted,
    Rejected,
    RequestEnded,
    Status,
)
from penstock_shared.contracts.streams import EVENTS, JOBS, Bucket, job_consumer
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.consumer import DurableConsumer, ensure_consumer


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(15):
        while not await check():
            await asyncio.sleep(0.05)


async def consumers(broker: Broker) -> set[str]:
    return {info.name for info in await broker.jetstream.consumers_info(JOBS)}


def durables(*models: str) -> set[str]:
    return {job_consumer(model, lane).durable for model in models for lane in Lane}


async def test_every_lane_of_every_model_has_its_consumer(broker: Broker, router: App) -> None:
    """At the start, as soon as a model appears, and again after they and the link were lost."""

    async def both_are_there() -> bool:
        return await consumers(broker) == durables("small", "second")

    await put_model(broker, model_record("second"))
    await eventually(both_are_there)
    for name in await consumers(broker):
        await broker.jetstream.delete_consumer(JOBS, name)
    assert router._broker is not None
    router._broker.schedule_hooks()  # what a reconnect does
    await eventually(both_are_there)


async def test_lag_shows_without_any_worker(broker: Broker, router: App) -> None:
    """The job waits in the consumer that the autoscaler watches."""
    assert isinstance(await admit(broker, IDS.new(), lane=Lane.BATCH), Accepted)

    async def it_waits() -> bool:
        durable = job_consumer("small", Lane.BATCH).durable
        info = await broker.jetstream.consumer_info(JOBS, durable)
        return bool(info.num_pending == 1)

    await eventually(it_waits)


async def test_a_removed_models_jobs_end(broker: Broker, router: App) -> None:
    """Nobody runs them any more: the sweeper ends the request; the consumer is left alone (I2)."""
    request_id = IDS.new()
    assert isinstance(await admit(broker, request_id, deadline_s=1.0), Accepted)
    await kv.purge(broker, Bucket.MODELS, "small")

    async def is_refused() -> bool:
        reply = await admit(broker, IDS.new(), model="small")
        return isinstance(reply, Rejected) and reply.error.code == "model_not_found"

    await eventually(is_refused)

    async def has_ended() -> bool:
        return (await last_of(broker, request_id)).event_type == "penstock.request.failed.v1"

    await eventually(has_ended)
    ended = RequestEnded.model_validate_json((await last_of(broker, request_id)).data)
    assert (ended.status, ended.reason) == (Status.FAILED, "expired")
    assert durables("small") <= await consumers(broker)
    assert (await broker.jetstream.stream_info(JOBS)).config.max_age


async def test_a_full_queue_is_refused_and_its_neighbours_are_not(
    broker: Broker, acme: None, start_router: StartRouter
) -> None:
    """At the model's own limit a 503 with a time to return; other models and lanes go on."""
    await put_model(broker, model_record("tiny", queue=3))
    async with start_router():
        for _ in range(3):
            assert isinstance(await admit(broker, IDS.new(), model="tiny"), Accepted)
        reply = await admit(broker, IDS.new(), model="tiny")
        assert isinstance(reply, Rejected)
        assert (reply.http_status, reply.error.code) == (503, "overloaded")
        assert (reply.retry_after_s or 0) > 0
        assert isinstance(await admit(broker, IDS.new(), model="small"), Accepted)
        urgent = await admit(broker, IDS.new(), model="tiny", lane=Lane.INTERACTIVE)
        assert isinstance(urgent, Accepted)
        assert await count(broker, EVENTS) == 5


async def test_what_is_read_of_a_consumer(broker: Broker, router: App) -> None:
    """Of five jobs three are fetched and one is done: two wait, two are held, one has left."""
    spec = job_consumer("small", Lane.STANDARD)
    for _ in range(5):
        assert isinstance(await admit(broker, IDS.new()), Accepted)
    worker = DurableConsumer(broker, spec, credit=3)
    await worker.start()
    held = [await worker.get() for _ in range(3)]
    await worker.stop()
    for delivery in held:
        await delivery.msg.in_progress()
    await held[0].ack()
    await broker.flush()
    poll = QueuePoll(broker, defaultdict(QueueLoad), lambda: ["small"], SystemClock())

    async def is_read() -> bool:
        reading = (await poll._readings())[spec.durable]
        return reading == LaneReading(unfetched=2, held=2, delivered=3)

    await eventually(is_read)
    await worker.close()


async def test_more_consumers_than_one_answer_holds_are_read(broker: Broker) -> None:
    """The server lists 256 at a time: 65 models have 260, and the last one's queue is known."""
    names = [f"m{n}" for n in range(65)]
    specs = [job_consumer(name, lane) for name in names for lane in Lane]
    await asyncio.gather(*(ensure_consumer(broker, spec) for spec in specs))
    poll = QueuePoll(broker, defaultdict(QueueLoad), lambda: names, SystemClock())
    assert set(await poll._readings()) == durables(*names)


async def test_other_replicas_see_the_queue_and_its_end(
    broker: Broker, acme: None, start_router: StartRouter
) -> None:
    """The next router reads the depth before it admits; when workers are done it admits again."""
    await put_model(broker, model_record("tiny", queue=3))
    async with start_router():
        ids = [IDS.new() for _ in range(3)]
        for each in ids:
            assert isinstance(await admit(broker, each, model="tiny"), Accepted)
        spec = job_consumer("tiny", Lane.STANDARD)

        async def it_waits() -> bool:
            info = await broker.jetstream.consumer_info(JOBS, spec.durable)
            return bool(info.num_pending == 3)

        await eventually(it_waits)
    async with start_router():
        assert isinstance(await admit(broker, IDS.new(), model="tiny"), Rejected)
        again = await admit(broker, ids[0], model="tiny")
        assert isinstance(again, Accepted), "a repetition brings no new job"
        worker = DurableConsumer(broker, spec, credit=3)
        await worker.start()
        for _ in range(3):
            await (await worker.get()).ack()

        async def is_admitted() -> bool:
            return isinstance(await admit(broker, IDS.new(), model="tiny"), Accepted)

        await eventually(is_admitted)
        await worker.stop()
        await worker.close()
