"""A worker process and the bus, and nothing else: what a model costs without edge and router.

The bus is the embedded one, configured as `penstock up` configures it (fsync on every write); the
worker is `python -m penstock_worker`, the entry point of production, with its own settings.
"""

from __future__ import annotations

import base64
import contextlib
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.harness import service, stack
from benchmarks.harness.processes import cpu_seconds

_SERVERS_ALONE: Final = ""


@dataclass(frozen=True, slots=True)
class WorkerBench:
    """A worker that is ready, and what a feeder needs to give it work."""

    bus_url: str
    root_key_file: Path
    pids: dict[str, int]

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds so far of the worker and of the bus."""
        return cpu_seconds(self.pids)


@contextlib.contextmanager
def running(models: Sequence[Path], env: Mapping[str, str] | None = None) -> Iterator[WorkerBench]:
    """A bus, and a worker that has these model directories; both are stopped at last.

    Raises:
        StackError: the bus did not become ready.
        ServiceError: the worker did not.
    """
    with (
        tempfile.TemporaryDirectory(prefix="penstock-bench-worker-") as scratch,
        stack.running({"PENSTOCK_SERVICES": _SERVERS_ALONE}) as servers,
    ):
        place = Path(scratch)
        root_key_file = place / "root.key"
        root_key_file.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
        (place / "models").mkdir()
        for directory in models:
            (place / "models" / directory.name).symlink_to(directory.resolve())
        environ = {
            "PENSTOCK_NATS_URL": servers.bus_url,
            "PENSTOCK_ROOT_KEY_FILE": str(root_key_file),
            "PENSTOCK_MODELS_DIR": str(place / "models"),
            "PENSTOCK_MODEL_STORE": str(place / "store"),
            "PENSTOCK_TUNING_DIR": str(place / "tuning"),
            **(env or {}),
        }
        with service.running(["penstock_worker"], environ, place) as worker:
            yield WorkerBench(
                servers.bus_url,
                root_key_file,
                {"worker": worker.pid, "nats": int(servers.ready["pids"]["nats"])},
            )
