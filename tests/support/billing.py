"""Terminal facts as workers write them, and the operator who asks what they cost."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from penstock_billing.app import App
from penstock_shared.contracts import subjects
from penstock_shared.contracts.envelope import Envelope
from penstock_shared.contracts.requests import (
    AttemptFailed,
    RequestEnded,
    Status,
    Timings,
    attempt_failed_id,
    terminal_id,
    terminal_type,
)
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.contracts.usage import Price, Usage, UsageQuery, UsageReport
from penstock_shared.runtime.broker import Broker

StartBilling = Callable[..., AbstractAsyncContextManager[App]]

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
STORED_AT = datetime(2099, 1, 1, tzinfo=UTC)
"""After all that any test calls now."""
PRICE = Price(input_microusd_per_1k=500, output_microusd_per_1k=1_500)


def terminal(
    *, tenant: str = "acme", tokens: tuple[int, int] = (10, 20), **fields: Any
) -> RequestEnded:
    """A completed request, with any field set otherwise."""
    values: dict[str, Any] = {
        "request_id": str(uuid.uuid4()),
        "tenant": tenant,
        "key_id": "key_1",
        "data_subject": "somebody",
        "model": "small",
        "attempt": 1,
        "run": str(uuid.uuid4()),
        "status": Status.COMPLETED,
        "reason": "stop",
        "usage": Usage(input_tokens=tokens[0], output_tokens=tokens[1]),
        "price": PRICE,
        "output": "1.c2VhbGVk",
        "routed_at": NOON,
        "ended_at": NOON,
        **fields,
    }
    return RequestEnded(**values)


def failed_attempt(ended: RequestEnded, tokens: tuple[int, int]) -> AttemptFailed:
    """The attempt that came before the one which `ended` tells of."""
    return AttemptFailed(
        **ended.model_dump(include={"request_id", "tenant", "key_id", "data_subject", "price"}),
        model="small",
        attempt=ended.attempt - 1,
        run=str(uuid.uuid4()),
        reason="schema",
        detail="1.c2VhbGVk",
        usage=Usage(input_tokens=tokens[0], output_tokens=tokens[1]),
        output="1.c2VhbGVk",
        timings=Timings(queued_ms=1, first_token_ms=2, total_ms=3),
        routed_at=NOON,
        failed_at=NOON,
    )


def terminals(
    rng: random.Random, count: int, tenants: tuple[str, ...] = ("acme", "globex")
) -> list[RequestEnded]:
    """Different requests of several tenants and models, replayable from the generator's seed."""
    return [
        terminal(
            tenant=rng.choice(tenants),
            tokens=(rng.randrange(500), rng.randrange(500)),
            request_id=str(uuid.UUID(int=rng.getrandbits(128), version=4)),
            model=rng.choice(("small", "large")),
            status=rng.choice(list(Status)),
        )
        for _ in range(count)
    ]


def terminal_headers(ended: RequestEnded) -> dict[str, str]:
    """The headers under which a worker publishes the fact."""
    return Envelope(
        id=terminal_id(ended.request_id, ended.attempt, ended.run),
        source="/penstock/worker/test",
        type=terminal_type(ended.status),
    ).headers()


class Operator:
    """Asks billing as the `penstock` command does, and writes facts as workers do."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def ask(self, subject: str, body: BaseModel) -> bytes:
        reply = await self._broker.request(subject, body.model_dump_json().encode(), timeout_s=10)
        return reply.data

    async def command(self, verb: str, body: BaseModel) -> bytes:
        return await self.ask(subjects.accounts(verb), body)

    async def usage(self, tenant: str | None = None) -> UsageReport:
        answer = await self.ask(subjects.usage_query(), UsageQuery(tenant=tenant))
        return UsageReport.model_validate_json(answer)

    async def caught_up(self, within_s: float = 15.0) -> UsageReport:
        """The usage once all that is in EVENTS now is committed."""
        last = (await self._broker.jetstream.stream_info(EVENTS)).state.last_seq
        async with asyncio.timeout(within_s):
            while (report := await self.usage()).events_seq < last:
                await asyncio.sleep(0.05)
        return report

    async def publish(self, ended: RequestEnded) -> None:
        """Store a terminal fact; whoever repeats this stores a second copy."""
        subject = subjects.request_event(ended.tenant, ended.request_id)
        await self._broker.jetstream.publish(
            subject, ended.model_dump_json().encode(), headers=terminal_headers(ended)
        )

    async def publish_failed(self, failed: AttemptFailed) -> None:
        """Store the fact of a failed attempt."""
        envelope = Envelope(
            id=attempt_failed_id(failed.request_id, failed.attempt, failed.run),
            source="/penstock/worker/test",
            type=failed.TYPE,
        )
        await self._broker.jetstream.publish(
            subjects.request_event(failed.tenant, failed.request_id),
            failed.model_dump_json().encode(),
            headers=envelope.headers(),
        )

    async def publish_raw(self, subject: str, payload: bytes, **fields: Any) -> None:
        """Store anything, under the headers of a terminal fact."""
        await self._broker.jetstream.publish(
            subject, payload, headers=terminal_headers(terminal(**fields))
        )


async def eventually(check: Callable[[], Awaitable[bool]], within_s: float = 10.0) -> None:
    """Wait until `check` holds."""
    async with asyncio.timeout(within_s):
        while not await check():
            await asyncio.sleep(0.02)
