"""How requests that leave the choice to the router are routed: a tenant's policy, and its history.

Every change of a tenant's policy, an operator's as well as an experiment's end, is one kind of
fact on one subject, written with the sequence of the fact before it: of two changes at once one
wins. The bucket `router` holds a copy of each tenant's last one.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from penstock_shared.contracts.ids import ModelName, TenantId, Token

ROUTER_TOPIC: Final = "router"
POLICY_FACT: Final = "policy"
MODE_FACT: Final = "mode"

Probability = Annotated[float, Field(ge=0, le=1)]
MicroUsd = Annotated[int, Field(ge=0, le=10**15)]


class Choose(StrEnum):
    """By what `auto` chooses among a tenant's models."""

    LEARNED = "learned"  # the least expected cost + error penalty, with bounded exploration
    RULE = "rule"  # the cheapest unless the message looks hard
    CHEAPEST = "cheapest"
    STRONGEST = "strongest"


class PolicyRules(BaseModel):
    """What a policy says."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choose: Choose = Choose.LEARNED
    models: tuple[ModelName, ...] = ()
    """Among which to choose; empty: among all text models that serve."""
    error_penalty_microusd: MicroUsd = 400
    """What one wrong answer costs the tenant: the exchange rate between errors and money."""
    exploration_share: Probability = 0.02
    """The most that exploration may add to what would be spent without it."""
    max_attempts: Annotated[int, Field(ge=1, le=4)] = 2
    """How many models may try one request whose answer is checked."""
    min_confidence: Probability | None = None
    """Answers of all but the last model are also checked for confidence: then no delta is shown
    before the check. None: only where the client asked for an output of a given form."""


class Experiment(BaseModel):
    """A share of the users gets other rules; a sequential test compares the two."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Token
    kind: Literal["canary", "ab"] = "canary"
    """A canary is rolled back or promoted by the test; a split is only compared."""
    candidate: PolicyRules
    share: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Of the users, by their data subject: who is in stays in. Requests of no named user are
    drawn one by one."""


class PolicySet(BaseModel):
    """Fact `router.policy`: these rules hold from here on."""

    model_config = ConfigDict(frozen=True)

    TYPE: ClassVar[str] = "penstock.router.policy_set.v1"

    tenant: TenantId
    rules: PolicyRules
    experiment: Experiment | None = None
    reason: Literal["operator", "promoted", "rolled-back"]
    """Who changed it: an operator, or an experiment's end."""
    previous: PolicyRules | None = None
    """The rules before this change: what an operator's rollback brings back."""
    evidence: dict[str, float] = {}
    """What the test had seen when it decided: numbers only."""
    past_experiments: tuple[Token, ...] = ()
    """The latest that have ended. An id is used once: late outcomes name their experiment by it."""
    set_at: datetime


class Candidate(BaseModel):
    """One model as the decision saw it."""

    model_config = ConfigDict(frozen=True)

    model: ModelName
    p_correct: Probability
    """The estimated probability that its answer is right."""
    prior: Probability | None = None
    """The same before anything was learned of the tenant; None: no classifier knows the model.
    Learning is relative to it, and must not depend on which classifier a replica has now."""
    cost_microusd: float
    """What an answer of its is expected to cost."""
    probability: Probability
    """With which it was chosen; those of all candidates sum to one."""


class Mode(StrEnum):
    """What the platform still does, from all to least."""

    FULL = "full"
    CHEAP_ONLY = "cheap-only"  # `auto` takes the cheapest model that works, and nothing escalates
    NO_BATCH = "no-batch"  # as before, and the batch lane is refused
    READ_ONLY = "read-only"  # nothing new is taken; what there is can be read


class ModeChanged(BaseModel):
    """Fact `router.mode` of the platform: a router works in another mode from here on."""

    model_config = ConfigDict(frozen=True)

    TYPE: ClassVar[str] = "penstock.router.mode_changed.v1"

    instance: str
    mode: Mode
    why: str
    changed_at: datetime


class ShowPolicy(BaseModel):
    """Verb `show-policy`: the tenant's policy, what was learned, and how its experiment stands."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: TenantId


class SetPolicy(BaseModel):
    """Verb `set-policy`: replaces rules and experiment."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: TenantId
    rules: PolicyRules
    experiment: Experiment | None = None
    based_on: Annotated[int, Field(ge=0)] | None = None
    """`PolicyState.sequence` as it was read: refused if somebody has changed the policy since."""


class RollbackPolicy(BaseModel):
    """Verb `rollback-policy`: an experiment ends without promotion, or the rules before return."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tenant: TenantId
    based_on: Annotated[int, Field(ge=0)] | None = None
    """As in `SetPolicy`."""


class LearnedModel(BaseModel):
    """What a router has learned of one model for one tenant."""

    model_config = ConfigDict(frozen=True)

    model: ModelName
    observations: int
    """Answers of which it became known whether they were right."""
    success_rate: float | None
    """Decayed, of those."""
    output_tokens: float | None
    """Of an answer, decayed mean."""


class ArmState(BaseModel):
    """One side of an experiment."""

    model_config = ConfigDict(frozen=True)

    arm: Literal["baseline", "candidate"]
    requests: int
    failures: int
    mean_latency_ms: float | None
    mean_cost_microusd: float | None


class PolicyState(BaseModel):
    """The answer to all three verbs."""

    model_config = ConfigDict(frozen=True)

    tenant: TenantId
    rules: PolicyRules
    experiment: Experiment | None = None
    sequence: int
    """Of the fact that set it; 0: none has, and the defaults hold."""
    reason: str
    evidence: dict[str, float] = {}
    """Of the test that ended an experiment, if that is how it was set."""
    previous: PolicyRules | None = None
    """What a rollback brings back when no experiment runs."""
    arms: tuple[ArmState, ...] = ()
    models: tuple[LearnedModel, ...] = ()
    events_seq: int
    """How far this router had read the event log."""
