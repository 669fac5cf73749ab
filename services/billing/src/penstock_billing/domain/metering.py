"""What a fact with usage is worth, and which of several copies counts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from penstock_billing.ports.usage import MeteredUsage
from penstock_shared.contracts.errors import SchemaError
from penstock_shared.contracts.ids import DataSubject, KeyId, ModelName, RequestId, TenantId
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.requests import TERMINAL_TYPES, AttemptFailed, RequestRouted, Status
from penstock_shared.contracts.usage import Price, Usage, cost_microusd

CLOCK_LEEWAY: Final = timedelta(minutes=5)
"""How far ahead of the broker's clock a router's may be."""
_FIRST: Final = datetime(2020, 1, 1, tzinfo=UTC)
"""There was no platform before: a clock that says so has lost its time."""
MAX_TOKENS: Final = 10**9
"""Of an attempt, of each sort: more is nobody's prompt and no engine's answer."""
MAX_COST_MICROUSD: Final = 10**12
"""Of an attempt: a million dollars. So bounded, all sums of a tenant fit into eight bytes."""
_MAX_ATTEMPT: Final = 2**31 - 1
_BY_IDENTITY: Final = itemgetter(0, 1, 2, 3)
_FAILED_ATTEMPT: Final = "attempt_failed"
"""Stands in the ledger where the status of a request would."""


class _Fact(BaseModel):
    """What metering reads of a fact; the rest is for others to check, and costs as much again."""

    model_config = ConfigDict(frozen=True)

    request_id: RequestId
    tenant: TenantId
    key_id: KeyId
    data_subject: DataSubject
    model: ModelName
    kind: ModelKind = ModelKind.TEXT
    attempt: int
    usage: Usage
    price: Price
    routed_at: AwareDatetime


class _Ended(_Fact):
    status: Status
    ended_at: AwareDatetime


class _AttemptFailed(_Fact):
    status: Literal["attempt_failed"] = _FAILED_ATTEMPT
    ended_at: Annotated[AwareDatetime, Field(alias="failed_at")]


_SHAPES: Final[dict[str, type[_Ended | _AttemptFailed]]] = {
    **dict.fromkeys(TERMINAL_TYPES, _Ended),
    AttemptFailed.TYPE: _AttemptFailed,
}
METERED_TYPES: Final = frozenset(_SHAPES)
"""Events that carry usage: what an attempt generated is billed, failed or not (I3)."""

F = TypeVar("F", _Ended | _AttemptFailed, RequestRouted)


def meter(
    event_type: str, subject: str, event_seq: int, stored_at: datetime, payload: bytes
) -> MeteredUsage:
    """The usage in a fact of `METERED_TYPES`: tokens as generated, at the routed price (I3).

    `stored_at` is when the broker stored it: what claims to be accepted later than that, clocks'
    differences allowed, or before there was a platform, counts at that time. So the result is a
    function of the log alone.

    Raises:
        SchemaError: it is no such fact, not that of its subject, or beyond what usage can be.
    """
    fact = _read(_SHAPES[event_type], subject, payload)
    usage = fact.usage
    cost = cost_microusd(usage, fact.price)
    if not (
        cost <= MAX_COST_MICROUSD
        and max(usage.input_tokens, usage.output_tokens, usage.tool_calls) <= MAX_TOKENS
        and 0 <= fact.attempt <= _MAX_ATTEMPT
    ):
        msg = "The fact tells of more than can be counted, or its attempt is no number."
        raise SchemaError(msg, code="out_of_range", param="usage")
    return MeteredUsage(
        tenant=fact.tenant,
        request_id=fact.request_id,
        attempt=fact.attempt,
        event_seq=event_seq,
        model=fact.model,
        key_id=fact.key_id,
        data_subject=fact.data_subject,
        kind=fact.kind.value,
        status=fact.status,
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
        tool_calls=usage.tool_calls,
        cost_microusd=cost,
        accepted_at=_accepted_at(fact.routed_at, stored_at),
        ended_at=fact.ended_at,
    )


def _accepted_at(routed_at: datetime, stored_at: datetime) -> datetime:
    if routed_at < _FIRST:
        return stored_at
    return min(routed_at, stored_at + CLOCK_LEEWAY).astimezone(UTC)


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
        first.setdefault(row[:3], row)
    return list(first.values())
