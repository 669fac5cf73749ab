"""What clients were already shown, read back from RESPONSES: only redelivered jobs ask."""

from __future__ import annotations

import asyncio
from typing import Final

import nats.errors
import nats.js.errors

from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.responses import decode_delta
from penstock_shared.contracts.streams import RESPONSES
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.ordered import OrderedReader
from penstock_worker.domain.shown import Shown
from penstock_worker.ports import Delivered

_READ_TIMEOUT_S: Final = 5.0


class NatsDeliveredFrames:
    """`DeliveredFrames` on NATS, through a consumer that lives as long as the reading.

    What a dead run has published stands in the stream by now. Of a run that is still alive, as
    that of a worker that was only stopped, later deltas are missed: the edge drops them, or says
    that the runs differ.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def delivered(self, subject: str, attempt: int) -> Delivered:
        """What clients have of this attempt; empty when RESPONSES has forgotten it.

        Raises:
            UnavailableError: it could not be read within five seconds.
        """
        reader = OrderedReader(self._broker, RESPONSES, subject)
        try:
            async with asyncio.timeout(_READ_TIMEOUT_S):
                return await _shown(reader, attempt)
        except nats.js.errors.NotFoundError:  # the server restarted, and with it what it kept
            return Delivered()
        except (nats.errors.Error, TimeoutError, OSError) as error:
            msg = "What was delivered could not be read."
            raise UnavailableError(msg, code="broker_unavailable") from error
        finally:
            await reader.stop()


async def _shown(reader: OrderedReader, attempt: int) -> Delivered:
    await reader.start()
    shown = Shown()
    for _ in range(reader.pending_at_start):
        delta = decode_delta((await reader.get()).data)
        if delta is not None and delta.attempt == attempt:
            shown.feed(delta)
    return shown.delivered
