"""What a terminal fact is worth, and what is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.support.billing import STORED_AT, failed_attempt, terminal

from penstock_billing.domain.metering import MAX_TOKENS, METERED_TYPES, distinct, meter
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import SchemaError
from penstock_shared.contracts.models import ModelKind
from penstock_shared.contracts.requests import (
    TERMINAL_TYPES,
    AttemptFailed,
    RequestEnded,
    Status,
    terminal_type,
)
from penstock_shared.contracts.usage import Price, Usage, cost_microusd

COMPLETED = terminal_type(Status.COMPLETED)
FREE = Price(input_microusd_per_1k=0, output_microusd_per_1k=0)


def subject_of(ended: RequestEnded) -> str:
    return subjects.request_event(ended.tenant, ended.request_id)


def test_it_is_worth_the_tokens_at_the_routed_price() -> None:
    """Tokens come from the fact, the price from the routing, money is rounded half up (I3)."""
    ended = terminal(tokens=(1000, 489))
    usage = meter(COMPLETED, subject_of(ended), 7, STORED_AT, ended.model_dump_json().encode())
    assert (usage.input_tokens, usage.output_tokens) == (1000, 489)
    assert usage.cost_microusd == 1234  # 500 + 733.5
    assert usage.event_seq == 7
    assert usage.request_id == ended.request_id


def test_a_failed_attempt_is_worth_what_it_generated() -> None:
    """An answer that failed its check was generated all the same, and is its own row (I3)."""
    ended = terminal(attempt=2)
    failed = failed_attempt(ended, (100, 40))
    row = meter(
        AttemptFailed.TYPE, subject_of(ended), 3, STORED_AT, failed.model_dump_json().encode()
    )
    assert (row.attempt, row.status) == (1, "attempt_failed")
    assert (row.input_tokens, row.output_tokens, row.cost_microusd) == (100, 40, 110)
    assert TERMINAL_TYPES | {AttemptFailed.TYPE} == METERED_TYPES


def test_a_fact_under_another_subject_is_refused() -> None:
    """A payload that names another tenant or request would bill the wrong one (I8)."""
    ended, other = terminal(tenant="acme"), terminal(tenant="globex")
    for subject in (subject_of(other), subject_of(terminal(tenant="acme"))):
        with pytest.raises(SchemaError, match="another tenant or request"):
            meter(COMPLETED, subject, 1, STORED_AT, ended.model_dump_json().encode())


@pytest.mark.parametrize("payload", [b"", b"{}", b"[1]", b"\xff", b'{"request_id":"x"}'])
def test_what_is_no_terminal_is_refused(payload: bytes) -> None:
    """The error names a field and quotes nothing of the payload."""
    with pytest.raises(SchemaError, match="Not a fact with usage"):
        meter(COMPLETED, subject_of(terminal()), 1, STORED_AT, payload)


def test_what_cannot_be_counted_is_refused() -> None:
    """More money than a bigint holds, and attempts that are none, never reach Postgres."""
    dear = terminal(
        usage=Usage(input_tokens=2**53, output_tokens=0),
        price=Price(input_microusd_per_1k=2**53, output_microusd_per_1k=0),
    )
    for ended in (dear, terminal(attempt=2**31), terminal(attempt=-1)):
        with pytest.raises(SchemaError, match="can be counted"):
            meter(COMPLETED, subject_of(ended), 1, STORED_AT, ended.model_dump_json().encode())


def test_of_copies_the_earliest_counts() -> None:
    """Copies are one row, the first in the log, whatever order they come in (I2)."""
    ended = terminal()
    payload = ended.model_dump_json().encode()
    copies = [meter(COMPLETED, subject_of(ended), seq, STORED_AT, payload) for seq in (9, 3, 5)]
    (row,) = distinct(copies)
    assert row.event_seq == 3


def accepted(routed_at: str, stored_at: datetime = STORED_AT) -> datetime:
    """When a fact counts that says so and was stored then."""
    ended = terminal()
    told = json.loads(ended.model_dump_json()) | {"routed_at": routed_at}
    return meter(COMPLETED, subject_of(ended), 1, stored_at, json.dumps(told).encode()).accepted_at


@pytest.mark.parametrize(
    ("told", "in_utc"),
    [
        ("2026-01-31T23:59:59.999999Z", "2026-01-31 23:59:59.999999"),
        ("2026-02-01T00:00:00Z", "2026-02-01 00:00:00"),
        ("2026-02-01T13:59:59+14:00", "2026-01-31 23:59:59"),
        ("2026-01-31T12:00:00-12:00", "2026-02-01 00:00:00"),
        ("2028-02-29T23:59:59.5Z", "2028-02-29 23:59:59.500000"),
        ("2026-12-31T19:00:00-05:00", "2027-01-01 00:00:00"),
    ],
)
def test_it_counts_when_it_was_accepted_in_utc(told: str, in_utc: str) -> None:
    """At the edges of days, months and years, in whatever zone the router's clock is."""
    assert accepted(told) == datetime.fromisoformat(in_utc).replace(tzinfo=UTC)


