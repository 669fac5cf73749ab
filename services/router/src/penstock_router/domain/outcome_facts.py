"""What a fact says of the model that tried: from the log's words to the learners'."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from penstock_router.domain.outcome import Outcome
from penstock_shared.contracts.errors import PenstockError
from penstock_shared.contracts.feedback import ResponseFeedback
from penstock_shared.contracts.requests import AttemptFailed, Decision, RequestEnded, Status
from penstock_shared.contracts.usage import cost_microusd

CHECK_CODES: Final = frozenset(
    ("output_invalid", "output_truncated", "tool_not_called", "low_confidence")
)
"""Of a terminal whose answer failed its check."""


def outcome_of_failure(fact: AttemptFailed, decision: Decision) -> Outcome:
    """An answer that has not the form that was asked for is wrong.

    One of too little confidence may be right: it teaches what it took, and nothing else.
    """
    wrong = fact.reason == "schema"
    return _outcome(
        fact,
        decision,
        correct=0.0 if wrong else None,
        failed=wrong,
        cost_microusd=cost_microusd(fact.usage, fact.price),
        latency_ms=fact.timings.total_ms,
        output_tokens=fact.usage.output_tokens,
        at=fact.failed_at,
    )


def outcome_of_end(fact: RequestEnded, decision: Decision) -> Outcome | None:
    """None: it says nothing of the model (cancelled, or refused for what the client sent)."""
    failed = fact.status is Status.FAILED
    if fact.status is Status.CANCELLED or (failed and not _is_ours(fact)):
        return None
    return _outcome(
        fact,
        decision,
        correct=_correct(fact),
        failed=failed,
        cost_microusd=cost_microusd(fact.usage, fact.price),
        latency_ms=0.0 if fact.timings is None else fact.timings.total_ms,
        output_tokens=fact.usage.output_tokens,
        at=fact.ended_at,
        passed=not failed and decision.features.get("checked", 0.0) > 0,
    )


def outcome_of_feedback(fact: ResponseFeedback, decision: Decision) -> Outcome:
    """A client judged an answer that has ended, and was counted, before."""
    return _outcome(
        fact,
        decision,
        correct=fact.score,
        failed=False,
        cost_microusd=0,
        latency_ms=0.0,
        output_tokens=0,
        at=fact.given_at,
    )


def failed_its_check(fact: RequestEnded) -> bool:
    """Whether a terminal says that the last answer did not pass."""
    return fact.error is not None and fact.error.code in CHECK_CODES


def _outcome(
    fact: AttemptFailed | RequestEnded | ResponseFeedback,
    decision: Decision,
    *,
    correct: float | None,
    failed: bool,
    cost_microusd: int,
    latency_ms: float,
    output_tokens: int,
    at: datetime,
    passed: bool = False,
) -> Outcome:
    """What the fact says, about the attempt that it names."""
    return Outcome(
        tenant=fact.tenant,
        request_id=fact.request_id,
        model=fact.model,
        attempt=fact.attempt,
        shape=decision.shape,
        context=decision.context,
        correct=correct,
        failed=failed,
        cost_microusd=cost_microusd,
        latency_ms=latency_ms,
        output_tokens=output_tokens,
        at=at,
        experiment=decision.experiment,
        arm=decision.arm,
        passed=passed,
    )


def _is_ours(fact: RequestEnded) -> bool:
    return fact.error is None or fact.error.type == PenstockError.error_type


def _correct(fact: RequestEnded) -> float | None:
    """Whether an answer is right nobody knows but the client; one that failed is wrong.

    Running out of time says nothing: the queue may have been long.
    """
    return 0.0 if fact.status is Status.FAILED and fact.reason != "expired" else None
