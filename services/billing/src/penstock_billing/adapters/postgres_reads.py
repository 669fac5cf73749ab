"""Sums of usage in PostgreSQL, from the smallest read model that can tell them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import timedelta
from typing import Any, Final

from penstock_billing.adapters.postgres_roles import TenantPostgres
from penstock_billing.ports.reads import Group, Place, Window
from penstock_shared.contracts.usage_queries import BucketWidth, QueryUsage, UsageGroup, UsageSums
from penstock_shared.runtime.postgres import Postgres, translated

_COLUMNS: Final = {
    UsageGroup.TENANT: "tenant",
    UsageGroup.MODEL: "model",
    UsageGroup.KEY: "key_id",
    UsageGroup.USER: "data_subject",
}
_DAYS: Final = "usage_days", "day", "day::timestamp at time zone 'UTC'"
_USERS: Final = "usage_users", "day", "day::timestamp at time zone 'UTC'"
_MINUTES: Final = "usage_minutes", "minute", "date_trunc('{}', minute, 'UTC')"
_UNITS: Final = {
    BucketWidth.MINUTE: "minute",
    BucketWidth.HOUR: "hour",
    BucketWidth.DAY: "day",
}
# Every value is a parameter; what is put in here are names from the tables above. A condition
# stands there only where it is asked for: the planner keeps its indexes.
_GROUPS: Final = """
with sums as (
    select {bucket} as bucket, {tenant} as tenant, {model} as model, {key} as key_id,
           {user} as data_subject, sum(requests)::bigint as requests,
           sum(input_tokens)::bigint as input_tokens,
           sum(cached_input_tokens)::bigint as cached_input_tokens,
           sum(output_tokens)::bigint as output_tokens, sum(tool_calls)::bigint as tool_calls,
           sum(cost_microusd)::bigint as cost_microusd
    from billing.{table}
    where {time} >= $1 and {time} < $2 and kind = any ($3) {conditions}
    group by 1, 2, 3, 4, 5
)
select * from sums {behind}
order by bucket, tenant, model, key_id, data_subject limit $4"""
_BEHIND: Final = "where (bucket, tenant, model, key_id, data_subject) > ($5, $6, $7, $8, $9)"


class PostgresUsageReads:
    """A `UsageReads`."""

    def __init__(self, tenants: TenantPostgres, platform: Postgres) -> None:
        """`platform` answers operators, who ask for all tenants."""
        self._tenants = tenants
        self._platform = platform

    async def groups(self, query: QueryUsage, window: Window, most: int) -> Sequence[Group]:
        """The first `most` groups in the window, in the order of their places, at one moment."""
        found: list[Group] = []
        async with self._connection(query.tenant) as connection:
            for part in _parts(query, window):
                statement, values = _statement(query, part, most - len(found))
                found += map(_group, await connection.fetch(statement, *values))
                if len(found) == most:
                    break
        return found

    @contextlib.asynccontextmanager
    async def _connection(self, tenant: str | None) -> AsyncIterator[Any]:
        if tenant is not None:
            async with self._tenants.of(tenant) as connection:
                yield connection
            return
        with translated():
            async with (
                self._platform.acquire() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                yield connection


def _parts(query: QueryUsage, window: Window) -> Iterator[Window]:
    """The window, a day at a time where rows may be many: a page that is full reads no further."""
    if _model(query) is _DAYS:
        yield window
        return
    start, after = window.start, window.after
    while start < window.end:
        end = min(window.end, start + timedelta(days=1))
        yield Window(start, end, after)
        start, after = end, None


def _statement(query: QueryUsage, window: Window, most: int) -> tuple[str, list[Any]]:
    table, time, bucket = _model(query)
    by_day = time == "day"
    bounds = (window.start.date(), window.end.date()) if by_day else (window.start, window.end)
    values: list[Any] = [*bounds, [kind.value for kind in query.kinds], most]
    if window.after is not None:
        values += _key(window.after)
    conditions = ""
    for column, wanted in (
        ("model", query.models),
        ("key_id", query.key_ids),
        ("data_subject", query.users),
    ):
        if wanted is not None:
            values.append([text for text in wanted if "\0" not in text])  # nobody's: no row has it
            conditions += f" and {column} = any (${len(values)})"
    grouped = {
        group: column if group in query.group_by else "''" for group, column in _COLUMNS.items()
    }
    statement = _GROUPS.format(
        bucket=bucket.format(_UNITS[query.width]),
        tenant=grouped[UsageGroup.TENANT],
        model=grouped[UsageGroup.MODEL],
        key=grouped[UsageGroup.KEY],
        user=grouped[UsageGroup.USER],
        table=table,
        time=time,
        conditions=conditions,
        behind="" if window.after is None else _BEHIND,
    )
    return statement, values


def _model(query: QueryUsage) -> tuple[str, str, str]:
    """The table that has what is asked for, its column of time, and the bucket of a row."""
    if query.by_user:
        return _USERS
    by_key = query.key_ids is not None or UsageGroup.KEY in query.group_by
    return _MINUTES if by_key or query.width is not BucketWidth.DAY else _DAYS


def _key(place: Place) -> tuple[Any, ...]:
    return place.bucket, place.tenant, place.model, place.key_id, place.user


def _group(row: Any) -> Group:
    return Group(
        place=Place(
            bucket=row["bucket"],
            tenant=row["tenant"],
            model=row["model"],
            key_id=row["key_id"],
            user=row["data_subject"],
        ),
        sums=UsageSums(
            tenant=row["tenant"] or None,
            model=row["model"] or None,
            key_id=row["key_id"] or None,
            user=row["data_subject"] or None,
            requests=row["requests"],
            input_tokens=row["input_tokens"],
            cached_input_tokens=row["cached_input_tokens"],
            output_tokens=row["output_tokens"],
            tool_calls=row["tool_calls"],
            cost_microusd=row["cost_microusd"],
        ),
    )
