"""One service in a process of its own, by the entry point of production."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

READY_TIMEOUT_S: Final = 90.0
STOP_TIMEOUT_S: Final = 30.0


class ServiceError(Exception):
    """The service did not start."""


@contextlib.contextmanager
def running(
    command: Sequence[str], env: Mapping[str, str], scratch: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m command …` with these `PENSTOCK_*` variables and no others, once it is ready.

    Raises:
        ServiceError: it did not become ready; the message holds the end of its log.
    """
    port = _free_port()
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")},
        "PENSTOCK_INSTANCE": "bench",
        "PENSTOCK_OPS_PORT": str(port),
        **env,
    }
    log_path = scratch / f"{command[0]}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env=environ, stdout=log, stderr=log
        )
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}/readyz", log_path)
        yield process
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log_path: Path) -> None:
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while True:
        if process.poll() is not None or time.monotonic() > deadline_s:
            msg = f"it did not start:\n{log_path.read_text(errors='replace')[-3000:]}"
            raise ServiceError(msg)
        with (
            contextlib.suppress(OSError),  # an answer that is no 200 is one, too
            urllib.request.urlopen(url, timeout=1),  # noqa: S310  our own loopback address
        ):
            return
        time.sleep(0.05)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(5)
