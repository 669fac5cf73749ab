"""From a question about usage to the buckets of one page."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from pydantic import TypeAdapter

from penstock_billing.ports.reads import Group, Place, Window
from penstock_shared.contracts.errors import SchemaError
from penstock_shared.contracts.usage_queries import (
    EARLIEST,
    LATEST,
    BucketWidth,
    QueryUsage,
    UsageBucket,
    UsagePage,
    UsageSums,
)

_PREFIX: Final = "page_"
_CURSOR: Final = TypeAdapter(tuple[int, tuple[str, str, str, str] | None])
"""Where a page begins: a bucket in Unix seconds, and the last group of it that was shown."""
_MIDNIGHT: Final = datetime(1970, 1, 1, tzinfo=UTC)


def window(query: QueryUsage, now: datetime) -> Window:
    """The buckets that a page may have.

    Raises:
        SchemaError: `page` is none that an earlier answer had.
    """
    start, after = _floor(query.start, query.width), None
    if query.page is not None:
        start, after = _read_cursor(query.page, query.width)
    end = min(_end(query, now), start + query.limit * query.width.span)
    return Window(start, max(start, end), after)


def usage_page(
    query: QueryUsage, asked: Window, found: Sequence[Group], most: int, now: datetime
) -> UsagePage:
    """The page of at most `most` groups; `found` are the window's first, one more if there is."""
    span, shown, last, next_page = query.width.span, found[:most], asked.end, None
    if len(found) > most:
        last = shown[-1].place.bucket + span
        next_page = _cursor(shown[-1].place.bucket, shown[-1].place)
    elif last < _end(query, now):
        next_page = _cursor(last, None)
    results: dict[datetime, list[UsageSums]] = defaultdict(list)
    for group in shown:
        results[group.place.bucket].append(group.sums)
    count = (last - asked.start) // span
    starts = [asked.start + number * span for number in range(count)]
    return UsagePage(
        buckets=tuple(
            UsageBucket(start=start, end=start + span, results=tuple(results[start]))
            for start in starts
        ),
        next_page=next_page,
    )


def _floor(at: datetime, width: BucketWidth) -> datetime:
    return at - (at - _MIDNIGHT) % width.span


def _end(query: QueryUsage, now: datetime) -> datetime:
    """Where the last bucket ends: one that begins at the end of the question is not in it."""
    end = query.end or now
    return _floor(end - timedelta.resolution, query.width) + query.width.span


def _cursor(bucket: datetime, after: Place | None) -> str:
    groups = None if after is None else (after.tenant, after.model, after.key_id, after.user)
    raw = _CURSOR.dump_json((int(bucket.timestamp()), groups))
    return _PREFIX + base64.urlsafe_b64encode(raw).decode()


def _read_cursor(text: str, width: BucketWidth) -> tuple[datetime, Place | None]:
    """Only what `_cursor` wrote: the values go into a query."""
    try:
        raw = base64.b64decode(text.removeprefix(_PREFIX), altchars=b"-_", validate=True)
        seconds, groups = _CURSOR.validate_json(raw, strict=True)
        bucket = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise _not_ours() from error
    if not EARLIEST <= bucket <= LATEST or _floor(bucket, width) != bucket:
        raise _not_ours()
    if any("\0" in group for group in groups or ()):  # which PostgreSQL compares with nothing
        raise _not_ours()
    return bucket, None if groups is None else Place(bucket, *groups)


def _not_ours() -> SchemaError:
    msg = "This 'page' comes from no answer to this question: begin without it."
    return SchemaError(msg, code="invalid_page", param="page")
