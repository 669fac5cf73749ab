"""The event log about one request, and the command that cancels it."""

from __future__ import annotations

from pydantic import ValidationError

from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.requests import TERMINAL_TYPES, RequestEnded, RequestRouted
from penstock_shared.contracts.responses import Cancel
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import Broker

_CANCEL_TYPE = "penstock.request.cancel.v1"


class NatsRequestLog:
    """`RequestLog` over EVENTS: the last message of a subject, by direct get."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def last_fact(self, tenant: str, request_id: str) -> RequestRouted | RequestEnded | None:
        """The last that is known of a request."""
        message = await self._broker.last_message(
            EVENTS, subjects.request_event(tenant, request_id)
        )
        if message is None:
            return None
        try:
            if message.event_type in TERMINAL_TYPES:
                return RequestEnded.model_validate_json(message.data)
            if message.event_type == RequestRouted.TYPE:
                return RequestRouted.model_validate_json(message.data)
        except ValidationError as error:
            raise _unreadable() from error
        raise _unreadable()


def _unreadable() -> UnavailableError:
    msg = "The event log has a newer kind of fact than this instance knows: update it."
    return UnavailableError(msg, code="fact_unreadable")


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
