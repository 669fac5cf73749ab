"""The run file: who still lives, and which stack an operator's command means."""

import asyncio
import os
import subprocess
import sys

import pytest

from penstock.data_dir import DataDir
from penstock.errors import OperatorError
from penstock.log_follower import follow_logs
from penstock.run_file import (
    Addresses,
    ProcessRecord,
    RunFile,
    boot_id,
    is_alive,
    read_run_file,
    started_ticks,
    survivors,
    write_model,
)
from penstock.stack_locator import locate_stack
from penstock.supervision.spawn import rotate_log

ADDRESSES = Addresses(
    http="http://127.0.0.1:1",
    nats="nats://127.0.0.1:2",
    nats_url="nats://penstock:pw@127.0.0.1:2",
    postgres="postgresql://x",
    redis="redis://y",
    admin_key="pad_x",
    audit_dir="/audit",
    metrics={"billing": "http://127.0.0.1:3/metrics"},
)


def entry(pid: int, ticks: int | None) -> ProcessRecord:
    return ProcessRecord(
        name="x", pid=pid, started_ticks=ticks, state="ready", restarts=0, ports={}
    )


def run_file(boot: str, *entries: ProcessRecord) -> RunFile:
    return RunFile(boot_id=boot, supervisor_pid=1, addresses=ADDRESSES, processes=entries)


def test_a_reused_pid_is_not_taken_for_the_old_process():
    """Only the number *and* the start time identify a process."""
    own = started_ticks(os.getpid())
    assert own is not None
    assert is_alive(entry(os.getpid(), own))
    assert not is_alive(entry(os.getpid(), own - 1))


def test_a_zombie_is_dead():
    """A process that ended and was not collected yet counts as gone."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    ticks = started_ticks(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(entry(child.pid, ticks))
    child.wait()


def test_processes_of_another_boot_are_left_alone():
    """After a reboot the same number and tick may belong to a stranger."""
    own = entry(os.getpid(), started_ticks(os.getpid()))
    assert survivors(run_file(boot_id(), own)) == [own]
    assert survivors(run_file("another boot", own)) == []
    assert survivors(None) == []


def test_a_damaged_run_file_counts_as_none(tmp_path):
    """A crash in the middle of anything leaves commands usable."""
    path = tmp_path / "run.json"
    assert read_run_file(path) is None
    path.write_text("{")
    assert read_run_file(path) is None
    write_model(path, run_file("b"))
    assert read_run_file(path) == run_file("b")


def test_operator_commands_find_a_running_stack_by_its_directory(tmp_path):
    """`--data-dir` leads to every address, with the operator's rights."""
    place = DataDir(tmp_path)
    with place.held():
        write_model(place.run_file, run_file(boot_id()))
        found = locate_stack(tmp_path, {"PENSTOCK_NATS_URL": "nats://elsewhere"})
    assert found.nats_url == ADDRESSES.nats_url
    assert found.http_url == ADDRESSES.http
    assert found.admin_key == "pad_x"
    assert "pad_x" not in repr(found)


def test_operator_commands_find_a_production_stack_by_its_variables():
    """Without a directory, the services' own variables lead the way."""
    found = locate_stack(
        None, {"PENSTOCK_NATS_URL": "nats://u:p@bus:4222", "PENSTOCK_POSTGRES_DSN": "dsn"}
    )
    assert (found.nats_url, found.postgres_dsn) == ("nats://u:p@bus:4222", "dsn")
    assert found.public_nats_url == "nats://bus:4222"


def test_no_stack_gets_a_sentence(tmp_path):
    """Commands against nothing say how to start something."""
    with pytest.raises(OperatorError, match="No stack runs") as caught:
        locate_stack(tmp_path, {})
    assert "penstock up" in caught.value.hint


def test_a_large_log_is_set_aside_at_the_start(tmp_path):
    """Logs are bounded; one older one is kept."""
    log = tmp_path / "router.log"
    log.write_text("x" * 100)
    rotate_log(log, bound_bytes=100)
    assert log.exists()
    rotate_log(log, bound_bytes=99)
    assert not log.exists()
    assert (tmp_path / "router.log.1").read_text() == "x" * 100


async def test_verbose_shows_new_whole_lines_only(tmp_path):
    """What was there before is old news, and half a line waits for its end."""
    log = tmp_path / "a.log"
    log.write_text("old\n")
    seen: list[tuple[str, str]] = []
    task = asyncio.create_task(
        follow_logs({"a": log}, lambda name, line: seen.append((name, line)))
    )
    await asyncio.sleep(0)
    with log.open("a") as out:
        out.write("new\nhal")
    await asyncio.sleep(0.5)
    task.cancel()
    assert seen == [("a", "new")]
