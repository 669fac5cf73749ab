"""What payment providers tell us by themselves: each notice once, in whatever order they come."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from penstock_billing.ports.payments import Notice


class Arrival(StrEnum):
    """What became of a notice that arrived."""

    NEW = "new"
    DUPLICATE = "duplicate"  # delivered once more
    REPLAYED = "replayed"  # the very same delivery once more


@dataclass(frozen=True, slots=True)
class Waiting:
    """A stored notice that awaits its handling."""

    notice: Notice
    attempts: int
    """How often its handling has failed."""


class NoticeInbox(Protocol):
    """Notices that are stored. Every method may raise UnavailableError."""

    async def store(self, notice: Notice, signature: str | None, at: datetime) -> Arrival:
        """After this returns it is committed, and its sender may be told so.

        `signature` is what signs this delivery alone; None where the provider signs none.
        """
        ...

    async def due(self, at: datetime, until: datetime) -> NoticeTurn | None:
        """The first that is due; nobody else gets it before `until`."""
        ...

    async def prune(self, before: datetime) -> int:
        """Forget what was done before then; how many."""
        ...


class NoticeTurn(Protocol):
    """A notice in hand."""

    @property
    def waiting(self) -> Waiting:
        """It."""
        ...

    async def done(self, at: datetime) -> None:
        """Its effect is committed."""
        ...

    async def again(self, due_at: datetime) -> None:
        """It failed; it comes again then."""
        ...

    async def park(self, at: datetime) -> None:
        """It failed too often: a person has to look."""
        ...


class MissedNotices(Protocol):
    """What a provider could not deliver to us."""

    async def undelivered(self, since: datetime) -> list[Notice]:
        """Notices of concern that were made since then. May raise UnavailableError."""
        ...
