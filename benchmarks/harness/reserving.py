"""A request that reserves, as a router would have decided it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

from penstock_shared.contracts.quotas import Reserve
from penstock_shared.contracts.requests import Decision, RequestRouted, Sampling
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price


def reserving_request(tenant: str, price: Price, *, tokens: int, microusd: int) -> RequestRouted:
    """A new request of `tenant` with one attempt."""
    now = datetime.now(UTC)
    return RequestRouted(
        request_id=str(uuid.uuid4()),
        tenant=tenant,
        key_id="bench",
        data_subject="bench",
        lane=Lane.STANDARD,
        attempt=1,
        decision=Decision(policy="bench", model="m", probability=1, reason="", features={}),
        price=price,
        sampling=Sampling(),
        content="",
        accepted_at=now,
        deadline=now + timedelta(hours=1),
        reserves=(Reserve(attempt=1, tokens=tokens, microusd=microusd),),
    )
