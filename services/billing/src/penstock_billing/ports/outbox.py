"""What is published after the transaction whose effect it tells."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class OutboxKind(StrEnum):
    """Where an outbox entry goes."""

    TENANT = "tenant"  # bucket `tenants`, key = tenant
    KEY = "key"  # bucket `keys`, key = SHA-256 of the secret
    PRICES = "prices"  # bucket `prices`, key = tenant
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
