"""Accounts: their truth, and the buckets that copy it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from penstock_billing.ports.outbox import OutboxEntry
from penstock_shared.contracts.account_commands import KeyUse, ListedKey, ListKeys
from penstock_shared.contracts.accounts import KeyRecord, TenantRecord
from penstock_shared.contracts.quotas import QuotaState
from penstock_shared.contracts.streams import Bucket


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as Postgres holds it: the record, and the hash it is looked up by."""

    sha256: str
    record: KeyRecord


class AccountTransaction(Protocol):
    """Changes to accounts that take effect together, outbox included."""

    async def add_tenant(self, record: TenantRecord) -> None:
        """Raises ConflictError when its name or one of its token audiences is taken."""
        ...

    async def lock_tenant(self, tenant: str) -> TenantRecord:
        """The tenant, held until the transaction ends.

        Raises:
            NotFoundError: it does not exist.
        """
        ...

    async def change_tenant(self, record: TenantRecord) -> None:
        """Raises ConflictError when one of its token audiences is another's."""
        ...

    async def recount_quotas(self, tenant: str, at: datetime) -> None:
        """Sum up what the tenant has used and reserved in the month of `at`; it is counted then.

        Nothing is metered from here to the transaction's end.
        """
        ...

    async def working_keys(self, tenant: str, at: datetime) -> int:
        """How many keys let somebody in at that time."""
        ...

    async def add_key(self, key: StoredKey) -> None:
        """Of a tenant that exists."""
        ...

    async def lock_key(self, key_id: str) -> StoredKey | None:
        """The key, held until the transaction ends: two revocations are one."""
        ...

    async def change_key(self, key: StoredKey) -> None:
        """Write when it expires, and when it was revoked."""
        ...

    async def enqueue(self, entries: Sequence[OutboxEntry]) -> None:
        """Publish these, in this order, once the transaction is committed."""
        ...


class AccountRecords(Protocol):
    """All that the buckets `tenants` and `keys` must hold. All may raise UnavailableError."""

    async def tenants(self) -> list[TenantRecord]:
        """Every tenant."""
        ...

    async def keys(self) -> list[StoredKey]:
        """Every key."""
        ...


class AccountStore(Protocol):
    """The truth about accounts. Every method may raise UnavailableError."""

    def transaction(self) -> AbstractAsyncContextManager[AccountTransaction]:
        """Commits at the end, or changes nothing."""
        ...

    async def tenants(self, tenant: str | None = None) -> list[TenantRecord]:
        """One tenant, or all."""
        ...

    async def quotas(self, tenant: str | None, at: datetime) -> list[QuotaState]:
        """How the quotas of one tenant, or of all, stand in the periods that hold `at`."""
        ...

    async def page(self, query: ListKeys) -> list[ListedKey]:
        """A page of keys with their last uses: one more than asked for, where there are more."""
        ...

    async def note_uses(self, uses: Sequence[KeyUse], now: datetime) -> int:
        """Keep each key's latest use, none later than now; how many keys that moved forward."""
        ...


@dataclass(frozen=True, slots=True)
class BucketEntry:
    """A bucket's entry with the revision that a change to it must expect; None: purged."""

    revision: int
    value: bytes | None


class AccountBuckets(Protocol):
    """The buckets `tenants`, `keys` and `prices`, as the reconciliation sees them."""

    async def version(self, bucket: Bucket) -> str:
        """Differs when anything in the bucket has changed, or the bucket is another one."""
        ...

    async def entries(self, bucket: Bucket) -> Mapping[str, BucketEntry]:
        """Every key's last entry."""
        ...

    async def put(self, bucket: Bucket, key: str, value: str, revision: int) -> bool:
        """Store unless the key has another revision by now; whether it was stored."""
        ...

    async def purge(self, bucket: Bucket, key: str, revision: int) -> bool:
        """Remove unless the key has another revision by now; whether it was removed."""
        ...
