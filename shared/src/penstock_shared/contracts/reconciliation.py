"""The standing check of billing: event log = usage rows = sums = ledger = invoice = Stripe."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from penstock_shared.contracts.invoices import Month


class Check(StrEnum):
    """What is compared, in the order in which money comes to be."""

    FACTS = "facts"  # the event log with the rows of usage, fact by fact
    SUMS = "sums"  # the rows with the sums that usage queries and invoices read
    LEDGER = "ledger"  # these sums with the ledger, and its balances with its transfers
    INVOICE = "invoice"  # the ledger with the month's invoice, or its preview
    METER = "meter"  # the ledger with what Stripe's meter has acknowledged


class Difference(BaseModel):
    """Two figures that should be one."""

    model_config = ConfigDict(frozen=True)

    check: Check
    tenant: str
    month: Month
    what: str
    """Which figure; of a fact its request and attempt."""
    expected: int
    found: int
    explained: str | None = None
    """Why it may be so for now; None: it may not, and somebody has to look."""


class Reconcile(BaseModel):
    """Verb `reconcile` of billing: compare now."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: Month | None = None
    """Months before it are left out; None: the two before the present one are the first."""


class ReconciliationReport(BaseModel):
    """Answer to `reconcile`."""

    model_config = ConfigDict(frozen=True)

    at: datetime
    events_seq: int
    """Every fact up to here has been compared with its row."""
    behind: Annotated[int, Field(ge=0)]
    """How many sequences of the log are metered and not compared yet: ask again."""
    months: int
    """Tenants' months that were compared."""
    differences: tuple[Difference, ...]
    truncated: bool = False
    """There are more differences than an answer holds."""

    @property
    def drift(self) -> int:
        """How many differences nothing explains: 0 is expected."""
        return sum(one.explained is None for one in self.differences)
