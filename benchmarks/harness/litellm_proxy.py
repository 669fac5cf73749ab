"""The peer: LiteLLM's proxy in an environment of its own, answering from its `mock_response`."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.harness.processes import cpu_seconds

VENV: Final = Path(__file__).parents[2] / ".venv-litellm"
MASTER_KEY: Final = "sk-benchmark-of-this-machine"
MODEL: Final = "mock"
_START_TIMEOUT_S: Final = 180.0
_STOP_TIMEOUT_S: Final = 15.0
_LOOK_EVERY_S: Final = 1.0
_QUIET_LOOKS: Final = 3
_QUIET_SHARE: Final = 0.05
"""Of one processor; an import takes all that it can get."""
_CONFIG: Final = """\
model_list:
  - model_name: {model}
    litellm_params:
      model: openai/mock
      api_key: none
      mock_response: {answer!r}
general_settings:
  master_key: {key}
litellm_settings:
  telemetry: false
"""


class ProxyError(Exception):
    """The proxy could not be installed, or did not start."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that is ready."""

    url: str
    pid: int


def install() -> str:
    """Install it with pip unless it is there; returns its version.

    Raises:
        ProxyError: pip failed.
    """
    python = VENV / "bin" / "python"
    if not (VENV / "bin" / "litellm").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "litellm[proxy]"]
        if subprocess.run(command, check=False).returncode != 0:
            msg = "LiteLLM could not be installed: is the package index within reach?"
            raise ProxyError(msg)
    code = "from importlib.metadata import version; print(version('litellm'))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@contextlib.contextmanager
def running(workers: int, answer: str) -> Iterator[Proxy]:
    """The proxy with `workers` processes and neither database nor logging, as fast as it goes.

    Raises:
        ProxyError: it did not become ready.
    """
    with tempfile.TemporaryDirectory(prefix="litellm-bench-") as scratch:
        config = Path(scratch) / "config.yaml"
        config.write_text(_CONFIG.format(model=MODEL, answer=answer, key=MASTER_KEY))
        port = _free_port()
        command = [str(VENV / "bin" / "litellm"), "--config", str(config)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", str(workers)]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        # No look-ups outside, no debug logs: neither is what is being compared.
        environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        log_path = Path(scratch) / "log"
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                command, env=environ, stdout=log, stderr=log, cwd=scratch, start_new_session=True
            )
            try:
                url = f"http://127.0.0.1:{port}"
                _wait_until_ready(process, url, log_path)
                _wait_until_quiet(process)
                yield Proxy(url, process.pid)
            finally:
                _stop(process)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log_path: Path) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError, urllib.error.URLError):
            urllib.request.urlopen(url + "/health/readiness", timeout=5).close()  # noqa: S310  loopback
            return
        if process.poll() is not None or time.monotonic() > deadline_s:
            msg = f"LiteLLM did not start:\n{log_path.read_text(errors='replace')[-3000:]}"
            raise ProxyError(msg)
        time.sleep(0.2)


def _wait_until_quiet(process: subprocess.Popen[bytes]) -> None:
    """One worker that answers does not say that the others have been imported, which takes seconds.

    Raises:
        ProxyError: its processes never came to rest.
    """
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    quiet_for, spent_s = 0, cpu_seconds({"litellm": process.pid})["litellm"]
    while quiet_for < _QUIET_LOOKS:
        if time.monotonic() > deadline_s:
            msg = "LiteLLM's processes did not come to rest after their start."
            raise ProxyError(msg)
        time.sleep(_LOOK_EVERY_S)
        before_s, spent_s = spent_s, cpu_seconds({"litellm": process.pid})["litellm"]
        busy = (spent_s - before_s) / _LOOK_EVERY_S > _QUIET_SHARE
        quiet_for = 0 if busy else quiet_for + 1


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):  # what its own workers left behind
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(5)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
