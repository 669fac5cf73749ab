"""The supervisor with small real processes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.allinone.running_stack import wait_until

from penstock.errors import StartFailedError
from penstock.run_file import started_ticks
from penstock.supervision.backoff import BackOff
from penstock.supervision.spec import ProcessSpec, ProcessState, ProcessStatus
from penstock.supervision.supervisor import Supervisor

SLEEPER = ("import time", "time.sleep(600)")
STUBBORN = (
    "import signal, time",
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "open('armed', 'w').close()",
    "time.sleep(600)",
)


async def at_once() -> bool:
    return True


async def never() -> bool:
    return False


def arguments_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


@pytest.fixture
def describe(tmp_path):
    def build(name, *program, **options):
        options.setdefault("ready", at_once)
        return ProcessSpec(
            name=name,
            argv=(sys.executable, "-S", "-c", "\n".join(program or SLEEPER)),
            env=dict(os.environ),
            cwd=tmp_path,
            log_path=tmp_path / f"{name}.log",
            **options,
        )

    return build


@pytest.fixture
async def supervise():
    running: list[Supervisor] = []

    def start(*specs, **options):
        supervisor = Supervisor(specs, **options)
        running.append(supervisor)
        supervisor.start()
        return supervisor

    yield start
    for supervisor in running:
        supervisor.kill()
        await supervisor.stop()


def pid_of(supervisor: Supervisor, name: str) -> int:
    pid = by_name(supervisor)[name].pid
    assert pid is not None
    return pid


def by_name(supervisor: Supervisor) -> dict[str, ProcessStatus]:
    return {status.name: status for status in supervisor.statuses()}


async def until(true: Callable[[], object], _what: str) -> None:
    async with asyncio.timeout(20):
        while True:
            if true():
                return
            await asyncio.sleep(0.01)


async def test_a_killed_process_comes_back(describe, supervise):
    """What dies is started again, and the restart is counted."""
    supervisor = supervise(describe("a"))
    await supervisor.until_ready()
    old = pid_of(supervisor, "a")
    os.kill(old, signal.SIGKILL)
    await until(lambda: by_name(supervisor)["a"].pid not in {None, old}, "a new process")
    await until(lambda: by_name(supervisor)["a"].state is ProcessState.READY, "ready again")
    assert by_name(supervisor)["a"].restarts == 1


async def test_a_process_waits_until_its_dependency_is_ready(describe, supervise):
    """Being started is not enough: the dependency must have answered."""
    gate = asyncio.Event()

    async def when_open() -> bool:
        return gate.is_set()

    supervisor = supervise(describe("b", depends_on=("a",)), describe("a", ready=when_open))
    await until(lambda: by_name(supervisor)["a"].pid is not None, "a to run")
    await asyncio.sleep(0.1)
    assert by_name(supervisor)["b"].state is ProcessState.WAITING
    gate.set()
    await supervisor.until_ready()
    assert by_name(supervisor)["b"].state is ProcessState.READY


async def test_a_process_that_cannot_start_is_reported_with_its_last_words(describe, supervise):
    """Five deaths before the first readiness end the start, and the log is quoted."""
    supervisor = supervise(
        describe("bad", "import sys", "sys.exit('no such model')", ready=never),
        back_off=BackOff(first_s=0.01, longest_s=0.02),
    )
    with pytest.raises(StartFailedError) as caught:
        await supervisor.until_ready()
    assert "no such model" in caught.value.message
    assert "bad.log" in caught.value.hint


async def test_a_program_that_is_missing_is_reported(supervise, tmp_path):
    """A missing program is a failed start like any other, with the system's words."""
    spec = ProcessSpec(
        name="ghost",
        argv=("/nonexistent/program",),
        env={},
        ready=at_once,
        log_path=tmp_path / "ghost.log",
    )
    with pytest.raises(StartFailedError, match="No such file"):
        await supervise(spec, back_off=BackOff(first_s=0.01, longest_s=0.01)).until_ready()


async def test_one_that_never_gets_ready_is_killed_and_tried_again(describe, supervise):
    """A hung start does not hang the stack."""
    supervisor = supervise(describe("hung", ready=never, start_timeout_s=0.2))
    await until(lambda: by_name(supervisor)["hung"].restarts >= 1, "a second try")


async def test_stopping_one_that_ignores_the_signal_ends_with_a_kill(describe, supervise, tmp_path):
    """The grace is bounded; afterwards nothing is left."""
    supervisor = supervise(describe("stubborn", *STUBBORN, grace_s=0.2))
    await supervisor.until_ready()
    await until((tmp_path / "armed").exists, "the signal handler")
    pid = pid_of(supervisor, "stubborn")
    await supervisor.stop()
    assert started_ticks(pid) is None
    assert by_name(supervisor)["stubborn"].state is ProcessState.STOPPED


