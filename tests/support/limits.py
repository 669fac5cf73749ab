"""Limiters and demands, as tests need them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.runtime.rate_limit import Demand
from penstock_shared.runtime.redis_rate_limit import RedisRateLimiter
from penstock_shared.runtime.settings import LimitSettings


def limit_settings(redis_url: str | None = None, **given: Any) -> LimitSettings:
    return LimitSettings(nats_url="nats://none", redis_url=redis_url, **given)


def limiter(
    redis_url: str | None,
    *,
    monotonic_s: Callable[[], float] = time.monotonic,
    on_alone: Callable[[], None] = lambda: None,
    **given: Any,
) -> RedisRateLimiter:
    """With `given` as settings, and patience for a busy machine."""
    settings = limit_settings(redis_url, **{"redis_timeout_s": 2.0, **given})
    return RedisRateLimiter(settings, monotonic_s, on_alone)


def demand(
    *, user: str = "key_1", address: str | None = None, tokens: int = 0, **tenant: Any
) -> Demand:
    """Of a tenant of its own, unless one is named: Redis outlives a test."""
    fields = {"tenant": f"t{os.urandom(4).hex()}", "name": "t", "created_at": datetime.now(UTC)}
    return Demand(TenantRecord.model_validate(fields | tenant), user, address, tokens)
