"""The life of one supervised process: start, readiness, death, back-off, again."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from penstock.errors import OperatorError
from penstock.supervision.backoff import BackOff
from penstock.supervision.spawn import kill_group, rotate_log, spawn
from penstock.supervision.spec import ProcessSpec, ProcessState, ProcessStatus

_PROBE_EVERY_S = 0.03
_PROBE_TIMEOUT_S = 2.0

Clock = Callable[[], float]


class SupervisedProcess:
    """One process that is started again whenever it ends, until it is stopped."""

    def __init__(
        self,
        spec: ProcessSpec,
        *,
        back_off: BackOff,
        on_change: Callable[[], None],
        clock: Clock = time.monotonic,
    ) -> None:
        """Keep the plan; nothing runs before `run`. `on_change` is called after each transition."""
        self.spec = spec
        self.was_ready = asyncio.Event()
        self.deaths_before_ready = 0
        self.last_error = ""
        self.last_refusal: OperatorError | None = None
        self._back_off = back_off
        self._on_change = on_change
        self._clock = clock
        self._state = ProcessState.WAITING
        self._process: asyncio.subprocess.Process | None = None
        self._restarts = 0
        self._stopping = asyncio.Event()

    @property
    def status(self) -> ProcessStatus:
        """What is known right now."""
        pid = self._process.pid if self._process is not None else None
        return ProcessStatus(self.spec.name, self._state, pid, self._restarts, self.spec.ports)

    async def run(self) -> None:
        """Keep the process running; returns once `stop` was called and the process is gone."""
        rotate_log(self.spec.log_path)
        streak = 0
        try:
            while not self._stopping.is_set():
                ready_for_s = await self._live_once()
                if self._stopping.is_set():
                    break
                streak = self._back_off.next_streak(streak, ready_for_s)
                await self._pause(self._back_off.delay_s(streak))
        finally:
            self._abandon()
            self._enter(ProcessState.STOPPED)

    async def stop(self) -> None:
        """Ask the process to finish, wait for its grace, then kill it and what it started."""
        self._stopping.set()
        process = self._process
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(self.spec.stop_signal)
        try:
            await asyncio.wait_for(process.wait(), self.spec.grace_s)
        except TimeoutError:
            self.last_error = f"did not stop within {self.spec.grace_s:g} s"
        kill_group(process.pid)
        await process.wait()

    def kill(self) -> None:
        """End the process at once, without grace; `run` then returns if it was stopped."""
        if self._process is not None:
            kill_group(self._process.pid)

    async def _live_once(self) -> float:
        """Run the process once; returns for how long it was ready, in seconds."""
        self._enter(ProcessState.STARTING)
        try:
            if self.spec.prepare is not None:
                await self.spec.prepare()
            self._process = await spawn(self.spec)
        except (OSError, OperatorError) as error:
            self.last_error = str(error)
            self.last_refusal = error if isinstance(error, OperatorError) else None
            self._count_death(ready=False)
            return 0.0
        ended = asyncio.ensure_future(self._process.wait())
        ready_at = await self._await_ready(ended)
        code = await ended
        kill_group(self._process.pid)  # whatever it started and left behind
        self._process = None
        self.last_error = f"ended with status {code}"
        self._count_death(ready=ready_at is not None)
        return 0.0 if ready_at is None else self._clock() - ready_at

    async def _await_ready(self, ended: "asyncio.Future[int]") -> float | None:
        """Ask until the process is ready; None when it ended, or had to be killed, before."""
        self._on_change()
        give_up_at = self._clock() + self.spec.start_timeout_s
        while not ended.done():
            if await self._is_ready():
                self.was_ready.set()
                self._enter(ProcessState.READY)
                return self._clock()
            if self._clock() > give_up_at:
                self.kill()
                break
            await asyncio.wait({ended}, timeout=_PROBE_EVERY_S)
        return None

    async def _is_ready(self) -> bool:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                return await self.spec.ready()
        except (OSError, EOFError):  # TimeoutError is an OSError
            return False

    async def _pause(self, delay_s: float) -> None:
        self._restarts += 1
        self._enter(ProcessState.BACKING_OFF)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay_s)

    def _count_death(self, *, ready: bool) -> None:
        if not ready and not self.was_ready.is_set():
            self.deaths_before_ready += 1

    def _enter(self, state: ProcessState) -> None:
        self._state = state
        self._on_change()

    def _abandon(self) -> None:
        """Leave nothing running when the task itself is cancelled."""
        if self._process is not None and self._process.returncode is None:
            kill_group(self._process.pid)
        self._process = None
