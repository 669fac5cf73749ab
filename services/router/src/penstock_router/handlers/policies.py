"""The operator's commands about tenants' policies, and experiments that end by their test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError

from penstock_router import metrics
from penstock_router.domain.experiments import Verdict, verdict
from penstock_router.domain.learned import Learned
from penstock_router.domain.policies import (
    arm_states,
    concluded,
    experiment_of,
    rolled_back,
    rules_of,
    set_by_operator,
)
from penstock_router.ports import PolicyFacts
from penstock_shared.contracts.accounts import TenantRecord
from penstock_shared.contracts.complaints import invalid
from penstock_shared.contracts.errors import (
    ConflictError,
    NotFoundError,
    PenstockError,
    PermanentError,
)
from penstock_shared.contracts.models import ModelKind, ModelRecord
from penstock_shared.contracts.routing import (
    Experiment,
    PolicyRules,
    PolicySet,
    PolicyState,
    RollbackPolicy,
    SetPolicy,
    ShowPolicy,
)
from penstock_shared.runtime.broker import SequenceConflictError
from penstock_shared.runtime.clock import Clock
from penstock_shared.runtime.kv import BucketMirror
from penstock_shared.runtime.telemetry import log

_VERBS: Final = "show-policy, set-policy, rollback-policy"
_LOOK_EVERY_S: Final = 0.5
M = TypeVar("M", bound=BaseModel)


class Policies:
    """Answers operators, and ends experiments."""

    def __init__(
        self,
        *,
        facts: PolicyFacts,
        learned: Learned,
        events_seq: Callable[[], int],
        models: BucketMirror[ModelRecord],
        tenants: BucketMirror[TenantRecord],
        clock: Clock,
    ) -> None:
        """`events_seq` says how far the event log is folded into `learned`."""
        self._facts = facts
        self._learned = learned
        self._events_seq = events_seq
        self._models = models
        self._tenants = tenants
        self._clock = clock

    async def on_command(self, verb: str, payload: bytes) -> PolicyState:
        """Carry out one command.

        Raises:
            PermanentError: it cannot be carried out as it is; the message says why.
            UnavailableError: the event log does not answer.
        """
        if verb == "show-policy":
            return await self._show(_parse(ShowPolicy, payload))
        if verb == "set-policy":
            return await self._set(_parse(SetPolicy, payload))
        if verb == "rollback-policy":
            return await self._roll_back(_parse(RollbackPolicy, payload))
        msg = f"There is no command {verb[:80]!r}: use one of {_VERBS}."
        raise NotFoundError(msg, code="unknown_command")

    async def watch(self) -> None:
        """End every experiment whose test has decided, for ever.

        Each replica looks by itself, and again after a failure: what one has found when it died is
        found by the others, or by itself when it is back.
        """
        while True:
            running = 0
            for tenant in tuple(self._learned.tenants()):
                running += await self._look(tenant)
            metrics.EXPERIMENTS_RUNNING.set(running)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def conclude(self, tenant: str, experiment: Experiment, found: Verdict) -> None:
        """Write an experiment's end, unless somebody else has ended it.

        Raises:
            UnavailableError: the event log does not answer, and it may be written or not.
        """
        current, _, expected_seq = await self._facts.last(tenant)
        if current is None or current.experiment != experiment:
            return
        fact = concluded(current, experiment, found, self._clock.now())
        try:
            await self._facts.write(fact, expected_seq)
        except SequenceConflictError:
            return  # another replica, or an operator, was faster
        metrics.EXPERIMENTS_ENDED.labels(found.reason).inc()
        log().info("experiment.ended", tenant=tenant, experiment=experiment.id, how=found.reason)

    async def _look(self, tenant: str) -> bool:
        """Whether an experiment runs; one whose test has decided is ended."""
        learned = self._learned.of(tenant)
        experiment = experiment_of(learned.policy)
        if experiment is None or learned.trial is None:
            return False
        found = verdict(learned.trial, experiment)
        if found is not None:
            try:
                await self.conclude(tenant, experiment, found)
            except PenstockError as error:
                log().warning("experiment.end_postponed", tenant=tenant, code=error.code)
        return True

    async def _show(self, command: ShowPolicy) -> PolicyState:
        self._require_tenant(command.tenant)
        current, sequence, _ = await self._facts.last(command.tenant)
        return self._state(command.tenant, current, sequence)

    async def _set(self, command: SetPolicy) -> PolicyState:
        self._require_tenant(command.tenant)
        self._require_models(command.rules, "rules")
        if command.experiment is not None:
            self._require_models(command.experiment.candidate, "experiment.candidate")
        current, sequence, expected_seq = await self._facts.last(command.tenant)
        fact = set_by_operator(command, current, self._clock.now())
        if fact is None:
            return self._state(command.tenant, current, sequence)
        _require_unchanged(command, sequence)
        return await self._write(fact, expected_seq)

    async def _roll_back(self, command: RollbackPolicy) -> PolicyState:
        self._require_tenant(command.tenant)
        current, sequence, expected_seq = await self._facts.last(command.tenant)
        _require_unchanged(command, sequence)
        fact = rolled_back(command.tenant, current, self._clock.now())
        return await self._write(fact, expected_seq)

    async def _write(self, fact: PolicySet, expected_seq: int) -> PolicyState:
        try:
            sequence = await self._facts.write(fact, expected_seq)
        except SequenceConflictError as error:
            raise _changed(fact.tenant) from error
        log().info("policy.set", tenant=fact.tenant, sequence=sequence)
        return self._state(fact.tenant, fact, sequence)

    def _state(self, tenant: str, policy: PolicySet | None, sequence: int) -> PolicyState:
        learned, experiment = self._learned.of(tenant), experiment_of(policy)
        return PolicyState(
            tenant=tenant,
            rules=rules_of(policy),
            experiment=experiment,
            sequence=sequence,
            reason="default" if policy is None else policy.reason,
            evidence={} if policy is None else policy.evidence,
            previous=None if policy is None else policy.previous,
            arms=arm_states(experiment, learned.trial),
            models=learned.models(),
            events_seq=self._events_seq(),
        )

    def _require_tenant(self, tenant: str) -> None:
        if self._tenants.get(tenant) is None:
            msg = f"There is no tenant {tenant!r}: 'penstock tenants list' shows them."
            raise NotFoundError(msg, code="tenant_not_found", param="tenant")

    def _require_models(self, rules: PolicyRules, where: str) -> None:
        for name in rules.models:
            model = self._models.get(name)
            if model is None:
                msg = f"There is no model {name!r}: 'penstock models list' shows them."
                raise NotFoundError(msg, code="model_not_found", param=f"{where}.models")
            if model.kind is not ModelKind.TEXT:
                msg = f"The model {name!r} makes no text, so 'auto' cannot choose it."
                raise PermanentError(msg, code="model_not_text", param=f"{where}.models")


def _require_unchanged(command: SetPolicy | RollbackPolicy, sequence: int) -> None:
    if command.based_on not in {None, sequence}:
        raise _changed(command.tenant)


def _changed(tenant: str) -> ConflictError:
    msg = f"Somebody has changed the policy of {tenant!r}: read it again, then decide."
    return ConflictError(msg, code="policy_changed", param="based_on")


def _parse(command: type[M], payload: bytes) -> M:
    try:
        return command.model_validate_json(payload)
    except ValidationError as error:
        raise invalid(error) from error
