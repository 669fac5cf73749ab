"""A model that breaks is left within 200 requests; simulated through the fold and the choice."""

from __future__ import annotations

import statistics

import pytest
from tests.support.drifting import World, requests_until_left

WITHIN = 200
WORLDS = {
    "wrong answers, all judged": World(),
    "wrong answers, three in ten judged": World(judged=0.3),
    "half as good, all judged": World(broken_right=0.4),
    "errors of its own, nothing judged": World(fails=True, judged=0.0),
    "errors of its own, all else judged": World(fails=True),
    "prices a hundred to one": World(cost=(0.4, 40.0), judged=0.3),
}


def percentile_95(values: list[int]) -> int:
    return sorted(values)[int(0.95 * (len(values) - 1))]


@pytest.mark.parametrize("name", WORLDS)
def test_a_model_that_breaks_is_left_within_200_requests(name: str) -> None:
    """One seed of each way to break, after 300 requests in which all was well."""
    assert requests_until_left(WORLDS[name], 3, before=300, after=260) <= WITHIN


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", WORLDS)
def test_a_model_that_breaks_is_left_within_200_requests_in_many_orders(name: str) -> None:
    """The 95th percentile over 20 seeds, after 1,000 requests that made the beliefs firm."""
    taken = [requests_until_left(WORLDS[name], seed, before=1_000, after=300) for seed in range(20)]
    print(f"{name}: median {statistics.median(taken)}, 95th percentile {percentile_95(taken)}")
    assert percentile_95(taken) <= WITHIN
