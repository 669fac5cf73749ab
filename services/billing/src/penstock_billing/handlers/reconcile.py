"""The reconciliation: the buckets hold what Postgres says, whatever was lost or restored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock_billing import metrics
from penstock_billing.ports.accounts import AccountBuckets, AccountRecords, BucketEntry
from penstock_billing.ports.outbox import Outbox
from penstock_billing.ports.plans import PriceRecords
from penstock_shared.contracts.streams import Bucket
from penstock_shared.runtime.telemetry import log

_NOTHING: Final = BucketEntry(revision=0, value=None)


class Reconciler:
    """Compares only when something has changed since the last clean comparison.

    Every mend expects the revision that was compared: a bucket that moved on meanwhile (the relay
    revoked that very key) is left alone until the next look.
    """

    def __init__(
        self,
        store: AccountRecords,
        plans: PriceRecords,
        outbox: Outbox,
        buckets: AccountBuckets,
    ) -> None:
        self._store = store
        self._plans = plans
        self._outbox = outbox
        self._buckets = buckets
        self._agreed: tuple[int, str, str, str] | None = None

    async def look(self) -> int:
        """Mend what differs; returns how many entries differed.

        Raises:
            TransientError: Postgres or NATS does not answer.
        """
        if await self._outbox.backlog():
            return 0  # the relay is on it, entry by entry; overtaking it would be undone by it
        versions = await self._versions()
        if versions == self._agreed:
            return 0
        # Buckets before Postgres: what a relay published was committed earlier, so an entry that
        # Postgres does not know is an orphan, never one that is only just being made.
        tenants_there = await self._buckets.entries(Bucket.TENANTS)
        keys_there = await self._buckets.entries(Bucket.KEYS)
        prices_there = await self._buckets.entries(Bucket.PRICES)
        tenants = {t.tenant: t.model_dump_json() for t in await self._store.tenants()}
        keys = {k.sha256: k.record.model_dump_json() for k in await self._store.keys()}
        # Prices first: after a loss nobody is let in before it is known what it pays.
        differing = await self._mend(Bucket.PRICES, await self._plans.prices(), prices_there)
        differing += await self._mend(Bucket.TENANTS, tenants, tenants_there)
        differing += await self._mend(Bucket.KEYS, keys, keys_there)
        # Agreement is about the state before the comparison: a change since is looked at again.
        self._agreed = versions if differing == 0 else None
        return differing

    async def _versions(self) -> tuple[int, str, str, str]:
        return (
            await self._outbox.last_number(),
            await self._buckets.version(Bucket.TENANTS),
            await self._buckets.version(Bucket.KEYS),
            await self._buckets.version(Bucket.PRICES),
        )

    async def _mend(
        self, bucket: Bucket, wanted: Mapping[str, str], there: Mapping[str, BucketEntry]
    ) -> int:
        """Write what Postgres says; returns how many entries said something else."""
        differing = 0
        for key, value in wanted.items():
            entry = there.get(key, _NOTHING)
            if entry.value != value.encode():
                differing += 1
                done = await self._buckets.put(bucket, key, value, entry.revision)
                metrics.MENDED.labels(bucket.value, "put" if done else "overtaken").inc()
        for key, entry in there.items():
            if key not in wanted and entry.value is not None:
                differing += 1
                # Postgres does not know it, so nobody could list or change it: it must not work.
                done = await self._buckets.purge(bucket, key, entry.revision)
                metrics.MENDED.labels(bucket.value, "purge" if done else "overtaken").inc()
        if differing:
            log().warning("bucket.differed", bucket=bucket.value, entries=differing)
        return differing
