"""KEDA and the Horizontal Pod Autoscaler on a simulated clock, told what to do by a ScaledObject.

Written from their sources, and from nothing of Penstock's: what it decides is what a cluster would
decide. Sources (kedacore/keda and kubernetes/kubernetes):
- `pkg/scalers/nats_jetstream_scaler.go`: active when lag > activationLagThreshold; the metric is
  external, its target an average value per replica;
- `pkg/scaling/executor/scale_scaledobjects.go`: `RequestScale`, `scaleFromZero`, `scaleToZero`;
- `pkg/controller/podautoscaler/replica_calculator.go`: `GetExternalPerPodMetricReplicas`;
- `pkg/controller/podautoscaler/horizontal.go`: `stabilizeRecommendationWithBehaviors`,
  `calculateScaleUpLimitWithScalingRules`, `calculateScaleDownLimitWithBehaviors`; at zero replicas
  the autoscaler is disabled; KEDA gives it at least one as its minimum.

Not modelled: failing metrics, and pods that do not start (replicas are those that are asked for,
which is what the per-replica external metric counts).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

HPA_SYNC_S: Final = 15.0
"""kube-controller-manager's `--horizontal-pod-autoscaler-sync-period`, by default."""
_DEFAULT_TOLERANCE: Final = 0.1
_DEFAULT_DOWN_WINDOW_S: Final = 300.0

Lags = Callable[[float], Sequence[int]]
"""The lag of each trigger's consumer, in the order of the triggers, at a time in seconds."""


@dataclass(frozen=True)
class _Rules:
    """One direction of `behavior`."""

    window_s: float
    policies: Sequence[dict[str, Any]]
    tolerance: float

    @classmethod
    def read(
        cls, behavior: dict[str, Any], way: str, window_s: float, policies: list[dict[str, Any]]
    ) -> _Rules:
        given = behavior.get(way, {})
        assert given.get("selectPolicy", "Max") == "Max", "only the default is modelled"
        return cls(
            float(given.get("stabilizationWindowSeconds", window_s)),
            given.get("policies", policies),
            float(given.get("tolerance", _DEFAULT_TOLERANCE)),
        )


@dataclass
class KedaSimulation:
    """One ScaledObject's Deployment."""

    scaled_object: dict[str, Any]
    replicas: int = 0
    _last_active_s: float | None = None
    _recommended: list[tuple[float, int]] = field(default_factory=list)
    _changes: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._spec = self.scaled_object["spec"]
        advanced = self._spec.get("advanced", {}).get("horizontalPodAutoscalerConfig", {})
        behavior = advanced.get("behavior", {})
        self._up = _Rules.read(
            behavior,
            "scaleUp",
            0.0,
            [
                {"type": "Percent", "value": 100, "periodSeconds": 15},
                {"type": "Pods", "value": 4, "periodSeconds": 15},
            ],
        )
        self._down = _Rules.read(
            behavior,
            "scaleDown",
            _DEFAULT_DOWN_WINDOW_S,
            [{"type": "Percent", "value": 100, "periodSeconds": 15}],
        )
        names = {"nats-jetstream": "Lag", "prometheus": ""}
        self._targets = []
        for trigger in self._spec["triggers"]:
            kind, metadata = names[trigger["type"]], trigger["metadata"]
            name = f"{kind.lower()}Threshold" if kind else "threshold"
            activation = metadata.get(f"activation{kind}Threshold", "0")
            self._targets.append((float(metadata[name]), float(activation)))

    def run(
        self, lags: Lags, until_s: float, *, sync_s: float = HPA_SYNC_S, sync_at_s: float = 0.0
    ) -> list[tuple[float, int]]:
        """Let time pass from 0; returns each change of the replicas with its moment.

        The operator polls at 0 and then at its interval, the autoscaler at `sync_at_s` and then
        every `sync_s`; where they meet, the autoscaler goes first.
        """
        poll_s = float(self._spec.get("pollingInterval", 30))
        moments = [(n * poll_s, 1) for n in range(int(until_s / poll_s) + 1)]
        moments += [
            (sync_at_s + n * sync_s, 0) for n in range(int((until_s - sync_at_s) / sync_s) + 1)
        ]
        history = [(0.0, self.replicas)]
        for now_s, who in sorted(moments):
            (self.operate if who else self.autoscale)(lags(now_s), now_s)
            if self.replicas != history[-1][1]:
                history.append((now_s, self.replicas))
        return history

    def operate(self, lags: Sequence[int], now_s: float) -> None:
        """KEDA's operator polls."""
        least = int(self._spec.get("minReplicaCount", 0))
        active = any(
            lag > activation for lag, (_, activation) in zip(lags, self._targets, strict=True)
        )
        if active:
            self._last_active_s = now_s
            self.replicas = self.replicas or max(least, 1)
        elif self.replicas and not least:
            cooldown_s = float(self._spec.get("cooldownPeriod", 300))
            if self._last_active_s is None or self._last_active_s + cooldown_s < now_s:
                self.replicas = 0
        elif self.replicas < least:
            self.replicas = least

    def autoscale(self, lags: Sequence[int], now_s: float) -> None:
        """The Horizontal Pod Autoscaler syncs."""
        if self.replicas == 0:
            return
        proposals = [
            self._proposal(lag, target)
            for lag, (target, _) in zip(lags, self._targets, strict=True)
        ]
        settled = self._stabilized(max(proposals), now_s)
        least = max(int(self._spec.get("minReplicaCount", 0)), 1)
        most = int(self._spec.get("maxReplicaCount", 100))
        if settled > self.replicas:
            most = min(most, max(self._limit(self._up, now_s, +1), self.replicas))
        elif settled < self.replicas:
            least = max(least, min(self._limit(self._down, now_s, -1), self.replicas))
        wanted = max(least, min(most, settled))
        if wanted != self.replicas:  # the rates count what the autoscaler itself has changed
            self._changes.append((now_s, wanted - self.replicas))
            self.replicas = wanted

    def _proposal(self, lag: int, target: float) -> int:
        usage_ratio = lag / (target * self.replicas)
        near = 1.0 - self._down.tolerance <= usage_ratio <= 1.0 + self._up.tolerance
        return self.replicas if near else math.ceil(lag / target)

    def _stabilized(self, proposal: int, now_s: float) -> int:
        rising = proposal >= self.replicas
        window_s = (self._up if rising else self._down).window_s
        recent = [seen for at_s, seen in self._recommended if at_s > now_s - window_s]
        self._recommended.append((now_s, proposal))
        return (min if rising else max)([proposal, *recent])

    def _limit(self, rules: _Rules, now_s: float, sign: int) -> int:
        """How far the rates let it go; of several policies the most generous counts."""
        limits = []
        for policy in rules.policies:
            since_s = now_s - policy["periodSeconds"]
            changed = sum(by for at_s, by in self._changes if at_s > since_s and by * sign > 0)
            start, value = self.replicas - changed, int(policy["value"])
            if policy["type"] == "Pods":
                limits.append(start + sign * value)
            else:
                share = start * (1 + sign * value / 100)
                limits.append(math.ceil(share) if sign > 0 else math.floor(share))
        return max(limits) if sign > 0 else min(limits)
