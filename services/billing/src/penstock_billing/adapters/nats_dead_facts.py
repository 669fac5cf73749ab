"""Which facts lie in DEAD."""

from __future__ import annotations

from penstock_shared.contracts import subjects
from penstock_shared.contracts.streams import DEAD, EVENTS
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.ordered import OrderedReader


class NatsDeadFacts:
    """`DeadFacts`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def letters(self, tenant: str) -> set[str]:
        """The ids (`dead_id`) of the tenant's facts that could not be metered."""
        reader = OrderedReader(
            self._broker, DEAD, subjects.dead(tenant, EVENTS.lower()), headers_only=True
        )
        await reader.start()
        try:
            found = [await reader.get() for _ in range(reader.pending_at_start)]
        finally:
            await reader.stop()
        return {letter.event_id for letter in found if letter.event_id is not None}
