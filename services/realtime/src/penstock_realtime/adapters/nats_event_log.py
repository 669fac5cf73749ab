"""The event log about one request, and the command that cancels it."""

from __future__ import annotations

from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.requests import RequestFact
from penstock_shared.contracts.responses import Cancel
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.request_log import RequestLogReader

_CANCEL_TYPE = "penstock.request.cancel.v1"


class NatsRequestLog:
    """`RequestLog` over EVENTS."""

    def __init__(self, broker: Broker) -> None:
        self._reader = RequestLogReader(broker)

    async def last_fact(self, tenant: str, request_id: str) -> RequestFact | None:
        """The last that is known of a request."""
        found = await self._reader.last_fact(tenant, request_id)
        return None if found is None else found.fact


class NatsCancelCommands:
    """`CancelCommands` over CONTROL."""

    def __init__(self, broker: Broker, source: str) -> None:
        self._broker = broker
        self._source = source

    async def cancel(self, tenant: str, request_id: str) -> None:
        """Command it; returns once the command is stored."""
        envelope = Envelope(id=f"{request_id}/cancel", source=self._source, type=_CANCEL_TYPE)
        await self._broker.publish(
            subjects.control(tenant, request_id), Cancel().model_dump_json().encode(), envelope
        )
