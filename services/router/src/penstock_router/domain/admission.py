"""From an admission to the facts: `routed`, and the sweeper's `failed (expired)`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from penstock_shared.contracts.errors import ErrorBody, PermanentError
from penstock_shared.contracts.ids import unix_ms_of
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.requests import (
    Admission,
    Decision,
    RequestEnded,
    RequestRouted,
    Status,
    Timings,
)
from penstock_shared.contracts.streams import REQUEST_ID_MAX_AGE_S
from penstock_shared.contracts.usage import Usage

FIRST_ATTEMPT: Final = 1
_MAX_SKEW_S: Final = 300.0


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


def routed_fact(
    tenant: str,
    admission: Admission,
    decision: Decision,
    model: ModelRecord,
    now: datetime,
    default_deadline_s: float,
) -> RequestRouted:
    """The first fact of a request."""
    deadline_s = admission.deadline_s or default_deadline_s
    return RequestRouted(
        request_id=admission.request_id,
        tenant=tenant,
        key_id=admission.key_id,
        data_subject=admission.data_subject,
        lane=admission.lane,
        attempt=FIRST_ATTEMPT,
        decision=decision,
        price=model.price,
        sampling=admission.sampling,
        content=admission.content,
        accepted_at=now,
        deadline=now + timedelta(seconds=deadline_s),
    )


def expired_fact(routed: RequestRouted, now: datetime) -> RequestEnded:
    """The terminal of a request that nobody ended in time; a run without a fact is not billed."""
    total_ms = (now - routed.accepted_at).total_seconds() * 1000
    return RequestEnded(
        request_id=routed.request_id,
        tenant=routed.tenant,
        key_id=routed.key_id,
        data_subject=routed.data_subject,
        model=routed.decision.model,
        attempt=routed.attempt,
        run=None,
        status=Status.FAILED,
        reason="expired",
        usage=Usage(input_tokens=0, output_tokens=0),
        price=routed.price,
        output=None,
        timings=Timings(queued_ms=total_ms, first_token_ms=None, total_ms=total_ms),
        error=ErrorBody(
            message="The request was not finished before its deadline. Send it again.",
            type="server_error",
            code="expired",
        ),
        routed_at=routed.accepted_at,
        ended_at=now,
    )
