"""What becomes of an escalation when the log lags, refuses, or holds what cannot be read."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from penstock_router.handlers import escalations as module
from penstock_router.handlers.escalations import Escalations
from penstock_router.ports import RequestLog
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import UnavailableError
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import (
    AttemptFailed,
    RequestEnded,
    RequestFact,
    RequestRouted,
)
from penstock_shared.runtime.broker import SequenceConflictError, StoredMessage
from penstock_shared.runtime.clock import SystemClock
from penstock_shared.runtime.request_log import UnreadableFactError

GOLDEN = Path(__file__).parents[2] / "contracts/golden"
ROUTED = RequestRouted.model_validate_json(
    (GOLDEN / "request.routed.planned.v1.json").read_bytes()
).model_copy(update={"deadline": datetime.now(UTC) + timedelta(hours=1)})
FAILED = AttemptFailed.model_validate_json((GOLDEN / "attempt.failed.v1.json").read_bytes())
FAILED = FAILED.model_copy(
    update={"request_id": ROUTED.request_id, "tenant": ROUTED.tenant, "attempt": 1}
)
SUBJECT = subjects.request_event(ROUTED.tenant, ROUTED.request_id)
SEQUENCE = 7


class ScriptedLog:
    """Answers `last_fact` with what comes next; the last one again and again."""

    def __init__(
        self,
        *answers: tuple[int, RequestFact] | Exception | None,
        routed: RequestRouted | None = ROUTED,
    ) -> None:
        self._answers = list(answers)
        self._routed: list[RequestRouted | None] = [routed, ROUTED]
        self.asked = 0
        self.published: list[Job] = []
        self.ended: list[RequestEnded] = []
        self.refusals: list[Exception] = []

    async def last_fact(self, *_: object) -> tuple[int, RequestFact] | None:
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def routed(self, *_: object) -> RequestRouted | None:
        return self._routed.pop(0)

    async def publish_job(self, job: Job, **_: object) -> None:
        if self.refusals:
            raise self.refusals.pop()
        self.published.append(job)

    async def write_ended(self, ended: RequestEnded, *_: object, **__: object) -> None:
        if self.refusals:
            raise self.refusals.pop()
        self.ended.append(ended)


def message(kind: str, sequence: int = SEQUENCE, source: str = "/w") -> StoredMessage:
    return StoredMessage(SUBJECT, sequence, {"ce-type": kind, "ce-source": source}, b"")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RETRY_S", 0.001)


async def outcome(log: ScriptedLog, *, model_exists: bool = True) -> ScriptedLog:
    """Let one failed attempt be seen to until nothing is left to do."""
    escalations = Escalations(
        cast("RequestLog", log),
        lambda _: model_exists,
        SystemClock(),
        source="/me",
        others_after_s=0,
    )
    escalations.fold(message(AttemptFailed.TYPE))
    async with asyncio.timeout(5):
        while escalations._waiting:
            await asyncio.sleep(0.001)
    return log


@pytest.mark.parametrize(
    "first",
    [
        None,
        (SEQUENCE - 1, ROUTED),
        UnavailableError("The log is away."),
    ],
)
async def test_a_log_that_lags_is_asked_again(
    first: tuple[int, RequestFact] | Exception | None,
) -> None:
    """Nobody else may be left to publish the job."""
    log = await outcome(ScriptedLog(first, (SEQUENCE, FAILED)))
    assert log.asked == 2
    assert log.published == [Job.after(ROUTED, FAILED, SEQUENCE)]


async def test_a_plan_that_is_not_there_yet_is_asked_for_again() -> None:
    """Any replica of the log answers, and `routed` may be what this one lacks."""
    log = await outcome(ScriptedLog((SEQUENCE, FAILED), routed=None))
    assert [job.attempt for job in log.published] == [2]


async def test_a_job_without_confirmation_is_published_again() -> None:
    """It may be stored twice then: the broker swallows it, or the next fact's sequence fences."""
    log = ScriptedLog((SEQUENCE, FAILED))
    log.refusals.append(UnavailableError("No confirmation."))
    await outcome(log)
    assert len(log.published) == 1
    assert log.asked == 2


@pytest.mark.parametrize(
    ("last", "routed"),
    [
        ((SEQUENCE, UnreadableFactError("Malformed.")), ROUTED),
        ((SEQUENCE + 1, FAILED), ROUTED),
        ((SEQUENCE, FAILED), ROUTED.model_copy(update={"plan": ()})),
        ((SEQUENCE, FAILED), ROUTED.model_copy(update={"deadline": ROUTED.accepted_at})),
    ],
    ids=["unreadable", "went on", "no plan", "expired"],
)
async def test_what_cannot_go_on_is_left_to_the_sweeper(
    last: tuple[int, RequestFact | Exception], routed: RequestRouted
) -> None:
    """Neither a job nor a terminal, and it is not tried for ever."""
    answer = last[1] if isinstance(last[1], Exception) else (last[0], last[1])
    log = await outcome(ScriptedLog(answer, routed=routed))
    assert (log.asked, log.published, log.ended) == (1, [], [])


async def test_of_two_that_miss_the_model_one_writes_the_end() -> None:
    """The other finds a fact there, and leaves it."""
    log = ScriptedLog((SEQUENCE, FAILED))
    log.refusals.append(SequenceConflictError("Somebody was faster."))
    await outcome(log, model_exists=False)
    assert (log.asked, log.ended, log.published) == (1, [], [])


async def test_the_next_fact_ends_the_waiting() -> None:
    """Whatever it is; and a request that has ended is nobody's own any more."""
    log = ScriptedLog(UnavailableError("The log is away."))
    escalations = Escalations(
        cast("RequestLog", log), lambda _: True, SystemClock(), source="/me", others_after_s=60
    )
    escalations.fold(message(RequestRouted.TYPE, 1, "/me"))
    assert escalations._own == {SUBJECT}
    escalations.fold(message(AttemptFailed.TYPE))
    (waiting,) = escalations._waiting.values()
    await asyncio.sleep(0.05)
    assert log.asked > 1
    escalations.fold(message("penstock.request.completed.v1", SEQUENCE + 1))
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert escalations._waiting == {}
    assert escalations._own == set()


async def test_closing_publishes_nothing_more() -> None:
    """Of whatever waits, other replicas take care."""
    log = ScriptedLog((SEQUENCE, FAILED))
    escalations = Escalations(
        cast("RequestLog", log), lambda _: True, SystemClock(), source="/me", others_after_s=60
    )
    escalations.fold(message(AttemptFailed.TYPE))
    await escalations.close()
    assert log.asked == 0
