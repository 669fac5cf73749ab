"""The KEDA ScaledObject that scales a cluster's workers as the supervisor scales this machine's.

Pure: the same `ScalingPolicy` and the same consumers, written in KEDA's terms
(https://keda.sh/docs/latest/reference/scaledobject-spec/).
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

from penstock.scaling import ScalingPolicy, WorkerRange
from penstock_shared.contracts.streams import JOBS, job_consumer
from penstock_shared.contracts.subjects import Lane

NAME = "penstock-worker"
# The account of the services in nats.conf; KEDA finds the stream by it.
ACCOUNT = "PENSTOCK"
MONITOR = "nats.penstock.svc:8222"
PROMETHEUS = "http://prometheus.monitoring.svc:9090"
# Every router tells the same lag of each consumer; one trigger for the greediest of them decides
# as one trigger for each would, and knows of new models by itself.
LAG_QUERY = "max(router_jobs_lag)"
# Kubernetes limits what is added in a period and forgets what was removed in it: only a period
# shorter than its 15 s between two looks never limits anything.
_RATE_PERIOD_S = 1
_CLUSTER_TOLERANCE = 0.1

Document = dict[str, Any]


class Trigger(StrEnum):
    """Where KEDA reads the lag."""

    NATS_JETSTREAM = "nats-jetstream"
    PROMETHEUS = "prometheus"


def scaled_object(
    trigger: Trigger, models: Sequence[str], policy: ScalingPolicy, bounds: WorkerRange
) -> Document:
    """Describe how KEDA scales the Deployment; `models` matter to the NATS trigger only."""
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": NAME},
        "spec": {
            "scaleTargetRef": {"name": NAME},
            "pollingInterval": policy.polling_interval_s,
            "cooldownPeriod": policy.cooldown_s,
            "minReplicaCount": bounds.least,
            "maxReplicaCount": bounds.most,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _behavior(policy, bounds)}},
            "triggers": _triggers(trigger, models, policy),
        },
    }


def _behavior(policy: ScalingPolicy, bounds: WorkerRange) -> Document:
    """Up at once and as far as it takes; down as far as the window lets it."""
    # The cluster's default needs no field; another needs Kubernetes' HPAConfigurableTolerance.
    own = policy.tolerance != _CLUSTER_TOLERANCE
    tolerance = {"tolerance": f"{policy.tolerance:g}"} if own else {}
    at_once = {"type": "Pods", "value": bounds.most, "periodSeconds": _RATE_PERIOD_S}
    return {
        "scaleUp": {"stabilizationWindowSeconds": 0, "policies": [at_once], **tolerance},
        "scaleDown": {
            "stabilizationWindowSeconds": policy.down_window_s,
            "policies": [at_once],
            **tolerance,
        },
    }


def _triggers(trigger: Trigger, models: Sequence[str], policy: ScalingPolicy) -> list[Document]:
    threshold, activation = str(policy.lag_threshold), str(policy.activation_lag_threshold)
    if trigger is Trigger.PROMETHEUS:
        metadata = {
            "serverAddress": PROMETHEUS,
            "query": LAG_QUERY,
            "threshold": threshold,
            "activationThreshold": activation,
            # No answer is no zero: it must not put workers to rest.
            "ignoreNullValues": "false",
        }
        return [{"type": trigger.value, "metadata": metadata}]
    return [
        {
            "type": trigger.value,
            "metadata": {
                "natsServerMonitoringEndpoint": MONITOR,
                "account": ACCOUNT,
                "stream": JOBS,
                "consumer": job_consumer(model, lane).durable,
                "lagThreshold": threshold,
                "activationLagThreshold": activation,
            },
        }
        for model in models
        for lane in Lane
    ]
