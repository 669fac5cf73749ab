"""Usage as benchmarks of billing see it: facts as workers write them, and history made by SQL."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.ids import uuid7
from penstock_shared.contracts.requests import (
    RequestEnded,
    RequestRouted,
    Status,
    Timings,
    routed_id,
    terminal_id,
    terminal_type,
)
from penstock_shared.contracts.usage import Price, Usage

TENANTS: Final = 20
KEYS: Final = 4
MODELS: Final = 3
USERS: Final = 25
"""Of each tenant."""
_RATE_PER_S: Final = 20_000
_HISTORY_PER_DAY: Final = 1_000_000
_CHUNK: Final = 100_000
_PRICE: Final = Price(input_microusd_per_1k=500, output_microusd_per_1k=1_500)
_OUTPUT: Final = "1." + "c2VhbGVk" * 75
_SOURCE: Final = "/penstock/worker/bench"
# Ids ascend with time, as those that routers and clients make do.
_HISTORY: Final = """
insert into billing.usage
    (tenant, request_id, attempt, event_seq, model, key_id, data_subject, kind, status,
     input_tokens, output_tokens, cost_microusd, accepted_at, accepted_on, period, ended_at)
select 'tenant-' || n % $4,
       (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '7'
        || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid,
       1, n, 'model-' || n / 7 % $5, 'key_' || n / 11 % $6, 'user-' || n / 13 % $7, 'text',
       'completed', n % 500, n % 700, n % 1300, at, (at at time zone 'UTC')::date,
       date_trunc('month', at at time zone 'UTC')::date, at
from generate_series($1::bigint, $2::bigint) as n
cross join lateral (select $3::timestamptz + n * $8::interval) as t (at)"""


@dataclass(frozen=True, slots=True)
class StoredFact:
    """As it stands in EVENTS."""

    subject: str
    headers: dict[str, str]
    payload: bytes


def facts(rng: random.Random, count: int, start: datetime) -> Iterator[StoredFact]:
    """Terminals of different requests, 1.6 KB each, in the order of their ends."""
    for number in range(count):
        at = start + timedelta(seconds=number / _RATE_PER_S)
        unix_ms = int(at.timestamp() * 1000)
        ended = RequestEnded(
            request_id=uuid7(unix_ms, rng.randbytes),
            tenant=f"tenant-{rng.randrange(TENANTS)}",
            key_id=f"key_{rng.randrange(KEYS)}",
            data_subject=f"user-{rng.randrange(USERS)}",
            model=f"model-{rng.randrange(MODELS)}",
            attempt=1,
            run=uuid7(unix_ms, rng.randbytes),
            status=Status.COMPLETED,
            reason="stop",
            usage=Usage(input_tokens=rng.randrange(1, 500), output_tokens=rng.randrange(1, 700)),
            price=_PRICE,
            output=_OUTPUT,
            delta_ends=tuple(range(3, 153, 3)),
            timings=Timings(queued_ms=1.5, first_token_ms=25.25, total_ms=480.125),
            confidence=0.8125,
            routed_at=at,
            ended_at=at,
        )
        event_id = terminal_id(ended.request_id, 1, ended.run)
        headers = Envelope(id=event_id, source=_SOURCE, type=terminal_type(ended.status)).headers()
        yield StoredFact(_subject(ended), headers, ended.model_dump_json().encode())


def routed_before(fact: StoredFact) -> StoredFact:
    """What stands before it in the log: as long, and passed over by its headers."""
    request_id = fact.subject.rpartition(".")[2]
    event_id = routed_id(request_id)
    headers = Envelope(id=event_id, source=_SOURCE, type=RequestRouted.TYPE).headers()
    return StoredFact(fact.subject, headers, fact.payload)


async def add_history(
    connection: Any, rows: int, before: datetime, *, tenants: int = TENANTS
) -> None:
    """So many attempts, a million a day, up to a moment; sums and ledger follow by the triggers."""
    step = timedelta(days=1) / _HISTORY_PER_DAY
    start = before.astimezone(UTC) - rows * step
    shape = (tenants, MODELS, KEYS, USERS)
    for first in range(1, rows + 1, _CHUNK):
        last = min(first + _CHUNK - 1, rows)
        await connection.execute(_HISTORY, first, last, start, *shape, step, timeout=None)
    await connection.execute("vacuum analyze", timeout=None)
    await connection.execute("checkpoint", timeout=None)


def _subject(ended: RequestEnded) -> str:
    return subjects.request_event(ended.tenant, ended.request_id)
