"""Usage as a provider's meter is told of it: whole cents, each push once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Push:
    """One amount of a tenant's usage in a month. The first three fields are its identity (I2)."""

    tenant: str
    period: date
    """The month's first day."""
    number: int
    cents: int
    customer: str
    """The provider's id of the tenant's customer."""
    used_at: datetime
    """The time of use that the meter is told: within the month."""
    first_sent_at: datetime | None = None

    @property
    def identifier(self) -> str:
        """The same however often it is sent."""
        return f"{self.tenant}:{self.period:%Y-%m}:{self.number}"


class PushOutcome(StrEnum):
    """How a push ended."""

    ACCEPTED = "accepted"  # the meter has taken it
    DUPLICATE = "duplicate"  # the meter had it already
    SUMMED = "summed"  # found in the meter's sums
    ABSENT = "absent"  # not found there, and too old to be sent again under this identifier
    REFUSED = "refused"  # the meter will not have it


@dataclass(frozen=True, slots=True)
class Backlog:
    """What the meter has not taken yet."""

    pushes: int
    oldest_used_at: datetime | None


class UsageMeter(Protocol):
    """A provider's meter."""

    async def report(self, pushes: Sequence[Push]) -> Sequence[PushOutcome | None]:
        """Tell the meter; for each push how it ended, None: nobody knows, ask again.

        A push that is told twice counts once, for at least 24 hours.
        """
        ...

    async def summed_cents(self, customer: str, period: date) -> int:
        """What the meter has added up for a customer's month. May raise UnavailableError."""
        ...


class PushBook(Protocol):
    """What was told, and what has to be. Every method may raise UnavailableError."""

    async def plan(self, at: datetime) -> int:
        """Write down what the ledger has beyond what was pushed; how many pushes that makes."""
        ...

    async def unsettled(self, limit: int) -> list[Push]:
        """Pushes whose end is not known, oldest first."""
        ...

    async def sending(self, pushes: Sequence[Push], at: datetime) -> None:
        """After this returns nobody can think that these were never sent."""
        ...

    async def settle(self, push: Push, outcome: PushOutcome, at: datetime) -> None:
        """How it ended; a second end changes nothing."""
        ...

    async def refuse(self, identifiers: Sequence[str], at: datetime) -> int:
        """The meter has dropped these after it took them; how many had counted till now."""
        ...

    async def taken_cents(self, tenant: str, period: date) -> int:
        """What the meter has of a tenant's month, as far as it has told."""
        ...

    async def complete(self, tenant: str, period: date, at: datetime) -> bool:
        """Whether the meter has all of a month that it can get, or has had its time for it."""
        ...

    async def backlog(self) -> Backlog:
        """What is not settled yet."""
        ...
