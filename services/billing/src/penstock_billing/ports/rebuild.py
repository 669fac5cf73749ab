"""Doing the sums again: the event log, read into fresh tables, against what stands."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, Protocol

from penstock_billing.ports.usage import Added, MeteredUsage
from penstock_shared.runtime.broker import StoredMessage

MOST_DIFFERENCES: Final = 1_000
"""Of one kind of figure: where there are more, they have one cause, and fill no memory."""


@dataclass(frozen=True, slots=True)
class Span:
    """From the first event of the log up to one of its last, both included."""

    first_seq: int
    until_seq: int


@dataclass(frozen=True, slots=True)
class Difference:
    """What a table says, and what the log says; None where one of them knows nothing of it."""

    figure: str
    """Which figures: attempts, days, minutes, users, ledger, balances or quotas."""
    place: Mapping[str, Any]
    """Of whom and when."""
    live: Mapping[str, Any] | None
    rebuilt: Mapping[str, Any] | None


class EventLog(Protocol):
    """The log itself."""

    async def span(self) -> Span:
        """What it holds now. May raise UnavailableError."""
        ...

    def facts(self, until_seq: int, after_seq: int = 0) -> AsyncGenerator[StoredMessage, None]:
        """All facts about requests in (after_seq, until_seq], in order."""
        ...


class EmptiedLedger(Protocol):
    """The live tables."""

    async def empty(self) -> None:
        """Forget all usage, and note that the log is to be read again; one transaction."""
        ...

    async def rebuild_begun(self, until_seq: int) -> None:
        """It is being read again, up to there."""
        ...


class Reader(Protocol):
    """Whoever reads the log into the live tables."""

    async def reset(self) -> int:
        """Begin again at the first event; returns the last sequence that there is now.

        May raise UnavailableError.
        """
        ...


class FreshTables(Protocol):
    """Tables that begin empty, beside those that are live."""

    async def record(self, rows: Sequence[MeteredUsage]) -> list[Added]:
        """As `UsageLedger.record`."""
        ...

    async def differences(self, span: Span, since: date) -> list[Difference]:
        """Figures that are not the same in both, attempts beyond the span apart.

        Up to MOST_DIFFERENCES of each kind. Quotas are compared from `since` on: before a tenant
        had its first they were not counted.
        """
        ...