async def test_stopping_takes_grandchildren_along(describe, supervise, tmp_path):
    """What a process started and left behind goes with it."""
    program = (
        "import subprocess, time",
        "child = subprocess.Popen(['sleep', '600'])",
        "open('pid.tmp', 'w').write(str(child.pid))",
        "import os; os.rename('pid.tmp', 'pid')",
        "time.sleep(600)",
    )
    supervisor = supervise(describe("parent", *program))
    await until((tmp_path / "pid").exists, "the grandchild")
    await supervisor.stop()
    await until(lambda: started_ticks(int((tmp_path / "pid").read_text())) is None, "its end")


async def test_stop_goes_by_drain_rank(describe, supervise, tmp_path):
    """The front is gone before anything behind it is asked to stop."""

    def noting(name: str) -> tuple[str, ...]:
        return (
            "import signal, sys, time",
            "def leave(*_):",
            "    time.sleep(0.1)",
            f"    open('order', 'a').write('{name} ')",
            "    sys.exit(0)",
            "signal.signal(signal.SIGTERM, leave)",
            f"open('{name}.armed', 'w').close()",
            "time.sleep(600)",
        )

    ranks = {"server": 0, "front": 50, "middle": 20}
    supervisor = supervise(*(describe(n, *noting(n), drain_rank=r) for n, r in ranks.items()))
    await supervisor.until_ready()
    for name in ranks:
        await until((tmp_path / f"{name}.armed").exists, name)
    await supervisor.stop()
    assert (tmp_path / "order").read_text().split() == ["front", "middle", "server"]


async def test_stop_while_starting_backing_off_or_waiting_is_quick(describe, supervise):
    """No state keeps a drain waiting."""
    supervisor = supervise(
        describe("starting", ready=never),
        describe("waiting", depends_on=("starting",)),
        describe("dying", "raise SystemExit(1)"),
        back_off=BackOff(first_s=60, longest_s=60),
    )
    await until(lambda: by_name(supervisor)["dying"].state is ProcessState.BACKING_OFF, "a death")
    begun = time.monotonic()
    await supervisor.stop()
    assert time.monotonic() - begun < 5
    assert all(status.pid is None for status in supervisor.statuses())


async def test_workers_can_be_added_and_removed_while_running(describe, supervise):
    """Scaling changes one process and leaves the others alone."""
    supervisor = supervise(describe("worker-1"))
    await supervisor.until_ready()
    first = pid_of(supervisor, "worker-1")
    supervisor.add(describe("worker-2", depends_on=("worker-1",)))
    await supervisor.until_ready()
    second = pid_of(supervisor, "worker-2")
    await supervisor.remove("worker-2")
    assert by_name(supervisor).keys() == {"worker-1"}
    assert by_name(supervisor)["worker-1"].pid == first
    assert started_ticks(second) is None


async def test_standard_input_carries_what_argv_must_not(describe, supervise, tmp_path):
    """I8: a secret on standard input reaches the process and not the process list."""
    program = ("import sys, time", "open('got', 'w').write(sys.stdin.read())", "time.sleep(600)")
    supervisor = supervise(describe("reader", *program, stdin=b"secret"))
    await until(lambda: (tmp_path / "got").exists() and (tmp_path / "got").read_text(), "the text")
    pid = pid_of(supervisor, "reader")
    arguments = arguments_of(pid)
    assert (tmp_path / "got").read_text() == "secret"
    assert "secret" not in arguments


def test_nothing_outlives_a_killed_supervisor(tmp_path):
    """SIGKILL of the supervisor ends its children through the parent-death signal."""
    script = tmp_path / "supervisor.py"
    script.write_text(
        "import asyncio, os, sys\n"
        "from pathlib import Path\n"
        "from penstock.supervision.spec import ProcessSpec\n"
        "from penstock.supervision.supervisor import Supervisor\n"
        "async def yes(): return True\n"
        "async def main():\n"
        "    spec = ProcessSpec(name='s', argv=('sleep', '600'), env=dict(os.environ), ready=yes,\n"
        "                       log_path=Path(sys.argv[1]))\n"
        "    supervisor = Supervisor([spec])\n"
        "    supervisor.start()\n"
        "    await supervisor.until_ready()\n"
        "    print(supervisor.statuses()[0].pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(
        [sys.executable, script, tmp_path / "log"], stdout=subprocess.PIPE, text=True
    ) as supervisor:
        assert supervisor.stdout is not None
        child = int(supervisor.stdout.readline())
        assert started_ticks(child) is not None
        supervisor.kill()
    wait_until(lambda: started_ticks(child) is None, "the child to end", 5)
