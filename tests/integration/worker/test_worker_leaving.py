"""Workers that go: drained, stopped in mid-run, killed; and a server that restarts."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.support.stack import Stack
from tests.support.worker_rig import WorkerRig, until

from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.streams import RESPONSES
from penstock_shared.runtime.broker import Broker
from penstock_shared.runtime.provision import provision

_TEXT = " ".join(f"w{n}" for n in range(60))


async def test_a_drain_finishes_what_runs_and_hands_back_what_waits(rig: WorkerRig):
    """Nothing is lost, and what waited is with the next worker long before any ack wait ends."""
    leaving = await rig.start_worker(echo_tokens_per_s=15)
    running = [await rig.submit(_TEXT) for _ in range(4)]
    for _, client in running:  # one by one: each takes a slot of its own
        await client.first_delta.wait()
    waiting = [await rig.submit("hello world") for _ in range(40)]

    async def all_held() -> bool:
        return await rig.lag() == (0, 44)

    await until(all_held)
    draining = asyncio.create_task(leaving.drain())
    await asyncio.sleep(0.05)
    await rig.start_worker()
    for _, client in waiting:
        assert (await client.final(20)).status is Status.COMPLETED
    assert not draining.done()  # what runs is still running
    await draining
    for _, client in running:
        assert (await client.final()).run == client.deltas[0].run
    await rig.settled()
    for job, _ in [*running, *waiting]:
        assert await rig.facts(job) == 2


async def test_at_the_end_of_the_grace_what_runs_is_handed_back(rig: WorkerRig):
    """It is not cancelled and not billed: its next holder runs it anew, under a new run."""
    leaving = await rig.start_worker(echo_tokens_per_s=5)
    job, client = await rig.submit(_TEXT)
    await client.first_delta.wait()
    await leaving.stop()
    rig.workers.remove(leaving)
    await rig.start_worker()
    final = await client.final(5)
    assert (final.status, final.text) == (Status.COMPLETED, _TEXT)
    assert client.deltas[0].run != final.run
    assert await rig.facts(job) == 2


async def test_kill_9_in_mid_batch_loses_nothing(rig: WorkerRig, tmp_path: Path):
    """The jobs of a killed worker come back after the ack wait and end once each (I2)."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")}
    environ |= {
        "PENSTOCK_NATS_URL": rig.nats_url,
        "PENSTOCK_ROOT_KEY_FILE": str(rig.root_key_file),
        "PENSTOCK_ECHO_MODEL": "1",
        "PENSTOCK_ECHO_TOKENS_PER_S": "10",
    }
    with (tmp_path / "worker.log").open("wb") as output:
        doomed = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "penstock_worker", env=environ, stderr=output
        )
    made = [await rig.submit(_TEXT) for _ in range(4)]  # one per slot: all of them stream
    for _, client in made:
        await asyncio.wait_for(client.first_delta.wait(), 60)
    doomed.send_signal(signal.SIGKILL)
    await doomed.wait()
    await rig.start_worker()
    for job, client in made:
        final = await client.final(30)
        assert (final.status, final.text) == (Status.COMPLETED, _TEXT)
        assert client.deltas[0].run != final.run
        assert await rig.facts(job) == 2
    await rig.settled()


async def test_a_server_restart_costs_the_memory_stream_and_nothing_else(tmp_path: Path):
    """RESPONSES is there again, cancellations are heard again, jobs go on (I9)."""
    with Stack(tmp_path / "data", services="") as stack:
        url = str(stack.addresses["nats_url"])
        broker = await Broker.connect(url, name="test")
        await provision(broker, 1)
        async with WorkerRig(broker, url, tmp_path) as rig:
            await rig.start_worker(echo_tokens_per_s=100)
            await rig.broker.jetstream.stream_info(RESPONSES)
            stack.kill("nats")

            async def back() -> bool:
                names = [info.config.name for info in await broker.jetstream.streams_info()]
                return RESPONSES in names

            await asyncio.sleep(0.5)
            await until(lambda: _quietly(back), 30)
            job, client = await rig.submit("a b c " * 200)
            await asyncio.wait_for(client.first_delta.wait(), 20)
            await rig.cancel(job)
            assert (await client.final(20)).status is Status.CANCELLED
        await broker.close()


async def _quietly(condition) -> bool:
    try:
        return bool(await condition())
    except Exception:  # noqa: BLE001  the server is not back yet
        return False
