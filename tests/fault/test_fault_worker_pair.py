"""Two workers, and one of them is killed or frozen in mid-batch (I2, I3, I6).

`PENSTOCK_FAULT_SEED=<n>` replays lengths and moments.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal

import pytest
from tests.support.doctored_worker import ACK_WAIT_S
from tests.support.seamless import assert_completed_once, inherited
from tests.support.worker_process import WorkerProcess, processes
from tests.support.worker_rig import Listener, WorkerRig, seeded, until

from penstock_shared.contracts.jobs import Job

_TOKENS_PER_S = 12
Asked = list[tuple[Job, Listener, str]]


def chosen_seed() -> int:
    return int(os.environ.get("PENSTOCK_FAULT_SEED") or random.SystemRandom().randrange(2**31))


async def ask(rig: WorkerRig, rng: random.Random, count: int) -> Asked:
    """`count` requests of four to seven seconds each."""
    asked = []
    for n in range(count):
        words = rng.randint(4 * _TOKENS_PER_S, 7 * _TOKENS_PER_S)
        text = " ".join([f"r{n}", *(f"w{k}" for k in range(words))])
        job, client = await rig.submit(text, deadline_s=150)
        asked.append((job, client, text))
    return asked


async def both_at_work(
    rig: WorkerRig, rng: random.Random, victim: WorkerProcess
) -> tuple[Asked, Asked]:
    """Four streams that only the victim can run; then a second worker, and eight more.

    Four, since the echo model has four slots: all of them stream at once. The survivor runs in the
    test's own process, so that it starts before they end.
    """
    await victim.start()
    his = await ask(rig, rng, 4)
    for _, client, _ in his:
        await asyncio.wait_for(client.first_delta.wait(), 60)
    await rig.start_worker(echo_tokens_per_s=_TOKENS_PER_S)
    await asyncio.sleep(rng.uniform(0.0, 1.0))
    return his, await ask(rig, rng, 8)


@pytest.mark.timeout(300)
async def test_kill_9_of_one_of_two(rig: WorkerRig):
    """Every job ends once; what was begun goes on after what clients have, and only that is billed.

    The killed runs have no fact, so their tokens are nobody's bill: the successor's usage is what
    it generated itself.
    """
    rng = seeded(chosen_seed())
    async with processes(rig, 1, echo_tokens_per_s=_TOKENS_PER_S) as (victim,):
        his, others = await both_at_work(rig, rng, victim)
        victim.signal(signal.SIGKILL)
        assert await victim.died() == signal.SIGKILL
        for job, client, text in his + others:
            await assert_completed_once(rig, job, client, text)
        resumed = 0
        for job, client, text in his + others:
            final = await client.final()
            had = inherited(client, final)
            resumed += bool(had)
            own = next(delta for delta in client.deltas if delta.run == final.run)
            assert own.text.startswith(had)
            usage = (await rig.terminal(job)).usage
            assert usage.output_tokens == len(text.split()) - len(had.split())
        assert resumed, "the kill met no stream: slow the echo down"
        await rig.settled()


@pytest.mark.timeout(300)
async def test_a_frozen_worker_wakes_up_to_find_its_jobs_done(rig: WorkerRig):
    """SIGSTOP, and SIGCONT when others have finished: what it then writes is fenced off.

    New jobs are published meanwhile, and the frozen worker's open pull requests take some of them.
    """
    rng = seeded(chosen_seed())
    async with processes(rig, 1, echo_tokens_per_s=_TOKENS_PER_S) as (frozen,):
        his, others = await both_at_work(rig, rng, frozen)
        frozen.signal(signal.SIGSTOP)
        others += await ask(rig, rng, 8)
        everything = his + others
        for job, client, text in everything:
            await assert_completed_once(rig, job, client, text)
        facts = {job.request_id: (await rig.last_fact(job)).event_id for job, _, _ in everything}
        first_runs = {client.deltas[0].run for _, client, _ in his}
        assert not first_runs & {(await client.final()).run for _, client, _ in his}

        frozen.signal(signal.SIGCONT)

        async def zombies_came_to_their_end() -> bool:
            """Each of its runs has shown all its words, so each has tried to write."""
            return all(
                "".join(d.text for d in client.deltas if d.run == client.deltas[0].run) == text
                for _, client, text in his
            )

        await until(zombies_came_to_their_end, 60)
        await asyncio.sleep(ACK_WAIT_S)
        await rig.settled()
        for job, client, text in everything:
            assert (await rig.last_fact(job)).event_id == facts[job.request_id]
            await assert_completed_once(rig, job, client, text)
            assert len({final.run for final in client.finals}) == 1  # nobody shows another end
