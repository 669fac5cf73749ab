"""Tells holders that died on a job from holders that gave it back: `deliveries` counts both.

Every holder is charged with a crash before it touches a job, and whoever lives to give the job
back takes the charge back. The first holder is charged without a word, since nearly every job has
no second one; from the second on the charge is written before the job is looked at. So what is
left when a holder goes silent is right whenever it died:

- before its charge: it had not begun, and the job is as innocent as before;
- between its charge and its word: it died on the job, or beside it;
- between its word and the nak: the run was over by then, and the job comes back by the ack wait.

A broker that does not answer when a charge should be taken back costs the job one of its three
lives, and none of its promises.
"""

from __future__ import annotations

import asyncio
from typing import Final

from penstock_shared.contracts.errors import (
    POISON_AFTER_DELIVERIES,
    TransientError,
    UnavailableError,
)
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.broker import Broker, SequenceConflictError
from penstock_shared.runtime.consumer import Delivery
from penstock_shared.runtime.kv import last_entry, put
from penstock_shared.runtime.telemetry import log

_NOTE_TIMEOUT_S: Final = 2.0
"""A worker that drains gives its jobs back whether or not somebody writes that down."""
_ATTEMPTS: Final = 20
_CATCH_UP_S: Final = 0.02
_UNWRITTEN: Final = (1, 0)
"""The charge of a first holder, which is nowhere written, and the revision to expect then."""


class NatsReturns:
    """Counts in the bucket `crashes`: key the job's sequence in JOBS, value a decimal number."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._charged: set[Delivery] = set()
        """Redelivered jobs that this process has been charged with and still holds."""

    async def crashes(self, delivery: Delivery) -> int:
        """How many holders have died on it, or failed with it; call it before opening the job.

        When it returns less than three, this holder is charged, too: run the job, or nak it.

        Raises:
            TransientError: the broker does not answer, or the job has one life left and others
                that came back are running here: if one of them is the killer, it must not be
                counted against this one. Later.
        """
        if delivery.deliveries == 1:
            return 0
        self._charged = {one for one in self._charged if not one.settled}
        for _ in range(_ATTEMPTS):
            count, revision = await self._read(delivery)
            delivery.failures = count
            if count >= POISON_AFTER_DELIVERIES:
                return count
            self._refuse_bad_company(count)
            self._charged.add(delivery)
            try:
                await self._write(delivery, count + 1, revision)
            except SequenceConflictError:  # a holder that was taken for dead has spoken
                self._charged.discard(delivery)
                await asyncio.sleep(_CATCH_UP_S)
            except TransientError:
                self._charged.discard(delivery)
                raise
            else:
                return count
        raise _undecided()

    async def note(self, delivery: Delivery) -> None:
        """This holder lives and gives the job back: nothing is to be counted. Never raises."""
        if delivery.deliveries > 1 and delivery not in self._charged:
            return
        self._charged.discard(delivery)
        try:
            async with asyncio.timeout(_NOTE_TIMEOUT_S):
                await self._take_back(delivery)
        except (TransientError, TimeoutError) as error:
            log().warning("return.unnoted", sequence=delivery.sequence, kind=type(error).__name__)

    async def _take_back(self, delivery: Delivery) -> None:
        count, revision = _UNWRITTEN if delivery.deliveries == 1 else await self._read(delivery)
        for _ in range(_ATTEMPTS):
            try:
                await self._write(delivery, max(0, count - 1), revision)
            except SequenceConflictError:  # its next holder was charged meanwhile
                await asyncio.sleep(_CATCH_UP_S)
                count, revision = await self._read(delivery)
            else:
                return
        raise _undecided()

    def _refuse_bad_company(self, count: int) -> None:
        """One life left: run it while no other suspect does, and no suspect beside such a one."""
        last_life = POISON_AFTER_DELIVERIES - 1
        suspects = [one.failures for one in self._charged if one.failures]
        if count and suspects and max(count, *suspects) >= last_life:
            msg = "Another job that may have killed a worker is running here: later."
            raise TransientError(msg, code="suspect_waits")

    async def _read(self, delivery: Delivery) -> tuple[int, int]:
        """Charges so far, and the entry's revision."""
        entry = await last_entry(self._broker, Bucket.CRASHES, str(delivery.sequence))
        return _UNWRITTEN if entry is None else (int(entry.data), entry.sequence)

    async def _write(self, delivery: Delivery, count: int, revision: int) -> None:
        await put(
            self._broker,
            Bucket.CRASHES,
            str(delivery.sequence),
            str(count).encode(),
            expected_revision=revision,
        )


def _undecided() -> TransientError:
    msg = "The count of a job's crashes cannot be read yet: try again."
    return UnavailableError(msg, code="event_log_unavailable")
