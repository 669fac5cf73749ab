"""One model's lane seen from below: takes deliveries, and lets their holders die or live."""

from __future__ import annotations

import asyncio
import secrets
from typing import Self

from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.streams import Bucket, job_consumer
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.consumer import Delivery, DurableConsumer
from penstock_shared.runtime.kv import last_entry
from penstock_worker.adapters.nats_returns import NatsReturns

_TENANT = "acme"


class JobLine:
    """The lane's consumer; every `NatsReturns` made on its broker stands for one process."""

    def __init__(
        self, broker: Broker, before_hand_back: NatsReturns | None = None, *, model: str = "echo"
    ) -> None:
        self.broker = broker
        self._model = model
        self._consumer = DurableConsumer(
            broker,
            job_consumer(model, Lane.STANDARD),
            credit=4,
            before_hand_back=before_hand_back.note if before_hand_back else None,
        )

    async def __aenter__(self) -> Self:
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        await self._consumer.close()

    async def stop(self) -> None:
        """What a drain does first."""
        await self._consumer.stop()

    async def publish(self) -> None:
        """One more job; what it says does not matter here."""
        await self.broker.publish(
            subjects.job(_TENANT, self._model, Lane.STANDARD),
            b"{}",
            Envelope(id=secrets.token_hex(8), source="/t", type="t"),
        )

    async def take(self) -> Delivery:
        """The next delivery."""
        return await asyncio.wait_for(self._consumer.get(), 10)

    async def held(self, count: int) -> None:
        """Wait until `count` deliveries lie here and nobody has taken them."""
        async with asyncio.timeout(10):
            while self._consumer.buffered < count:
                await asyncio.sleep(0.01)

    async def counted(self, delivery: Delivery) -> int | None:
        """What stands in the bucket of its job."""
        entry = await last_entry(self.broker, Bucket.CRASHES, str(delivery.sequence))
        return None if entry is None else int(entry.data)


async def die(delivery: Delivery) -> None:
    """Its holder is gone without a word (the nak stands in for the ack wait's end)."""
    await delivery.nak(0.001, failed=True)


async def give_back(returns: NatsReturns, delivery: Delivery) -> None:
    """Its holder lives and hands it back."""
    await returns.note(delivery)
    await delivery.nak(0.001, failed=True)
