"""How a tenant stands with what it owes: past due, in grace, suspended, restored.

A standing is worked out from what is so (since when is an unpaid invoice failing, what time is
it), never from the notice that came last: notices that come twice, late or in any order end in the
same standing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from penstock_billing.ports.payment_book import Arrears, Situation
from penstock_shared.contracts.accounts import SuspensionReason, TenantRecord, TenantStatus
from penstock_shared.contracts.payments import Standing

_WORSE: Final = (Standing.PAST_DUE, Standing.GRACE, Standing.SUSPENDED)


RETRY_AFTER: Final = (timedelta(days=1), timedelta(days=3), timedelta(days=5))
_LAST_CHANCE: Final = timedelta(hours=1)
"""So long before the suspension it is tried once more: who has paid by hand is found out then."""


@dataclass(frozen=True, slots=True)
class DunningTerms:
    """How long we are patient, counted from the first failure."""

    grace_after: timedelta
    suspend_after: timedelta
    retry_after: tuple[timedelta, ...] = RETRY_AFTER
    """When it is tried again, ascending."""


def situation(before: Situation, arrears: Arrears, terms: DunningTerms, at: datetime) -> Situation:
    """How the tenant stands at that time."""
    now = _situation(before, arrears, terms, at)
    return before if replace(now, changed_at=before.changed_at) == before else now


def _situation(before: Situation, arrears: Arrears, terms: DunningTerms, at: datetime) -> Situation:
    failing_since = arrears.failing_since
    if failing_since is None:
        was_shut_out = before.standing in {Standing.SUSPENDED, Standing.RESTORED}
        return Situation(Standing.RESTORED if was_shut_out else Standing.CURRENT, changed_at=at)
    spared = arrears.is_on_its_way or _extended(before.extended_until, at)
    standing = _by_time(at - failing_since, terms, spared=spared)
    # A clock that is behind another replica's takes nothing back.
    if failing_since == before.failing_since and not spared:
        standing = max(standing, before.standing, key=_severity)
    return Situation(standing, failing_since, before.extended_until, changed_at=at)


def suspends_at(now: Situation, terms: DunningTerms) -> datetime | None:
    """When the tenant is suspended unless it pays; None: nothing is owed, or it is by now."""
    if now.failing_since is None or now.standing is Standing.SUSPENDED:
        return None
    due = now.failing_since + terms.suspend_after
    return max(due, now.extended_until or due)


def next_try(failing_since: datetime, terms: DunningTerms, at: datetime) -> datetime | None:
    """When to try again after a failure; None: it was tried often enough."""
    waits = (*terms.retry_after, terms.suspend_after - _LAST_CHANCE)
    times = (failing_since + wait for wait in waits)
    return next((time for time in times if time > at), None)


def obeyed(record: TenantRecord, standing: Standing) -> TenantRecord:
    """The tenant as the standing wants it: an operator's suspension is none of its business."""
    if standing is Standing.SUSPENDED and record.status is TenantStatus.ACTIVE:
        return record.model_copy(
            update={
                "status": TenantStatus.SUSPENDED,
                "suspended_reason": SuspensionReason.PAST_DUE,
            }
        )
    if standing is not Standing.SUSPENDED and _suspended_by_us(record):
        return record.model_copy(update={"status": TenantStatus.ACTIVE, "suspended_reason": None})
    return record


def _suspended_by_us(record: TenantRecord) -> bool:
    return (
        record.status is TenantStatus.SUSPENDED
        and record.suspended_reason is SuspensionReason.PAST_DUE
    )


def _by_time(waited: timedelta, terms: DunningTerms, *, spared: bool) -> Standing:
    if waited >= terms.suspend_after and not spared:
        return Standing.SUSPENDED
    return Standing.GRACE if waited >= terms.grace_after else Standing.PAST_DUE


def _extended(until: datetime | None, at: datetime) -> bool:
    return until is not None and at < until


def _severity(standing: Standing) -> int:
    return _WORSE.index(standing) if standing in _WORSE else -1
