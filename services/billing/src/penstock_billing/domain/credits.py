"""Which credit pays for what: the order of use, and which days it takes.

A grant pays for usage that was accepted on or before its last day. Grants are used by priority,
then expiry, then age. Each takes the latest days first: they are the ones that the fewest other
grants can pay. So whatever the priorities are, all grants together pay as much as they possibly
could (jobs with deadlines, each put into the latest free slot: Horowitz and Sahni, Fundamentals of
Computer Algorithms, 4.4), and what prepaid enforcement has let in is paid (ADR 26).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date

from penstock_billing.ports.credits import CreditUse, Grant


def apply_credits(owed: Mapping[date, int], grants: Iterable[Grant]) -> list[CreditUse]:
    """What each grant pays of a month's usage, in the order of use; those that pay nothing are out.

    `owed` is in micro-dollars by the UTC day of acceptance, without what a plan includes
    (`without_included`). Days before the month are of usage that came late.
    """
    unpaid = dict(owed)
    uses = []
    for grant in sorted(grants, key=_order_of_use):
        paid = _pay(unpaid, grant.left_microusd, grant.expires_on)
        if paid:
            uses.append(CreditUse(grant.grant_id, paid))
    return uses


def without_included(owed: Mapping[date, int], included_microusd: int) -> dict[date, int]:
    """What is left to pay when a plan includes so much: it takes the latest days, like a grant."""
    unpaid = dict(owed)
    _pay(unpaid, included_microusd, None)
    return unpaid


def _order_of_use(grant: Grant) -> tuple[int, date, float, str]:
    """The id decides between two of the same moment, so that it is the same every time."""
    return (
        grant.priority,
        grant.expires_on or date.max,
        grant.granted_at.timestamp(),
        grant.grant_id,
    )


def _pay(unpaid: dict[date, int], amount: int, until: date | None) -> int:
    """Pay from the latest day back, and return what was paid of `amount`."""
    left = amount
    for day in sorted((day for day in unpaid if until is None or day <= until), reverse=True):
        paid = min(left, unpaid[day])
        unpaid[day] -= paid
        left -= paid
    return amount - left
