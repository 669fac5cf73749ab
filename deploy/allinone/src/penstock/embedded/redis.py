"""The embedded Redis: sessions, outbound queues and rate limits. Losing it costs a reconnect."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from penstock.embedded.binaries import redis_server
from penstock.embedded.environment import server_environment
from penstock.embedded.probes import redis_answers
from penstock.ports import LOOPBACK
from penstock.supervision.spec import ProcessSpec

NAME = "redis"
_MAXMEMORY = "256mb"


@dataclass(frozen=True, slots=True)
class RedisServer:
    """One redis-server on loopback."""

    port: int
    password: str

    @property
    def url(self) -> str:
        """The address with its password."""
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    def spec(self, log_path: Path, environ: Mapping[str, str]) -> ProcessSpec:
        """Describe the process; the configuration goes through standard input, not argv."""
        return ProcessSpec(
            name=NAME,
            argv=(str(redis_server()), "-"),
            env=server_environment(environ),
            stdin=render_config(self.port, self.password).encode(),
            ready=redis_answers(LOOPBACK, self.port, self.password),
            log_path=log_path,
            ports={"client": self.port},
        )


def render_config(port: int, password: str) -> str:
    """Write the configuration: nothing on disk, bounded memory, refusing rather than evicting.

    Evicting would drop a session's queued output silently (I6); a refused write is seen.
    """
    return "\n".join(
        (
            f"bind {LOOPBACK}",
            f"port {port}",
            f"requirepass {password}",
            "daemonize no",
            "appendonly no",
            'save ""',
            f"maxmemory {_MAXMEMORY}",
            "maxmemory-policy noeviction",
            "tcp-backlog 128",
            "",
        )
    )
