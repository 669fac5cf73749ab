"""Ordered readers, for folds: every message of a stream in order, resumed where it stopped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js import api

from penstock_shared.runtime.broker import Broker, StoredMessage
from penstock_shared.runtime.position import position_of
from penstock_shared.runtime.pull import PullLoop

_INACTIVE_S: Final = 60.0


class OrderedReader:
    """Every message of a stream (or of one filter) in order, from a sequence on.

    It lives on an ephemeral consumer without acks that is made anew, from the last sequence that
    was handed out, after a reconnect or when it is found gone.
    """

    def __init__(
        self,
        broker: Broker,
        stream: str,
        filter_subject: str,
        *,
        start_seq: int = 1,
        last_per_subject: bool = False,
        headers_only: bool = False,
        credit: int = 2_000,
    ) -> None:
        self._broker = broker
        self._stream = stream
        self._filter = filter_subject
        self._next_seq = start_seq
        self._last_per_subject = last_per_subject
        self._headers_only = headers_only
        self._arrived_seq = start_seq - 1
        self._name = ""
        self._buffer: asyncio.Queue[StoredMessage] = asyncio.Queue()
        self._undelivered = 0
        self.pending_at_start = 0
        """How many messages were there when the consumer was first made."""
        self._loop = PullLoop(
            broker, stream, credit=credit, ensure=self._recreate, on_message=self._on_message
        )

    async def start(self) -> None:
        """Create the consumer and begin to read."""
        await self._loop.start()

    async def stop(self) -> None:
        """Stop reading; the consumer is removed."""
        await self._loop.stop()
        if not self._name:  # it never came to be
            return
        with contextlib.suppress(nats.js.errors.Error, nats.errors.Error, TimeoutError):
            await self._broker.jetstream.delete_consumer(self._stream, self._name)

    @property
    def behind(self) -> int:
        """How many messages were there and not yet taken, when the last one arrived."""
        return self._undelivered + self._buffer.qsize()

    async def __aiter__(self) -> AsyncIterator[StoredMessage]:
        """Messages, for ever."""
        while True:
            yield await self.get()

    async def get(self) -> StoredMessage:
        """The next message; waits for ever."""
        message = await self._buffer.get()
        self._loop.release()
        return message

    def get_nowait(self) -> StoredMessage | None:
        """The next message if one is here."""
        if self._buffer.empty():
            return None
        self._loop.release()
        return self._buffer.get_nowait()

    async def _recreate(self) -> str:
        first = self._name == ""
        resuming = self._arrived_seq >= self._next_seq or not self._last_per_subject
        config = api.ConsumerConfig(
            ack_policy=api.AckPolicy.NONE,
            deliver_policy=(
                api.DeliverPolicy.BY_START_SEQUENCE
                if resuming
                else api.DeliverPolicy.LAST_PER_SUBJECT
            ),
            opt_start_seq=max(self._arrived_seq + 1, 1) if resuming else None,
            filter_subject=self._filter,
            headers_only=self._headers_only or None,
            inactive_threshold=_INACTIVE_S,
            mem_storage=True,
            num_replicas=1,
            max_waiting=512,
        )
        info = await self._broker.jetstream.add_consumer(self._stream, config)
        self._name = info.name
        self._undelivered = info.num_pending or 0
        if first:
            self.pending_at_start = self._undelivered
        return info.name

    def _on_message(self, msg: Msg) -> None:
        position = position_of(msg.reply)
        if position.consumer != self._name or position.sequence <= self._arrived_seq:
            self._loop.release()  # a straggler of the consumer before this one
            return
        self._arrived_seq = position.sequence
        self._undelivered = position.pending
        self._buffer.put_nowait(
            StoredMessage(
                subject=msg.subject,
                sequence=position.sequence,
                headers=msg.headers or {},
                data=msg.data,
                time=datetime.fromtimestamp(position.time_ns / 1e9, UTC),
            )
        )
