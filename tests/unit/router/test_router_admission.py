"""Facts that the router writes, and which request ids it refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.support.decisions import decide_plainly

from penstock_router.domain.admission import (
    deadline_s_of,
    expired_fact,
    refuse_stale_id,
    routed_fact,
)
from penstock_router.handlers.doors import request_id_of
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.ids import keyed_request_id, uuid7
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import (
    Admission,
    AttemptFailed,
    ChatMessage,
    Content,
    RequestRouted,
    Status,
    Timings,
)
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price, Usage

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MODEL = ModelRecord(
    name="small",
    version="1",
    parameters=1,
    context_tokens=64,
    price=Price(input_microusd_per_1k=1, output_microusd_per_1k=2),
)


def made_at(when: datetime) -> str:
    return uuid7(int(when.timestamp() * 1000), lambda n: b"\x01" * n)


def routed() -> RequestRouted:
    content = Content(messages=(ChatMessage(role="user", content="hi"),))
    decided = decide_plainly("auto", (MODEL,), content)
    admission = Admission(
        request_id=made_at(NOW), key_id="k1", data_subject="u1", content="sealed", deadline_s=5
    )
    return routed_fact(
        "acme",
        admission,
        decided,
        lane=Lane.OVER_SHARE,
        weight=3,
        now=NOW,
        deadline_s=deadline_s_of(admission, 120.0),
        reserves=(),
    )


@pytest.mark.parametrize("age", [timedelta(hours=25), timedelta(minutes=-6)])
def test_stale_and_future_ids_are_refused(age: timedelta) -> None:
    """A UUIDv7 that EVENTS may have forgotten could run twice, so it may not run (I2)."""
    with pytest.raises(PermanentError):
        refuse_stale_id(made_at(NOW - age), NOW)


def test_fresh_and_keyed_ids_pass() -> None:
    """Keyed ids carry no time and are judged by the log alone."""
    refuse_stale_id(made_at(NOW - timedelta(hours=1)), NOW)
    refuse_stale_id(keyed_request_id("acme", "k"), NOW)


def test_a_job_is_derived_from_routed_alone() -> None:
    """The same `routed` gives the identical job, byte for byte (I2)."""
    first = Job.from_routed(routed(), 7)
    assert first.model_dump_json() == Job.from_routed(routed(), 7).model_dump_json()
    assert first.deadline == NOW + timedelta(seconds=5)
    assert (first.lane, first.weight) == (Lane.OVER_SHARE, 3)


def test_expired_bills_nothing() -> None:
    """A run without a fact is not billed (I3)."""
    ended = expired_fact(routed(), NOW + timedelta(seconds=40))
    assert ended.status is Status.FAILED
    assert (ended.usage.input_tokens, ended.usage.output_tokens) == (0, 0)
    assert ended.run is None


def test_after_a_failed_attempt_it_is_the_next_one_that_expires() -> None:
    """The failed attempt keeps its own usage: billing has one row for each attempt (I3)."""
    first = routed()
    failed = AttemptFailed(
        request_id=first.request_id,
        tenant=first.tenant,
        key_id=first.key_id,
        data_subject=first.data_subject,
        model="small",
        attempt=1,
        run=made_at(NOW),
        reason="schema",
        detail="sealed",
        usage=Usage(input_tokens=5, output_tokens=9),
        price=first.price,
        output="sealed",
        timings=Timings(queued_ms=1, first_token_ms=2, total_ms=3),
        routed_at=first.accepted_at,
        failed_at=NOW,
    )
    ended = expired_fact(failed, NOW + timedelta(seconds=40))
    assert (ended.attempt, ended.usage.output_tokens) == (2, 0)
    assert ended.routed_at == first.accepted_at


def test_event_ids_become_request_ids() -> None:
    """A UUIDv7 is the id itself; anything else is an idempotency key of that tenant (I8)."""
    own = made_at(NOW)
    assert request_id_of("acme", own) == own
    assert request_id_of("acme", "order-7") == keyed_request_id("acme", "order-7")
    assert request_id_of("acme", "order-7") != request_id_of("other", "order-7")
    v4 = "7d444840-9dc0-41d1-b245-5ffdce74fad2"
    assert request_id_of("acme", v4) == keyed_request_id("acme", v4)
