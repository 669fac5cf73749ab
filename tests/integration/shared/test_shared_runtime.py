"""The runtime on a real nats-server: expectations, redelivery, ordered reading, buckets, keys."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import (
    ErasedError,
    PenstockError,
    PermanentError,
    TransientError,
)
from penstock_shared.contracts.streams import EVENTS, INGRESS, INGRESS_CONSUMER, Bucket
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker, SequenceConflictError
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_shared.runtime.consumer import Delivery, DurableConsumer
from penstock_shared.runtime.dead import DeadLetters
from penstock_shared.runtime.keyring import Keyring, data_key_name
from penstock_shared.runtime.ordered import OrderedReader
from penstock_shared.runtime.settlement import settle

IDS = IdSource(SystemClock())


def envelope(event_id: str) -> Envelope:
    return Envelope(id=event_id, source="/test", type="test.v1")


async def test_one_winner_among_concurrent_first_facts(broker: Broker) -> None:
    """Of 20 concurrent writes with expected-last-sequence 0 exactly one takes effect (I2)."""
    subject = subjects.request_event("acme", IDS.new())

    async def write(n: int) -> int | None:
        try:
            return await broker.publish(subject, b"{}", envelope(str(n)), expected_last_seq=0)
        except SequenceConflictError:
            return None

    results = await asyncio.gather(*(write(n) for n in range(20)))
    assert sum(seq is not None for seq in results) == 1
    last = await broker.last_message(EVENTS, subject)
    assert last is not None
    assert last.event_id == str(next(n for n, seq in enumerate(results) if seq is not None))


async def test_last_message_of_an_unknown_subject_is_none(broker: Broker) -> None:
    """A request without facts is told apart from a broken broker."""
    assert await broker.last_message(EVENTS, subjects.request_event("acme", IDS.new())) is None


async def test_durable_consumer_delivers_everything_once_acked(broker: Broker) -> None:
    """500 messages through a small credit window: each is delivered, acked and gone."""
    for n in range(500):
        await broker.client.publish(subjects.queue("acme"), str(n).encode())
    consumer = DurableConsumer(broker, INGRESS_CONSUMER, credit=32)
    await consumer.start()
    seen = []
    for _ in range(500):
        delivery = await asyncio.wait_for(consumer.get(), 10)
        seen.append(int(delivery.data))
        await delivery.ack()
    await consumer.stop()
    async with asyncio.timeout(20):  # every ack of a work queue is an fsync
        while (await broker.jetstream.stream_info(INGRESS)).state.messages:
            await asyncio.sleep(0.05)
    await consumer.close()
    assert sorted(seen) == list(range(500))


async def test_consumer_that_was_deleted_is_made_again(broker: Broker) -> None:
    """Deleting the durable under a running consumer must not silence it (FIELD-NOTES)."""
    consumer = DurableConsumer(broker, INGRESS_CONSUMER, credit=8)
    await consumer.start()
    await broker.jetstream.delete_consumer(INGRESS, INGRESS_CONSUMER.durable)
    await broker.client.publish(subjects.queue("acme"), b"after")
    delivery = await asyncio.wait_for(consumer.get(), 15)
    await delivery.ack()
    await consumer.stop()
    await consumer.close()
    assert delivery.data == b"after"


async def test_heartbeat_keeps_a_slow_job_from_being_redelivered(broker: Broker) -> None:
    """A holder that works longer than ack_wait is not started a second time."""
    spec = replace(INGRESS_CONSUMER, durable="slow", ack_wait_s=0.6)
    consumer = DurableConsumer(broker, spec, credit=4)
    await consumer.start()
    await broker.client.publish(subjects.queue("acme"), b"slow")
    delivery = await asyncio.wait_for(consumer.get(), 5)
    await asyncio.sleep(2.0)
    assert consumer.buffered == 0
    await delivery.ack()
    await consumer.stop()
    await consumer.close()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (TransientError("later"), "redelivered"),
        (PermanentError("never"), "buried"),
        (RuntimeError("bug"), "redelivered"),
    ],
)
async def test_errors_map_to_acks(broker: Broker, error: Exception, outcome: str) -> None:
    """Transient and unknown errors are redelivered, permanent ones rejected and terminated."""
    consumer = DurableConsumer(broker, INGRESS_CONSUMER, credit=4)
    await consumer.start()
    await broker.client.publish(subjects.queue("acme"), b"x")
    rejected: list[PenstockError] = []

    async def handle(_: Delivery) -> None:
        raise error

    async def reject(_: Delivery, why: PenstockError) -> None:
        rejected.append(why)

    await settle(await asyncio.wait_for(consumer.get(), 5), handle, reject, random.Random(1))
    if outcome == "redelivered":
        again = await asyncio.wait_for(consumer.get(), 5)
        assert again.deliveries == 2
        await again.ack()
        assert not rejected
    else:
        await asyncio.sleep(0.3)
        assert consumer.buffered == 0
        assert rejected == [error]
    await consumer.stop()
    await consumer.close()


async def test_ordered_reader_resumes_after_its_consumer_is_gone(broker: Broker) -> None:
    """Every event in order, once, though the ephemeral consumer is deleted in the middle."""
    reader = OrderedReader(broker, EVENTS, subjects.EVERY_EVENT, credit=16)
    await reader.start()
    for n in range(200):
        subject = subjects.request_event("acme", IDS.new())
        await broker.publish(subject, str(n).encode(), envelope(str(n)))
        if n == 100:
            for info in await broker.jetstream.consumers_info(EVENTS):
                await broker.jetstream.delete_consumer(EVENTS, info.name)
    got = [int((await asyncio.wait_for(reader.get(), 15)).data) for _ in range(200)]
    await reader.stop()
    assert got == list(range(200))


async def test_bucket_mirror_follows_puts_and_purges(broker: Broker) -> None:
    """A mirror holds what was there before it started, and hears every later change."""
    await kv.put(broker, Bucket.TENANTS, "a", b"1")
    await kv.put(broker, Bucket.TENANTS, "a", b"2")
    heard: list[tuple[str, bytes | None]] = []
    mirror = kv.BucketMirror(
        broker, Bucket.TENANTS, bytes, on_change=lambda k, v: heard.append((k, v))
    )
    await mirror.start()
    assert mirror.get("a") == b"2"
    await kv.put(broker, Bucket.TENANTS, "b", b"3")
    await kv.purge(broker, Bucket.TENANTS, "a")
    async with asyncio.timeout(5):
        while len(heard) < 3:
            await asyncio.sleep(0.01)
    assert heard == [("a", b"2"), ("b", b"3"), ("a", None)]
    assert mirror.get("a") is None
    await mirror.stop()


def keyring_on(broker: Broker, root: bytes = b"r" * 32) -> Keyring:
    return Keyring(root, kv.BucketStore(broker, Bucket.DATA_KEYS), SystemClock())


async def test_two_instances_agree_on_a_data_key(broker: Broker) -> None:
    """Concurrent first use of a data subject makes one key: what one seals the other opens."""
    rings = [keyring_on(broker) for _ in range(8)]
    sealed = await asyncio.gather(
        *(ring.seal("acme", "user-1", f"r{n}", "content", f"m{n}") for n, ring in enumerate(rings))
    )
    opened = await asyncio.gather(
        *(
            keyring_on(broker).open("acme", "user-1", f"r{n}", "content", text)
            for n, text in enumerate(sealed)
        )
    )
    assert opened == [f"m{n}".encode() for n in range(8)]


@pytest.mark.parametrize(
    ("tenant", "owner", "field"),
    [("other", "r1", "content"), ("acme", "r2", "content"), ("acme", "r1", "output")],
)
async def test_a_ciphertext_opens_only_where_it_was_sealed(
    broker: Broker, tenant: str, owner: str, field: str
) -> None:
    """Another tenant, request or field cannot open it (I8, I10)."""
    ring = keyring_on(broker)
    sealed = await ring.seal("acme", "user-1", "r1", "content", "secret")
    await ring.seal("other", "user-1", "x", "content", "a key exists there too")
    with pytest.raises(PermanentError):
        await ring.open(tenant, "user-1", owner, field, sealed)


async def test_a_destroyed_key_is_erased_not_missing(broker: Broker) -> None:
    """Missing keys are transient, destroyed ones final, and a wrong root key says so (I10)."""
    ring = keyring_on(broker)
    sealed = await ring.seal("acme", "user-1", "r1", "content", "secret")
    with pytest.raises(TransientError):
        await ring.open("acme", "nobody", "r1", "content", sealed)
    with pytest.raises(PermanentError, match="Root key version 1"):
        await keyring_on(broker, b"w" * 32).open("acme", "user-1", "r1", "content", sealed)
    await kv.purge(broker, Bucket.DATA_KEYS, data_key_name("acme", "user-1"))
    with pytest.raises(ErasedError):
        await keyring_on(broker).open("acme", "user-1", "r1", "content", sealed)
    with pytest.raises(ErasedError):  # and is never silently made anew
        await keyring_on(broker).seal("acme", "user-1", "r2", "content", "again")


async def test_dead_letters_keep_content_sealed(broker: Broker) -> None:
    """Poison lands in DEAD with its reason, and its payload cannot be read there (I10)."""
    consumer = DurableConsumer(broker, INGRESS_CONSUMER, credit=4)
    await consumer.start()
    await broker.client.publish(subjects.queue("acme"), b"the secret payload")
    delivery = await asyncio.wait_for(consumer.get(), 5)
    letters = DeadLetters(broker, keyring_on(broker), SystemClock(), "/test")
    await letters.bury(INGRESS, delivery, PermanentError("no CloudEvent", code="not_a_cloudevent"))
    await delivery.term()
    stored = await broker.last_message("DEAD", subjects.dead("acme", "ingress"))
    await consumer.stop()
    await consumer.close()
    assert stored is not None
    assert b"not_a_cloudevent" in stored.data
    assert b"secret payload" not in stored.data
