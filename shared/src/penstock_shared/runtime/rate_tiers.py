"""Which limits apply to a request, and what a decision on them means to its sender. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from penstock_shared.runtime.gcra import free_units, reset_us, wait_us
from penstock_shared.runtime.rate_limit import Allowance, Budget, Demand

Unit = Literal["requests", "tokens"]
_PREFIX: Final = "{penstock:rate}"
"""In braces: all keys lie in one slot of a Redis Cluster, as those of one script must."""


@dataclass(frozen=True, slots=True)
class PlatformLimits:
    """Of everybody together, and of each client address; None is not checked."""

    global_requests: int | None = None
    global_tokens: int | None = None
    address_requests: int | None = None
    address_tokens: int | None = None


class Limit(NamedTuple):
    """One limit, and what a request costs of it. A tuple: eight may be made for every request."""

    key: str
    """Of its bucket."""
    unit: Unit
    whose: str
    per_minute: int
    cost: int
    shared: bool
    """Between tenants: what is left of it is nobody's to know."""

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.per_minute} {self.unit} per minute {self.whose}"


def limits_of(demand: Demand, platform: PlatformLimits) -> list[Limit]:
    """Those that apply; what is not limited is not even looked up."""
    limits: list[Limit] = []

    def add(
        place: str, whose: str, requests: int | None, tokens: int | None, *, shared: bool = False
    ) -> None:
        if requests is not None:
            key = f"{_PREFIX}:requests:{place}"
            limits.append(Limit(key, "requests", whose, max(1, requests), 1, shared))
        if tokens is not None:
            key = f"{_PREFIX}:tokens:{place}"
            limits.append(Limit(key, "tokens", whose, max(1, tokens), demand.tokens, shared))

    tenant = demand.tenant
    name = tenant.tenant
    add(f"t:{name}", "of this tenant", tenant.requests_per_minute, tenant.tokens_per_minute)
    add(
        f"u:{name}:{demand.user}",
        "of this user",
        tenant.user_requests_per_minute,
        tenant.user_tokens_per_minute,
    )
    add(
        "g",
        "of the whole platform",
        platform.global_requests,
        platform.global_tokens,
        shared=True,
    )
    if demand.address is not None:
        add(
            f"a:{demand.address}",
            "of your address",
            platform.address_requests,
            platform.address_tokens,
            shared=True,
        )
    return limits


def allowance(limits: Sequence[Limit], levels: Sequence[int], *, fits: bool) -> Allowance:
    """What the decision means. `levels` are those after it, in the order of `limits`."""
    requests = _tightest(limits, levels, "requests")
    assert requests is not None  # noqa: S101  every tenant has a limit of requests
    tokens = _tightest(limits, levels, "tokens")
    if fits:
        return Allowance(allowed=True, requests=requests, tokens=tokens)
    waits = [
        (limit.cost > limit.per_minute, wait_us(level, limit.per_minute, limit.cost), limit)
        for limit, level in zip(limits, levels, strict=True)
    ]
    too_large, longest_us, refusing = max(waits, key=lambda wait: wait[:2])
    return Allowance(
        allowed=False,
        requests=requests,
        tokens=tokens,
        retry_after_s=longest_us / 1e6,
        limit_name=refusing.name,
        too_large=too_large,
    )


def _tightest(limits: Sequence[Limit], levels: Sequence[int], unit: Unit) -> Budget | None:
    level, limit = min(
        (
            (level, limit)
            for level, limit in zip(levels, limits, strict=True)
            if limit.unit == unit and not limit.shared
        ),
        key=lambda one: free_units(one[0], one[1].per_minute),
        default=(0, None),
    )
    if limit is None:
        return None
    return Budget(
        limit=limit.per_minute,
        remaining=free_units(level, limit.per_minute),
        reset_s=reset_us(level, limit.per_minute) / 1e6,
    )
