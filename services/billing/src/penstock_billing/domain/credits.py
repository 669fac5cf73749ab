"""Which credit pays for what: the order of use, and which days it takes.

A grant pays for usage that was accepted on or before its last day. Grants are used by priority,
then expiry, then age. Each takes the latest days first: they are the ones that the fewest other
grants can pay. So whatever the priorities are, all grants together pay as much as they possibly
could (jobs with deadlines, each put into the latest free slot: Horowitz and Sahni, Fundamentals of
Computer Algorithms, 4.4), and what prepaid enforcement has let in is paid (ADR 26).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import Final

from penstock_billing.ports.credits import CreditUse, Grant
from penstock_billing.ports.ledger import Account, Transfer
from penstock_shared.contracts.credits import (
    Adjust,
    AdjustmentMade,
    CreditGrant,
    CreditKind,
    GrantCredit,
)
from penstock_shared.contracts.errors import ConflictError
from penstock_shared.contracts.invoices import first_day

_GRANTS: Final = uuid.UUID("0f6e3a52-7c1d-5b4e-9a70-6d2b1c8e4f93")
_PAID_FROM: Final = {
    CreditKind.PREPAID: Account.PAYMENTS,
    CreditKind.PROMOTIONAL: Account.ADJUSTMENTS,
}


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


def new_grant(command: GrantCredit, at: datetime) -> CreditGrant:
    """The grant that `command` asks for: its id is a function of tenant and reference.

    Raises:
        ConflictError: it would have expired already.
    """
    today = at.astimezone(UTC).date()
    if command.expires_on is not None and command.expires_on < today:
        msg = f"Credit that ends before {today} (UTC) pays for nothing: name a later day."
        raise ConflictError(msg, code="day_out_of_range", param="expires_on")
    grant_id = uuid.uuid5(_GRANTS, f"{command.tenant}\n{command.reference}")
    return CreditGrant(
        grant_id=str(grant_id),
        spent_microusd=0,
        expired_microusd=0,
        granted_at=at,
        **command.model_dump(),
    )


def refuse_other_grant(there: CreditGrant, wanted: GrantCredit) -> None:
    """Of one reference there is one grant.

    Raises:
        ConflictError: it stands for another.
    """
    if there.model_dump(include=set(GrantCredit.model_fields)) != wanted.model_dump():
        raise _reference_taken(wanted.reference)


def refuse_other_adjustment(there: AdjustmentMade, wanted: Adjust) -> None:
    """Of one reference there is one correction.

    Raises:
        ConflictError: it stands for another.
    """
    if there.model_dump(include=set(Adjust.model_fields)) != wanted.model_dump():
        raise _reference_taken(wanted.reference)


def grant_transfer(grant: CreditGrant) -> Transfer:
    """What the ledger is told of a grant, in the month in which it was made."""
    day = grant.granted_at.astimezone(UTC).date()
    return Transfer(
        tenant=grant.tenant,
        period=day.replace(day=1),
        kind="credit-granted",
        debit=_PAID_FROM[grant.kind],
        credit=Account.CREDITS,
        microusd=grant.microusd,
        reference=grant.reference,
        at=grant.granted_at,
    )


def adjustment_transfer(adjustment: AdjustmentMade) -> Transfer:
    """What the ledger is told of a correction, in the month on whose invoice it will be."""
    sides = (Account.RECEIVABLE, Account.ADJUSTMENTS)
    debit, credit = sides if adjustment.microusd > 0 else sides[::-1]
    return Transfer(
        tenant=adjustment.tenant,
        period=first_day(adjustment.month),
        kind="adjusted",
        debit=debit,
        credit=credit,
        microusd=abs(adjustment.microusd),
        reference=adjustment.reference,
        at=adjustment.made_at,
    )


def _reference_taken(reference: str) -> ConflictError:
    msg = f"'{reference}' stands for another act of this tenant's: choose another reference."
    return ConflictError(msg, code="reference_taken", param="reference")


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
