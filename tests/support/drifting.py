"""A tenant whose cheap model breaks one day: how long do the router's decisions stay with it?"""

from __future__ import annotations

import base64
import random
from dataclasses import dataclass
from datetime import UTC, datetime

from penstock_router.domain.choice import Option, choose, draw_of
from penstock_router.domain.features import CONTEXT_DIMS, unpack_context
from penstock_router.domain.learned import Learned
from penstock_shared.contracts.errors import ErrorBody
from penstock_shared.contracts.feedback import ResponseFeedback
from penstock_shared.contracts.requests import (
    Decision,
    RequestEnded,
    RequestRouted,
    Sampling,
    Status,
    Timings,
)
from penstock_shared.contracts.routing import Candidate, PolicyRules
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price, Usage

NOW = datetime(2026, 11, 20, tzinfo=UTC)
RUN = "0193e7a0-0000-7000-9000-000000000000"
PRICE = Price(input_microusd_per_1k=0, output_microusd_per_1k=1000)
LEFT_BELOW = 0.1
WINDOW = 50


@dataclass(frozen=True)
class World:
    """What the models are like, and what the tenant tells of it."""

    right: tuple[float, ...] = (0.9, 0.9)
    """Before the first one breaks."""
    cost: tuple[float, ...] = (10.0, 40.0)
    """Micro-dollars; a wrong answer costs the default penalty."""
    broken_right: float = 0.0
    fails: bool = False
    """It breaks by errors of its own, which the log shows; else by wrong answers."""
    judged: float = 1.0
    """The share of answers of which the client says whether they were right."""


class Tenant:
    """Requests of one tenant, decided as the router does, and folded as its log is."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._rng = random.Random(seed)
        self._seed = seed
        self._learned = Learned()
        self._seq = 0
        self._requests = 0

    def ask(self, *, broken: bool) -> int:
        """One request from decision to feedback; returns which model served it."""
        self._requests += 1
        rng, request_id = self._rng, f"0193e7a0-{self._seed:04d}-7000-8000-{self._requests:012d}"
        decision, chosen = self._decide(request_id)
        p_right = self._world.broken_right if broken and chosen == 0 else self._world.right[chosen]
        right = rng.random() < p_right
        fails = self._world.fails and broken and chosen == 0 and not right
        self._fold(request_id, decision, fails=fails)
        if rng.random() < self._world.judged and not fails:
            self._seq += 1
            feedback = ResponseFeedback(
                request_id=request_id,
                tenant="acme",
                key_id="k1",
                model=decision.model,
                attempt=1,
                score=float(right),
                given_at=NOW,
            )
            self._learned.fold_feedback(feedback, decision, self._seq)
        return chosen

    def _decide(self, request_id: str) -> tuple[Decision, int]:
        state, world = self._learned.of("acme"), self._world
        numbers = [127, *(self._rng.randrange(-50, 51) for _ in range(CONTEXT_DIMS - 1))]
        context = base64.b64encode(bytes(number % 256 for number in numbers)).decode()
        x = unpack_context(context)
        estimates = [state.estimate(str(k), x, None) for k in range(len(world.cost))]
        choice = choose(
            [
                Option(str(k), each.p_correct, each.deviation, world.cost[k], each.observations)
                for k, each in enumerate(estimates)
            ],
            penalty_microusd=PolicyRules().error_penalty_microusd,
            exploration_budget_microusd=state.exploration_budget_microusd,
            u=draw_of(request_id),
        )
        decision = Decision(
            policy="learned",
            model=str(choice.index),
            probability=choice.probabilities[choice.index],
            reason="",
            features={},
            context=context,
            shape="free-short-plain",
            candidates=tuple(
                Candidate(
                    model=str(k),
                    p_correct=each.p_correct,
                    cost_microusd=world.cost[k],
                    probability=min(1.0, max(0.0, choice.probabilities[k])),
                )
                for k, each in enumerate(estimates)
            ),
            exploration_microusd=choice.exploration_microusd,
        )
        return decision, choice.index

    def _fold(self, request_id: str, decision: Decision, *, fails: bool) -> None:
        common = {
            "request_id": request_id,
            "tenant": "acme",
            "key_id": "k1",
            "data_subject": "u1",
            "price": PRICE,
        }
        routed = RequestRouted(
            **common,
            lane=Lane.STANDARD,
            attempt=1,
            decision=decision,
            sampling=Sampling(),
            content="",
            accepted_at=NOW,
            deadline=NOW,
        )
        ended = RequestEnded(
            **common,
            model=decision.model,
            attempt=1,
            run=RUN,
            status=Status.FAILED if fails else Status.COMPLETED,
            reason="error" if fails else "stop",
            usage=Usage(input_tokens=10, output_tokens=0 if fails else 20),
            output=None,
            timings=Timings(queued_ms=1, first_token_ms=2, total_ms=30),
            error=ErrorBody(message="", type="server_error", code="broken") if fails else None,
            routed_at=NOW,
            ended_at=NOW,
        )
        self._learned.fold_routed(routed, self._seq + 1)
        self._learned.fold_ended(ended, decision, self._seq + 2)
        self._seq += 2


def requests_until_left(world: World, seed: int, *, before: int, after: int) -> int:
    """How many requests after the break until fewer than a tenth go to the broken model.

    `before` requests come before it. Raises AssertionError where the model was not in use.
    """
    tenant = Tenant(world, seed)
    used = [tenant.ask(broken=False) == 0 for _ in range(before)]
    assert sum(used[-100:]) > 50, "the model that breaks was hardly used"
    used = [tenant.ask(broken=True) == 0 for _ in range(after)]
    return next(
        (
            start
            for start in range(after - WINDOW)
            if sum(used[start : start + WINDOW]) < LEFT_BELOW * WINDOW
        ),
        after,
    )
