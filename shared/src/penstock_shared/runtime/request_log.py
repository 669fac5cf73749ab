"""What the event log knows of one request: the last fact on its subject, by direct get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.requests import (
    TERMINAL_TYPES,
    AttemptFailed,
    RequestEnded,
    RequestFact,
    RequestRouted,
)
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import Broker, StoredMessage

DEADLINE_HEADER: Final = "ce-deadline"
"""CloudEvents extension, Unix seconds, on every fact of a request that is still open: folds that
read headers only learn from it when the request expires."""


class UnreadableFactError(UnavailableError):
    """The fact is malformed, or of a newer kind than this instance knows."""

    default_code = "fact_unreadable"


@dataclass(frozen=True, slots=True)
class LastFact:
    """The last fact of a request; only a `RequestEnded` ends it."""

    sequence: int
    """What the next fact must expect as the subject's last sequence."""
    event_id: str | None
    fact: RequestFact


class RequestLogReader:
    """Reads EVENTS, one request at a time."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def last_fact(self, tenant: str, request_id: str) -> LastFact | None:
        """The last fact of a request; None when this replica of the log has none.

        Raises:
            UnavailableError: the log does not answer.
            UnreadableFactError: what stands there cannot be read.
        """
        message = await self._broker.last_message(
            EVENTS, subjects.request_event(tenant, request_id)
        )
        if message is None:
            return None
        return LastFact(message.sequence, message.event_id, read_fact(message))

    async def routed(self, tenant: str, request_id: str) -> RequestRouted | None:
        """The first fact of a request; None when the log has none, or has it no more.

        Raises:
            UnavailableError: the log does not answer.
            UnreadableFactError: what stands there cannot be read.
        """
        message = await self._broker.first_message(
            EVENTS, subjects.request_event(tenant, request_id)
        )
        fact = None if message is None else read_fact(message)
        return fact if isinstance(fact, RequestRouted) else None


def read_fact(message: StoredMessage) -> RequestFact:
    """The fact in a message of EVENTS.

    Raises:
        UnreadableFactError: it is malformed, or of a kind that is not known here.
    """
    try:
        if message.event_type in TERMINAL_TYPES:
            return RequestEnded.model_validate_json(message.data)
        if message.event_type == RequestRouted.TYPE:
            return RequestRouted.model_validate_json(message.data)
        if message.event_type == AttemptFailed.TYPE:
            return AttemptFailed.model_validate_json(message.data)
    except ValidationError as error:
        msg = "A fact of this request is malformed: ask your operator."
        raise UnreadableFactError(msg) from error
    msg = "The event log has a newer kind of fact than this instance knows: update it."
    raise UnreadableFactError(msg)
