"""How far the shared consumer has come, and setting it back to the beginning."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import nats.errors
import nats.js.errors

from penstock_billing.ports.usage import Position
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.streams import BILLING_CONSUMER, EVENTS
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.consumer import rewind_consumer


class NatsEventPosition:
    """An `EventPosition`: acknowledgements follow commits, so the ack floor is what is settled."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def read(self) -> Position:
        """The position over all replicas.

        The ack floor stands at the last *request* event; when nothing is open, all that was in
        the log before we asked is settled, events of other topics included.

        Raises:
            UnavailableError: NATS does not answer.
        """
        last_seq = await self.last_seq()
        with _translated():
            info = await self._broker.jetstream.consumer_info(EVENTS, BILLING_CONSUMER.durable)
        lag = (info.num_pending or 0) + (info.num_ack_pending or 0)
        floor = (info.ack_floor.stream_seq if info.ack_floor else 0) or 0
        return Position(events_seq=max(last_seq, floor) if lag == 0 else floor, lag=lag)

    async def reset(self) -> int:
        """Begin again at the first event; returns the last sequence that there is now.

        Raises:
            UnavailableError: NATS does not answer.
        """
        await rewind_consumer(self._broker, BILLING_CONSUMER)
        return await self.last_seq()

    async def last_seq(self) -> int:
        """Where EVENTS ends now.

        Raises:
            UnavailableError: NATS does not answer.
        """
        with _translated():
            return int((await self._broker.jetstream.stream_info(EVENTS)).state.last_seq)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
        msg = "The event log does not say how far billing has read."
        raise UnavailableError(msg, code="event_log_unavailable") from error
