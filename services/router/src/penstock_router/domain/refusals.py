"""What a tenant is told whose limits have no room for a request: which, until when, what helps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from penstock_shared.contracts.errors import PenstockError, RateLimitedError, TooLargeError
from penstock_shared.contracts.quotas import Quota, QuotaPeriod, QuotaUnit, period_end

CREDIT: Final = "credit"
"""In place of a quota's unit: what a prepaid tenant has, in micro-dollars."""
_MICROUSD: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class InTheWay:
    """A limit that has no room for a request, as the database told it."""

    unit: str
    """A `QuotaUnit`, or `CREDIT`."""
    period: QuotaPeriod
    most: int
    settled: int
    needed: int


def refusal(limit: InTheWay, accepted_at: datetime, now: datetime) -> PenstockError:
    """The error that says so; for RateLimitedError, when to come back."""
    resets_at = period_end(limit.period, accepted_at)
    wait_s = max(1.0, (resets_at - now).total_seconds())
    if limit.unit == CREDIT:
        return _no_credit(limit, resets_at, wait_s)
    quota = Quota(unit=QuotaUnit(limit.unit), period=limit.period, limit=limit.most)
    until = f"it is reset at {_utc(resets_at)}"
    if limit.needed > limit.most and quota.unit is not QuotaUnit.REQUESTS:
        msg = (
            f"The request may use {limit.needed:,} {quota.unit.value}, and the quota is {quota}:"
            " lower 'max_output_tokens', or shorten the input."
        )
        return TooLargeError(msg, code="request_over_quota", param="max_output_tokens")
    if limit.settled + limit.needed > limit.most:
        msg = f"The quota of {quota} has no room for the request: {until}."
        return RateLimitedError(msg, code="insufficient_quota", retry_after_s=wait_s)
    msg = (
        f"What is left of the quota of {quota} is held for open requests: try again soon; {until}."
    )
    return RateLimitedError(msg, code="insufficient_quota")


def lasts_s(error: PenstockError) -> float:
    """How long a refusal holds: for ever, where no waiting helps."""
    return error.retry_after_s if isinstance(error, RateLimitedError) else math.inf


def _no_credit(limit: InTheWay, resets_at: datetime, wait_s: float) -> RateLimitedError:
    needs = f"The request may cost {_usd(limit.needed)}"
    if limit.settled + limit.needed > limit.most:
        left = _usd(max(0, limit.most - limit.settled))
        msg = (
            f"{needs}, and of this tenant's prepaid credit {left} is left: add credit; what its"
            f" plan includes is renewed at {_utc(resets_at)}."
        )
        return RateLimitedError(msg, code="insufficient_credit", retry_after_s=wait_s)
    msg = f"{needs}, and what is left of the prepaid credit is held for open requests: try again."
    return RateLimitedError(msg, code="insufficient_credit")


def _usd(microusd: int) -> str:
    return f"${microusd // _MICROUSD:,}.{microusd % _MICROUSD:06}"


def _utc(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
