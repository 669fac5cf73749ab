"""Request/reply: binds subjects, answers with the contract's model or with an error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from pydantic import BaseModel

from penstock_shared.contracts.errors import (
    ErrorReply,
    PenstockError,
    PermanentError,
    UnavailableError,
    public_error,
)
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.telemetry import log

_MAX_AT_ONCE: Final = 64

Answer = Callable[[Msg], Awaitable[BaseModel]]


class ReplyServer:
    """Answers questions on some subjects, shared with the other replicas of a queue group."""

    def __init__(self, broker: Broker, group: str) -> None:
        self._broker = broker
        self._group = group
        self._subscriptions: list[Subscription] = []
        self._answering: set[asyncio.Task[None]] = set()

    async def serve(self, subject: str, answer: Answer) -> None:
        """Begin to answer; nats-py awaits callbacks one by one, so each answer is a task."""

        async def received(msg: Msg) -> None:
            if not msg.reply:
                return  # a command whose sender does not want to know: it could not be a promise
            task = asyncio.create_task(self._reply(msg, answer))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

        subscription = await self._broker.client.subscribe(subject, queue=self._group, cb=received)
        self._subscriptions.append(subscription)

    async def drain(self) -> None:
        """Take no more questions, answer those that were taken."""
        for subscription in self._subscriptions:
            await subscription.unsubscribe()
        if self._answering:
            await asyncio.wait(self._answering)

    async def _reply(self, msg: Msg, answer: Answer) -> None:
        try:
            if len(self._answering) > _MAX_AT_ONCE:
                busy = "Too many commands at once: try again in a second."
                raise UnavailableError(busy, code="overloaded")  # noqa: TRY301  as from a handler
            reply = await answer(msg)
        except Exception as error:  # noqa: BLE001  whoever asks gets an answer
            if not isinstance(error, PenstockError):
                log().error("reply.failed", kind=type(error).__name__, exc_info=error)
            reply = ErrorReply(error=public_error(error).body())
        data = reply.model_dump_json().encode()
        if len(data) > self._broker.client.max_payload:
            large = "The answer is larger than a message may be: ask for less at once."
            refusal = PermanentError(large, code="answer_too_large")
            data = ErrorReply(error=refusal.body()).model_dump_json().encode()
        await self._broker.client.publish(msg.reply, data)
