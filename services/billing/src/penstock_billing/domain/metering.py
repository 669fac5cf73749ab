"""What a terminal fact is worth, and which of several copies counts."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Final

from pydantic import ValidationError

from penstock_billing.ports import MeteredUsage
from penstock_shared.contracts.errors import SchemaError
from penstock_shared.contracts.requests import RequestEnded
from penstock_shared.contracts.usage import cost_microusd

_BY_IDENTITY: Final = attrgetter("tenant", "request_id", "attempt", "event_seq")
_MAX_INT8: Final = 2**63 - 1
_MAX_INT4: Final = 2**31 - 1


def meter(subject: str, event_seq: int, payload: bytes) -> MeteredUsage:
    """The usage in a terminal fact: the tokens that were generated, at the routed price (I3).

    Raises:
        SchemaError: it is no terminal fact, not that of its subject, or beyond what money is.
    """
    try:
        ended = RequestEnded.model_validate_json(payload)
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors()[0]["loc"])
        msg = f"Not a terminal fact: '{field}' is missing or malformed."
        raise SchemaError(msg, param=field or None) from error
    # The subject is what the broker guards; a payload that names another tenant is a lie (I8).
    if subject.split(".")[1::3] != [ended.tenant, ended.request_id]:
        msg = "The terminal fact lies under the subject of another tenant or request."
        raise SchemaError(msg, code="subject_mismatch", param="request_id")
    cost = cost_microusd(ended.usage, ended.price)
    if cost > _MAX_INT8 or not 0 <= ended.attempt <= _MAX_INT4:
        msg = "The terminal fact costs more than can be counted, or its attempt is no number."
        raise SchemaError(msg, code="out_of_range", param="usage")
    return MeteredUsage(
        tenant=ended.tenant,
        request_id=ended.request_id,
        attempt=ended.attempt,
        event_seq=event_seq,
        model=ended.model,
        key_id=ended.key_id,
        status=ended.status.value,
        input_tokens=ended.usage.input_tokens,
        output_tokens=ended.usage.output_tokens,
        cost_microusd=cost,
        ended_at=ended.ended_at,
    )


def distinct(rows: Iterable[MeteredUsage]) -> list[MeteredUsage]:
    """One row per attempt (I2): the earliest in the log, in the order of their identities.

    Two replicas that insert the same rows in the same order wait for each other; in different
    orders they would deadlock.
    """
    first: dict[tuple[str, str, int], MeteredUsage] = {}
    for row in sorted(rows, key=_BY_IDENTITY):
        first.setdefault((row.tenant, row.request_id, row.attempt), row)
    return list(first.values())
