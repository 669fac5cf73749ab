"""The few formulas of the benchmarks."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of all values do not exceed (nearest rank).

    Raises:
        ValueError: there are no values, or the share is outside its range.
    """
    if not values or not 0 < share <= 1:
        msg = f"no percentile {share} of {len(values)} values"
        raise ValueError(msg)
    rank = -(-len(values) * round(share * 1000) // 1000)
    return sorted(values)[max(rank, 1) - 1]


def per_request_ms(
    before_s: Mapping[str, float], after_s: Mapping[str, float], requests: int
) -> dict[str, float]:
    """Processor milliseconds per request and process, dearest first.

    A process that is missing on one side (it began or ended between) is left out.
    """
    spent = {
        name: (after_s[name] - before_s[name]) * 1000 / requests
        for name in before_s
        if name in after_s
    }
    return dict(sorted(spent.items(), key=lambda one: -one[1]))


def median_of(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of every column over rounds that measured the same thing."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}
