"""`penstock up` as a subprocess, with its data in a directory and an end that is certain."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from penstock.run_file import ProcessRecord, is_alive, read_run_file

DEADLINE_S = 80.0


def wait_until(true: Callable[[], Any], what: str, timeout_s: float = DEADLINE_S) -> Any:
    """Wait for a truthy answer and return it; fail by name when it does not come."""
    give_up_at = time.monotonic() + timeout_s
    while not (answer := true()):
        assert time.monotonic() < give_up_at, f"waited {timeout_s} s in vain for: {what}"
        time.sleep(0.02)
    return answer


class RunningStack:
    """One `penstock up`; use as a context manager, nothing outlives it."""

    def __init__(
        self,
        data_dir: Path,
        env: Mapping[str, str],
        *options: str,
        prefix: Sequence[str] = (),
    ) -> None:
        self.data_dir = data_dir
        self.ready_file = data_dir.with_name(f"{data_dir.name}.ready.json")
        self.env = {**os.environ, **env}
        self.error_file = data_dir.with_name(f"{data_dir.name}.stderr")
        command = [*prefix, sys.executable, "-m", "penstock", "up", "--port", "0"]
        command += ["--data-dir", str(data_dir), "--ready-file", str(self.ready_file), *options]
        with self.error_file.open("ab") as errors:
            self.process = subprocess.Popen(
                command, env=self.env, stderr=errors, stdin=subprocess.DEVNULL
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for record in self.records():
            if record.pid is not None and is_alive(record):
                os.kill(record.pid, signal.SIGKILL)

    def ready(self) -> dict[str, Any]:
        """Wait for the ready file and return its contents."""
        wait_until(self._ready_or_ended, "the ready file")
        assert self.ready_file.exists(), f"ended early:\n{self.errors()}"
        contents: dict[str, Any] = json.loads(self.ready_file.read_text())
        return contents

    def errors(self) -> str:
        """Return what the command wrote on standard error."""
        return self.error_file.read_text()

    def records(self) -> tuple[ProcessRecord, ...]:
        """Return the processes in the run file."""
        run = read_run_file(self.data_dir / "run.json")
        return run.processes if run else ()

    def restarted(self, name: str, old_pid: int) -> int:
        """Wait until a process is ready again under another pid, and return that."""

        def look() -> int | None:
            for record in self.records():
                if record.name == name and record.state == "ready" and record.pid != old_pid:
                    return record.pid
            return None

        pid: int = wait_until(look, f"{name} to come back")
        return pid

    def terminate(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.terminate()
        return self.process.wait(DEADLINE_S)

    def kill_everything(self) -> None:
        """`kill -9` of the supervisor and every process, as a power cut would."""
        pids = [record.pid for record in self.records() if record.pid]
        self.process.kill()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    def services_bus(self) -> str:
        """Return the bus's addresses with the services' credentials."""
        run = read_run_file(self.data_dir / "run.json")
        assert run is not None
        return run.addresses.nats_url

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run another `penstock` command against this stack's directory."""
        command = [sys.executable, "-m", "penstock", *arguments, "--data-dir", str(self.data_dir)]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, check=False)

    def _ready_or_ended(self) -> bool:
        return self.ready_file.exists() or self.process.poll() is not None
