"""The embedded bus: one nats-server, or three that replicate on this machine."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.embedded.binaries import nats_server
from penstock.embedded.environment import server_environment
from penstock.embedded.probes import http_ok
from penstock.ports import LOOPBACK
from penstock.private_file import make_private_directory, write_private
from penstock.remembered import Topology
from penstock.supervision.spec import ProcessSpec

SERVICE_USER = "penstock"
SERVICE_ACCOUNT = "PENSTOCK"
SYSTEM_USER = "sys"
SYSTEM_ACCOUNT = "SYS"
_ROUTE_USER = "route"
_MAX_PAYLOAD_BYTES = 1 << 20
_MAX_MEMORY_STORE_BYTES = 512 << 20


@dataclass(frozen=True, slots=True)
class BusCredentials:
    """What the servers and the services prove to each other."""

    service_password: str
    system_password: str
    route_password: str
    # Public account key (`A…`) whose seed signs the auth callout's answers.
    callout_issuer: str


@dataclass(frozen=True, slots=True)
class BusNode:
    """One nats-server process and its ports; `route_port` only within a cluster."""

    name: str
    client_port: int
    monitor_port: int
    route_port: int | None
    directory: Path

    @property
    def address(self) -> str:
        """Where clients connect, without credentials."""
        return f"nats://{LOOPBACK}:{self.client_port}"


def port_names(topology: Topology) -> list[str]:
    """Name the ports that the topology needs."""
    if topology is Topology.SINGLE:
        return ["nats", "nats.monitor"]
    return [f"{name}{port}" for name in _names(topology) for port in ("", ".monitor", ".route")]


def plan_nodes(topology: Topology, ports: Mapping[str, int], root: Path) -> list[BusNode]:
    """Lay out the servers; each topology has stores of its own below `root`."""
    return [
        BusNode(
            name=name,
            client_port=ports[name],
            monitor_port=ports[f"{name}.monitor"],
            route_port=ports.get(f"{name}.route"),
            directory=root / topology.value / name,
        )
        for name in _names(topology)
    ]


def client_urls(nodes: Iterable[BusNode], password: str, user: str = SERVICE_USER) -> str:
    """List the services' addresses, comma-separated, with their credentials."""
    return ",".join(f"nats://{user}:{password}@{LOOPBACK}:{node.client_port}" for node in nodes)


def node_specs(
    nodes: list[BusNode],
    credentials: BusCredentials,
    max_file_store: int,
    log_dir: Path,
    environ: Mapping[str, str],
) -> list[ProcessSpec]:
    """Write each server's configuration (mode 0600) and describe its process."""
    return [
        _spec(node, render_config(node, nodes, credentials, max_file_store), log_dir, environ)
        for node in nodes
    ]


def _spec(node: BusNode, config: str, log_dir: Path, environ: Mapping[str, str]) -> ProcessSpec:
    path = make_private_directory(node.directory) / "nats.conf"
    write_private(path, config)
    ports = {"client": node.client_port, "monitor": node.monitor_port}
    return ProcessSpec(
        name=node.name,
        argv=(str(nats_server()), "--config", str(path)),
        env=server_environment(environ),
        # Unlike an open port, /healthz also says that the streams are back and a leader is there.
        ready=http_ok(f"http://{LOOPBACK}:{node.monitor_port}/healthz"),
        log_path=log_dir / f"{node.name}.log",
        start_timeout_s=300.0,  # recovering a large store takes a while
        ports=ports if node.route_port is None else {**ports, "route": node.route_port},
    )


def render_config(
    node: BusNode,
    nodes: list[BusNode],
    credentials: BusCredentials,
    max_file_store: int,
) -> str:
    """Write one server's configuration; `max_file_store` in bytes."""
    sections = [
        _general(node),
        _jetstream(node.directory / "store", max_file_store),
        _accounts(credentials),
    ]
    if node.route_port is not None:
        sections.append(_cluster(node, nodes, credentials.route_password))
    return "\n".join(sections)


def _names(topology: Topology) -> list[str]:
    return ["nats"] if topology is Topology.SINGLE else ["nats", "nats-2", "nats-3"]


def _general(node: BusNode) -> str:
    return f"""\
server_name: "penstock-{node.name}"
listen: "{LOOPBACK}:{node.client_port}"
http: "{LOOPBACK}:{node.monitor_port}"
max_payload: {_MAX_PAYLOAD_BYTES}
"""


def _jetstream(store: Path, max_file_store: int) -> str:
    # Without `sync_interval: always` an acknowledged publish is not on the disk (I1).
    return f"""\
jetstream {{
  store_dir: {_quoted(store)}
  sync_interval: always
  max_memory_store: {_MAX_MEMORY_STORE_BYTES}
  max_file_store: {max_file_store}
}}
"""


def _accounts(credentials: BusCredentials) -> str:
    # Whoever is not in `auth_users` is decided by realtime, which answers the auth callout (I8).
    return f"""\
accounts {{
  {SERVICE_ACCOUNT} {{
    jetstream: enabled
    users: [ {{ user: "{SERVICE_USER}", password: "{credentials.service_password}" }} ]
  }}
  {SYSTEM_ACCOUNT} {{
    users: [ {{ user: "{SYSTEM_USER}", password: "{credentials.system_password}" }} ]
  }}
}}
system_account: {SYSTEM_ACCOUNT}
authorization {{
  auth_callout {{
    issuer: "{credentials.callout_issuer}"
    auth_users: [ "{SERVICE_USER}", "{SYSTEM_USER}" ]
    account: {SERVICE_ACCOUNT}
  }}
}}
"""


def _cluster(node: BusNode, nodes: list[BusNode], password: str) -> str:
    routes = ", ".join(
        f'"nats-route://{_ROUTE_USER}:{password}@{LOOPBACK}:{other.route_port}"'
        for other in nodes
        if other is not node
    )
    return f"""\
cluster {{
  name: "penstock"
  listen: "{LOOPBACK}:{node.route_port}"
  authorization {{ user: "{_ROUTE_USER}", password: "{password}" }}
  routes: [ {routes} ]
}}
"""


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
