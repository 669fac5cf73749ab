"""The router's desk: tenants' policies, and what became of one request, read from the event log."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from penstock.errors import OperatorError
from penstock.operator_bus import operator_bus
from penstock.stack_locator import locate_stack
from penstock_shared.contracts import subjects
from penstock_shared.contracts.errors import TransientError
from penstock_shared.contracts.feedback import ResponseFeedback
from penstock_shared.contracts.requests import (
    TERMINAL_TYPES,
    AttemptFailed,
    Decision,
    RequestEnded,
    RequestRouted,
)
from penstock_shared.contracts.routing import PolicyState
from penstock_shared.contracts.streams import EVENTS
from penstock_shared.contracts.usage import cost_microusd
from penstock_shared.runtime.broker import Broker, StoredMessage
from penstock_shared.runtime.ordered import OrderedReader
from penstock_shared.runtime.request_log import UnreadableFactError, read_fact

_READ_S = 10.0
_REQUEST_TYPES = TERMINAL_TYPES | {RequestRouted.TYPE, AttemptFailed.TYPE}


class AttemptSeen(BaseModel):
    """One attempt, and what became of it."""

    model_config = ConfigDict(frozen=True)

    attempt: int
    model: str
    # "failed its check", a terminal's status, "open", or "not needed".
    result: str
    # Why: the check or the terminal's reason, never content.
    reason: str | None = None
    confidence: float | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost_microusd: int = 0
    queued_ms: float | None = None
    first_token_ms: float | None = None
    total_ms: float | None = None


class Explanation(BaseModel):
    """Why a request went where it went, in numbers, without content."""

    model_config = ConfigDict(frozen=True)

    request_id: str
    tenant: str
    lane: str
    accepted_at: str
    # Without the packed context: it is for learners.
    decision: Decision
    attempts: tuple[AttemptSeen, ...]
    # The terminal's, None while it is open.
    status: str | None
    cost_microusd: int
    feedback: float | None


@dataclass(frozen=True, slots=True)
class _Facts:
    routed: RequestRouted
    failed: tuple[AttemptFailed, ...]
    ended: RequestEnded | None
    feedback: ResponseFeedback | None


def ask_router(data_dir: Path | None, verb: str, question: BaseModel) -> PolicyState:
    """Send one command about a policy and return how it stands then.

    Raises:
        OperatorError: No stack runs, no router answers, or it refuses.
    """
    return asyncio.run(_ask(locate_stack(data_dir, os.environ).nats_url, verb, question))


def explain(data_dir: Path | None, request_id: str, tenant: str | None = None) -> Explanation:
    """Read everything that the event log has of a request.

    Raises:
        OperatorError: No stack runs, the log does not answer, has no such request, or has one of
            each of several tenants.
    """
    nats_url = locate_stack(data_dir, os.environ).nats_url
    try:
        return _explanation(_sorted(request_id, tenant, asyncio.run(_read(nats_url, request_id))))
    except (ValidationError, UnreadableFactError) as error:
        raise OperatorError(
            f"A fact of the request {request_id} is not of this version.",
            "Use the `penstock` command of the version that the services run.",
        ) from error


async def _ask(nats_url: str, verb: str, question: BaseModel) -> PolicyState:
    async with operator_bus(nats_url) as bus:
        return await bus.ask(subjects.router_command(verb), question, PolicyState)


async def _read(nats_url: str, request_id: str) -> list[StoredMessage]:
    try:
        broker = await Broker.connect(nats_url, name="penstock-router-explain")
        reader = OrderedReader(broker, EVENTS, subjects.facts_about(request_id))
        try:
            async with asyncio.timeout(_READ_S):
                await reader.start()
                return [await reader.get() for _ in range(reader.pending_at_start)]
        finally:
            await reader.stop()
            await broker.close()
    except (TransientError, TimeoutError) as error:
        raise OperatorError(
            "The event log does not answer.", "Is the stack up? See `penstock ps`."
        ) from error


def _sorted(request_id: str, tenant: str | None, messages: list[StoredMessage]) -> _Facts:
    """By kind, of one tenant: clients make the ids, so that two of them may have made the same."""
    found = [read_fact(message) for message in messages if message.event_type in _REQUEST_TYPES]
    owners = {fact.tenant for fact in found if isinstance(fact, RequestRouted)}
    if tenant is not None:
        owners &= {tenant}
    if len(owners) > 1:
        raise OperatorError(
            f"Several tenants have a request {request_id}: {', '.join(sorted(owners))}.",
            "Say with --tenant whose you mean.",
        )
    facts = [fact for fact in found if fact.tenant in owners]
    routed = [fact for fact in facts if isinstance(fact, RequestRouted)]
    if not routed:
        raise OperatorError(
            f"The event log has no request {request_id}, or has it no more.",
            "The id is that of the response, with or without `resp_`.",
        )
    judged = (
        ResponseFeedback.model_validate_json(message.data)
        for message in messages
        if message.event_type == ResponseFeedback.TYPE
    )
    feedback = [fact for fact in judged if fact.tenant in owners]
    return _Facts(
        routed=routed[-1],
        failed=tuple(fact for fact in facts if isinstance(fact, AttemptFailed)),
        ended=next((fact for fact in facts if isinstance(fact, RequestEnded)), None),
        feedback=feedback[-1] if feedback else None,
    )


def _explanation(facts: _Facts) -> Explanation:
    routed, ended = facts.routed, facts.ended
    attempts = _attempts(facts)
    return Explanation(
        request_id=routed.request_id,
        tenant=routed.tenant,
        lane=routed.lane.value,
        accepted_at=routed.accepted_at.isoformat(),
        decision=routed.decision.model_copy(update={"context": ""}),
        attempts=attempts,
        status=None if ended is None else ended.status.value,
        cost_microusd=sum(attempt.cost_microusd for attempt in attempts),
        feedback=None if facts.feedback is None else facts.feedback.score,
    )


def _attempts(facts: _Facts) -> tuple[AttemptSeen, ...]:
    """Those that ended, the one that runs, and those that the plan had left."""
    routed, ended = facts.routed, facts.ended
    planned = [routed.model, *(following.model for following in routed.plan)]
    seen = {failed.attempt: _failed(failed) for failed in facts.failed}
    if ended is not None:
        seen[ended.attempt] = _ended(ended)
    first_left = len(seen) + 1
    for number, model in enumerate(planned, start=1):
        if number not in seen:
            runs = ended is None and number == first_left
            rest = "planned" if ended is None else "not needed"
            seen[number] = AttemptSeen(attempt=number, model=model, result="open" if runs else rest)
    return tuple(seen[number] for number in sorted(seen))


def _failed(fact: AttemptFailed) -> AttemptSeen:
    reason = fact.reason if fact.keyword is None else f"{fact.reason}: {fact.keyword}"
    return _measured(fact, "failed its check", reason)


def _ended(fact: RequestEnded) -> AttemptSeen:
    return _measured(
        fact, fact.status.value, fact.reason if fact.error is None else fact.error.code
    )


def _measured(fact: AttemptFailed | RequestEnded, result: str, reason: str) -> AttemptSeen:
    timings = fact.timings
    return AttemptSeen(
        attempt=fact.attempt,
        model=fact.model,
        result=result,
        reason=reason,
        confidence=fact.confidence,
        input_tokens=fact.usage.input_tokens,
        output_tokens=fact.usage.output_tokens,
        cost_microusd=cost_microusd(fact.usage, fact.price),
        queued_ms=None if timings is None else timings.queued_ms,
        first_token_ms=None if timings is None else timings.first_token_ms,
        total_ms=None if timings is None else timings.total_ms,
    )
