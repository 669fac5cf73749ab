"""A whole stack in a subprocess, with a tenant whose rate limit no benchmark reaches."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

START_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 40.0
SETTLE_TIMEOUT_S: Final = 120.0
ECHO: Final = {"PENSTOCK_ECHO_MODEL": "1"}
_TENANT: Final = "bench"
_OWN_CHECKPOINT: Final = 1
"""Audit's latest checkpoint fact waits for the next batch: a lag of one is none."""
_LAG: Final = re.compile(
    r"^(?:billing_consumer_lag|penstock_audit_lag_events) (\S+)$", re.MULTILINE
)


class StackError(Exception):
    """The stack did not start, or did not do what it was asked."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack that is ready."""

    data_dir: Path
    ready: dict[str, Any]
    start_s: float
    supervisor_pid: int

    @property
    def http_url(self) -> str:
        """The API's base, without a path."""
        return str(self.ready["http"])

    @property
    def pids(self) -> dict[str, int]:
        """Every process of the stack by name, the supervisor included."""
        return {**self.ready["pids"], "supervisor": self.supervisor_pid}

    @property
    def bus_url(self) -> str:
        """The bus with the services' own credentials."""
        run = json.loads((self.data_dir / "run.json").read_text())
        return str(run["addresses"]["nats_url"])

    def secret(self, name: str) -> str:
        """A generated password of the servers."""
        return str(json.loads((self.data_dir / "secrets.json").read_text())[name])

    def operator(self, *arguments: str) -> Any:
        """Run an operator command and return its JSON.

        Raises:
            StackError: it failed.
        """
        command = [sys.executable, "-m", "penstock", *arguments, "--json"]
        command += ["--data-dir", str(self.data_dir)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            msg = f"'penstock {' '.join(arguments)}' failed: {done.stderr.strip()}"
            raise StackError(msg)
        return json.loads(done.stdout)

    def bench_key(self) -> str:
        """An API key of a tenant of its own, without a rate limit to speak of."""
        limit = "1000000000"
        self.operator(
            "tenants", "create", _TENANT, "--name", "Benchmark", "--requests-per-minute", limit
        )
        created = self.operator("keys", "create", _TENANT, "--name", "bench")
        return str(created["secret"])

    def settle(self) -> float:
        """Wait until billing and audit have worked off what was accepted; returns how long.

        Raises:
            StackError: they did not catch up.
        """
        started_s = time.monotonic()
        while any(lag > _OWN_CHECKPOINT for lag in self._lags()):
            if time.monotonic() - started_s > SETTLE_TIMEOUT_S:
                msg = "billing or audit did not catch up"
                raise StackError(msg)
            time.sleep(0.2)
        return time.monotonic() - started_s

    def _lags(self) -> list[float]:
        lags = []
        for name in ("billing", "audit"):
            with urllib.request.urlopen(self.ready["metrics"][name], timeout=10) as answer:  # noqa: S310  our own loopback address
                found = _LAG.findall(answer.read().decode())
            if not found:
                msg = f"{name} does not tell its lag"
                raise StackError(msg)
            lags.append(float(found[0]))
        return lags


@contextlib.contextmanager
def running(
    env: dict[str, str] | None = None, *, workers: int | str = 1, data_dir: Path | None = None
) -> Iterator[Stack]:
    """`penstock up` on a fresh directory (or on a given one, for a warm start); drained at last.

    Raises:
        StackError: it did not become ready.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
        place = Path(scratch)
        ready_file, data = place / "ready.json", data_dir or place / "data"
        command = [sys.executable, "-m", "penstock", "up", "--port", "0"]
        command += ["--data-dir", str(data), "--ready-file", str(ready_file)]
        command += ["--workers", str(workers)]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        log_path = place / "up.log"
        with log_path.open("wb") as log:
            started_s = time.monotonic()
            process = subprocess.Popen(
                command,
                env={**environ, **(env or {})},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                _wait_until_ready(process, ready_file, log_path)
                start_s = time.monotonic() - started_s
                yield Stack(data, json.loads(ready_file.read_text()), start_s, process.pid)
            finally:
                _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], ready_file: Path, log_path: Path) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not ready_file.exists():
        if process.poll() is not None or time.monotonic() > deadline_s:
            msg = f"the stack did not start:\n{log_path.read_text(errors='replace')[-3000:]}"
            raise StackError(msg)
        time.sleep(0.01)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)
