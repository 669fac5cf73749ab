"""Tells tenants and operators when half of a quota is used, most of it, all of it."""

from __future__ import annotations

from typing import Final

from penstock_billing import metrics
from penstock_billing.domain.announcements import Act, tell_fact
from penstock_billing.ports.credits import QuotaWatch
from penstock_billing.ports.outbox import OutboxEntry
from penstock_shared.contracts.billing_facts import QuotaReached
from penstock_shared.runtime.clock import Clock, IdSource

PERCENTS: Final = (50, 80, 100)


class Thresholds:
    """Looks at what metering has marked; several replicas share the work."""

    def __init__(self, quotas: QuotaWatch, clock: Clock, ids: IdSource) -> None:
        self._quotas = quotas
        self._clock = clock
        self._ids = ids

    async def look(self) -> None:
        """Tell of all that was reached by now; the outbox publishes it.

        Raises:
            UnavailableError: Postgres does not answer.
        """
        act = Act(self._clock.now(), None, self._ids.new)

        def tell(fact: QuotaReached) -> OutboxEntry:
            metrics.THRESHOLDS.labels(fact.quota.unit.value, str(fact.percent)).inc()
            return tell_fact(fact, act)

        while await self._quotas.reached(PERCENTS, act.at, tell):
            pass