def test_a_time_ahead_of_the_brokers_is_cut_to_it() -> None:
    """So far ahead as clocks may differ it is taken as it is; beyond, the broker's time decides.

    That is the same at every delivery and in every rebuild.
    """
    stored = datetime(2026, 1, 31, 23, 56, tzinfo=UTC)
    assert accepted("2026-02-01T00:01:00Z", stored) == stored + timedelta(minutes=5)
    assert accepted("2026-02-01T00:01:01Z", stored) == stored + timedelta(minutes=5)
    assert accepted("9999-12-31T23:59:59-12:00", stored) == stored + timedelta(minutes=5)
    assert accepted("2026-02-01T00:00:59Z", stored).minute == 0


@pytest.mark.parametrize("told", ["0001-01-01T00:00:00+14:00", "1970-01-01T00:01:00Z"])
def test_a_clock_that_has_lost_its_time_is_not_believed(told: str) -> None:
    """No month of long ago begins, of which nobody would close all that follow it."""
    stored = datetime(2026, 1, 31, 23, 56, tzinfo=UTC)
    assert accepted(told, stored) == stored
    assert accepted("2020-01-01T00:00:00Z", stored).year == 2020


@pytest.mark.parametrize("told", ["2026-01-31T12:00:00", "soon", None])
def test_no_time_is_no_usage(told: Any) -> None:
    """Nobody knows the month of a time without a zone, or of none."""
    with pytest.raises(SchemaError):
        accepted(told)


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": -1, "output_tokens": 1},
        {"input_tokens": 1},
        {"input_tokens": 1, "output_tokens": 1, "cached_input_tokens": 2},
        {"input_tokens": MAX_TOKENS + 1, "output_tokens": 0},
        {"input_tokens": 0, "output_tokens": MAX_TOKENS + 1},
        {"input_tokens": 0, "output_tokens": 0, "tool_calls": MAX_TOKENS + 1},
        {"input_tokens": 1.5, "output_tokens": 1},
        None,
    ],
)
def test_negative_absurd_and_missing_usage_is_refused(usage: Any) -> None:
    """It goes to DEAD, where an alarm is; it never becomes money."""
    ended = terminal(price=FREE)
    told = json.dumps(json.loads(ended.model_dump_json()) | {"usage": usage}).encode()
    with pytest.raises(SchemaError):
        meter(COMPLETED, subject_of(ended), 1, STORED_AT, told)


def test_of_a_fact_only_what_is_metered_is_looked_at() -> None:
    """All that metering takes is taken as the contract says, cached tokens and calls included."""
    usage = Usage(input_tokens=2000, cached_input_tokens=500, output_tokens=100, tool_calls=3)
    price = Price(
        input_microusd_per_1k=1000,
        cached_input_microusd_per_1k=100,
        output_microusd_per_1k=2000,
        request_microusd=7,
        tool_call_microusd=11,
    )
    ended = terminal(usage=usage, price=price, kind=ModelKind.EMBEDDING, data_subject="ann")
    told = json.loads(ended.model_dump_json())
    without = {name: value for name, value in told.items() if name not in {"reason", "output"}}
    row = meter(COMPLETED, subject_of(ended), 1, STORED_AT, json.dumps(without).encode())
    assert row.cost_microusd == 1500 + 50 + 200 + 7 + 33 == cost_microusd(usage, price)
    assert (row.kind, row.data_subject, row.status) == ("embedding", "ann", "completed")
    assert (row.cached_input_tokens, row.tool_calls) == (500, 3)
