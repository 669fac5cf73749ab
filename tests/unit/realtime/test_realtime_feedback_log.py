"""Stating feedback on a log that lags: a conflict without its cause is no answer (I2)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import pytest

from penstock_realtime.adapters.nats_event_log import NatsFeedbackLog
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.feedback import ResponseFeedback
from penstock_shared.runtime.broker import Broker, SequenceConflictError, StoredMessage

FACT = ResponseFeedback(
    request_id="0190e0f0-0000-7000-8000-000000000001",
    tenant="acme",
    key_id="key_1",
    model="m",
    attempt=1,
    score=1,
    given_at=datetime(2026, 5, 1, tzinfo=UTC),
)


class Lagging:
    """A log in which feedback stands, read from a replica that shows what it is told to."""

    def __init__(self, shown: ResponseFeedback | None) -> None:
        self._shown = shown

    async def publish(self, *_: Any, expected_last_seq: int, **__: Any) -> int:
        assert expected_last_seq == 0
        raise SequenceConflictError("Feedback stands.")

    async def last_message(self, _: str, subject: str) -> StoredMessage | None:
        if self._shown is None:
            return None
        return StoredMessage(subject, 1, {}, self._shown.model_dump_json().encode())


async def test_what_stands_is_what_is_told() -> None:
    """One's own write whose confirmation was lost, or somebody else's: the log says which."""
    other = FACT.model_copy(update={"score": 0.25})
    for standing in (FACT, other):
        log = NatsFeedbackLog(cast("Broker", Lagging(standing)), "/t")
        assert await log.record(FACT) == standing


async def test_a_replica_that_is_behind_makes_it_a_retry() -> None:
    """503, and nothing is claimed."""
    log = NatsFeedbackLog(cast("Broker", Lagging(None)), "/t")
    with pytest.raises(UnavailableError):
        await log.record(FACT)
