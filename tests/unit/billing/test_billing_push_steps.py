"""When a push may be sent again, and what the meter's sums say of it (I2)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from penstock_billing.domain.pushing import Step, arrived, month_end, next_step
from penstock_billing.ports.pushing import Push

NOON = datetime(2026, 11, 10, 12, tzinfo=UTC)


def push(sent: datetime | None = None, used: datetime = NOON) -> Push:
    return Push("acme", date(2026, 11, 1), 3, 70, "cus_1", used, sent)


def test_an_identifier_is_a_function_of_what_is_pushed() -> None:
    """The same however often it is made, within Stripe's 100 characters for tenants of any name."""
    assert push().identifier == push(NOON).identifier == "acme:2026-11:3"
    longest = Push("t" * 64, date(2026, 11, 1), 2**31, 1, "cus_1", NOON)
    assert len(longest.identifier) <= 100


@pytest.mark.parametrize(
    ("sent_h", "used_d", "step"),
    [
        (None, 0, Step.SEND),
        (None, 33, Step.SEND),
        (None, 34, Step.GIVE_UP),
        (22.9, 1, Step.SEND),
        (23, 1, Step.WAIT),
        (23.9, 1, Step.WAIT),
        (24, 1, Step.ASK),
        (1, 34, Step.WAIT),
        (2, 34.05, Step.ASK),
        (900, 40, Step.ASK),
    ],
)
def test_what_was_perhaps_sent_is_never_given_up_unasked(
    sent_h: float | None, used_d: float, step: Step
) -> None:
    """Sent again only while the identifier is surely known; given up only if it never left.

    What was sent a moment ago is not asked for yet: the sums might lack it, and it would go twice.
    """
    now = NOON + timedelta(days=60)
    sent = None if sent_h is None else now - timedelta(hours=sent_h)
    assert next_step(push(sent, now - timedelta(days=used_d)), now) is step


def test_sums_that_fit_neither_say_nothing() -> None:
    """With or without this push, or something is wrong that a person must see."""
    assert arrived(push(), 30, 30) is False
    assert arrived(push(), 30, 100) is True
    assert arrived(push(), 30, 99) is None


@pytest.mark.parametrize(
    ("month", "end"),
    [
        (date(2026, 12, 1), datetime(2027, 1, 1, tzinfo=UTC)),
        (date(2028, 2, 1), datetime(2028, 3, 1, tzinfo=UTC)),
    ],
)
def test_months_end_at_midnight_utc(month: date, end: datetime) -> None:
    """Years' ends and leap years."""
    assert month_end(month) == end
