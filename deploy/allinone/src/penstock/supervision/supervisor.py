"""A set of processes, started in order, kept running, and stopped in order."""

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from penstock.errors import OperatorError, StartFailedError
from penstock.supervision.backoff import BackOff
from penstock.supervision.ordering import start_waves, stop_waves
from penstock.supervision.process import Clock, SupervisedProcess
from penstock.supervision.spec import ProcessSpec, ProcessStatus

_DEATHS_TOLERATED_AT_START = 5
_LOOK_EVERY_S = 0.05
_LOG_TAIL_LINES = 12


class Supervisor:
    """Runs processes for as long as it is itself running.

    After `stop` returns no process that it started is left. If it is killed, the kernel ends them.
    """

    def __init__(
        self,
        specs: Iterable[ProcessSpec],
        *,
        back_off: BackOff | None = None,
        on_change: Callable[[], None] = lambda: None,
        clock: Clock = time.monotonic,
    ) -> None:
        """Plan the processes.

        Raises:
            ValueError: Names repeat, or dependencies are unknown or circular.
        """
        specs = list(specs)
        start_waves(specs)
        self._back_off = back_off or BackOff()
        self._on_change = on_change
        self._clock = clock
        self._processes = {spec.name: self._supervise(spec) for spec in specs}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stops: dict[str, asyncio.Task[None]] = {}

    def statuses(self) -> tuple[ProcessStatus, ...]:
        """Report every process, in the order in which they were given."""
        return tuple(process.status for process in self._processes.values())

    def start(self) -> None:
        """Begin to start everything; each process waits for those that it depends on."""
        for name in self._processes:
            self._launch(name)

    def add(self, spec: ProcessSpec) -> None:
        """Start one more process (a further worker).

        Raises:
            ValueError: The name is taken or a dependency is unknown.
        """
        start_waves([*(process.spec for process in self._processes.values()), spec])
        self._processes[spec.name] = self._supervise(spec)
        self._launch(spec.name)

    async def remove(self, name: str) -> None:
        """Drain one process and forget it; nothing may depend on it."""
        await self._stop_one(name)
        self._processes.pop(name, None)
        self._stops.pop(name, None)
        self._on_change()

    async def until_ready(self, timeout_s: float = 120.0) -> None:
        """Wait until every process was ready once.

        Raises:
            StartFailedError: A process died five times before it was ever ready, or the time ran
                out; the error quotes the end of its log.
            OperatorError: Its preparation was refused five times, with that sentence.
        """
        late_at = self._clock() + timeout_s
        while pending := [p for p in self._processes.values() if not p.was_ready.is_set()]:
            late = self._clock() > late_at
            for process in pending:
                if late or process.deaths_before_ready >= _DEATHS_TOLERATED_AT_START:
                    raise _start_failed(process)
            waits = [asyncio.ensure_future(process.was_ready.wait()) for process in pending]
            await asyncio.wait(waits, timeout=_LOOK_EVERY_S)
            for wait in waits:
                wait.cancel()

    async def stop(self) -> None:
        """Stop everything, highest drain rank first; returns when all are gone."""
        for wave in stop_waves(process.spec for process in self._processes.values()):
            await asyncio.gather(*(self._stop_one(name) for name in wave))

    def kill(self) -> None:
        """End every process at once; a `stop` that is under way then returns quickly."""
        for process in self._processes.values():
            process.kill()

    def _supervise(self, spec: ProcessSpec) -> SupervisedProcess:
        return SupervisedProcess(
            spec, back_off=self._back_off, on_change=self._on_change, clock=self._clock
        )

    def _launch(self, name: str) -> None:
        process = self._processes[name]
        needs = [self._processes[need].was_ready for need in process.spec.depends_on]
        self._tasks[name] = asyncio.create_task(_run_after(process, needs), name=name)

    async def _stop_one(self, name: str) -> None:
        """Stop a process, or join the stop that is under way: a second signal would hurry it."""
        if name not in self._stops:
            self._stops[name] = asyncio.create_task(self._stop_now(name), name=f"stop {name}")
        await asyncio.shield(self._stops[name])

    async def _stop_now(self, name: str) -> None:
        process, task = self._processes[name], self._tasks.pop(name, None)
        if task is None:
            return
        await process.stop()
        if process.status.pid is None:  # it waits, prepares or backs off: nothing to drain
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _run_after(process: SupervisedProcess, needs: list[asyncio.Event]) -> None:
    for need in needs:
        await need.wait()
    await process.run()


def _start_failed(process: SupervisedProcess) -> OperatorError:
    if process.last_refusal is not None:
        return process.last_refusal
    log = process.spec.log_path
    reason = process.last_error or "it was never ready"
    words = log_tail(log)
    quoted = f" Its last words:\n{words}" if words else ""
    return StartFailedError(
        f"{process.spec.name} did not start ({reason}).{quoted}", f"The whole log is {log}."
    )


def log_tail(path: Path, lines: int = _LOG_TAIL_LINES) -> str:
    """Return the last lines of a log, indented; empty when there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:])
