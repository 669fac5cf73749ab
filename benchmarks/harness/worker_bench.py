"""A worker process and the bus, and nothing else: what a model costs without edge and router.

The bus is the embedded one, configured as `penstock up` configures it (fsync on every write); the
worker is `python -m penstock_worker`, the entry point of production, with its own settings.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.harness import stack
from benchmarks.harness.processes import cpu_seconds

READY_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 30.0
_SERVERS_ALONE: Final = ""


class WorkerBenchError(Exception):
    """The worker did not start."""


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
        WorkerBenchError: the worker did not.
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
        port = _free_port()
        environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")},
            "PENSTOCK_NATS_URL": servers.bus_url,
            "PENSTOCK_ROOT_KEY_FILE": str(root_key_file),
            "PENSTOCK_MODELS_DIR": str(place / "models"),
            "PENSTOCK_MODEL_STORE": str(place / "store"),
            "PENSTOCK_TUNING_DIR": str(place / "tuning"),
            "PENSTOCK_INSTANCE": "bench",
            "PENSTOCK_OPS_PORT": str(port),
            **(env or {}),
        }
        log_path = place / "worker.log"
        with log_path.open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "penstock_worker"], env=environ, stdout=log, stderr=log
            )
        try:
            _wait_until_ready(worker, f"http://127.0.0.1:{port}/readyz", log_path)
            yield WorkerBench(
                servers.bus_url,
                root_key_file,
                {"worker": worker.pid, "nats": int(servers.ready["pids"]["nats"])},
            )
        finally:
            _stop(worker)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _wait_until_ready(worker: subprocess.Popen[bytes], url: str, log_path: Path) -> None:
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while True:
        if worker.poll() is not None or time.monotonic() > deadline_s:
            msg = f"the worker did not start:\n{log_path.read_text(errors='replace')[-3000:]}"
            raise WorkerBenchError(msg)
        with (
            contextlib.suppress(OSError),  # an answer that is no 200 is one, too
            urllib.request.urlopen(url, timeout=1),  # noqa: S310  our own loopback address
        ):
            return
        time.sleep(0.05)


def _stop(worker: subprocess.Popen[bytes]) -> None:
    worker.send_signal(signal.SIGTERM)
    try:
        worker.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait(5)
