"""One stack from start to drain: the composition root of `penstock up`."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from penstock.announced_models import announce_models
from penstock.autoscaler import Autoscaler, job_lags
from penstock.blueprint import Blueprint, draw_up
from penstock.bootstrap import DEMO_TENANT, DemoTenant, ensure_demo_tenant
from penstock.data_dir import DataDir
from penstock.log_follower import follow_logs
from penstock.run_file import (
    ProcessRecord,
    ReadyFile,
    RunFile,
    boot_id,
    is_alive,
    read_run_file,
    record,
    survivors,
    write_model,
)
from penstock.secret_store import save_secrets
from penstock.settings import UpSettings
from penstock.supervision.spawn import kill_group
from penstock.supervision.supervisor import Supervisor

_LOOKS = 500
_LOOK_EVERY_S = 0.01

Announce = Callable[[ReadyFile], None]


@dataclass(frozen=True, slots=True)
class StackOptions:
    """How the caller wants to hear of the stack."""

    ready_file: Path | None
    announce: Announce
    # Takes each new line of the logs (process name, line); None keeps the terminal quiet.
    echo: Callable[[str, str], None] | None = None


async def run_stack(
    settings: UpSettings, environ: Mapping[str, str], options: StackOptions
) -> None:
    """Run a stack until SIGTERM or SIGINT; when this returns nothing of it is left.

    Raises:
        OperatorError: It cannot start; what had started was stopped again.
    """
    data_dir = DataDir(settings.data_dir)
    with data_dir.held():
        _forget(options.ready_file)
        await _end_survivors(read_run_file(data_dir.run_file))
        stack = _Stack(draw_up(settings, data_dir, environ), options)
        await stack.run()


class _Stack:
    """The running state between start and drain."""

    def __init__(self, blueprint: Blueprint, options: StackOptions) -> None:
        self._blueprint = blueprint
        self._options = options
        self._supervisor = Supervisor(blueprint.specs, on_change=self._publish)
        self._demo: DemoTenant | None = None
        self._stop_wanted = asyncio.Event()

    async def run(self) -> None:
        self._heed_signals()
        follower = self._start_following()
        self._supervisor.start()
        try:
            await self._unless_stopped(self._become_ready())
            await self._unless_stopped(self._follow_queue())
            await self._stop_wanted.wait()
        finally:
            await self._supervisor.stop()
            follower.cancel()
            _forget(self._options.ready_file)
            self._blueprint.data_dir.run_file.unlink(missing_ok=True)

    def _heed_signals(self) -> None:
        loop = asyncio.get_running_loop()
        # A shell's background jobs inherit SIGINT ignored; whoever sends it still means us.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup means what it says
            loop.add_signal_handler(signal.SIGHUP, self._on_signal)

    def _on_signal(self) -> None:
        """Drain at the first signal; at the second give nothing more time."""
        if self._stop_wanted.is_set():
            self._supervisor.kill()
        self._stop_wanted.set()

    def _start_following(self) -> "asyncio.Task[None]":
        logs = {spec.name: spec.log_path for spec in self._blueprint.specs}
        echo = self._options.echo
        return asyncio.create_task(follow_logs(logs, echo) if echo else asyncio.sleep(0))

    async def _unless_stopped(self, work: Awaitable[None]) -> None:
        """Wait for the work, or for the wish to stop, whichever comes first."""
        task = asyncio.ensure_future(work)
        stop = asyncio.create_task(self._stop_wanted.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            return
        task.result()

    async def _become_ready(self) -> None:
        await self._supervisor.until_ready()
        await self._announce_models()
        self._demo = await self._provide_demo()
        self._publish()
        self._options.announce(self._ready(self._demo))

    async def _announce_models(self) -> None:
        blueprint = self._blueprint
        if "worker" in blueprint.settings.services:
            await announce_models(
                blueprint.addresses.nats_url,
                blueprint.plan.endpoints.stream_replicas,
                blueprint.plan.models_dir,
                echo=blueprint.settings.echo_model,
            )

    async def _follow_queue(self) -> None:
        """Scale the workers for as long as the stack runs, if their number is not fixed."""
        blueprint = self._blueprint
        settings = blueprint.settings
        if settings.workers.is_elastic and "worker" in settings.services:
            async with job_lags(blueprint.addresses.nats_url) as lags:
                await Autoscaler(
                    self._supervisor, blueprint.worker, lags, settings.workers, settings.scaling
                ).run()

    async def _provide_demo(self) -> DemoTenant:
        blueprint = self._blueprint
        if "billing" not in blueprint.settings.services:
            return DemoTenant(DEMO_TENANT, "")
        known = blueprint.secrets.demo_api_key
        demo = await ensure_demo_tenant(
            blueprint.addresses.nats_url, known.get_secret_value() if known else None
        )
        save_secrets(blueprint.data_dir, blueprint.secrets.with_demo_api_key(demo.api_key))
        return demo

    def _publish(self) -> None:
        """Bring the run file, and the ready file once there is one, up to date.

        A full disk must not end the supervision: the files are then stale, and `ps` checks pids.
        """
        blueprint = self._blueprint
        processes = tuple(record(status) for status in self._supervisor.statuses())
        run = RunFile(
            boot_id=boot_id(),
            supervisor_pid=os.getpid(),
            addresses=blueprint.addresses,
            processes=processes,
        )
        with suppress(OSError):
            write_model(blueprint.data_dir.run_file, run)
            if self._demo is not None and self._options.ready_file is not None:
                write_model(self._options.ready_file, self._ready(self._demo))

    def _ready(self, demo: DemoTenant) -> ReadyFile:
        addresses = self._blueprint.addresses
        running = {status.name: status for status in self._supervisor.statuses()}
        return ReadyFile(
            http=addresses.http,
            nats=addresses.nats,
            postgres=addresses.postgres,
            redis=addresses.redis,
            tenant=demo.tenant,
            api_key=demo.api_key,
            admin_key=addresses.admin_key,
            metrics={name: url for name, url in addresses.metrics.items() if name in running},
            pids={s.name: s.pid for s in running.values() if s.pid is not None},
        )


def _forget(ready_file: Path | None) -> None:
    """Remove a ready file: nobody may take a stack for ready that is not."""
    if ready_file is not None:
        ready_file.unlink(missing_ok=True)


async def _end_survivors(stack: RunFile | None) -> None:
    """Kill what outlived a killed supervisor; two servers must never share one store."""
    left: list[ProcessRecord] = survivors(stack)
    for entry in left:
        if entry.pid is not None:
            kill_group(entry.pid)
    for _ in range(_LOOKS):
        if not any(is_alive(entry) for entry in left):
            return
        await asyncio.sleep(_LOOK_EVERY_S)
