"""The buckets `tenants`, `keys` and `prices`, as the reconciliation sees and mends them."""

from __future__ import annotations

from collections.abc import Mapping

import nats.errors
import nats.js.errors

from penstock_billing.ports.accounts import BucketEntry
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime import kv
from penstock_shared.runtime.broker import Broker, SequenceConflictError


class NatsAccountBuckets:
    """An `AccountBuckets`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def version(self, bucket: Bucket) -> str:
        """Creation time and last sequence: another store, or another write, is another version.

        Raises:
            UnavailableError: NATS does not answer, or has lost the bucket.
        """
        try:
            info = await self._broker.jetstream.stream_info(kv.bucket_stream(bucket))
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
            msg = f"The bucket '{bucket.value}' cannot be read."
            raise UnavailableError(msg, code="bucket_unavailable") from error
        return f"{info.created}/{info.state.last_seq}"

    async def entries(self, bucket: Bucket) -> Mapping[str, BucketEntry]:
        """Every key's last entry; removed ones have no value."""
        found = await kv.read_bucket(self._broker, bucket)
        return {
            key: BucketEntry(revision=entry.sequence, value=entry.data or None)
            for key, entry in found.items()
        }

    async def put(self, bucket: Bucket, key: str, value: str, revision: int) -> bool:
        """Store unless the key has another revision by now; whether it was stored."""
        try:
            await kv.put(self._broker, bucket, key, value.encode(), expected_revision=revision)
        except SequenceConflictError:
            return False
        return True

    async def purge(self, bucket: Bucket, key: str, revision: int) -> bool:
        """Remove unless the key has another revision by now; whether it was removed."""
        try:
            await kv.purge(self._broker, bucket, key, expected_revision=revision)
        except SequenceConflictError:
            return False
        return True
