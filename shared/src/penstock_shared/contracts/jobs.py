"""A job: derived from `routed` alone, so that a redelivered submission publishes the same."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

from penstock_shared.contracts.ids import DataSubject, KeyId, ModelName, RequestId, TenantId
from penstock_shared.contracts.requests import (
    FIRST_ATTEMPT,
    AttemptFailed,
    RequestRouted,
    Sampling,
)
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import NOTHING_USED, Price, Usage


class JobAddress(BaseModel):
    """Whose attempt a job is: enough to tell its client what became of it.

    A job whose other fields this release refuses can still be ended with the reason.
    """

    model_config = ConfigDict(frozen=True)

    request_id: RequestId
    tenant: TenantId
    key_id: KeyId
    data_subject: DataSubject
    model: ModelName
    lane: Lane
    attempt: int
    expected_seq: int
    """The last sequence of the request's subject that the terminal fact must expect."""
    price: Price
    routed_at: datetime
    deadline: datetime
    store: bool = False
    """As in `routed`: the terminal fact says it, too."""
    used_before: Usage = NOTHING_USED
    """What the request's earlier attempts have used: its client is told the sum."""


class Job(JobAddress):
    """One attempt of one request, for one model's lane."""

    sampling: Sampling
    content: str
    weight: Annotated[int, Field(ge=1)] = 1
    """Of the tenant, among those who wait for the same lane."""
    final_attempt: bool = True
    """False: an answer that fails its check ends the attempt, not the request."""
    min_confidence: float | None = None

    @classmethod
    def from_routed(cls, routed: RequestRouted, sequence: int) -> Self:
        """The job that `routed`, stored at `sequence`, calls for."""
        return cls(
            request_id=routed.request_id,
            tenant=routed.tenant,
            key_id=routed.key_id,
            data_subject=routed.data_subject,
            model=routed.decision.model,
            lane=routed.lane,
            attempt=routed.attempt,
            expected_seq=sequence,
            price=routed.price,
            sampling=routed.sampling,
            content=routed.content,
            routed_at=routed.accepted_at,
            deadline=routed.deadline,
            store=routed.store,
            weight=routed.weight,
            final_attempt=routed.final_attempt,
            min_confidence=routed.min_confidence,
        )

    @classmethod
    def after(cls, routed: RequestRouted, failed: AttemptFailed, sequence: int) -> Self | None:
        """The job that follows `failed`, stored at `sequence`; None where the plan ends."""
        done = failed.attempt - FIRST_ATTEMPT
        if done >= len(routed.plan):
            return None
        following = routed.plan[done]
        return cls.from_routed(routed, sequence).model_copy(
            update={
                "model": following.model,
                "attempt": failed.attempt + 1,
                "price": following.price,
                "used_before": failed.used_so_far,
                "final_attempt": done + 1 == len(routed.plan),
                "min_confidence": following.min_confidence,
            }
        )

    @property
    def id(self) -> str:
        """Deterministic: the broker's dedup may swallow a repetition (a convenience).

        With its tenant: clients make request ids, and the dedup is that of all tenants' jobs.
        """
        return f"{self.tenant}/{self.request_id}/{self.attempt}/job"
