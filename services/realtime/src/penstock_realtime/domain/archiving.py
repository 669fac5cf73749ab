"""Which facts are kept beyond the event log's own time, and what they amount to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from operator import attrgetter
from typing import Final

from penstock_realtime.ports import ArchivedResponse
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.ids import parse_request_id
from penstock_shared.contracts.requests import TERMINAL_TYPES, RequestRouted
from penstock_shared.contracts.stored import ResponseDeleted, is_stored
from penstock_shared.contracts.subjects import parse

_BY_IDENTITY: Final = attrgetter("tenant", "request_id")


def is_kept(event_type: str | None, data: bytes) -> bool:
    """Whether an event of EVENTS is one to keep; most are not, and are not even parsed."""
    if event_type == RequestRouted.TYPE or event_type in TERMINAL_TYPES:
        return is_stored(data)
    return event_type == ResponseDeleted.TYPE


def archived(
    event_type: str, subject: str, data: bytes, expires_at: datetime
) -> ArchivedResponse | None:
    """One kept event; None when it lies under a subject that no request has.

    The subject says whose it is: it is what the broker guards (I8).
    """
    place = parse(subject)
    try:
        request_id = parse_request_id(place.rest[-1])
    except (PermanentError, IndexError):
        return None
    known = ArchivedResponse(place.tenant, request_id, expires_at)
    if event_type == ResponseDeleted.TYPE:
        return replace(known, deleted=True)
    if event_type == RequestRouted.TYPE:
        return replace(known, routed=data)
    return replace(known, ended=data)


def merged(one: ArchivedResponse, other: ArchivedResponse) -> ArchivedResponse:
    """What both say of a response, in whichever order they came; a deletion wins.

    It is kept from its first fact on, and its deletion from its own: so it does not matter which
    facts came together.
    """
    if one.deleted or other.deleted:
        latest = max(each.expires_at for each in (one, other) if each.deleted)
        return ArchivedResponse(one.tenant, one.request_id, latest, deleted=True)
    return replace(
        one,
        expires_at=min(one.expires_at, other.expires_at),
        routed=one.routed or other.routed,
        ended=one.ended or other.ended,
    )


def folded(events: Iterable[ArchivedResponse]) -> list[ArchivedResponse]:
    """One for each response, in the order of their identities.

    Two replicas that write the same rows in the same order wait for each other; in different
    orders they would deadlock.
    """
    known: dict[tuple[str, str], ArchivedResponse] = {}
    for event in events:
        identity = (event.tenant, event.request_id)
        before = known.get(identity)
        known[identity] = event if before is None else merged(before, event)
    return sorted(known.values(), key=_BY_IDENTITY)
