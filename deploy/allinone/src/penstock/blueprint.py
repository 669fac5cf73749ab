"""Everything that is decided before the first process starts. No process is started here."""

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.data_dir import DataDir
from penstock.endpoints import Endpoints, plan_endpoints, server_port_names
from penstock.models_dir import find_models_dir
from penstock.ports import LOOPBACK, choose_ports, require_free_port
from penstock.remembered import recall, remember
from penstock.run_file import Addresses
from penstock.secret_store import Secrets, ensure_root_key, load_or_create_secrets
from penstock.services import (
    HTTP_PORT_NAME,
    ServicePlan,
    metrics_urls,
    ops_port_name,
    possible_instances,
    service_spec,
    service_specs,
)
from penstock.settings import UpSettings
from penstock.supervision.spec import ProcessSpec

_EVERYWHERE = {"0.0.0.0", "::", ""}


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A stack that is fully planned."""

    settings: UpSettings
    data_dir: DataDir
    secrets: Secrets
    addresses: Addresses
    specs: tuple[ProcessSpec, ...]
    plan: ServicePlan

    def worker(self, name: str) -> ProcessSpec:
        """Describe one more worker (`worker-2`)."""
        return service_spec(self.plan, name)


def draw_up(settings: UpSettings, data_dir: DataDir, environ: Mapping[str, str]) -> Blueprint:
    """Choose ports, make or read secrets, and describe every process.

    Raises:
        OperatorError: A port is taken, models are missing, or stored state does not fit.
    """
    models_dir = None
    if "worker" in settings.services:
        models_dir = find_models_dir(settings.models_dir)
    secrets = load_or_create_secrets(data_dir)
    ensure_root_key(data_dir.root_key_file)
    state = recall(data_dir, settings.topology)
    state = state.model_copy(update={"ports": _ports(settings, state.ports)})
    remember(data_dir, state)
    endpoints = plan_endpoints(settings, data_dir, secrets, state, environ)
    plan = ServicePlan(
        settings=settings,
        data_dir=data_dir,
        endpoints=endpoints,
        ports=state.ports,
        admin_key=(settings.admin_key or secrets.admin_key).get_secret_value(),
        models_dir=models_dir,
        environ=environ,
    )
    return Blueprint(
        settings=settings,
        data_dir=data_dir,
        secrets=secrets,
        addresses=_addresses(plan, endpoints),
        specs=(*endpoints.specs, *service_specs(plan)),
        plan=plan,
    )


def _ports(settings: UpSettings, remembered: Mapping[str, int]) -> dict[str, int]:
    """Choose the ports of this start; those not needed now stay remembered."""
    names = [ops_port_name(instance) for instance in possible_instances(settings)]
    names += server_port_names(settings)
    fixed: dict[str, int] = {}
    if settings.http_port == 0:
        names.append(HTTP_PORT_NAME)
    else:
        fixed[HTTP_PORT_NAME] = settings.http_port
        if "realtime" in settings.services:
            require_free_port(settings.http_port, settings.http_host)
    return {**remembered, **choose_ports(names, remembered), **fixed}


def _addresses(plan: ServicePlan, endpoints: Endpoints) -> Addresses:
    host = plan.settings.http_host
    shown = LOOPBACK if host in _EVERYWHERE else host
    return Addresses(
        http=f"http://{shown}:{plan.ports[HTTP_PORT_NAME]}",
        nats=endpoints.public_nats_url,
        nats_url=endpoints.nats_url,
        postgres=endpoints.postgres_dsn,
        redis=endpoints.redis_url,
        admin_key=plan.admin_key,
        audit_dir=str(plan.data_dir.service("audit")),
        metrics=metrics_urls(plan),
    )
