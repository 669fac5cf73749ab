"""The generic cell rate algorithm, as a leaky bucket that drains without steps. Pure.

Source: ITU-T I.371, annex A, whose two forms, virtual scheduling and the continuous-state leaky
bucket, decide alike. The second one counts in whole numbers whatever the limit is: one request or
token is `UNIT` parts, and a limit of n per minute drains n parts in a microsecond. The same
arithmetic runs in Redis (redis_rate_limit.lua); a test holds them equal.
"""

from __future__ import annotations

from typing import Final

UNIT: Final = 60_000_000
"""Parts of one request or token: as many as a minute has microseconds."""


def drained(level: int, per_minute: int, elapsed_us: int) -> int:
    """What is left in the bucket after a while."""
    return max(0, level - max(0, elapsed_us) * per_minute)


def fits(level: int, per_minute: int, cost: int) -> bool:
    """Whether `cost` more go in: the bucket holds one minute's worth."""
    return level + cost * UNIT <= per_minute * UNIT


def wait_us(level: int, per_minute: int, cost: int) -> int:
    """Microseconds until `cost` fit, if nothing else comes in between; at least 0."""
    return max(0, -(-(level + (cost - per_minute) * UNIT) // per_minute))


def reset_us(level: int, per_minute: int) -> int:
    """Microseconds until the bucket is empty."""
    return -(-level // per_minute)


def free_units(level: int, per_minute: int) -> int:
    """How many more fit now."""
    return max(0, per_minute - -(-level // UNIT))


def returnable(unused: int, per_minute: int, held_us: int) -> int:
    """How many of the `unused` units of a charge, taken `held_us` ago, may be given back.

    The bucket has drained meanwhile, for all that anybody knows this very charge: what it does not
    hold any more cannot be taken out of it. Below 0 more was used than charged: all of that counts.
    """
    if unused <= 0:
        return unused
    return max(0, unused - -(-held_us * per_minute // UNIT))
