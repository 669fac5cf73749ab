"""What a fact with usage is worth, and which of several copies counts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from operator import attrgetter
from typing import Final, TypeVar

from pydantic import ValidationError

from penstock_billing.ports.usage import MeteredUsage
from penstock_shared.contracts.errors import SchemaError
from penstock_shared.contracts.requests import (
    TERMINAL_TYPES,
    AttemptFailed,
    RequestEnded,
    RequestRouted,
)
from penstock_shared.contracts.usage import cost_microusd

_BY_IDENTITY: Final = attrgetter("tenant", "request_id", "attempt", "event_seq")
_MAX_INT8: Final = 2**63 - 1
_MAX_INT4: Final = 2**31 - 1
_SHAPES: Final[dict[str, type[RequestEnded | AttemptFailed]]] = {
    **dict.fromkeys(TERMINAL_TYPES, RequestEnded),
    AttemptFailed.TYPE: AttemptFailed,
}
METERED_TYPES: Final = frozenset(_SHAPES)
"""Events that carry usage: what an attempt generated is billed, failed or not (I3)."""
_FAILED_ATTEMPT: Final = "attempt_failed"
"""Stands in the ledger where the status of a request would."""

F = TypeVar("F", RequestEnded | AttemptFailed, RequestRouted)


def meter(event_type: str, subject: str, event_seq: int, payload: bytes) -> MeteredUsage:
    """The usage in a fact of `METERED_TYPES`: tokens as generated, at the routed price (I3).

    Raises:
        SchemaError: it is no such fact, not that of its subject, or beyond what money is.
    """
    fact = _read(_SHAPES[event_type], subject, payload)
    cost = cost_microusd(fact.usage, fact.price)
    if cost > _MAX_INT8 or not 0 <= fact.attempt <= _MAX_INT4:
        msg = "The fact costs more than can be counted, or its attempt is no number."
        raise SchemaError(msg, code="out_of_range", param="usage")
    try:
        accepted_on = fact.routed_at.astimezone(UTC).date()
    except OverflowError as error:
        msg = "The fact was routed before or after all calendars."
        raise SchemaError(msg, code="out_of_range", param="routed_at") from error
    return MeteredUsage(
        tenant=fact.tenant,
        request_id=fact.request_id,
        attempt=fact.attempt,
        event_seq=event_seq,
        model=fact.model,
        key_id=fact.key_id,
        status=_FAILED_ATTEMPT if isinstance(fact, AttemptFailed) else fact.status.value,
        input_tokens=fact.usage.input_tokens,
        output_tokens=fact.usage.output_tokens,
        cost_microusd=cost,
        ended_at=fact.failed_at if isinstance(fact, AttemptFailed) else fact.ended_at,
        accepted_on=accepted_on,
    )


def reserved(subject: str, payload: bytes) -> RequestRouted:
    """A `routed` fact with reservations.

    Raises:
        SchemaError: it is no such fact, or not that of its subject.
    """
    return _read(RequestRouted, subject, payload)


def _read(shape: type[F], subject: str, payload: bytes) -> F:
    try:
        fact = shape.model_validate_json(payload)
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"])
        msg = f"Not a fact with usage: '{field}' is missing or malformed."
        raise SchemaError(msg, param=field or None) from error
    # The subject is what the broker guards; a payload that names another tenant is a lie (I8).
    if subject.split(".")[1::3] != [fact.tenant, fact.request_id]:
        msg = "The fact lies under the subject of another tenant or request."
        raise SchemaError(msg, code="subject_mismatch", param="request_id")
    return fact


def distinct(rows: Iterable[MeteredUsage]) -> list[MeteredUsage]:
    """One row per attempt (I2): the earliest in the log, in the order of their identities.

    Two replicas that insert the same rows in the same order wait for each other; in different
    orders they would deadlock.
    """
    first: dict[tuple[str, str, int], MeteredUsage] = {}
    for row in sorted(rows, key=_BY_IDENTITY):
        first.setdefault((row.tenant, row.request_id, row.attempt), row)
    return list(first.values())
