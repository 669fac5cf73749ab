"""What was heard of the jobs that a feeder sent, and what that says of their tokens."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.responses import FinalFrame

_WELL: Final = (Status.COMPLETED, Status.INCOMPLETE)


class FeedError(Exception):
    """A job did not end as it should, so nothing was measured."""


@dataclass(slots=True)
class Fed:
    """One job, and what was heard of it; times are `perf_counter`'s."""

    request_id: str
    tenant: str
    limit: int
    subject: str
    payload: bytes
    headers: dict[str, str]
    routed_unix_s: float
    sent_unix_s: float = 0.0
    sent_s: float = 0.0
    frames_s: list[float] = field(default_factory=list)
    ended_s: float = 0.0
    final: bytes = b""

    @property
    def first_s(self) -> float:
        """From being sent to the first text; an answer that has none shows itself at its end."""
        return (self.frames_s[0] if self.frames_s else self.ended_s) - self.sent_s

    @property
    def total_s(self) -> float:
        """From being sent to the final frame."""
        return self.ended_s - self.sent_s


@dataclass(frozen=True, slots=True)
class Delivered:
    """Tokens that came together."""

    at_s: float
    tokens: float


def deliveries(job: Fed) -> list[Delivered]:
    """When the tokens of a job came; a delta has the share of them that it has of the text.

    Raises:
        FeedError: the job failed, or its answer is not as long as its limit.
    """
    final = FinalFrame.model_validate_json(job.final)
    if final.status not in _WELL or final.usage.output_tokens != job.limit:
        msg = f"{final.status}, {final.usage.output_tokens} of {job.limit} tokens: {final.error}"
        raise FeedError(msg)
    sizes = [end - start for start, end in itertools.pairwise((0, *final.delta_ends))]
    if len(sizes) != len(job.frames_s) or not sum(sizes):
        return [Delivered(job.ended_s, job.limit)]  # a frame was lost, or there is no text
    scale = job.limit / sum(sizes)
    return [Delivered(at, size * scale) for at, size in zip(job.frames_s, sizes, strict=True)]


def between_tokens_s(job: Fed) -> list[float]:
    """Inter-token latency, once per token: the time since the delta before, shared by its tokens.

    The first delta's wait is the time to first token, so its tokens do not count.
    """
    came = deliveries(job)
    return [
        (this.at_s - before.at_s) / this.tokens
        for before, this in pairwise(came)
        if this.tokens
        for _ in range(max(round(this.tokens), 1))
    ]
