"""Pulling from a JetStream consumer: one inbox, many pull requests, credit kept topped up.

nats-py's `fetch` pays a subscription and two requests per call, and goes quiet when its consumer
disappears. Here one subscription lives as long as the connection, the server is asked for more
before the buffer is empty, and silence past two heartbeats is an error that is acted on.

Protocol: nats-architecture-and-design, ADR-13 (pull requests, status 100, 404, 408, 409, 503).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Final

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.telemetry import log

_EXPIRES_S: Final = 30.0
_HEARTBEAT_S: Final = 2.0
_WITHDRAW_S: Final = 1.0
_CONSUMER_GONE: Final = ("consumer deleted", "consumer not found", "stream deleted")
_NS: Final = 1_000_000_000
_ACK_PREFIX: Final = "$JS.ACK."


class PullLoop:
    """Keeps up to `credit` messages asked for, and hands each to `on_message`.

    `ensure` creates or verifies the consumer and returns its name; it is called at the start,
    after every reconnect and whenever the consumer is found gone.
    """

    def __init__(
        self,
        broker: Broker,
        stream: str,
        *,
        credit: int,
        ensure: Callable[[], Awaitable[str]],
        on_message: Callable[[Msg], None],
    ) -> None:
        self._broker = broker
        self._stream = stream
        self._credit = credit
        self._ensure = ensure
        self._on_message = on_message
        self._consumer = ""
        self._inbox = broker.client.new_inbox()
        self._outstanding = 0  # asked for and not yet arrived
        self._buffered = 0  # arrived and not yet taken
        self._last_heard_s = 0.0
        self._wake = asyncio.Event()
        self._renew = False
        self._task: asyncio.Task[None] | None = None
        self._subscription: Subscription | None = None
        self._closed = False

    async def start(self) -> None:
        """Create the consumer and begin pulling."""
        self._consumer = await self._ensure()  # first: it may fail, and be tried again
        self._subscription = await self._broker.client.listen(self._inbox, self._received)
        self._broker.on_reconnect(self._reconnected)
        self._task = asyncio.create_task(self._keep_asking(), name=f"pull-{self._stream}")

    async def stop(self) -> None:
        """Ask for nothing more, and withdraw what was asked for.

        A pull request outlives its caller by up to `_EXPIRES_S`: without giving up the inbox, what
        is handed back would be delivered right here again. What is on its way still arrives.
        """
        self._closed = True
        self._broker.forget_hook(self._reconnected)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._subscription is not None:
            with contextlib.suppress(nats.errors.Error, TimeoutError):
                drained = self._subscription.drain()  # type: ignore[no-untyped-call]
                await asyncio.wait_for(drained, _WITHDRAW_S)

    def release(self, count: int = 1) -> None:
        """`count` messages have left the buffer: there is room for as many more."""
        self._buffered -= count
        self._wake.set()

    def set_credit(self, credit: int) -> None:
        """Change how many messages may be asked for or buffered at once."""
        self._credit = credit
        self._wake.set()

    async def _reconnected(self) -> None:
        if self._closed:
            return
        self._outstanding = 0
        self._consumer = await self._ensure()
        self._wake.set()

    def _received(self, msg: Msg) -> None:
        self._last_heard_s = asyncio.get_running_loop().time()
        if msg.reply.startswith(_ACK_PREFIX):
            self._outstanding = max(0, self._outstanding - 1)
            self._buffered += 1
            self._on_message(msg)
            if self._outstanding * 2 < self._credit:
                self._wake.set()
            return
        headers = msg.headers or {}
        if headers.get("Status") == "100":  # idle heartbeat
            return
        # One request has ended; the header says how much of it was not served.
        unserved = int(headers.get("Nats-Pending-Messages", self._outstanding))
        self._outstanding = max(0, self._outstanding - unserved)
        text = headers.get("Description", "").lower()
        if headers.get("Status") == "503" or any(reason in text for reason in _CONSUMER_GONE):
            self._renew = True
        self._wake.set()

    async def _keep_asking(self) -> None:
        clock = asyncio.get_running_loop().time
        self._last_heard_s = clock()
        while not self._closed:
            try:
                await self._step(clock)
            except Exception as error:  # noqa: BLE001  whatever the broker says, ask again
                log().warning("pull.failed", stream=self._stream, kind=type(error).__name__)
                await asyncio.sleep(0.25)

    async def _step(self, clock: Callable[[], float]) -> None:
        if self._outstanding and clock() - self._last_heard_s > 3 * _HEARTBEAT_S:
            self._renew = True
        if self._renew and self._broker.is_connected:
            self._outstanding = 0
            self._consumer = await self._ensure()
            self._renew = False
            self._last_heard_s = clock()
        await self._ask(clock)
        with contextlib.suppress(TimeoutError):
            # Not wait_for: on Python 3.11 it swallows a cancellation that meets the event.
            async with asyncio.timeout(_HEARTBEAT_S):
                await self._wake.wait()
        self._wake.clear()

    async def _ask(self, clock: Callable[[], float]) -> None:
        missing = self._credit - self._buffered - self._outstanding
        if missing <= 0 or not self._broker.is_connected:
            return
        if self._outstanding == 0:
            self._last_heard_s = clock()
        self._outstanding += missing
        request = {
            "batch": missing,
            "expires": int(_EXPIRES_S * _NS),
            "idle_heartbeat": int(_HEARTBEAT_S * _NS),
        }
        with contextlib.suppress(nats.errors.ConnectionClosedError):
            await self._broker.client.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._consumer}",
                json.dumps(request).encode(),
                reply=self._inbox,
            )
