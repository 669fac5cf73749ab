"""Frames of one request: a core subscription for live ones, direct gets for those kept.

Why no flush after the subscription: SUB and the later request to the router travel on one
connection, and a server handles them in that order, so on one server the subscription stands
before the router can even hear of the request. A flush would add a round trip to every request.
In a cluster interest spreads asynchronously and the first frames of a fast answer could be
missed: that shows as a gap in their numbers, or as silence, and both are filled (I6).
"""

from __future__ import annotations

import asyncio
from typing import Final

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from penstock_realtime.errors import FeedClosedError
from penstock_realtime.ports import FrameFeed
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.responses import DELTA_START
from penstock_shared.contracts.streams import RESPONSES
from penstock_shared.runtime.broker import Broker

_MAX_WAITING_BYTES: Final = 2 * 1024 * 1024
"""What a slow socket may leave unread; deltas past it are dropped and fetched again later."""


class NatsFrames:
    """`FrameSource` over NATS."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def open(self, tenant: str, request_id: str) -> FrameFeed:
        """Listen from now on.

        Raises:
            UnavailableError: the connection is closed.
        """
        feed = _LiveFeed()
        try:
            await feed.listen(self._broker, subjects.responses(tenant, request_id))
        except nats.errors.Error as error:
            msg = "The connection to the broker is closed."
            raise UnavailableError(msg, code="broker_unavailable") from error
        return feed

    async def stored(self, tenant: str, request_id: str) -> list[bytes]:
        """Every frame that RESPONSES keeps, from the first.

        Raises:
            UnavailableError: the server does not answer.
        """
        subject = subjects.responses(tenant, request_id)
        frames: list[bytes] = []
        sequence = 1
        while True:
            try:
                raw = await self._broker.jetstream.get_msg(
                    RESPONSES, seq=sequence, subject=subject, direct=True, next=True
                )
            except nats.js.errors.NotFoundError:
                return frames
            except (nats.js.errors.Error, nats.errors.Error, TimeoutError, OSError) as error:
                msg = "The kept frames could not be read."
                raise UnavailableError(msg, code="broker_unavailable") from error
            frames.append(raw.data or b"")
            sequence = (raw.seq or sequence) + 1


class _LiveFeed:
    """`FrameFeed` over one subscription."""

    def __init__(self) -> None:
        self._frames: list[bytes] = []
        self._bytes = 0
        self._final_here = False
        self._until_final = False
        """Nobody waits for deltas."""
        self._waiter: asyncio.Future[None] | None = None
        self._subscription: Subscription | None = None
        self._closed = False

    async def listen(self, broker: Broker, subject: str) -> None:
        """Subscribe."""
        self._subscription = await broker.client.listen(subject, self._arrived)

    async def get(self, timeout_s: float, *, until_final: bool = False) -> list[bytes]:
        """All frames that are here, or the first to come; or all up to the final one."""
        self._until_final = until_final
        enough = self._final_here if until_final else bool(self._frames)
        if not enough and not self._closed:
            await self._wait(timeout_s)
        if self._closed:
            raise FeedClosedError("Nobody listens any more.")
        frames, self._frames, self._bytes, self._final_here = self._frames, [], 0, False
        return frames

    async def close(self) -> None:
        """Unsubscribe, once."""
        if self._closed:
            return
        self._closed = True
        self._wake()
        if self._subscription is not None:
            try:
                await self._subscription.unsubscribe()
            except (nats.errors.Error, OSError):
                return  # the connection is gone, and the subscription with it

    async def _wait(self, timeout_s: float) -> None:
        # A future and a timer: a third of what asyncio.wait_for costs, paid per delta.
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout_s, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _arrived(self, msg: Msg) -> None:
        is_delta = msg.data.startswith(DELTA_START)
        if is_delta and self._bytes > _MAX_WAITING_BYTES:
            return
        self._frames.append(msg.data)
        self._bytes += len(msg.data)
        self._final_here = self._final_here or not is_delta
        if self._final_here or not self._until_final:
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
