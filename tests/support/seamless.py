"""What a client saw of a request that several runs have worked on, put through the edge's rules."""

from __future__ import annotations

from tests.support.worker_rig import Listener, WorkerRig

from penstock_realtime.domain.continuation import Continuation
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.responses import FinalFrame
from penstock_worker.domain.shown import Shown


def streamed(client: Listener, final: FinalFrame) -> str:
    """The text that the edge has passed on by the end; raises where it would say 'diverged'."""
    edge = Continuation()
    for delta in client.deltas:
        edge.feed(delta)
    edge.finish(final)
    return edge.delivered


def inherited(client: Listener, final: FinalFrame) -> str:
    """What earlier runs had shown when the winning run's first delta came."""
    shown = Shown()
    for delta in client.deltas:
        if delta.run == final.run:
            break
        shown.feed(delta)
    return shown.delivered.text


async def assert_completed_once(rig: WorkerRig, job: Job, client: Listener, text: str) -> None:
    """One terminal, the whole answer, a stream without a seam, and the winning run's usage."""
    final = await client.final(120)
    assert (final.status, final.text) == (Status.COMPLETED, text), final.error
    assert streamed(client, final) == text
    assert await rig.facts(job) == 2  # routed and one terminal (I2)
    ended = await rig.terminal(job)
    assert (ended.run, await rig.output(ended)) == (final.run, text)
    assert ended.usage == final.usage
