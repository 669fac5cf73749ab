"""What a terminal fact is worth, and what is refused."""

from __future__ import annotations

import pytest
from tests.support.billing import STORED_AT, failed_attempt, terminal

from penstock_billing.domain.metering import METERED_TYPES, distinct, meter
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import SchemaError
from penstock_shared.contracts.requests import (
    TERMINAL_TYPES,
    AttemptFailed,
    RequestEnded,
    Status,
    terminal_type,
)
from penstock_shared.contracts.usage import Price, Usage

COMPLETED = terminal_type(Status.COMPLETED)


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
