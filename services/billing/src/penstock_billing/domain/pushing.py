"""When a push may be sent again, and when somebody has to be asked first."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from enum import Enum, auto
from typing import Final

from penstock_billing.domain.plans import next_month
from penstock_billing.ports.pushing import Push

SAFE_TO_REPEAT: Final = timedelta(hours=23)
"""Stripe knows an identifier for at least 24 hours (docs.stripe.com/api/billing/meter-event)."""
TOO_OLD: Final = timedelta(days=34)
"""Stripe takes usage of the past 35 days (the same page)."""
QUIET: Final = timedelta(hours=1)
"""Between the last sending and the question: what was just sent may not be in the sums yet."""


class Step(Enum):
    """What to do with a push whose end is not known."""

    SEND = auto()
    WAIT = auto()
    ASK = auto()  # the meter's sums tell whether it arrived
    GIVE_UP = auto()  # the meter would not take it: the invoice has an item for it


def next_step(push: Push, at: datetime) -> Step:
    """What to do with `push` now."""
    too_late_by = at - push.used_at - TOO_OLD
    if push.first_sent_at is not None:
        too_late_by = max(too_late_by, at - push.first_sent_at - SAFE_TO_REPEAT)
    if too_late_by < timedelta():
        return Step.SEND
    if push.first_sent_at is None:
        return Step.GIVE_UP
    return Step.WAIT if too_late_by < QUIET else Step.ASK


def arrived(push: Push, taken_cents: int, summed_cents: int) -> bool | None:
    """Whether the meter's sums hold a push besides what it took before; None: they fit neither.

    Only one push of a month is open at a time, so there is nothing else that they could hold.
    """
    if summed_cents == taken_cents:
        return False
    return True if summed_cents == taken_cents + push.cents else None


def month_start(period: date) -> datetime:
    """The first moment of a month."""
    return datetime(period.year, period.month, 1, tzinfo=UTC)


def month_end(period: date) -> datetime:
    """The first moment after a month."""
    return month_start(next_month(period))
