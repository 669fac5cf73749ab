"""The five services as processes: their environment, order and readiness."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from penstock.data_dir import DataDir
from penstock.embedded.probes import http_ok
from penstock.endpoints import Endpoints
from penstock.ports import LOOPBACK
from penstock.private_file import make_private_directory
from penstock.settings import UpSettings
from penstock.supervision.spec import ProcessSpec

# Billing owns the accounts, and with them the schema and the streams that the others expect.
_FIRST = "billing"
# The front stops first, so that nothing new comes in; then whoever would hand work on.
_DRAIN_RANKS = {"realtime": 50, "router": 40, "worker": 30, "audit": 20, "billing": 10}
# Workers finish their generation or hand the job back.
_GRACE_S = {"worker": 20.0}
# Longer than the services allow themselves (`PENSTOCK_DRAIN_GRACE_S`, 10 s by default).
_DEFAULT_GRACE_S = 15.0
HTTP_PORT_NAME = "http"
# Whose keys move money: billing alone gets them.
_PAYMENT_PROVIDERS = ("PENSTOCK_STRIPE_", "PENSTOCK_BRAINTREE_")


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """Everything that the services' environments are made of."""

    settings: UpSettings
    data_dir: DataDir
    endpoints: Endpoints
    ports: Mapping[str, int]
    admin_key: str = field(repr=False)
    models_dir: Path | None
    environ: Mapping[str, str] = field(repr=False)


def instances(settings: UpSettings) -> list[str]:
    """Name the service processes that start first; workers are numbered from 1."""
    return _instances(settings, settings.workers.least)


def possible_instances(settings: UpSettings) -> list[str]:
    """Name the service processes that may ever run."""
    return _instances(settings, settings.workers.most)


def _instances(settings: UpSettings, workers: int) -> list[str]:
    numbered = [f"worker-{number}" for number in range(1, workers + 1)]
    return [
        instance
        for service in settings.services
        for instance in (numbered if service == "worker" else [service])
    ]


def ops_port_name(instance: str) -> str:
    """Name the port on which a process serves /metrics, /livez, /readyz and /startupz."""
    return f"ops.{instance}"


def metrics_urls(plan: ServicePlan) -> dict[str, str]:
    """Map each service process that may run to the address of its metrics."""
    return {
        instance: f"http://{LOOPBACK}:{plan.ports[ops_port_name(instance)]}/metrics"
        for instance in possible_instances(plan.settings)
    }


def service_specs(plan: ServicePlan) -> list[ProcessSpec]:
    """Describe every service process of the plan."""
    return [service_spec(plan, instance) for instance in instances(plan.settings)]


def service_spec(plan: ServicePlan, instance: str) -> ProcessSpec:
    """Describe one service process (`worker-2`), the same entry point as in production."""
    service = instance.partition("-")[0]
    ops_port = plan.ports[ops_port_name(instance)]
    ports = {"ops": ops_port}
    if service == "realtime":
        ports[HTTP_PORT_NAME] = plan.ports[HTTP_PORT_NAME]
    return ProcessSpec(
        name=instance,
        argv=(sys.executable, "-m", f"penstock_{service}"),
        env=_environment(plan, service, instance),
        cwd=plan.data_dir.root,
        ready=http_ok(f"http://{LOOPBACK}:{ops_port}/readyz"),
        log_path=plan.data_dir.log(instance),
        depends_on=_needs(plan, service),
        drain_rank=_DRAIN_RANKS[service],
        grace_s=_GRACE_S.get(service, _DEFAULT_GRACE_S),
        ports=ports,
    )


def _needs(plan: ServicePlan, service: str) -> tuple[str, ...]:
    if service != _FIRST and _FIRST in plan.settings.services:
        return (_FIRST,)
    return tuple(spec.name for spec in plan.endpoints.specs)


def _environment(plan: ServicePlan, service: str, instance: str) -> dict[str, str]:
    state_dir = make_private_directory(plan.data_dir.service(instance))
    endpoints = plan.endpoints
    return {
        **_without_penstock_secrets(plan.environ),
        "PENSTOCK_NATS_URL": endpoints.nats_url,
        "PENSTOCK_POSTGRES_DSN": endpoints.postgres_dsn,
        "PENSTOCK_REDIS_URL": endpoints.redis_url,
        "PENSTOCK_STREAM_REPLICAS": str(endpoints.stream_replicas),
        "PENSTOCK_OPS_PORT": str(plan.ports[ops_port_name(instance)]),
        "PENSTOCK_ROOT_KEY_FILE": str(plan.data_dir.root_key_file),
        "PENSTOCK_STATE_DIR": str(state_dir),
        "PENSTOCK_INSTANCE": instance,
        "PENSTOCK_LOG_LEVEL": plan.settings.log_level,
        "PYTHONUNBUFFERED": "1",
        # The working directory is no place to import from.
        "PYTHONSAFEPATH": "1",
        **({"PENSTOCK_MODELS_DIR": str(plan.models_dir)} if plan.models_dir else {}),
        **_own_environment(plan, service),
    }


def _own_environment(plan: ServicePlan, service: str) -> dict[str, str]:
    """What only some services may know."""
    own: dict[str, str] = {}
    if service == "worker":
        # With `auto`, too, a share and not the machine: a second worker must add what it can do,
        # as a pod does, and not fight with the first over the same processors; and the layout that
        # a model was tuned to stays the best one however many workers run.
        share = str(plan.settings.processors_per_worker)
        own["PENSTOCK_TUNING_DIR"] = str(make_private_directory(plan.data_dir.service("tuning")))
        own["PENSTOCK_MODEL_STORE"] = str(plan.data_dir.models)
        own["PENSTOCK_PROCESSORS"] = plan.environ.get("PENSTOCK_PROCESSORS", share)
    if service == "billing":
        own |= {n: v for n, v in plan.environ.items() if n.startswith(_PAYMENT_PROVIDERS)}
    if service in {"realtime", "billing"}:
        own["PENSTOCK_ADMIN_KEY"] = plan.admin_key
    if service == "realtime":
        own["PENSTOCK_HTTP_HOST"] = plan.settings.http_host
        own["PENSTOCK_HTTP_PORT"] = str(plan.ports[HTTP_PORT_NAME])
        if plan.endpoints.auth_callout_seed is not None:
            own["PENSTOCK_AUTH_CALLOUT_SEED"] = plan.endpoints.auth_callout_seed
        if plan.endpoints.nats_sys_url is not None:
            own["PENSTOCK_NATS_SYS_URL"] = plan.endpoints.nats_sys_url
    return own


def _without_penstock_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    restricted = {
        "PENSTOCK_ADMIN_KEY",
        "PENSTOCK_API_KEY",
        "PENSTOCK_AUTH_CALLOUT_SEED",
        "PENSTOCK_NATS_SYS_URL",
    }
    return {
        name: value
        for name, value in environ.items()
        if name not in restricted and not name.startswith(_PAYMENT_PROVIDERS)
    }
