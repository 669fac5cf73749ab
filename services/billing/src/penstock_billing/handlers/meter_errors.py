"""What the meter dropped after it had taken it: pushed again under another identifier."""

from __future__ import annotations

from typing import Protocol

from penstock_billing import metrics
from penstock_billing.ports.payments import Notice
from penstock_billing.ports.pushing import PushBook
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.telemetry import log


class MeterErrors(Protocol):
    """The meter's error reports."""

    async def dropped(self, event_id: str) -> tuple[list[str], int]:
        """The identifiers that a report names, and how many events it is about."""
        ...


class MeterErrorDesk:
    """A `NoticeHandler` of the meter's error reports.

    A report names samples only. What it does not name shows when the month is collected: the
    invoice has an item for what the meter lacks, and the reconciliation compares the sums.
    """

    def __init__(self, errors: MeterErrors, book: PushBook, clock: Clock) -> None:
        self._errors = errors
        self._book = book
        self._clock = clock

    async def on_notice(self, notice: Notice) -> None:
        """Count the named pushes as refused: what they held is pushed again."""
        named, count = await self._errors.dropped(notice.notice_id)
        refused = await self._book.refuse(named, self._clock.now())
        metrics.METER_ERRORS.inc(count)
        log().error("meter.dropped", notice=notice.notice_id, errors=count, refused=refused)
