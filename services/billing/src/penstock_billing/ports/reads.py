"""What was used over time, as read models hold it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from penstock_shared.contracts.usage_queries import QueryUsage, UsageSums


@dataclass(frozen=True, slots=True)
class Place:
    """A group in a bucket: where a page ends. Columns that are not grouped by are empty."""

    bucket: datetime
    tenant: str = ""
    model: str = ""
    key_id: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """A page's buckets: from `start` on and before `end`, groups behind `after` only."""

    start: datetime
    end: datetime
    after: Place | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """What one group used in one bucket."""

    place: Place
    sums: UsageSums


class UsageReads(Protocol):
    """Sums of usage."""

    async def groups(self, query: QueryUsage, window: Window, most: int) -> Sequence[Group]:
        """The first `most` groups in the window, in the order of their places.

        A tenant's query sees that tenant's rows alone, by the database's own rule (I8). May raise
        UnavailableError.
        """
        ...
