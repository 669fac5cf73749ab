"""Durable consumers: work that must happen is acknowledged after its effect, redelivered else."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import api

from penstock_shared.contracts.errors import PenstockError, UnavailableError
from penstock_shared.contracts.streams import ConsumerSpec
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.position import position_of
from penstock_shared.runtime.pull import PullLoop

_RESET_WITHIN_S: Final = 5.0


@dataclass(slots=True, eq=False)
class Delivery:
    """One delivered message that its holder must settle: ack, nak or term."""

    msg: Msg
    subject: str
    data: bytes
    headers: dict[str, str]
    sequence: int
    deliveries: int
    stored_ns: int
    """When the broker stored it, in nanoseconds since 1970."""
    settled: bool = False
    failures: int | None = None
    """How many earlier holders failed with it, where somebody keeps count: settlement takes every
    earlier delivery for a failure otherwise."""
    _forget: Callable[[Delivery], None] = field(default=lambda _: None)
    _before_hand_back: HandBackHook | None = None

    @property
    def stored_at(self) -> datetime:
        """When the broker stored it: the same at every delivery."""
        return datetime.fromtimestamp(self.stored_ns / 1e9, UTC)

    async def ack(self) -> None:
        """Done. Not waited for: a lost ack means a redelivery, which every holder survives."""
        await self._settle(self.msg.ack())

    async def nak(self, delay_s: float, *, failed: bool = False) -> None:
        """Not now: deliver again after `delay_s`. `failed` when it is the message's own fault."""
        if self._before_hand_back is not None and not failed:
            await self._before_hand_back(self)
        await self._settle(self.msg.nak(delay=max(delay_s, 0.001)))

    async def term(self) -> None:
        """Never again."""
        await self._settle(self.msg.term())

    async def _settle(self, action: Awaitable[None]) -> None:
        self.settled = True
        self._forget(self)
        with contextlib.suppress(nats.errors.Error):
            await action


HandBackHook = Callable[[Delivery], Awaitable[None]]
"""Is told of a delivery before it is handed back unfailed, and still kept alive. Never raises."""


def delivery_of(
    msg: Msg,
    forget: Callable[[Delivery], None],
    before_hand_back: HandBackHook | None = None,
) -> Delivery:
    """A delivery from what the broker sent."""
    position = position_of(msg.reply)
    return Delivery(
        msg=msg,
        subject=msg.subject,
        data=msg.data,
        headers=msg.headers or {},
        sequence=position.sequence,
        deliveries=position.deliveries,
        stored_ns=position.time_ns,
        _forget=forget,
        _before_hand_back=before_hand_back,
    )


async def ensure_consumer(broker: Broker, spec: ConsumerSpec) -> str:
    """Create the durable, or verify that the one that exists filters what we expect."""
    single = len(spec.filter_subjects) == 1
    config = api.ConsumerConfig(
        durable_name=spec.durable,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=spec.ack_wait_s,
        max_ack_pending=spec.max_ack_pending,
        max_waiting=512,
        # The server knows one filter by another name than several.
        filter_subject=spec.filter_subjects[0] if single else None,
        filter_subjects=None if single else list(spec.filter_subjects),
    )
    info = await broker.jetstream.add_consumer(spec.stream, config)
    found = info.config.filter_subjects or [info.config.filter_subject or ""]
    if set(found) != set(spec.filter_subjects):
        msg = f"Consumer {spec.durable} filters {found}: delete it, restart."
        raise PenstockError(msg, code="consumer_mismatch")
    return spec.durable


