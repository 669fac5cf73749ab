"""Pages of usage: whatever their size, together they are the whole, each group once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_billing.domain.usage_pages import usage_page, window
from penstock_billing.ports.reads import Group, Place, Window
from penstock_shared.contracts.errors import SchemaError
from penstock_shared.contracts.usage_queries import (
    BucketWidth,
    QueryUsage,
    UsageGroup,
    UsagePage,
    UsageSums,
)

START = datetime(2028, 2, 28, 23, 30, tzinfo=UTC)  # a leap day follows
NAMES = st.sampled_from(["", "a", "b", "a b", "é", 'x"\\,'])


def groups_at(places: Sequence[Place]) -> list[Group]:
    nothing = {"cached_input_tokens": 0, "output_tokens": 0, "tool_calls": 0, "cost_microusd": 1}
    return [
        Group(
            place,
            UsageSums(model=place.model or None, requests=1, input_tokens=number, **nothing),
        )
        for number, place in enumerate(places)
    ]


def key(place: Place) -> tuple[datetime, str, str, str, str]:
    return place.bucket, place.tenant, place.model, place.key_id, place.user


def read(all_groups: Sequence[Group], asked: Window, most: int) -> list[Group]:
    """As a `UsageReads` answers."""
    behind = None if asked.after is None else key(asked.after)
    inside = (
        group
        for group in all_groups
        if asked.start <= group.place.bucket < asked.end
        and (behind is None or key(group.place) > behind)
    )
    return sorted(inside, key=lambda group: key(group.place))[:most]


def turn(query: QueryUsage, all_groups: Sequence[Group], most: int, now: datetime) -> UsagePage:
    asked = window(query, now)
    return usage_page(query, asked, read(all_groups, asked, most + 1), most, now)


@given(
    width=st.sampled_from(list(BucketWidth)),
    spread=st.sets(st.tuples(st.integers(0, 9), NAMES, NAMES), max_size=40),
    buckets=st.integers(1, 10),
    limit=st.integers(1, 12),
    most=st.integers(1, 7),
    odd_s=st.integers(0, 59),
)
def test_pages_together_are_the_whole(
    width: BucketWidth,
    spread: set[tuple[int, str, str]],
    buckets: int,
    limit: int,
    most: int,
    odd_s: int,
) -> None:
    """Every group of the time asked for is shown once; empty buckets are there, too (I3)."""
    first = window(QueryUsage(start=START, width=width), START + timedelta(days=99)).start
    places = [
        Place(first + bucket * width.span, model=model, user=user) for bucket, model, user in spread
    ]
    whole = groups_at(places)
    end = first + buckets * width.span - timedelta(seconds=odd_s)
    query = QueryUsage(
        start=max(first, START) if width is BucketWidth.MINUTE else START,
        end=max(end, START + timedelta(seconds=1)),
        width=width,
        group_by=(UsageGroup.MODEL,),
        limit=limit,
    )
    now = START
    seen: list[int] = []
    starts: list[datetime] = []
    while True:
        page = turn(query, whole, most, now)
        assert len(page.buckets) <= limit
        assert sum(len(bucket.results) for bucket in page.buckets) <= most
        starts += [bucket.start for bucket in page.buckets if bucket.start not in starts[-1:]]
        seen += [sums.input_tokens for bucket in page.buckets for sums in bucket.results]
        if page.next_page is None:
            break
        query = query.model_copy(update={"page": page.next_page})
    assert query.end is not None
    wanted = [group for group in whole if group.place.bucket < query.end]
    assert sorted(seen) == sorted(group.sums.input_tokens for group in wanted)
    assert starts == [first + number * width.span for number in range(len(starts))]
    assert starts[-1] < query.end <= starts[-1] + width.span


@given(st.text(max_size=60))
def test_a_cursor_that_nobody_gave_is_refused(text: str) -> None:
    """No text leads anywhere but to a page or to a refusal that names it."""
    for page in (text, f"page_{text}"):
        query = QueryUsage(start=START, page=page[:2000])
        with pytest.raises(SchemaError) as refused:
            window(query, START)
        assert refused.value.param == "page"


def test_nothing_lies_in_the_future() -> None:
    """A question about what is to come has no buckets; about today it has today's."""
    assert turn(QueryUsage(start=START + timedelta(days=2)), [], 5, START).buckets == ()
    (today,) = turn(QueryUsage(start=START), [], 5, START).buckets
    assert (today.start.hour, today.end - today.start) == (0, timedelta(days=1))
