"""`penstock up` and `penstock ps` as an operator meets them."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys

import nats
import pytest
from tests.integration.allinone.running_stack import wait_until

from penstock.embedded.leftovers import processes_in
from penstock.run_file import is_alive
from penstock_shared.contracts.streams import JOBS
from penstock_shared.contracts.subjects import EVERY_JOB, Lane, job

ALL = "billing,audit,router,worker,realtime"


def test_the_whole_stack_starts_bootstraps_and_drains(start_stack, dummies, diary):
    """Billing first, then the rest, the demo tenant, the ready file; SIGTERM ends with status 0."""
    stack = start_stack("data", "--workers", "2", services=ALL, env=dummies)
    ready = stack.ready()
    assert (ready["tenant"], ready["api_key"]) == ("demo", "psk_dummy")
    services = {"billing", "audit", "router", "worker-1", "worker-2", "realtime"}
    assert ready["pids"].keys() == services | {"nats", "postgres", "redis"}
    assert ready["metrics"].keys() == services
    assert stat.S_IMODE(stack.ready_file.stat().st_mode) == 0o600
    assert stack.terminate() == 0
    started = [line.split()[0] for line in diary.read_text().splitlines() if "started" in line]
    drained = [line.split()[0] for line in diary.read_text().splitlines() if "drained" in line]
    assert started[0] == "billing"
    assert drained[0] == "realtime"
    assert drained[1] == "router"
    assert set(drained[2:4]) == {"worker-1", "worker-2"}
    assert drained[4:] == ["audit", "billing"]
    assert not stack.ready_file.exists()


def test_the_demo_key_is_kept_across_restarts(start_stack, dummies):
    """A second start on the same directory shows the same key and the same addresses."""
    first = start_stack(services="billing", env=dummies)
    before = first.ready()
    assert first.terminate() == 0
    after = start_stack(services="billing", env=dummies).ready()
    assert {k: before[k] for k in ("api_key", "http", "nats", "postgres", "redis")} == {
        k: after[k] for k in ("api_key", "http", "nats", "postgres", "redis")
    }


async def test_workers_come_with_the_queue_and_go_with_it(start_stack, dummies, diary):
    """`--workers auto` is ready with no worker; jobs bring two, and when all is done none stays."""
    quick = {"PENSTOCK_SCALE_COOLDOWN_S": "2", "PENSTOCK_SCALE_DOWN_WINDOW_S": "1"}
    options = ("data", "--workers", "auto:2")
    stack = start_stack(*options, services="worker", env={**dummies, **quick})
    assert not workers(stack)
    bus = await nats.connect(stack.services_bus())
    jetstream = bus.jetstream()
    await jetstream.add_consumer(JOBS, durable_name="small-standard", filter_subject=EVERY_JOB)
    for _ in range(40):
        await jetstream.publish(job("acme", "small", Lane.STANDARD), b"{}")
    wait_until(lambda: workers(stack) == {"worker-1", "worker-2"}, "two workers")
    wait_until(lambda: "worker-2" in stack.ready()["metrics"], "the second one's metrics")
    wait_until(lambda: diary.read_text().count("started") == 2, "both to serve")
    pull = await jetstream.pull_subscribe_bind("small-standard", JOBS)
    for message in await pull.fetch(40):
        await message.ack_sync()
    wait_until(lambda: not workers(stack), "all workers to go")
    assert sorted(diary.read_text().split("\n")[-3:-1]) == ["worker-1 drained", "worker-2 drained"]
    await bus.close()


def workers(stack) -> set[str]:
    """The workers that the ready file names."""
    return {name for name in stack.ready()["pids"] if name.startswith("worker-")}


async def test_a_stop_waits_for_a_worker_that_already_drains(start_stack, dummies, diary):
    """A stack that stops while a worker drains leaves no process behind, and signals none twice."""
    quick = {"PENSTOCK_SCALE_COOLDOWN_S": "0", "DUMMY_SLOW": "worker-1"}
    stack = start_stack("data", "--workers", "auto:2", services="worker", env={**dummies, **quick})
    stack.ready()
    bus = await nats.connect(stack.services_bus())
    jetstream = bus.jetstream()
    await jetstream.add_consumer(JOBS, durable_name="small-standard", filter_subject=EVERY_JOB)
    await jetstream.publish(job("acme", "small", Lane.STANDARD), b"{}")
    wait_until(lambda: "worker-1 started" in diary.read_text(), "a worker")
    await jetstream.purge_stream(JOBS)
    wait_until(lambda: "worker-1 draining" in diary.read_text(), "it to drain")
    await bus.close()
    assert stack.terminate() == 0
    assert diary.read_text().splitlines()[-2:] == ["worker-1 draining", "worker-1 drained"]


def test_a_killed_service_comes_back(start_stack, dummies):
    """The supervisor restarts services as it does servers."""
    stack = start_stack(services="billing,router", env=dummies)
    old = stack.ready()["pids"]["router"]
    os.kill(old, signal.SIGKILL)
    assert stack.restarted("router", old) != old


@pytest.mark.parametrize("prefix", [(), ("env", "--ignore-signal=INT")], ids=["plain", "ignored"])
def test_ctrl_c_drains_too(start_stack, prefix):
    """SIGINT is as clean as SIGTERM, also in a background job, which inherits it ignored."""
    stack = start_stack(prefix=prefix)
    stack.ready()
    stack.process.send_signal(signal.SIGINT)
    assert stack.process.wait(30) == 0


def test_a_stop_during_the_start_is_clean(start_stack, tmp_path):
    """Whoever changes their mind at once leaves nothing behind."""
    stack = start_stack()
    wait_until(lambda: any(record.pid for record in stack.records()), "a first process")
    records = stack.records()
    assert stack.terminate() == 0
    assert not [record for record in records if is_alive(record)]
    assert processes_in(tmp_path / "data" / "postgres" / "data") == []


def test_nothing_outlives_a_killed_supervisor(start_stack, dummies, tmp_path):
    """SIGKILL of `penstock up` takes servers, backends and services along."""
    stack = start_stack(services="billing,audit", env=dummies)
    stack.ready()
    records = stack.records()
    stack.process.kill()
    wait_until(lambda: not [record for record in records if is_alive(record)], "their end", 10)
    cluster = tmp_path / "data" / "postgres" / "data"
    wait_until(lambda: processes_in(cluster) == [], "the backends' end", 10)


def test_a_directory_left_by_kill_9_of_everything_starts_again(start_stack, tmp_path):
    """A power cut, with an emptied postmaster.pid on top, costs a restart and no more."""
    stack = start_stack()
    before = stack.ready()
    stack.kill_everything()
    (tmp_path / "data" / "postgres" / "data" / "postmaster.pid").write_text("")
    after = start_stack().ready()
    assert after["postgres"] == before["postgres"]


def test_two_stacks_run_side_by_side(start_stack):
    """Two directories share no port and no process."""
    one, two = start_stack("one"), start_stack("two")
    first, second = one.ready(), two.ready()
    assert not set(first["pids"].values()) & set(second["pids"].values())
    for name in ("http", "nats", "postgres", "redis"):
        assert first[name] != second[name]


def test_a_second_stack_on_the_same_directory_is_refused(start_stack):
    """The sentence says who is there and what to do; the first stack is unharmed."""
    stack = start_stack()
    stack.ready()
    second = stack.run("up", "--port", "0")
    assert second.returncode == 1
    assert "already runs" in second.stderr
    assert "--data-dir" in second.stderr
    assert stack.run("ps").returncode == 0


def test_a_taken_port_is_refused_with_a_sentence(start_stack, dummies):
    """No stack trace; the way out is named."""
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        port = str(foreign.getsockname()[1])
        stack = start_stack("data", "--port", port, services=ALL, env=dummies)
        assert stack.process.wait(30) == 1
    assert f"Port {port}" in stack.errors()
    assert "--port 0" in stack.errors()
    assert "Traceback" not in stack.errors()


def test_a_service_that_cannot_start_ends_the_start(start_stack, dummies):
    """The failing service's last words are shown, everything else is stopped, status 1."""
    stack = start_stack(services="billing,router", env={**dummies, "DUMMY_BROKEN": "router"})
    assert stack.process.wait(40) == 1
    assert "router cannot start, and says so" in stack.errors()
    assert "Traceback" not in stack.errors()
    assert not [record for record in stack.records() if is_alive(record)]


