"""Doing the sums again (I9): the log, read into fresh tables, must give the figures that stand."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from penstock_billing.domain.metering import METERED_TYPES, distinct, meter
from penstock_billing.handlers.batches import write_all
from penstock_billing.ports.rebuild import (
    Difference,
    EmptiedLedger,
    EventLog,
    FreshTables,
    Reader,
    Span,
)
from penstock_billing.ports.usage import EventPosition, MeteredUsage
from penstock_shared.contracts.errors import ConflictError, SchemaError, UnavailableError
from penstock_shared.runtime.broker import StoredMessage

_TYPE: Final = "ce-type"
_BATCH: Final = 5_000
_POLL_S: Final = 0.1

Progress = Callable[[int, int], None]
"""Is told how far the log has been read, and how far it goes."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What came of it."""

    span: Span
    attempts: int
    """Different ones that the log tells of."""
    unfit: int
    """Facts that are no usage: they are in DEAD, and in no figure."""
    differences: Sequence[Difference]


class Rebuild:
    """Reads the whole log anew and compares."""

    def __init__(self, log: EventLog, fresh: FreshTables, position: EventPosition) -> None:
        self._log = log
        self._fresh = fresh
        self._position = position
        self._attempts = 0
        self._unfit = 0

    async def run(self, since: date, wait_s: float, progress: Progress) -> Rebuilt:
        """Compare all figures, quotas from `since` on; changes nothing that is live.

        Waits up to `wait_s` until billing has read as far as the log goes now.

        Raises:
            UnavailableError: NATS or Postgres does not answer, or billing is further behind.
        """
        span = await self._log.span()
        batch: list[StoredMessage] = []
        async for message in self._log.facts(span.until_seq):
            batch.append(message)
            if len(batch) == _BATCH:
                await self._read(batch)
                progress(message.sequence, span.until_seq)
                batch = []
        await self._read(batch)
        await self._settled(span.until_seq, wait_s)
        differences = await self._fresh.differences(span, since)
        return Rebuilt(span, self._attempts, self._unfit, differences)

    async def _read(self, batch: Sequence[StoredMessage]) -> None:
        rows: list[MeteredUsage] = []
        for message in batch:
            event_type = message.headers.get(_TYPE)
            if event_type in METERED_TYPES and message.time is not None:
                try:
                    rows.append(
                        meter(
                            event_type,
                            message.subject,
                            message.sequence,
                            message.time,
                            message.data,
                        )
                    )
                except SchemaError:
                    self._unfit += 1
        await write_all(rows, self._record, self._refuse)

    async def _record(self, rows: Sequence[MeteredUsage]) -> None:
        added = await self._fresh.record(distinct(rows))
        self._attempts += sum(model.rows for model in added)

    async def _refuse(self, _row: MeteredUsage, _error: SchemaError) -> None:
        self._unfit += 1

    async def _settled(self, until_seq: int, wait_s: float) -> None:
        read = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while True:
                    read = (await self._position.read()).events_seq
                    if read >= until_seq:
                        return
                    await asyncio.sleep(_POLL_S)
        msg = (
            f"Billing has read the event log up to {read} of {until_seq}: "
            "see that it runs, and try again."
        )
        raise UnavailableError(msg, code="billing_behind")


class Replacement:
    """Has the live tables made anew from the log; billing goes on running meanwhile."""

    def __init__(self, log: EventLog, ledger: EmptiedLedger, reader: Reader) -> None:
        self._log = log
        self._ledger = ledger
        self._reader = reader

    async def run(self) -> int:
        """Empty the tables and have the log read again; returns up to where it goes.

        Until then nothing is reserved. Dying between the two leaves the wish in the database:
        billing's next start fulfils it, and so does doing this again.

        Raises:
            ConflictError: the log does not hold everything any more.
            UnavailableError: NATS or Postgres does not answer.
        """
        span = await self._log.span()
        if span.first_seq > 1:
            msg = (
                f"The event log begins at {span.first_seq}: reading it again would lose what was "
                "used before."
            )
            raise ConflictError(msg, code="log_incomplete")
        await self._ledger.empty()
        until_seq = await self._reader.reset()
        await self._ledger.rebuild_begun(until_seq)
        return until_seq
