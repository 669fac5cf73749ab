"""Frames of one request: a core subscription for live ones, batched direct gets for those kept.

Why no flush after the subscription: SUB and the later request to the router travel on one
connection, and a server handles them in that order, so on one server the subscription stands
before the router can even hear of the request. A flush would add a round trip to every request.
In a cluster interest spreads asynchronously and the first frames of a fast answer could be
missed: that shows as a gap in their numbers, or as silence, and both are filled (I6).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Final

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from penstock_realtime import metrics
from penstock_realtime.domain.frame_queue import FrameQueue
from penstock_realtime.errors import FeedClosedError
from penstock_realtime.ports import Budget, FrameFeed, Kept, Policy
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.responses import DELTA_START
from penstock_shared.contracts.streams import RESPONSES
from penstock_shared.runtime.broker import Broker

_DIRECT_GET: Final = f"$JS.API.DIRECT.GET.{RESPONSES}"
_KEPT_PAGE_FRAMES: Final = 512
_KEPT_PAGE_BYTES: Final = 128 * 1024
_KEPT_TIMEOUT_S: Final = 2.0
_END_OF_BATCH: Final = "204"
_NOTHING_THERE: Final = "404"


class NatsFrames:
    """`FrameSource` over NATS."""

    def __init__(self, broker: Broker, buffer_bytes: int) -> None:
        self._broker = broker
        self._buffer_bytes = buffer_bytes

    async def open(
        self,
        tenant: str,
        request_id: str,
        budget: Budget | None = None,
        policy: Policy = Policy.BLOCK,
    ) -> FrameFeed:
        """Listen from now on; without a budget the feed has one for itself.

        Raises:
            UnavailableError: the connection is closed.
        """
        feed = _LiveFeed(FrameQueue(budget or Budget(self._buffer_bytes), policy))
        try:
            await feed.listen(self._broker, subjects.responses(tenant, request_id))
        except nats.errors.Error as error:
            msg = "The connection to the broker is closed."
            raise UnavailableError(msg, code="broker_unavailable") from error
        return feed

    async def kept(self, tenant: str, request_id: str, after: int = 0) -> Kept:
        """A page of the frames that RESPONSES keeps, after a position in it.

        Source: NATS ADR-31, batched direct get.

        Raises:
            UnavailableError: the server does not answer.
        """
        query = {
            "seq": after + 1,
            "next_by_subj": subjects.responses(tenant, request_id),
            "batch": _KEPT_PAGE_FRAMES,
            "max_bytes": _KEPT_PAGE_BYTES,
        }
        client = self._broker.client
        inbox = client.new_inbox()
        arrived: asyncio.Queue[Msg] = asyncio.Queue()
        frames: list[bytes] = []
        try:
            subscription = await client.listen(inbox, arrived.put_nowait)
            try:
                await client.publish(_DIRECT_GET, json.dumps(query).encode(), reply=inbox)
                async with asyncio.timeout(_KEPT_TIMEOUT_S):
                    while True:
                        msg = await arrived.get()
                        headers = msg.headers or {}
                        status = headers.get("Status")
                        if status == _NOTHING_THERE:
                            return Kept(frames, after, more=False)
                        if status == _END_OF_BATCH:
                            pending = int(headers.get("Nats-Num-Pending", "0"))
                            return Kept(frames, after, more=bool(frames) and pending > 0)
                        if status is not None or "Nats-Sequence" not in headers:
                            raise _unreadable()
                        after = int(headers["Nats-Sequence"])
                        frames.append(msg.data)
            finally:
                await subscription.unsubscribe()
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise _unreadable() from error


class _LiveFeed:
    """`FrameFeed` over one subscription."""

    def __init__(self, queue: FrameQueue) -> None:
        self._queue = queue
        self._final_here = False
        self._until_final = False
        """Nobody waits for deltas."""
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._silent_at_s = 0.0
        self._timeout_s = 0.0
        self._direct: Callable[[bytes], bool] | None = None
        """Takes frames as they come; nobody else waits for them then."""
        self._subscription: Subscription | None = None
        self._closed = False

    @property
    def lossy(self) -> bool:
        """Whether what is missing was given up."""
        return self._queue.lossy

    async def listen(self, broker: Broker, subject: str) -> None:
        """Subscribe."""
        self._subscription = await broker.client.listen(subject, self._arrived)

    async def get(
        self,
        timeout_s: float,
        *,
        until_final: bool = False,
        direct: Callable[[bytes], bool] | None = None,
    ) -> list[bytes]:
        """All frames that are here, or the first to come; or all up to the final one."""
        self._until_final = until_final
        enough = self._final_here if until_final else bool(self._queue)
        if not enough and not self._closed:
            self._direct = direct
            try:
                await self._wait(timeout_s)
            finally:
                self._direct = None
        if self._closed:
            raise FeedClosedError("Nobody listens any more.")
        self._final_here = False
        return self._queue.take()

    def overflowed(self) -> bool:
        """Whether frames were refused since the last call: they are to be read again."""
        overflowed, self._queue.overflowed = self._queue.overflowed, False
        return overflowed

    async def close(self) -> None:
        """Unsubscribe, once."""
        if self._closed:
            return
        self._closed = True
        self._queue.take()  # gives the session its bytes back
        if self._timer is not None:
            self._timer.cancel()
        self._wake()
        if self._subscription is not None:
            try:
                await self._subscription.unsubscribe()
            except (nats.errors.Error, OSError):
                return  # the connection is gone, and the subscription with it

    async def _wait(self, timeout_s: float) -> None:
        # A future, and one timer that outlives many deltas: a fifth of what asyncio.wait_for costs.
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self._timeout_s = timeout_s
        self._silent_at_s = loop.time() + timeout_s
        if self._timer is None:
            self._timer = loop.call_at(self._silent_at_s, self._look, loop)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Whether the silence has lasted long enough by now."""
        self._timer = None
        if self._waiter is None:
            return
        if loop.time() < self._silent_at_s:
            self._timer = loop.call_at(self._silent_at_s, self._look, loop)
        else:
            self._wake()

    def _arrived(self, msg: Msg) -> None:
        if self._closed:
            return
        queue = self._queue
        if self._direct is not None and not queue and self._direct(msg.data):
            self._silent_at_s = asyncio.get_running_loop().time() + self._timeout_s
            return
        is_delta = msg.data.startswith(DELTA_START)
        if is_delta and self._until_final and not self._final_here:
            queue.take()  # the last one shows that it goes on; the final frame has the text
        before = queue.dropped
        queue.push(msg.data)
        if queue.dropped > before:
            metrics.WS_BACKPRESSURE_DROPS.labels(queue.policy.value).inc(queue.dropped - before)
        self._final_here = self._final_here or not is_delta
        if self._final_here or not self._until_final:
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _unreadable() -> UnavailableError:
    return UnavailableError("The kept frames could not be read.", code="broker_unavailable")
