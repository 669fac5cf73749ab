"""Keeps responses with `store` beyond the event log: EVENTS in, one transaction per batch.

Nobody waits for it: a response is retrieved from EVENTS while that has it. So Postgres may be away
for as long as it likes; the consumer's position stands still, and nothing is lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from nats.aio.msg import Msg

from penstock_realtime import metrics
from penstock_realtime.domain.archiving import archived, folded, is_kept
from penstock_realtime.ports import Archive, ArchivedResponse
from penstock_shared.contracts.errors import TransientError
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.consumer import Delivery
from penstock_shared.runtime.position import position_of
from penstock_shared.runtime.settlement import retry_delay_s
from penstock_shared.runtime.telemetry import log

BATCH: Final = 64
"""Events per transaction, at most."""
CREDIT: Final = 4 * BATCH
"""Events in memory, at most. Each may have 350 kB, so they are no thousands."""
_LINGER_S: Final = 0.25
"""How long a batch waits for company, unless EVENTS has more already: transactions cost most."""
_MAX_PAUSE_S: Final = 5.0
_PRUNED_AT_ONCE: Final = 1_000
_PRUNE_EVERY_S: Final = 600.0
_PRUNE_PAUSE_S: Final = 0.1
_TYPE: Final = "ce-type"


class BatchSource(Protocol):
    """Where deliveries come from."""

    async def start(self) -> None:
        """Begin to pull."""
        ...

    async def get_batch(self, limit: int, linger_s: float = 0.0) -> list[Delivery]:
        """At least one, and up to `limit` that are here within `linger_s`."""
        ...


def wanted(msg: Msg) -> bool:
    """Whether an event is to be kept; the others are acknowledged as they arrive."""
    return is_kept((msg.headers or {}).get(_TYPE), msg.data)


@dataclass(frozen=True, slots=True)
class Archiving:
    """The archive's tasks; every instance runs them, and the instances share the work."""

    archive: Archive
    source: BatchSource
    rewind: Callable[[], Awaitable[None]]
    """Sets the source back to the beginning of EVENTS."""
    clock: Clock
    rng: random.Random
    retention: timedelta

    async def run(self) -> None:
        """Set the store up, then keep batch after batch, for ever."""
        await self._insist(self._prepare)
        await self._insist(self.source.start)
        linger_s = 0.0
        while True:
            batch = await self.source.get_batch(BATCH, linger_s)
            await self.on_batch(batch)
            behind = position_of(batch[-1].msg.reply).pending
            linger_s = 0.0 if behind else _LINGER_S

    async def prune(self) -> None:
        """Remove what has expired, a little at a time, for ever."""
        while True:
            await asyncio.sleep(_PRUNE_EVERY_S * self.rng.uniform(0.5, 1.5))
            await self._insist(self._prune_all)

    async def _prune_all(self) -> None:
        more = True
        while more:
            more = await self.prune_some() == _PRUNED_AT_ONCE
            await asyncio.sleep(_PRUNE_PAUSE_S)

    async def prune_some(self) -> int:
        """Remove one lot; how many it were."""
        removed = await self.archive.prune(self.clock.now(), _PRUNED_AT_ONCE)
        metrics.ARCHIVED.labels("expired").inc(removed)
        return removed

    async def on_batch(self, batch: Sequence[Delivery]) -> None:
        """Keep what is to be kept, then acknowledge all of it.

        Dying anywhere in here repeats the batch, which adds nothing (I2). While Postgres is away
        the batch is held: heartbeats keep it ours, and the consumer's credit keeps further ones
        from coming. When cancelled, what is open is handed back.
        """
        try:
            if kept := folded(self._kept(batch)):
                await self._insist(lambda: self.archive.keep(kept))
                metrics.ARCHIVED.labels("kept").inc(len(kept))
            for delivery in batch:
                await delivery.ack()
        except asyncio.CancelledError:
            for delivery in batch:
                if not delivery.settled:
                    await delivery.nak(0)
            raise

    def _kept(self, batch: Sequence[Delivery]) -> list[ArchivedResponse]:
        now = self.clock.now()
        found = []
        for delivery in batch:
            happened = datetime.fromtimestamp(position_of(delivery.msg.reply).time_ns / 1e9, UTC)
            expires_at = happened + self.retention
            # A log that is read again from its beginning brings nothing back that has expired.
            if expires_at > now:
                event_type = delivery.headers[_TYPE]
                event = archived(event_type, delivery.subject, delivery.data, expires_at)
                if event is not None:
                    found.append(event)
        return found

    async def _prepare(self) -> None:
        if await self.archive.prepare():
            await self.rewind()  # a crash right here does it again, which changes nothing
            await self.archive.rebuild_begun()

    async def _insist(self, action: Callable[[], Awaitable[None]]) -> None:
        """Try until it succeeds: nothing that is to be kept may lose its turn."""
        tries = 0
        while True:
            try:
                await action()
            except Exception as error:  # noqa: BLE001  whatever it is, the batch stays ours
                tries += 1
                metrics.ARCHIVE_RETRIES.inc()
                bug = None if isinstance(error, TransientError) else error
                log().warning("archive.waits", kind=type(error).__name__, tries=tries, exc_info=bug)
                await asyncio.sleep(min(retry_delay_s(tries, self.rng), _MAX_PAUSE_S))
            else:
                return
