"""What a restarted nats-server took is back: streams, watches, consumers; nothing stays deaf."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from tests.support.stack import Stack

from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import TransientError
from penstock_shared.contracts.streams import EVENTS, INGRESS_CONSUMER, RESPONSES, Bucket
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.clock import IdSource, SystemClock
from penstock_shared.runtime.consumer import DurableConsumer
from penstock_shared.runtime.ordered import OrderedReader
from penstock_shared.runtime.provision import provision, provision_volatile

IDS = IdSource(SystemClock())


@pytest.fixture
def own_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Servers that may be killed without disturbing other tests."""
    with Stack(tmp_path_factory.mktemp("killed") / "data", services="") as stack:
        yield stack


async def publish(broker: Broker, n: int) -> None:
    """Publish until the broker has it: what a service does with a fact."""
    subject = subjects.request_event("acme", IDS.new())
    envelope = Envelope(id=str(n), source="/test", type="test.v1")
    while True:
        try:
            await broker.publish(subject, b"", envelope, expected_last_seq=0)
        except TransientError:
            await asyncio.sleep(0.05)
        else:
            return


async def test_everything_is_back_after_the_broker_was_killed(own_servers: Stack) -> None:
    """After `kill -9` of nats-server: facts kept in order, memory stream, watch and pull alive."""
    broker = await Broker.connect(own_servers.addresses["nats_url"], name="test")
    await provision(broker, 1)
    broker.on_reconnect(lambda: provision_volatile(broker))
    mirror = kv.BucketMirror(broker, Bucket.TENANTS, bytes)
    await mirror.start()
    reader = OrderedReader(broker, EVENTS, subjects.EVERY_EVENT)
    await reader.start()
    consumer = DurableConsumer(broker, INGRESS_CONSUMER, credit=8)
    await consumer.start()
    for n in range(20):
        await publish(broker, n)
    own_servers.kill("nats")
    for n in range(20, 40):
        await publish(broker, n)
    heard = [(await asyncio.wait_for(reader.get(), 20)).event_id for _ in range(40)]
    assert list(dict.fromkeys(heard)) == [str(n) for n in range(40)]
    await kv.put(broker, Bucket.TENANTS, "late", b"1")
    await broker.client.publish(subjects.queue("acme"), b"late")
    delivery = await asyncio.wait_for(consumer.get(), 20)
    await delivery.ack()
    async with asyncio.timeout(10):
        while mirror.get("late") is None:
            await asyncio.sleep(0.01)
    assert (await broker.jetstream.stream_info(RESPONSES)).config.storage == "memory"
    await consumer.stop()
    await consumer.close()
    await mirror.stop()
    await reader.stop()
    await broker.close()
