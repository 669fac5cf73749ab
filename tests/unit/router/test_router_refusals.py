"""What a tenant is told whose limits have no room: the limit, the reset, what helps (I4)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from penstock_router.domain.refusals import CREDIT, InTheWay, lasts_s, refusal
from penstock_shared.contracts.errors import PenstockError, RateLimitedError, TooLargeError
from penstock_shared.contracts.quotas import QuotaPeriod

NOW = datetime(2026, 2, 28, 18, tzinfo=UTC)


def told(unit: str, period: QuotaPeriod, most: int, settled: int, needed: int) -> PenstockError:
    """Of a request that was accepted a second ago."""
    limit = InTheWay(unit=unit, period=period, most=most, settled=settled, needed=needed)
    return refusal(limit, NOW - timedelta(seconds=1), NOW)


@pytest.mark.parametrize(
    ("unit", "period", "code", "reset", "wait_s"),
    [
        ("tokens", QuotaPeriod.DAY, "insufficient_quota", "2026-03-01 00:00 UTC", 6 * 3600),
        ("microusd", QuotaPeriod.MONTH, "insufficient_quota", "2026-03-01 00:00 UTC", 6 * 3600),
        (CREDIT, QuotaPeriod.MONTH, "insufficient_credit", "2026-03-01 00:00 UTC", 6 * 3600),
    ],
)
def test_what_is_used_up_is_refused_until_it_is_reset(
    unit: str, period: QuotaPeriod, code: str, reset: str, wait_s: float
) -> None:
    """The limit is named, and when it is whole again, for people and for programs."""
    error = told(unit, period, most=1_000, settled=990, needed=20)
    assert isinstance(error, RateLimitedError)
    assert (error.code, error.retry_after_s) == (code, wait_s)
    assert reset in error.message
    if unit != CREDIT:
        assert f"1,000 {unit} per {period.value}" in error.message


def test_what_is_only_held_comes_back_soon() -> None:
    """Open requests give back what they do not use: whoever asks again in a second may fit."""
    for unit in ("tokens", CREDIT):
        error = told(unit, QuotaPeriod.MONTH, most=1_000, settled=10, needed=20)
        assert isinstance(error, RateLimitedError)
        assert error.retry_after_s == 1.0
        assert "held for open requests" in error.message


def test_credit_is_told_in_dollars() -> None:
    """What the request may cost, what is left, and that more can be had at any time."""
    error = told(CREDIT, QuotaPeriod.MONTH, most=2_000_000, settled=1_500_000, needed=3_000_000)
    assert "may cost $3.000000" in error.message
    assert "$0.500000 is left: add credit" in error.message
    overdrawn = told(CREDIT, QuotaPeriod.MONTH, most=0, settled=7, needed=1)
    assert "$0.000000 is left" in overdrawn.message


def test_what_never_fits_lasts_longest() -> None:
    """Of several that are in the way the one that is for longest is told."""
    never = told("tokens", QuotaPeriod.DAY, most=10, settled=0, needed=11)
    assert isinstance(never, TooLargeError)
    later = told("requests", QuotaPeriod.MONTH, most=1, settled=1, needed=1)
    soon = told("tokens", QuotaPeriod.DAY, most=10, settled=0, needed=9)
    assert max((soon, never, later), key=lasts_s) is never
    assert max((soon, later), key=lasts_s) is later
