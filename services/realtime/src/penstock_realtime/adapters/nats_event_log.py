"""The event log about one request, and the command that cancels it."""

from __future__ import annotations

import contextlib

from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.feedback import ResponseFeedback, feedback_id
from penstock_shared.contracts.requests import RequestFact, RequestRouted
from penstock_shared.contracts.responses import Cancel
from penstock_shared.contracts.stored import ResponseDeleted, deleted_id
from penstock_shared.contracts.streams import CONTROL, EVENTS
from penstock_shared.runtime.broker import Broker, SequenceConflictError
from penstock_shared.runtime.clock import Clock
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

    async def routed(self, tenant: str, request_id: str) -> RequestRouted | None:
        """The first that is known of it."""
        return await self._reader.routed(tenant, request_id)


class NatsDeletions:
    """`Deletions` as facts in EVENTS: the store, a projection, can be made anew with them (I9)."""

    def __init__(self, broker: Broker, source: str, clock: Clock) -> None:
        self._broker = broker
        self._source = source
        self._clock = clock

    async def delete(self, tenant: str, request_id: str, key_id: str) -> None:
        """State the fact, once; returns when it is durable."""
        fact = ResponseDeleted(
            request_id=request_id, tenant=tenant, key_id=key_id, deleted_at=self._clock.now()
        )
        envelope = Envelope(
            id=deleted_id(request_id),
            source=self._source,
            type=ResponseDeleted.TYPE,
            time=fact.deleted_at,
        )
        with contextlib.suppress(SequenceConflictError):  # somebody else deleted it just now
            await self._broker.publish(
                subjects.response_event(tenant, request_id),
                fact.model_dump_json().encode(),
                envelope,
                expected_last_seq=0,
            )

    async def deleted(self, tenant: str, request_id: str) -> bool:
        """Whether the fact stands."""
        subject = subjects.response_event(tenant, request_id)
        return await self._broker.last_message(EVENTS, subject) is not None


class NatsFeedbackLog:
    """`FeedbackLog` as facts in EVENTS, under expected-last-sequence 0."""

    def __init__(self, broker: Broker, source: str) -> None:
        self._broker = broker
        self._source = source

    async def record(self, fact: ResponseFeedback) -> ResponseFeedback:
        """State the fact, once; returns the one that is durable."""
        subject = subjects.feedback_event(fact.tenant, fact.request_id)
        envelope = Envelope(
            id=feedback_id(fact.request_id),
            source=self._source,
            type=ResponseFeedback.TYPE,
            time=fact.given_at,
        )
        try:
            await self._broker.publish(
                subject, fact.model_dump_json().encode(), envelope, expected_last_seq=0
            )
        except SequenceConflictError:
            standing = await self._broker.last_message(EVENTS, subject)
            if standing is None:
                msg = "The event log is catching up: try again."
                raise UnavailableError(msg, code="event_log_unavailable") from None
            return ResponseFeedback.model_validate_json(standing.data)
        return fact


class NatsCancelCommands:
    """`CancelCommands` over CONTROL."""

    def __init__(self, broker: Broker, source: str) -> None:
        self._broker = broker
        self._source = source

    async def cancel(self, tenant: str, request_id: str) -> None:
        """Command it; returns once the command is stored."""
        envelope = Envelope(id=f"{request_id}/cancel", source=self._source, type=_CANCEL_TYPE)
        await self._broker.publish_silent(
            CONTROL,
            subjects.control(tenant, request_id),
            Cancel().model_dump_json().encode(),
            envelope,
        )
