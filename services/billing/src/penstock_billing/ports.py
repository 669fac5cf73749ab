"""What billing needs of the world, as roles; and the records that pass between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol

from penstock_shared.contracts.account_commands import KeyUse, ListedKey, ListKeys
from penstock_shared.contracts.accounts import KeyRecord, TenantRecord
from penstock_shared.contracts.quotas import QuotaState
from penstock_shared.contracts.requests import RequestRouted
from penstock_shared.contracts.streams import Bucket
from penstock_shared.contracts.usage import UsageRow


class OutboxKind(StrEnum):
    """Where an outbox entry goes."""

    TENANT = "tenant"  # bucket `tenants`, key = tenant
    KEY = "key"  # bucket `keys`, key = SHA-256 of the secret
    FACT = "fact"  # EVENTS, key = subject


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """One thing to publish, written in the transaction whose effect it tells."""

    event_id: str
    """UUIDv7: the same entry has the same id however often it is published."""
    kind: OutboxKind
    key: str
    event_type: str | None
    """CloudEvents type of a fact."""
    payload: str
    created_at: datetime
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as Postgres holds it: the record, and the hash it is looked up by."""

    sha256: str
    record: KeyRecord


@dataclass(frozen=True, slots=True)
class MeteredUsage:
    """One attempt's usage. The first three fields are its identity (I2)."""

    tenant: str
    request_id: str
    attempt: int
    event_seq: int
    model: str
    key_id: str
    status: str
    input_tokens: int
    output_tokens: int
    cost_microusd: int
    ended_at: datetime
    accepted_on: date
    """In UTC: it counts in the quotas of that day, whenever it ended."""


@dataclass(frozen=True, slots=True)
class Added:
    """What a batch added to one model's usage; rows that were there already are not in it."""

    model: str
    rows: int
    input_tokens: int
    output_tokens: int
    cost_microusd: int


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
    """All that the buckets must hold. Every method may raise UnavailableError."""

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


class Outbox(Protocol):
    """The entries that await publication."""

    def first(self) -> AbstractAsyncContextManager[OutboxEntry | None]:
        """The oldest entry; deleted when the block ends without an error.

        Only one process at a time is inside the block, over all replicas.
        """
        ...

    async def backlog(self) -> int:
        """How many entries wait."""
        ...

    async def last_number(self) -> int:
        """Grows with every change to any account: tells whether there was one."""
        ...


class EntryPublisher(Protocol):
    """Publishes outbox entries. Publishing an entry again changes nothing."""

    async def publish(self, entry: OutboxEntry) -> None:
        """After this returns everyone who looks sees it. Raises TransientError."""
        ...


@dataclass(frozen=True, slots=True)
class BucketEntry:
    """A bucket's entry with the revision that a change to it must expect; None: purged."""

    revision: int
    value: bytes | None


class AccountBuckets(Protocol):
    """The buckets `tenants` and `keys`, as the reconciliation sees them."""

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


class UsageLedger(Protocol):
    """Settled usage."""

    async def record(self, rows: Sequence[MeteredUsage]) -> list[Added]:
        """Add what is not there yet, all or nothing; after this returns it is committed.

        Raises:
            SchemaError: a value among them is none that can be stored.
            UnavailableError: Postgres does not answer; it may be committed or not.
        """
        ...

    async def restore(self, requests: Sequence[RequestRouted]) -> None:
        """Reserve again what the database has lost of these.

        Raises:
            SchemaError: a value among them is none that can be stored.
            UnavailableError: Postgres does not answer.
        """
        ...

    async def rebuild_until(self) -> int:
        """Up to where EVENTS is being read again; 0: it is not."""
        ...

    async def rebuild_ended(self, events_seq: int) -> bool:
        """EVENTS is settled up to there; whether nothing has to be read again any more."""
        ...

    async def reservations(self) -> int:
        """How many attempts have one. May raise UnavailableError."""
        ...

    async def totals(self, tenant: str | None = None) -> list[UsageRow]:
        """Sums by tenant and model. May raise UnavailableError."""
        ...


@dataclass(frozen=True, slots=True)
class Position:
    """How far billing has read EVENTS."""

    events_seq: int
    """All events up to this sequence are settled and committed."""
    lag: int
    """Request events that are not settled yet."""


class EventPosition(Protocol):
    """Tells the position of billing's consumer."""

    async def read(self) -> Position:
        """May raise UnavailableError."""
        ...
