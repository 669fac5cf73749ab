"""Metered usage, and how far the event log has been read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from penstock_shared.contracts.requests import RequestRouted
from penstock_shared.contracts.usage import UsageRow


class MeteredUsage(NamedTuple):
    """One attempt's usage. The first three fields are its identity (I2).

    A tuple, since there are many of them: made in half a frozen dataclass's time, and a batch
    turns into columns at once.
    """

    tenant: str
    request_id: str
    attempt: int
    event_seq: int
    model: str
    key_id: str
    data_subject: str
    kind: str
    status: str
    input_tokens: int
    cached_input_tokens: int
    """How many of the input tokens."""
    output_tokens: int
    tool_calls: int
    cost_microusd: int
    accepted_at: datetime
    """It counts in the day and the month of that moment in UTC, whenever it ended."""
    ended_at: datetime


@dataclass(frozen=True, slots=True)
class Added:
    """What a batch added to one model's usage; rows that were there already are not in it."""

    model: str
    rows: int
    late: int
    """How many of them came after their month was cut, and belong to a later one."""
    input_tokens: int
    output_tokens: int
    cost_microusd: int


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