def test_ps_lists_the_processes(start_stack):
    """Names, pids, states, restarts and ports, for people and for programs."""
    stack = start_stack()
    ready = stack.ready()
    listed = json.loads(stack.run("ps", "--json").stdout)
    rows = {row["name"]: row for row in listed["processes"]}
    assert {name: row["pid"] for name, row in rows.items()} == ready["pids"]
    assert {row["state"] for row in rows.values()} == {"ready"}
    assert f":{rows['nats']['ports']['client']}" in ready["nats"]
    table = stack.run("ps").stdout
    assert all(name in table for name in rows)
    assert "\x1b[" not in table


def test_ps_without_a_stack_fails_with_a_sentence(tmp_path):
    """Status 1 and the command that would help."""
    command = [sys.executable, "-m", "penstock", "ps", "--data-dir", str(tmp_path)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "No stack runs" in answer.stderr
    assert "penstock up" in answer.stderr


def test_people_get_three_lines_to_copy(tmp_path, dummies):
    """Without a ready file the terminal shows addresses, the key, curl, Python and NATS."""
    command = [sys.executable, "-m", "penstock", "up", "--port", "0", "--data-dir"]
    env = {**os.environ, **dummies, "PENSTOCK_SERVICES": "billing"}
    with subprocess.Popen(
        [*command, str(tmp_path / "data")], env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        lines: list[str] = []
        assert process.stdout is not None
        while not lines or not lines[-1].strip().startswith("nats --server"):
            lines.append(process.stdout.readline())
            assert lines[-1], "".join(lines)
        process.terminate()
    shown = "".join(lines)
    assert process.returncode == 0
    assert "curl http://127.0.0.1:" in shown
    assert "openai.OpenAI(" in shown
    assert "psk_dummy" in shown
    assert "\x1b[" not in shown
