"""What waits, how old it is and how long it will take: looked at once a second."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence

from penstock_shared.contracts.models import ModelState
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.clock import Clock
from penstock_worker import metrics
from penstock_worker.domain.line import LANE_ORDER
from penstock_worker.handlers.residents import Residents
from penstock_worker.handlers.scheduler import Scheduler
from penstock_worker.handlers.tickets import Ticket

_EVERY_S = 1.0


class Gauges:
    """Keeps the gauges of the line and of the models."""

    def __init__(self, scheduler: Scheduler, residents: Residents, clock: Clock) -> None:
        self._scheduler = scheduler
        self._residents = residents
        self._clock = clock

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_EVERY_S)

    def look(self) -> None:
        """Set every gauge."""
        waiting: dict[str, list[Ticket]] = defaultdict(list)
        for ticket in self._scheduler.waiting():
            waiting[ticket.run.job.model].append(ticket)
        ahead_s = _by_lane_s([one for tickets in waiting.values() for one in tickets])
        for model in self._residents.states():
            for state in ModelState:
                metrics.MODEL_STATE.labels(model.name, state.value).set(state is model.state)
            for lane in LANE_ORDER:
                ages_s = [
                    (self._clock.now() - one.run.job.routed_at).total_seconds()
                    for one in waiting[model.name]
                    if one.run.job.lane is lane
                ]
                metrics.OLDEST_S.labels(model.name, lane.value).set(max(ages_s, default=0.0))
                metrics.ESTIMATED_WAIT_S.labels(model.name, lane.value).set(ahead_s[lane])


def _by_lane_s(tickets: Sequence[Ticket]) -> dict[Lane, float]:
    """What runs before a newcomer of each lane, in seconds of the whole machine."""
    total_s = 0.0
    ahead_s: dict[Lane, float] = {}
    for lane in LANE_ORDER:
        total_s += sum(
            one.size.cost / speed
            for one in tickets
            if one.run.job.lane is lane and (speed := one.resident.layout.tokens_per_s)
        )
        ahead_s[lane] = total_s
    return ahead_s
