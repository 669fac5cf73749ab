"""What the supervisor is told about a process, and what it tells about it."""

import signal
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

Probe = Callable[[], Awaitable[bool]]
Preparation = Callable[[], Awaitable[None]]


class Identity(Protocol):
    """Whom a process runs as, when not as the supervisor's own user."""

    def assume(self) -> None:
        """Become that user; runs in the forked child before the program is loaded."""


class ProcessState(StrEnum):
    """The states of a supervised process."""

    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    BACKING_OFF = "backing_off"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """One process to keep running."""

    name: str
    argv: tuple[str, ...]
    # The whole environment: nothing is inherited. Values may be secret and are never logged.
    env: Mapping[str, str] = field(repr=False)
    # Answers whether the process can do its work; an OSError counts as "not yet".
    ready: Probe
    # Output of the process is appended here.
    log_path: Path
    cwd: Path | None = None
    # Written to standard input and closed: the way for secrets that argv would show to everyone.
    stdin: bytes | None = field(default=None, repr=False)
    identity: Identity | None = None
    # Names of processes that must have been ready once before this one starts.
    depends_on: tuple[str, ...] = ()
    # Runs before every start, also before a restart (removal of what a crash left behind).
    prepare: Preparation | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    # What the kernel sends when the supervisor itself is killed.
    death_signal: signal.Signals = signal.SIGKILL
    # Higher numbers are stopped first; equal ones together.
    drain_rank: int = 0
    # Time to finish its work after the stop signal, before SIGKILL.
    grace_s: float = 10.0
    # A process that is not ready by then is killed and tried again.
    start_timeout_s: float = 60.0
    ports: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """What is known of one process at one moment."""

    name: str
    state: ProcessState
    pid: int | None
    restarts: int
    ports: Mapping[str, int]
