"""The event log refuses or goes silent just when a run has ended: its answer is not lost (I2)."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from tests.support.seamless import assert_completed_once
from tests.support.stack import Stack
from tests.support.worker_rig import WorkerRig, until

from penstock_shared.contracts.streams import EVENTS
from penstock_shared.runtime.broker import PUBLISH_TIMEOUT_S, Broker
from penstock_shared.runtime.provision import provision

_TEXT = " ".join(f"w{n}" for n in range(20))


async def limit_events(broker: Broker, max_bytes: int) -> None:
    """Make the log as small as a disk without space is; -1 gives it room again."""
    config = (await broker.jetstream.stream_info(EVENTS)).config
    config.max_bytes = max_bytes
    await broker.jetstream.update_stream(config)


async def test_a_full_log_delays_the_fact_and_no_more(rig: WorkerRig):
    """The worker keeps job and answer, tries again, and writes once there is room: one run."""
    await rig.start_worker(echo_tokens_per_s=20)
    job, client = await rig.submit(_TEXT)
    await client.first_delta.wait()
    await limit_events(rig.broker, (await rig.broker.jetstream.stream_info(EVENTS)).state.bytes)

    async def all_shown() -> bool:
        return "".join(delta.text for delta in client.deltas) == _TEXT

    await until(all_shown)
    await asyncio.sleep(2.0)  # several tries
    assert await rig.facts(job) == 1
    assert not client.finals
    assert await rig.lag() == (0, 1)
    await limit_events(rig.broker, -1)
    await assert_completed_once(rig, job, client, _TEXT)
    assert len({delta.run for delta in client.deltas}) == 1
    await rig.settled()


async def test_a_server_that_freezes_under_the_fact_stores_it_once(tmp_path: Path):
    """SIGSTOP until the write has timed out: it is stored late, and its retry recognises it."""
    with Stack(tmp_path / "data", services="") as stack:
        url = str(stack.addresses["nats_url"])
        broker = await Broker.connect(url, name="test")
        await provision(broker, 1)
        server = int(stack.ready["pids"]["nats"])
        async with WorkerRig(broker, url, tmp_path) as rig:
            await rig.start_worker(echo_tokens_per_s=20)
            job, client = await rig.submit(_TEXT, deadline_s=60)
            await client.first_delta.wait()
            os.kill(server, signal.SIGSTOP)
            try:
                await asyncio.sleep(len(_TEXT.split()) / 20 + PUBLISH_TIMEOUT_S + 1)
            finally:
                os.kill(server, signal.SIGCONT)
            await assert_completed_once(rig, job, client, _TEXT)
            assert len({delta.run for delta in client.deltas}) == 1
            await rig.settled()
        await broker.close()
