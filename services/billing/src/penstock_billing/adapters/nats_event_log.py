"""The event log, read by somebody who acknowledges nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import nats.errors
import nats.js.errors

from penstock_billing.ports.rebuild import Span
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import Broker, StoredMessage
from penstock_shared.runtime.ordered import OrderedReader


class NatsEventLog:
    """An `EventLog`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def span(self) -> Span:
        """What EVENTS holds now.

        Raises:
            UnavailableError: NATS does not answer.
        """
        try:
            state = (await self._broker.jetstream.stream_info(EVENTS)).state
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
            msg = "The event log does not answer: is NATS up?"
            raise UnavailableError(msg, code="event_log_unavailable") from error
        return Span(first_seq=max(state.first_seq, 1), until_seq=state.last_seq)

    async def facts(
        self, until_seq: int, after_seq: int = 0
    ) -> AsyncGenerator[StoredMessage, None]:
        """All facts about requests in (after_seq, until_seq], in order."""
        reader = OrderedReader(
            self._broker, EVENTS, subjects.EVERY_REQUEST_EVENT, start_seq=after_seq + 1
        )
        await reader.start()
        try:
            more = reader.pending_at_start > 0
            while more:
                message = await reader.get()
                if message.sequence > until_seq:
                    return
                yield message
                more = reader.behind > 0  # of other topics there may be more up to there
        finally:
            await reader.stop()
