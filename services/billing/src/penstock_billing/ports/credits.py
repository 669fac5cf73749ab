"""Credits: what was granted, what is left of it, and where both are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant of which something is left."""

    grant_id: str
    """A UUID."""
    left_microusd: int
    priority: int
    """The lower, the earlier it is used."""
    expires_on: date | None
    """The last UTC day on whose accepted usage it pays; None: it does not expire."""
    granted_at: datetime


@dataclass(frozen=True, slots=True)
class CreditUse:
    """What one grant pays of a month."""

    grant_id: str
    microusd: int
