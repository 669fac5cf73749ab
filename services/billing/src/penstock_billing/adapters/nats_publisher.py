"""Publishes outbox entries: records to the buckets, facts to EVENTS, each exactly once."""

from __future__ import annotations

from typing import Final

from penstock_billing.ports.outbox import OutboxEntry, OutboxKind
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.streams import EVENTS, Bucket
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker, SequenceConflictError

_ATTEMPTS: Final = 5
_BUCKETS: Final = {
    OutboxKind.TENANT: Bucket.TENANTS,
    OutboxKind.KEY: Bucket.KEYS,
    OutboxKind.PRICES: Bucket.PRICES,
}


class NatsEntryPublisher:
    """An `EntryPublisher`.

    Only one relay publishes at a time, in order, so an entry that was published before a crash is
    still the last on its subject: it is recognised by its id, however long ago that was. The
    expected sequence fences off a relay that lost its lock and still has a publish on the way.
    """

    def __init__(self, broker: Broker, source: str) -> None:
        self._broker = broker
        self._source = source

    async def publish(self, entry: OutboxEntry) -> None:
        """After this returns everyone who looks sees it.

        Raises:
            UnavailableError: NATS does not answer, or somebody else keeps writing there.
        """
        for _ in range(_ATTEMPTS):
            try:
                if entry.kind is OutboxKind.FACT:
                    await self._publish_fact(entry)
                else:
                    await self._put_record(_BUCKETS[entry.kind], entry)
            except SequenceConflictError:
                continue
            return
        msg = f"Somebody else keeps writing to '{entry.kind.value}' entries."
        raise UnavailableError(msg, code="outbox_contended")

    async def _publish_fact(self, entry: OutboxEntry) -> None:
        last = await self._broker.last_message(EVENTS, entry.key)
        if last is not None and last.event_id == entry.event_id:
            return
        envelope = Envelope(
            id=entry.event_id,
            source=self._source,
            type=entry.event_type or "",
            time=entry.created_at,
            traceparent=entry.traceparent,
        )
        await self._broker.publish(
            entry.key,
            entry.payload.encode(),
            envelope,
            expected_last_seq=last.sequence if last is not None else 0,
        )

    async def _put_record(self, bucket: Bucket, entry: OutboxEntry) -> None:
        value = entry.payload.encode()
        last = await kv.last_entry(self._broker, bucket, entry.key)
        if last is not None and last.data == value:
            return
        await kv.put(
            self._broker,
            bucket,
            entry.key,
            value,
            expected_revision=last.sequence if last is not None else 0,
        )
