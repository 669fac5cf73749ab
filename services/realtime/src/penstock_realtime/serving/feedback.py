"""What a client says of an answer: one judgement for each, for good."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_realtime.ports import FeedbackLog
from penstock_realtime.serving.lookup import Lookup
from penstock_shared.contracts.errors import ConflictError, PermanentError
from penstock_shared.contracts.feedback import ResponseFeedback
from penstock_shared.contracts.requests import Status
from penstock_shared.runtime.clock import Clock


@dataclass(frozen=True, slots=True)
class Feedbacks:
    """Judges answers that were given, by whichever API or wire."""

    lookup: Lookup
    log: FeedbackLog
    clock: Clock

    async def give(
        self, tenant: str, request_id: str, key_id: str, score: float
    ) -> ResponseFeedback:
        """State it; the same score again changes nothing, and is answered as the first was.

        Raises:
            NotFoundError: this tenant has no such response.
            ConflictError: it has not ended, or another score stands.
            PermanentError: it failed, or has no text.
            UnavailableError: the log does not answer: the score may stand or not.
        """
        ended = await self.lookup.ended(tenant, request_id)
        # That it failed is counted already. A text has one delta at least, a vector none.
        if ended.status is Status.FAILED or not ended.delta_ends:
            msg = "This response has no text to judge: it failed, said nothing, or is an embedding."
            raise PermanentError(msg, code="no_answer", param="response_id")
        standing = await self.log.record(
            ResponseFeedback(
                request_id=request_id,
                tenant=tenant,
                key_id=key_id,
                model=ended.model,
                attempt=ended.attempt,
                score=score,
                given_at=self.clock.now(),
            )
        )
        if standing.score != score:
            msg = f"This response has feedback, and it stays: its score is {standing.score:g}."
            raise ConflictError(msg, code="feedback_exists", param="score")
        return standing
