"""A real stack in a subprocess: `penstock up` with a data directory and ports of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, Self

START_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 30.0


@dataclass
class Stack:
    """One `penstock up`. `services` empty starts the three servers alone."""

    data_dir: Path
    services: str | None = None
    env: dict[str, str] = field(default_factory=dict)
    workers: int | str = 1
    """What `--workers` says."""
    process: subprocess.Popen[bytes] | None = None
    _log: IO[bytes] | None = None

    @property
    def ready_file(self) -> Path:
        return self.data_dir.with_name(self.data_dir.name + "-ready.json")

    @property
    def ready(self) -> dict[str, Any]:
        """The ready file as it is now; its pids follow restarts."""
        loaded: dict[str, Any] = json.loads(self.ready_file.read_text())
        return loaded

    @property
    def addresses(self) -> dict[str, Any]:
        """The run file's addresses, passwords included."""
        run = json.loads((self.data_dir / "run.json").read_text())
        addresses: dict[str, Any] = run["addresses"]
        return addresses

    @property
    def secrets(self) -> dict[str, str]:
        loaded: dict[str, str] = json.loads((self.data_dir / "secrets.json").read_text())
        return loaded

    @property
    def superuser_dsn(self) -> str:
        place = self.addresses["postgres"].rpartition("@")[2].partition("/")[0]
        return (
            f"postgresql://postgres:{self.secrets['postgres_superuser_password']}@{place}/postgres"
        )

    def start(self) -> Self:
        """Start it and wait until it is ready; a stack that does not start fails the test."""
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        environ.update(self.env)
        if self.services is not None:
            environ["PENSTOCK_SERVICES"] = self.services
        self._log = self.data_dir.with_name(self.data_dir.name + "-up.log").open("wb")
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "penstock",
                "up",
                "--port",
                "0",
                "--data-dir",
                str(self.data_dir),
                "--ready-file",
                str(self.ready_file),
                "--workers",
                str(self.workers),
            ],
            env=environ,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self.ready_file.exists():
            if self.process.poll() is not None or time.monotonic() > deadline_s:
                self.stop()
                raise AssertionError(f"the stack did not start:\n{self.log_text()}")
            time.sleep(0.02)
        return self

    def log_text(self) -> str:
        path = self.data_dir.with_name(self.data_dir.name + "-up.log")
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def service_log(self, name: str) -> str:
        path = self.data_dir / "log" / f"{name}.log"
        return path.read_text(errors="replace")[-8000:] if path.exists() else ""

    def kill(self, name: str) -> int:
        """`kill -9` one of its processes; returns the pid that died."""
        pid = int(self.ready["pids"][name])
        os.kill(pid, signal.SIGKILL)
        return pid

    def stop(self) -> int:
        """Drain it; returns the exit status."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(5)
        if self._log is not None:
            self._log.close()
        return int(self.process.returncode)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
