"""The ledger: one amount from one account to another, written once (ADR 0024)."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Final

_TRANSFERS: Final = uuid.UUID("5c9f1a6e-4d0b-5f38-9a6d-0f2f3d1c7b54")


class Account(StrEnum):
    """Of each tenant and period. The first five are money, the last two what is promised."""

    RECEIVABLE = "receivable"  # debit: what the tenant owes
    USAGE = "usage"  # credit: what it has used, at the facts' prices
    ADJUSTMENTS = "adjustments"  # credit: what else it was charged; debit: what it was given
    CREDITS = "credits"  # credit: what it may still use up
    PAYMENTS = "payments"  # debit: what it has paid
    COMMITMENTS = "commitments"  # debit: what open requests may still cost
    RESERVATIONS = "reservations"  # the other side of commitments


@dataclass(frozen=True, slots=True)
class Transfer:
    """One amount that moves. Kind and reference say why, and are its identity in the tenant.

    Posting it again changes nothing.
    """

    tenant: str
    period: date
    """The first day of the month to which it belongs."""
    kind: str
    debit: Account
    credit: Account
    microusd: int
    """Always positive: what goes back is a transfer in the other direction."""
    reference: str
    at: datetime

    @property
    def id(self) -> str:
        """UUIDv5: a function of the identity."""
        return str(uuid.uuid5(_TRANSFERS, f"{self.tenant}\n{self.kind}\n{self.reference}"))


@dataclass(frozen=True, slots=True)
class Balance:
    """What stands on one account."""

    account: Account
    debit: int
    credit: int
