"""The three servers' addresses: embedded ones, or the operator's own."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.addresses import without_credentials
from penstock.data_dir import DataDir
from penstock.embedded import nats, postgres, redis
from penstock.embedded.identities import choose_identity
from penstock.embedded.postgres import PostgresServer
from penstock.embedded.redis import RedisServer
from penstock.remembered import Remembered
from penstock.secret_store import Secrets, public_account_key
from penstock.settings import UpSettings
from penstock.supervision.spec import ProcessSpec


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses as services use them (with passwords), and the processes behind them."""

    nats_url: str = field(repr=False)
    # The system account: realtime disconnects revoked keys with it. None where we do not know it.
    nats_sys_url: str | None = field(repr=False)
    postgres_dsn: str = field(repr=False)
    redis_url: str = field(repr=False)
    auth_callout_seed: str | None = field(repr=False)
    stream_replicas: int
    specs: tuple[ProcessSpec, ...]

    @property
    def public_nats_url(self) -> str:
        """The bus for clients, who bring their own credentials."""
        return ",".join(without_credentials(url) for url in self.nats_url.split(","))


def server_port_names(settings: UpSettings) -> list[str]:
    """Name the ports that the embedded servers need."""
    names = [] if settings.nats_url else nats.port_names(settings.topology)
    names += [] if settings.postgres_dsn else [postgres.NAME]
    return names + ([] if settings.redis_url else [redis.NAME])


def plan_endpoints(
    settings: UpSettings,
    data_dir: DataDir,
    secrets: Secrets,
    state: Remembered,
    environ: Mapping[str, str],
) -> Endpoints:
    """Decide for each server whether it is embedded, and describe its processes if so."""
    nats_url, nats_sys_url, nats_specs = _nats(settings, data_dir, secrets, state, environ)
    dsn, postgres_specs = _postgres(settings, data_dir, secrets, state, environ)
    redis_url, redis_specs = _redis(settings, data_dir, secrets, state, environ)
    own_seed = secrets.auth_callout_seed if settings.nats_url is None else None
    seed = settings.auth_callout_seed if settings.nats_url is not None else own_seed
    replicas = settings.topology.replicas if settings.nats_url is None else 1
    return Endpoints(
        nats_url=nats_url,
        nats_sys_url=nats_sys_url,
        postgres_dsn=dsn,
        redis_url=redis_url,
        auth_callout_seed=seed.get_secret_value() if seed else None,
        stream_replicas=settings.stream_replicas or replicas,
        specs=(*nats_specs, *postgres_specs, *redis_specs),
    )


def _nats(
    settings: UpSettings,
    data_dir: DataDir,
    secrets: Secrets,
    state: Remembered,
    environ: Mapping[str, str],
) -> tuple[str, str | None, list[ProcessSpec]]:
    if settings.nats_url is not None:
        system = settings.nats_sys_url
        return (
            settings.nats_url.get_secret_value(),
            system.get_secret_value() if system else None,
            [],
        )
    password = secrets.nats_password.get_secret_value()
    credentials = nats.BusCredentials(
        service_password=password,
        system_password=secrets.nats_system_password.get_secret_value(),
        route_password=secrets.nats_route_password.get_secret_value(),
        callout_issuer=public_account_key(secrets.auth_callout_seed.get_secret_value()),
    )
    nodes = nats.plan_nodes(settings.topology, state.ports, data_dir.nats)
    log_dir = data_dir.log("nats").parent
    specs = nats.node_specs(nodes, credentials, state.max_file_store, log_dir, environ)
    system_url = nats.client_urls(nodes, credentials.system_password, nats.SYSTEM_USER)
    return nats.client_urls(nodes, password), system_url, specs


def _postgres(
    settings: UpSettings,
    data_dir: DataDir,
    secrets: Secrets,
    state: Remembered,
    environ: Mapping[str, str],
) -> tuple[str, list[ProcessSpec]]:
    if settings.postgres_dsn is not None:
        return settings.postgres_dsn.get_secret_value(), []
    server = PostgresServer(
        directory=data_dir.postgres,
        port=state.ports[postgres.NAME],
        superuser_password=secrets.postgres_superuser_password.get_secret_value(),
        password=secrets.postgres_password.get_secret_value(),
        identity=choose_identity(),
    )
    return server.dsn, [server.spec(data_dir.log(postgres.NAME), environ)]


def _redis(
    settings: UpSettings,
    data_dir: DataDir,
    secrets: Secrets,
    state: Remembered,
    environ: Mapping[str, str],
) -> tuple[str, list[ProcessSpec]]:
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value(), []
    server = RedisServer(state.ports[redis.NAME], secrets.redis_password.get_secret_value())
    return server.url, [server.spec(data_dir.log(redis.NAME), environ)]
