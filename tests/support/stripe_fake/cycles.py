"""When periods end (https://docs.stripe.com/billing/subscriptions/billing-cycle)."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime
from typing import Any

from tests.support.stripe_fake.failures import invalid


def first_period(given: dict[str, Any], now: int) -> tuple[int, int]:
    """The anchor and the end of the first period."""
    config = given.get("billing_cycle_anchor_config")
    anchor = given.get("billing_cycle_anchor")
    if config is not None:
        anchor = _matching(config, now)
    if anchor is None:
        return now, next_end(now, now)
    if anchor <= now or anchor > next_end(now, now):
        message = "billing_cycle_anchor must be in the future and within one period."
        raise invalid(message, param="billing_cycle_anchor")
    return anchor, anchor


def _matching(config: dict[str, int], now: int) -> int:
    """The next moment with this day of the month (and time, which defaults to now's)."""
    moment = datetime.fromtimestamp(now, UTC)
    wanted = moment.replace(
        hour=config.get("hour", moment.hour),
        minute=config.get("minute", moment.minute),
        second=config.get("second", moment.second),
    )
    for months in (0, 1, 2):
        found = int(_on(wanted, months, config["day_of_month"]).timestamp())
        if found > now:
            return found
    raise AssertionError(config)


def next_end(anchor: int, now: int) -> int:
    """The first multiple of a month after `anchor` that lies after `now`."""
    start = datetime.fromtimestamp(anchor, UTC)
    months = 0
    while (found := int(_on(start, months, start.day).timestamp())) <= now:
        months += 1
    return found


def _on(start: datetime, months: int, day: int) -> datetime:
    """A month that lacks the anchor's day ends on its last."""
    years, month = divmod(start.month - 1 + months, 12)
    year = start.year + years
    last = calendar.monthrange(year, month + 1)[1]
    return start.replace(year=year, month=month + 1, day=min(day, last))