async def rewind_consumer(broker: Broker, spec: ConsumerSpec) -> None:
    """Set the durable back to the stream's beginning, whoever is pulling from it.

    By the server's own reset (nats-architecture-and-design, ADR-60; nats-server 2.14). A durable
    that is deleted and made anew at once may come back with its old position.

    Raises:
        UnavailableError: NATS does not answer, or does not know this request yet.
    """
    subject = f"$JS.API.CONSUMER.RESET.{spec.stream}.{spec.durable}"
    try:
        await ensure_consumer(broker, spec)
        answer = await broker.client.request(subject, b'{"seq":1}', timeout=_RESET_WITHIN_S)
        failure = json.loads(answer.data).get("error")
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
        failure = error
    if failure is not None:
        msg = (
            f"The position of {spec.durable} could not be set back ({failure}): "
            "is NATS up, and 2.14 or newer?"
        )
        raise UnavailableError(msg, code="event_log_unavailable")


class DurableConsumer:
    """A shared durable, pulled; what is held is kept alive with in-progress acks."""

    def __init__(
        self,
        broker: Broker,
        spec: ConsumerSpec,
        *,
        credit: int,
        before_hand_back: HandBackHook | None = None,
        wanted: Callable[[Msg], bool] = lambda _: True,
    ) -> None:
        """`wanted` False acknowledges a message as it arrives, at a third of a delivery's cost."""
        self._client = broker.client
        self._wanted = wanted
        self._passed_over: list[str] = []
        self._acks: set[asyncio.Task[None]] = set()
        self._spec = spec
        self._before_hand_back = before_hand_back
        self._buffer: asyncio.Queue[Delivery] = asyncio.Queue()
        self._held: set[Delivery] = set()
        self._loop = PullLoop(
            broker,
            spec.stream,
            credit=credit,
            ensure=lambda: ensure_consumer(broker, spec),
            on_message=self._arrived,
        )
        self._heartbeat: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to pull."""
        await self._loop.start()
        self._heartbeat = asyncio.create_task(self._keep_alive(), name="ack-heartbeat")

    async def stop(self) -> None:
        """Stop pulling and hand back at once what nobody has taken."""
        await self._loop.stop()
        left = [self._buffer.get_nowait() for _ in range(self._buffer.qsize())]
        await asyncio.gather(*(delivery.nak(0.001) for delivery in left))

    async def close(self) -> None:
        """After the last delivery is settled: end the heartbeat."""
        if self._heartbeat is not None:
            self._heartbeat.cancel()

    def set_credit(self, credit: int) -> None:
        """Change how many messages may be buffered."""
        self._loop.set_credit(credit)

    @property
    def buffered(self) -> int:
        """Messages that wait in this process."""
        return self._buffer.qsize()

    async def get(self) -> Delivery:
        """The next message; waits for ever."""
        delivery = await self._buffer.get()
        self._loop.release()
        return delivery

    def get_nowait(self) -> Delivery | None:
        """The next message if one is here."""
        if self._buffer.empty():
            return None
        self._loop.release()
        return self._buffer.get_nowait()

    async def get_batch(self, limit: int, linger_s: float = 0.0) -> list[Delivery]:
        """At least one message, and up to `limit` that are here within `linger_s`."""
        batch = [await self.get()]
        if linger_s and self._buffer.qsize() < limit - 1:
            await asyncio.sleep(linger_s)
        while len(batch) < limit and (delivery := self.get_nowait()) is not None:
            batch.append(delivery)
        return batch

    def _arrived(self, msg: Msg) -> None:
        if not self._wanted(msg):
            self._loop.release()
            self._passed_over.append(msg.reply)
            if len(self._passed_over) == 1:  # one task for all that was read at once
                task = asyncio.create_task(self._pass_over())
                self._acks.add(task)
                task.add_done_callback(self._acks.discard)
            return
        delivery = delivery_of(msg, self._held.discard, self._before_hand_back)
        self._held.add(delivery)
        self._buffer.put_nowait(delivery)

    async def _pass_over(self) -> None:
        replies, self._passed_over = self._passed_over, []
        with contextlib.suppress(nats.errors.Error, OSError):  # they come again, and are passed by
            await self._client.publish_each(replies)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._spec.ack_wait_s / 3)
            for delivery in tuple(self._held):
                with contextlib.suppress(nats.errors.Error):
                    await delivery.msg.in_progress()
