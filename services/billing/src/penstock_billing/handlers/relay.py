"""The relay: publishes what the outbox holds, in order, each entry before the next."""

from __future__ import annotations

import asyncio

from penstock_billing import metrics
from penstock_billing.ports.outbox import EntryPublisher, Outbox
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.runtime.telemetry import log


class OutboxRelay:
    """Publishes after every act, and looks at the outbox every second for what others left."""

    def __init__(self, outbox: Outbox, publisher: EntryPublisher) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._one_at_a_time = asyncio.Lock()  # one connection of the pool, however many wait
        self.problem: str | None = None
        """Why the last look failed: what `/readyz` says of Postgres."""

    async def flush(self) -> None:
        """After this returns everything committed before is published.

        If the process dies between publishing and deleting, the entry is published again, which
        changes nothing.

        Raises:
            TransientError: Postgres or NATS does not answer; the entries wait for the next look.
        """
        async with self._one_at_a_time:
            while await self._publish_first():
                pass

    async def run(self, interval_s: float) -> None:
        """Look at the outbox for ever."""
        while True:
            await self.look()
            await asyncio.sleep(interval_s)

    async def look(self) -> None:
        """Publish what waits; a failure is remembered, not raised."""
        try:
            backlog = await self._outbox.backlog()
            self.problem = None
            metrics.OUTBOX_BACKLOG.set(backlog)
            if backlog:
                await self.flush()
                metrics.OUTBOX_BACKLOG.set(0)
        except PenstockError as error:
            self.problem = error.message
            log().warning("outbox.not_published", code=error.code)
        except Exception as error:  # noqa: BLE001  the next look may succeed; nothing is lost
            self.problem = "The outbox cannot be published: see the log."
            log().error("outbox.failed", kind=type(error).__name__, exc_info=error)

    async def _publish_first(self) -> bool:
        async with self._outbox.first() as entry:
            if entry is None:
                return False
            await self._publisher.publish(entry)
        metrics.OUTBOX_PUBLISHED.labels(entry.kind.value).inc()
        return True
