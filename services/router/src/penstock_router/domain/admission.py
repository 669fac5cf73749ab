"""From an admission to the facts: `routed`, and the sweeper's `failed (expired)`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from penstock_router.domain.decision import Decided
from penstock_shared.contracts.attempts import Attempt
from penstock_shared.contracts.errors import ErrorBody, PermanentError
from penstock_shared.contracts.ids import unix_ms_of
from penstock_shared.contracts.quotas import Reserve
from penstock_shared.contracts.requests import (
    FIRST_ATTEMPT,
    Admission,
    AttemptFailed,
    NextAttempt,
    RequestEnded,
    RequestRouted,
    Status,
)
from penstock_shared.contracts.streams import REQUEST_ID_MAX_AGE_S
from penstock_shared.contracts.subjects import Lane

_MAX_SKEW_S: Final = 300.0
_EXPIRED: Final = ErrorBody(
    message="The request was not finished before its deadline. Send it again.",
    type="server_error",
    code="expired",
)


def refuse_stale_id(request_id: str, now: datetime) -> None:
    """Refuse a UUIDv7 that EVENTS may no longer know, or that comes from the future.

    Raises:
        PermanentError: older than 24 hours, or more than five minutes ahead.
    """
    made_ms = unix_ms_of(request_id)
    if made_ms is None:
        return
    age_s = now.timestamp() - made_ms / 1000
    if age_s > REQUEST_ID_MAX_AGE_S or age_s < -_MAX_SKEW_S:
        msg = "The request id is older than 24 hours or from the future: send a fresh UUIDv7."
        raise PermanentError(msg, code="stale_request_id", param="request_id")


def deadline_s_of(admission: Admission, default_s: float) -> float:
    """How long the request may take."""
    return admission.deadline_s or default_s


def routed_fact(
    tenant: str,
    admission: Admission,
    decided: Decided,
    *,
    lane: Lane,
    weight: int,
    now: datetime,
    deadline_s: float,
    reserves: tuple[Reserve, ...],
) -> RequestRouted:
    """The first fact of a request: all that its jobs are derived from, however often."""
    first, *others = decided.models
    # The last one's answer is not checked for confidence: nobody could do better.
    confidences = (*(decided.min_confidence,) * len(others), None)
    return RequestRouted(
        request_id=admission.request_id,
        tenant=tenant,
        key_id=admission.key_id,
        data_subject=admission.data_subject,
        lane=lane,
        attempt=FIRST_ATTEMPT,
        decision=decided.decision,
        price=first.price,
        sampling=admission.sampling,
        content=admission.content,
        accepted_at=now,
        deadline=now + timedelta(seconds=deadline_s),
        weight=weight,
        final_attempt=not others,
        min_confidence=confidences[0],
        store=admission.store,
        plan=tuple(
            NextAttempt(model=model.name, price=model.price.of_a_retry(), min_confidence=confidence)
            for model, confidence in zip(others, confidences[1:], strict=True)
        ),
        reserves=reserves,
    )


def expired_fact(last: Attempt, now: datetime) -> RequestEnded:
    """The terminal of a request that nobody ended in time.

    After a failed attempt it is the next one that expired: the failed one has its own usage, and
    billing counts each attempt once (I3).
    """
    ended = RequestEnded.unstarted(
        last, now, status=Status.FAILED, reason="expired", error=_EXPIRED
    )
    if isinstance(last, AttemptFailed):
        return ended.model_copy(
            update={"attempt": last.attempt + 1, "used_before": last.used_so_far}
        )
    return ended
