"""ASGI servers in a virtual environment of their own: peers to compare, never dependencies."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final

from benchmarks.harness import asgi_app

VENV: Final = Path(__file__).parents[2] / ".venv-asgi"
_OURS: Final = ("uvicorn", "uvloop", "httptools", "websockets")
"""In the versions that are locked here: what is compared is what is shipped."""
_PEERS: Final = ("wsproto", "granian", "hypercorn")
_START_TIMEOUT_S: Final = 30.0
_STOP_TIMEOUT_S: Final = 15.0
_UVICORN: Final = (
    "-m uvicorn asgi_app:app --host 127.0.0.1 --port {port} --loop uvloop --http httptools "
    "--lifespan off --no-access-log --log-level error --ws-per-message-deflate false --ws "
)
SERVERS: Final = {
    "uvicorn, websockets-sansio": _UVICORN + "websockets-sansio",
    "uvicorn, websockets": _UVICORN + "websockets",
    "uvicorn, wsproto": _UVICORN + "wsproto",
    "granian": "-m granian asgi_app:app --interface asginl --host 127.0.0.1 --port {port} "
    "--loop uvloop --no-access-log --log-level error",
    "hypercorn": "-m hypercorn asgi_app:app --bind 127.0.0.1:{port} --worker-class uvloop "
    "--log-level error",
}


class PeerError(Exception):
    """The servers could not be installed, or one did not start."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that accepts connections."""

    port: int
    process: subprocess.Popen[bytes]


def install() -> dict[str, str]:
    """Install them with pip unless they are there; returns their versions.

    Raises:
        PeerError: pip failed.
    """
    python = VENV / "bin" / "python"
    if not (VENV / "bin" / "hypercorn").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        pinned = [f"{name}=={version(name)}" for name in _OURS]
        command = [str(python), "-m", "pip", "install", "--quiet", *pinned, *_PEERS]
        if subprocess.run(command, check=False).returncode != 0:
            msg = "The ASGI servers could not be installed: is the package index within reach?"
            raise PeerError(msg)
    code = (
        "import importlib.metadata as m, json, sys;"
        "print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    )
    done = subprocess.run(
        [str(python), "-c", code, *_OURS, *_PEERS], capture_output=True, text=True, check=True
    )
    versions: dict[str, str] = json.loads(done.stdout)
    return versions


@contextlib.contextmanager
def running(name: str) -> Iterator[Peer]:
    """One of `SERVERS` with one worker.

    Raises:
        PeerError: it did not accept connections.
    """
    with tempfile.TemporaryDirectory(prefix="asgi-bench-") as scratch, socket.socket() as probe:
        shutil.copy(asgi_app.__file__, scratch)
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
        probe.close()
        command = [str(VENV / "bin" / "python"), *SERVERS[name].format(port=port).split()]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
        process = subprocess.Popen(
            command,
            cwd=scratch,
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # tracebacks of sockets that we cut, from some
            start_new_session=True,
        )
        try:
            _wait_until_listening(process, port)
            yield Peer(port, process)
        finally:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_TIMEOUT_S)
            with contextlib.suppress(ProcessLookupError):  # what its own workers left behind
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)


def _wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    deadline_s = time.monotonic() + _START_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None or time.monotonic() > deadline_s:
            msg = "the server did not start"
            raise PeerError(msg)
        time.sleep(0.05)
