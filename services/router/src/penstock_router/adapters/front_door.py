"""Request/reply of the admissions: each question has a task of its own, up to a limit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from penstock_router import metrics
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import PenstockError, UnavailableError, public_error
from penstock_shared.contracts.requests import Accepted, AdmissionReply, Rejected
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.telemetry import log

QUEUE_GROUP: Final = "router"
Handle: TypeAlias = Callable[[Msg], Awaitable[Accepted | Rejected]]


class FrontDoor:
    """What is being admitted, through every door of this replica."""

    def __init__(
        self, broker: Broker, max_in_flight: int, refusal: Callable[[PenstockError], Rejected]
    ) -> None:
        self._broker = broker
        self._max_in_flight = max_in_flight
        self._refusal = refusal
        self._subscriptions: list[Subscription] = []
        self._running: set[asyncio.Task[None]] = set()

    async def serve(self, subject: str, handle: Handle) -> None:
        """Bind a request/reply subject; the replicas share it."""

        def received(msg: Msg) -> None:
            if not subjects.may_reply_to(subjects.parse(msg.subject).tenant, msg.reply):
                return  # nobody may hear the answer: `requests.queue` is the door for that
            full = len(self._running) >= self._max_in_flight
            self.spawn(self._refuse(msg) if full else self._answer(msg, handle))

        client = self._broker.client
        self._subscriptions.append(await client.listen(subject, received, QUEUE_GROUP))

    def spawn(self, work: Awaitable[None]) -> None:
        """Run one admission."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._finished)
        metrics.IN_FLIGHT.set(len(self._running))

    async def close(self) -> None:
        """Take no more questions than the broker has passed on already."""
        if not self._broker.is_connected:
            return
        for subscription in self._subscriptions:
            with contextlib.suppress(nats.errors.Error, TimeoutError, OSError):  # it goes away
                await subscription.drain()  # type: ignore[no-untyped-call]  # nats-py's

    async def finished(self) -> None:
        """Return when all that was taken is answered."""
        while self._running:
            await asyncio.wait(self._running)

    async def _answer(self, msg: Msg, handle: Handle) -> None:
        try:
            reply = await handle(msg)
        except Exception as error:  # noqa: BLE001  the caller waits for an answer
            log().error("admission.failed", kind=type(error).__name__, exc_info=error)
            reply = self._refusal(public_error(error))
        await self._respond(msg, reply)

    async def _refuse(self, msg: Msg) -> None:
        full = UnavailableError("The router is at its limit.", code="overloaded")
        await self._respond(msg, self._refusal(full))

    async def _respond(self, msg: Msg, reply: Accepted | Rejected) -> None:
        answer = AdmissionReply(reply=reply).model_dump_json().encode()
        await self._broker.client.publish(msg.reply, answer)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        metrics.IN_FLIGHT.set(len(self._running))
