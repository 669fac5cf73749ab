"""The reconciliation: cheap when nothing changed, careful when something moved."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

from tests.support.billing import NOON

from penstock_billing.handlers.reconcile import Reconciler
from penstock_billing.ports.accounts import BucketEntry, StoredKey
from penstock_billing.ports.outbox import OutboxEntry
from penstock_shared.contracts.accounts import KeyRecord, TenantRecord
from penstock_shared.contracts.streams import Bucket

ACME = TenantRecord(tenant="acme", name="Acme", created_at=NOON)
KEY = StoredKey(
    "a" * 64, KeyRecord(key_id="key_1", tenant="acme", name="ci", hint="abcd", created_at=NOON)
)


class Postgres:
    """Accounts and outbox as they stand."""

    def __init__(self) -> None:
        self.number, self.waiting, self.reads = 1, 0, 0

    def first(self) -> AbstractAsyncContextManager[OutboxEntry | None]:
        raise AssertionError

    async def tenants(self) -> list[TenantRecord]:
        self.reads += 1
        return [ACME]

    async def keys(self) -> list[StoredKey]:
        return [KEY]

    async def prices(self) -> dict[str, str]:
        return {"acme": "prices"}

    async def backlog(self) -> int:
        return self.waiting

    async def last_number(self) -> int:
        return self.number


class Buckets:
    """Buckets in memory, with revisions."""

    def __init__(self) -> None:
        self.held: dict[Bucket, dict[str, BucketEntry]] = {
            Bucket.TENANTS: {},
            Bucket.KEYS: {},
            Bucket.PRICES: {},
        }
        self.revision = 0
        self.moved_meanwhile = False

    async def version(self, bucket: Bucket) -> str:
        return f"{bucket.value}/{self.revision}"

    async def entries(self, bucket: Bucket) -> Mapping[str, BucketEntry]:
        return dict(self.held[bucket])

    async def put(self, bucket: Bucket, key: str, value: str, revision: int) -> bool:
        return self._write(bucket, key, value.encode(), revision)

    async def purge(self, bucket: Bucket, key: str, revision: int) -> bool:
        return self._write(bucket, key, None, revision)

    def _write(self, bucket: Bucket, key: str, value: bytes | None, revision: int) -> bool:
        held = self.held[bucket].get(key, BucketEntry(0, None))
        if self.moved_meanwhile or held.revision != revision:
            return False
        self.revision += 1
        self.held[bucket][key] = BucketEntry(self.revision, value)
        return True


async def test_it_fills_what_is_empty_and_then_is_cheap() -> None:
    """Two looks mend and confirm; after that nothing is read until something changes."""
    postgres, buckets = Postgres(), Buckets()
    reconciler = Reconciler(postgres, postgres, postgres, buckets)
    assert await reconciler.look() == 3
    assert await reconciler.look() == 0
    reads = postgres.reads
    assert await reconciler.look() == 0
    assert postgres.reads == reads
    postgres.number += 1
    await reconciler.look()
    assert postgres.reads == reads + 1


async def test_nobody_is_let_in_before_its_prices_are_there() -> None:
    """Of lost buckets that of prices is filled first: none is priced as if it had no plan."""
    postgres, buckets = Postgres(), Buckets()
    await Reconciler(postgres, postgres, postgres, buckets).look()
    (priced,) = buckets.held[Bucket.PRICES].values()
    for bucket in (Bucket.TENANTS, Bucket.KEYS):
        assert all(priced.revision < entry.revision for entry in buckets.held[bucket].values())


async def test_a_changed_entry_is_mended_and_an_orphan_removed() -> None:
    """What somebody else wrote into the buckets does not last."""
    postgres, buckets = Postgres(), Buckets()
    reconciler = Reconciler(postgres, postgres, postgres, buckets)
    await reconciler.look()
    buckets.held[Bucket.KEYS][KEY.sha256] = BucketEntry(90, b"forged")
    buckets.held[Bucket.KEYS]["b" * 64] = BucketEntry(91, b"orphan")
    buckets.held[Bucket.PRICES]["acme"] = BucketEntry(92, b"cheaper")
    assert await reconciler.look() == 3
    assert buckets.held[Bucket.PRICES]["acme"].value == b"prices"
    assert buckets.held[Bucket.KEYS][KEY.sha256].value == KEY.record.model_dump_json().encode()
    assert buckets.held[Bucket.KEYS]["b" * 64].value is None
    assert await reconciler.look() == 0


async def test_it_never_overtakes_the_relay() -> None:
    """While entries wait nothing is compared, and a bucket that moved meanwhile is left alone."""
    postgres, buckets = Postgres(), Buckets()
    reconciler = Reconciler(postgres, postgres, postgres, buckets)
    postgres.waiting = 1
    assert await reconciler.look() == 0
    postgres.waiting, buckets.moved_meanwhile = 0, True
    assert await reconciler.look() == 3
    assert buckets.held[Bucket.KEYS] == {}
    buckets.moved_meanwhile = False
    assert await reconciler.look() == 3
