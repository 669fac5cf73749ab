"""Facts that the router writes, and which request ids it refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from penstock_router.domain.admission import expired_fact, refuse_stale_id, routed_fact
from penstock_router.domain.decision import decide
from penstock_router.domain.features import features_of
from penstock_router.domain.open_requests import OpenRequests
from penstock_router.handlers import request_id_of
from penstock_shared.contracts.errors import PermanentError
from penstock_shared.contracts.ids import keyed_request_id, uuid7
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import (
    Admission,
    ChatMessage,
    Content,
    RequestRouted,
    Status,
)
from penstock_shared.contracts.usage import Price

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
    decision, model = decide("auto", (MODEL,), features_of(content))
    admission = Admission(
        request_id=made_at(NOW), key_id="k1", data_subject="u1", content="sealed", deadline_s=5
    )
    return routed_fact("acme", admission, decision, model, NOW, 120.0)


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


def test_expired_bills_nothing() -> None:
    """A run without a fact is not billed (I3)."""
    ended = expired_fact(routed(), NOW + timedelta(seconds=40))
    assert ended.status is Status.FAILED
    assert (ended.usage.input_tokens, ended.usage.output_tokens) == (0, 0)
    assert ended.run is None


def test_event_ids_become_request_ids() -> None:
    """A UUIDv7 is the id itself; anything else is an idempotency key of that tenant (I8)."""
    own = made_at(NOW)
    assert request_id_of("acme", own) == own
    assert request_id_of("acme", "order-7") == keyed_request_id("acme", "order-7")
    assert request_id_of("acme", "order-7") != request_id_of("other", "order-7")
    v4 = "7d444840-9dc0-41d1-b245-5ffdce74fad2"
    assert request_id_of("acme", v4) == keyed_request_id("acme", v4)


def test_open_requests_expire_in_order_and_only_while_open() -> None:
    """What ended is never swept; what is open is swept once, oldest deadline first."""
    fold = OpenRequests()
    fold.routed("b", 2, 20.0)
    fold.routed("a", 1, 10.0)
    fold.routed("c", 3, 15.0)
    fold.ended("c")
    assert fold.take_expired(9.0) == []
    assert [r.subject for r in fold.take_expired(30.0)] == ["a", "b"]
    assert fold.take_expired(99.0) == []
    assert len(fold) == 0


def test_open_requests_forget_history() -> None:
    """The heap stays bounded by the open requests, however many have ended."""
    fold = OpenRequests()
    for n in range(5_000):
        fold.routed(f"s{n}", n, 1e9)
        fold.ended(f"s{n}")
    assert len(fold._by_expiry) <= 1_001
