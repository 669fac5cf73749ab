"""Turns what a handler raised into an ack: the only place that does."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Final

from penstock_shared.contracts.envelope import TRACEPARENT
from penstock_shared.contracts.errors import (
    POISON_AFTER_DELIVERIES,
    Disposition,
    PenstockError,
    RateLimitedError,
    TransientError,
    disposition_of,
)
from penstock_shared.runtime.consumer import Delivery
from penstock_shared.runtime.telemetry import log, trace_id

_RETRY_BASE_S: Final = 0.5
_RETRY_MAX_S: Final = 30.0
_LIMIT_MAX_S: Final = 3600.0
"""A quota that is used up for a month may be raised: what waits for it asks again meanwhile."""

Handler = Callable[[Delivery], Awaitable[None]]
Reject = Callable[[Delivery, PenstockError], Awaitable[None]]


def retry_delay_s(deliveries: int, rng: random.Random) -> float:
    """Exponential back-off with full jitter (AWS Architecture Blog, 2015)."""
    ceiling = min(_RETRY_MAX_S, _RETRY_BASE_S * 2.0 ** min(deliveries, 10))
    return rng.uniform(_RETRY_BASE_S / 2, ceiling)


async def settle(delivery: Delivery, handler: Handler, reject: Reject, rng: random.Random) -> None:
    """Run `handler`, and turn what it raises into an ack: the only place that does.

    `reject` tells the client and writes to DEAD, and only then the message is terminated.
    """
    try:
        await handler(delivery)
    except Exception as error:  # noqa: BLE001  every error has a disposition
        await settle_error(delivery, error, reject, rng)
    else:
        if not delivery.settled:
            await delivery.ack()


async def settle_error(
    delivery: Delivery, error: BaseException, reject: Reject, rng: random.Random
) -> None:
    """Nak, or reject and term, by the error's disposition."""
    disposition = disposition_of(error)
    failed_before = delivery.deliveries - 1 if delivery.failures is None else delivery.failures
    log().warning(
        "message.failed",
        kind=type(error).__name__,
        code=getattr(error, "code", None),
        disposition=disposition.value,
        deliveries=delivery.deliveries,
        sequence=delivery.sequence,
        trace=trace_id(delivery.headers.get(TRACEPARENT)),
        exc_info=error if disposition is Disposition.COUNT else None,
    )
    delay_s = retry_delay_s(delivery.deliveries, rng)
    if isinstance(error, RateLimitedError):  # earlier is in vain; all at once, for all but one
        delay_s += min(error.retry_after_s, _LIMIT_MAX_S)
    poison = failed_before + 1 >= POISON_AFTER_DELIVERIES
    if disposition is Disposition.RETRY or (disposition is Disposition.COUNT and not poison):
        await delivery.nak(delay_s, failed=disposition is Disposition.COUNT)
        return
    known = error if isinstance(error, PenstockError) else _poison(failed_before + 1)
    try:
        await reject(delivery, known)
    except Exception as unsaid:  # noqa: BLE001  held on to, it would be kept alive for ever
        if not isinstance(unsaid, TransientError):
            log().error("message.not_rejected", sequence=delivery.sequence, exc_info=unsaid)
        await delivery.nak(delay_s, failed=True)
        return
    await delivery.term()


def _poison(failures: int) -> PenstockError:
    return PenstockError(f"Handling failed {failures} times.", code="poison")
