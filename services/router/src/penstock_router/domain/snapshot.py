"""One tenant's learned state as bytes: versioned, checksummed, the same to the last bit."""

from __future__ import annotations

import base64
import zlib
from typing import Annotated, Any, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError

from penstock_router.domain.bandit import Belief
from penstock_router.domain.beliefs import Beliefs
from penstock_router.domain.experiments import Trial
from penstock_router.domain.exploration import ExplorationAccount
from penstock_router.domain.features import CONTEXT_DIMS, CONTEXT_TEXT_DIMS
from penstock_router.domain.novelty import CENTROIDS, Novelty
from penstock_router.domain.tallies import Tallies, Tally
from penstock_router.domain.tenant_learned import TenantLearned
from penstock_shared.contracts.ids import ModelName, TenantId
from penstock_shared.contracts.routing import PolicySet

_MAGIC: Final = b"penstock-learned 1 "
_HALF: Final = np.triu_indices(CONTEXT_DIMS)


class CorruptSnapshotError(Exception):
    """A snapshot that cannot be used; its message is why. What it held is in the event log."""


def _array(value: Any) -> NDArray[np.float64]:
    array = np.frombuffer(base64.b64decode(value, validate=True), "<f8").astype(np.float64)
    if not np.isfinite(array).all():
        msg = "not finite"
        raise ValueError(msg)
    return array


def _packed(array: NDArray[np.float64]) -> str:
    return base64.b64encode(array.astype("<f8").tobytes()).decode()


_Array = Annotated[NDArray[np.float64], BeforeValidator(_array), PlainSerializer(_packed)]
_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Number = Annotated[float, Field(allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class _Belief(_Model):
    mean: _Array
    half: _Array
    """The covariance's upper triangle, by rows."""
    observations: _Weight
    right: _Weight
    tick: _Count
    worse: _Weight
    better: _Weight


class _State(_Model):
    tenant: TenantId
    seq: _Count
    policy: PolicySet | None
    policy_seq: _Count
    trial: list[Any] | None
    judged: _Count
    common: _Belief
    beliefs: dict[ModelName, _Belief]
    tallies: list[tuple[str, str, tuple[_Weight, ...]]]
    centroids: _Array
    weights: _Array
    balance_microusd: _Number
    unjudged: _Count
    spent_microusd: dict[str, int]


def dumped(learned: TenantLearned) -> bytes:
    """All of it; `loaded` gives it back exactly."""
    beliefs, centroids = learned.beliefs, learned.asked.centroids
    state = _State.model_construct(
        tenant=learned.tenant,
        seq=learned.seq,
        policy=learned.policy,
        policy_seq=learned.policy_seq,
        trial=None if learned.trial is None else learned.trial.dump(),
        judged=beliefs.tick,
        common=_of_belief(beliefs.common),
        beliefs={model: _of_belief(belief) for model, belief in beliefs.by_model.items()},
        tallies=[(*key, numbers) for key, numbers in learned.tallies],
        centroids=np.zeros(0) if centroids is None else centroids,
        weights=learned.asked.weights,
        balance_microusd=learned.account.balance_microusd,
        unjudged=learned.account.unjudged,
        spent_microusd=learned.spent_microusd,
    )
    body = state.model_dump_json().encode()
    return b"%s%08x\n%s" % (_MAGIC, zlib.crc32(body), body)


def loaded(tenant: str, data: bytes) -> TenantLearned:
    """What `dumped` was given.

    Raises:
        CorruptSnapshotError: of another version, not whole, or another tenant's (I8).
    """
    head, _, body = data.partition(b"\n")
    if not head.startswith(_MAGIC):
        raise CorruptSnapshotError("of another version, or no snapshot at all")
    if head.removeprefix(_MAGIC) != b"%08x" % zlib.crc32(body):
        raise CorruptSnapshotError("its checksum is wrong")
    try:
        state = _State.model_validate_json(body)
        learned = _restored(state)
    except (ValidationError, ValueError, TypeError) as error:
        raise CorruptSnapshotError("of a release that keeps something else") from error
    if state.tenant != tenant:
        raise CorruptSnapshotError("another tenant's")
    return learned


def _restored(state: _State) -> TenantLearned:
    tallies = Tallies()
    for shape, model, numbers in state.tallies:
        tallies.put((shape, model), Tally(*numbers))
    return TenantLearned(
        tenant=state.tenant,
        seq=state.seq,
        policy=state.policy,
        policy_seq=state.policy_seq,
        trial=None if state.trial is None else Trial.load(state.trial),
        beliefs=Beliefs(
            common=_to_belief(state.common),
            by_model={model: _to_belief(belief) for model, belief in state.beliefs.items()},
            tick=state.judged,
        ),
        tallies=tallies,
        asked=_asked(state),
        account=ExplorationAccount(state.balance_microusd, state.unjudged),
        spent_microusd=dict(state.spent_microusd),
    )


def _asked(state: _State) -> Novelty:
    count = len(state.weights)
    if count > CENTROIDS or len(state.centroids) != count * CONTEXT_TEXT_DIMS:
        msg = "centroids"
        raise ValueError(msg)
    return Novelty(state.centroids.reshape(count, -1), state.weights) if count else Novelty()


def _of_belief(belief: Belief) -> _Belief:
    return _Belief.model_construct(
        mean=belief.mean,
        half=belief.covariance[_HALF],
        observations=belief.observations,
        right=belief.right,
        tick=belief.tick,
        worse=belief.worse,
        better=belief.better,
    )


def _to_belief(stored: _Belief) -> Belief:
    upper = np.zeros((CONTEXT_DIMS, CONTEXT_DIMS))
    upper[_HALF] = stored.half
    if len(stored.mean) != CONTEXT_DIMS:
        msg = "contexts"
        raise ValueError(msg)
    covariance = np.triu(upper) + np.triu(upper, 1).T
    return Belief(
        mean=stored.mean,
        covariance=covariance,
        observations=stored.observations,
        right=stored.right,
        tick=stored.tick,
        worse=stored.worse,
        better=stored.better,
    )
