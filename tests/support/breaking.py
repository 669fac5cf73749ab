"""Facts of requests that ended well or badly, as the breakers see them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from penstock_shared.contracts.errors import ErrorBody, PenstockError
from penstock_shared.contracts.requests import (
    Decision,
    RequestEnded,
    RequestRouted,
    Sampling,
    Status,
)
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import NOTHING_USED, Price

START = datetime(2026, 1, 1, tzinfo=UTC)
BROKEN = PenstockError("The engine failed.", code="engine_failed").body()
_PRICE = Price(input_microusd_per_1k=1, output_microusd_per_1k=2)


def after(seconds: float) -> datetime:
    """So long after the start."""
    return START + timedelta(seconds=seconds)


def request_id(number: int) -> str:
    """A valid one."""
    return f"01890000-0000-7000-8000-{number:012x}"


def ended(
    number: int,
    *,
    tenant: str = "acme",
    model: str = "small",
    error: ErrorBody | None = None,
    status: Status | None = None,
) -> RequestEnded:
    """A terminal: completed, or failed with `error`."""
    return RequestEnded(
        request_id=request_id(number),
        tenant=tenant,
        key_id="k1",
        data_subject="u1",
        model=model,
        attempt=1,
        run=None,
        status=status or (Status.COMPLETED if error is None else Status.FAILED),
        reason="stop" if error is None else "error",
        usage=NOTHING_USED,
        price=_PRICE,
        output=None,
        error=error,
        routed_at=START,
        ended_at=START,
    )


def routed(number: int, *, tenant: str = "acme", model: str = "small") -> RequestRouted:
    """A request that goes to `model`."""
    decision = Decision(policy="test", model=model, probability=1.0, reason="", features={})
    return RequestRouted(
        request_id=request_id(number),
        tenant=tenant,
        key_id="k1",
        data_subject="u1",
        lane=Lane.STANDARD,
        attempt=1,
        decision=decision,
        price=_PRICE,
        sampling=Sampling(),
        content="",
        accepted_at=START,
        deadline=after(60),
    )
