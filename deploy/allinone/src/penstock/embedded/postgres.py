"""The embedded PostgreSQL: ledger, accounts, indexes."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.embedded.binaries import postgres_install
from penstock.embedded.environment import server_environment
from penstock.embedded.leftovers import remove_leftovers
from penstock.embedded.postgres_cluster import ClusterPlan, create_cluster
from penstock.embedded.postgres_home import settle
from penstock.embedded.postgres_roles import DATABASE, ROLE, RoleProbe
from penstock.ports import LOOPBACK
from penstock.supervision.spec import Identity, ProcessSpec

NAME = "postgres"
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    # No socket: its path may have 107 bytes, and a data directory's may be longer.
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    "io_method": "sync",
    "max_connections": "50",
    "fsync": "on",
    "synchronous_commit": "on",
    "password_encryption": "scram-sha-256",
    "max_wal_size": "512MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "cluster_name": "penstock",
}


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """One PostgreSQL on loopback, with its cluster below `directory`."""

    directory: Path
    port: int
    superuser_password: str
    password: str
    identity: Identity | None

    @property
    def dsn(self) -> str:
        """The services' address with its password: the owner of the database, no superuser."""
        return f"postgresql://{ROLE}:{self.password}@{LOOPBACK}:{self.port}/{DATABASE}"

    def spec(self, log_path: Path, environ: Mapping[str, str]) -> ProcessSpec:
        """Describe the process; the cluster is created before its first start."""
        env = server_environment(environ)
        home = settle(self.directory, postgres_install(), self.identity)
        plan = ClusterPlan(
            install=home.install,
            directory=home.directory,
            superuser_password=self.superuser_password,
            identity=self.identity,
            env=env,
        )

        async def prepare() -> None:
            await remove_leftovers(plan.data, self.identity)
            await create_cluster(plan)

        return ProcessSpec(
            name=NAME,
            argv=_argv(plan, self.port),
            env=env,
            # A directory that every identity may enter: the operator's own may be closed to it.
            cwd=Path("/"),
            identity=self.identity,
            prepare=prepare,
            ready=RoleProbe(self.port, self.superuser_password, self.password),
            log_path=log_path,
            stop_signal=signal.SIGINT,  # fast shutdown: roll back, checkpoint, leave
            death_signal=signal.SIGQUIT,  # the postmaster takes its backends along
            grace_s=15.0,
            start_timeout_s=300.0,  # replaying the log after a crash takes a while
            ports={"client": self.port},
        )


def _argv(plan: ClusterPlan, port: int) -> tuple[str, ...]:
    options = [f"{name}={value}" for name, value in {**_SETTINGS, "port": str(port)}.items()]
    switches = [part for option in options for part in ("-c", option)]
    return (str(plan.install / "bin" / "postgres"), "-D", str(plan.data), *switches)
