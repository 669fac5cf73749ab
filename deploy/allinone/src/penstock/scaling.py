"""How many workers the queue asks for, decided as KEDA and Kubernetes decide it. Pure.

KEDA splits the work, and so does this module:
- its operator alone goes from nothing to something and back: up when any trigger is active, down
  when none was for the cool-down (https://keda.sh/docs/latest/reference/scaledobject-spec/;
  `pkg/scaling/executor/scale_scaledobjects.go`);
- the Horizontal Pod Autoscaler decides between one and the most: for an external metric with an
  average value per replica, `ceil(value / target)`, unless the usage per replica is within the
  tolerance of the target; of several metrics the greediest; a fall must have lasted
  (https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details;
  `GetExternalPerPodMetricReplicas`, `stabilizeRecommendationWithBehaviors`).

The value of a trigger is a consumer's lag: what it has pending, and what it has delivered and not
seen acknowledged (https://keda.sh/docs/latest/scalers/nats-jetstream/).
"""

import math
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field


class ScalingPolicy(BaseModel):
    """When workers come and go: the numbers of the supervisor and of `deploy/keda` alike.

    The defaults are KEDA's and Kubernetes' own, but for two. KEDA polls every 30 s: here a first
    request waits for the poll. Its lag threshold is 10: 16 jobs are two full batches.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lag_threshold: int = Field(16, ge=1)
    """Jobs of one consumer that are worth one worker."""
    activation_lag_threshold: int = Field(0, ge=0)
    """A lag above this wakes the first worker."""
    polling_interval_s: int = Field(1, ge=1)
    """Between two looks at the queue."""
    cooldown_s: int = Field(300, ge=0)
    """Since the last lag that would have woken a worker, until the last worker goes."""
    down_window_s: int = Field(300, ge=0, le=3600)
    """The highest wish of so long a time counts, while there are workers."""
    tolerance: float = Field(0.1, ge=0, lt=1)
    """How far from the threshold the lag per worker may be without a change."""


@dataclass(frozen=True, slots=True)
class WorkerRange:
    """How many workers may run; equal bounds mean a fixed number."""

    least: int
    most: int

    @property
    def is_elastic(self) -> bool:
        """Whether there is anything to decide."""
        return self.least < self.most


def is_active(lags: Iterable[int], policy: ScalingPolicy) -> bool:
    """Whether any consumer has more than may be left waiting without a worker."""
    return any(lag > policy.activation_lag_threshold for lag in lags)


def wished_workers(lags: Iterable[int], running: int, policy: ScalingPolicy) -> int:
    """How many workers the lags ask for when `running` of them (at least one) share the work.

    No lags at all are no metric: everything stays as it is.
    """
    return max((_wish(lag, running, policy) for lag in lags), default=running)


def _wish(lag: int, running: int, policy: ScalingPolicy) -> int:
    usage_ratio = lag / (policy.lag_threshold * running)
    if 1.0 - policy.tolerance <= usage_ratio <= 1.0 + policy.tolerance:
        return running
    return math.ceil(lag / policy.lag_threshold)


class Stabilizer:
    """Follows a rising wish at once, a falling one only as far as the highest of the window."""

    def __init__(self, window_s: float) -> None:
        """Look back over `window_s` seconds."""
        self._window_s = window_s
        self._wishes: deque[tuple[float, int]] = deque()

    def settle(self, wish: int, running: int, now_s: float) -> int:
        """Take in the wish of this moment and return what may be done about it."""
        self._wishes.append((now_s, wish))
        while self._wishes[0][0] <= now_s - self._window_s and len(self._wishes) > 1:
            self._wishes.popleft()
        return wish if wish >= running else max(seen for _, seen in self._wishes)


class WorkerScaler:
    """One decision per look, from the lags and what runs."""

    def __init__(self, policy: ScalingPolicy, bounds: WorkerRange) -> None:
        """Keep the number between the bounds."""
        self._policy = policy
        self._bounds = bounds
        self._stabilizer = Stabilizer(policy.down_window_s)
        self._last_active_s: float | None = None

    def decide(self, lags: Sequence[int], running: int, now_s: float) -> int:
        """How many workers there should be now; `now_s` never goes back."""
        active = is_active(lags, self._policy)
        if active:
            self._last_active_s = now_s
        if running == 0:
            return max(1, self._bounds.least) if active else self._bounds.least
        settled = self._settle(lags, running, now_s)
        return 0 if self._may_rest(now_s) else settled

    def _settle(self, lags: Sequence[int], running: int, now_s: float) -> int:
        """The autoscaler's share: between one, or the least, and the most."""
        wish = wished_workers(lags, running, self._policy)
        settled = self._stabilizer.settle(wish, running, now_s)
        return max(self._bounds.least, 1, min(self._bounds.most, settled))

    def _may_rest(self, now_s: float) -> bool:
        """The operator's share: whether the last worker may go, too."""
        if self._bounds.least > 0:
            return False
        last_s = self._last_active_s
        return last_s is None or now_s - last_s > self._policy.cooldown_s
