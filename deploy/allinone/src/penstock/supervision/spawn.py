"""Start one process in such a way that it never outlives the supervisor."""

import asyncio
import ctypes
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from penstock.supervision.spec import Identity, ProcessSpec

_PR_SET_PDEATHSIG = 1
_LOG_BOUND_BYTES = 10 * 1024 * 1024
# Loaded here and not in the forked child, where loading a library could deadlock.
_LIBC = ctypes.CDLL(None, use_errno=True)


async def spawn(spec: ProcessSpec) -> asyncio.subprocess.Process:
    """Start the process in a session of its own, its output appended to its log.

    Raises:
        OSError: The program cannot be started.
    """
    with spec.log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *spec.argv,
            env=dict(spec.env),
            cwd=spec.cwd,
            stdin=asyncio.subprocess.DEVNULL if spec.stdin is None else asyncio.subprocess.PIPE,
            stdout=log,
            stderr=log,
            # Ctrl-C in a terminal reaches the supervisor only, which then drains in order.
            start_new_session=True,
            # Safe: the supervisor's only other threads sit in waitpid and hold no lock.
            preexec_fn=child_setup(spec.death_signal, spec.identity),
        )
    if spec.stdin is not None and process.stdin is not None:
        with suppress(ConnectionError):
            process.stdin.write(spec.stdin)
            await process.stdin.drain()
        process.stdin.close()
    return process


def child_setup(death_signal: signal.Signals, identity: Identity | None) -> Callable[[], None]:
    """Build what the forked child does before it loads its program."""
    supervisor = os.getpid()

    def setup() -> None:
        if identity is not None:
            identity.assume()
        # After the change of user, which clears it.
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != supervisor:  # it died between fork and prctl
            os._exit(1)

    return setup


def rotate_log(path: Path, bound_bytes: int = _LOG_BOUND_BYTES) -> None:
    """Set a log that has grown past the bound aside; one older one is kept."""
    with suppress(FileNotFoundError):
        if path.stat().st_size > bound_bytes:
            path.replace(path.with_suffix(".log.1"))


def kill_group(pid: int) -> None:
    """Kill a process and what it started in its session."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
