"""A burst through real consumers and real workers, scaled by the supervisor and, in step, by KEDA.

The supervisor's autoscaler starts and drains worker processes; the lags that it saw are then fed
to the simulation of KEDA and the Horizontal Pod Autoscaler, which has read the ScaledObject. Both
must have decided alike, as far as they can: a change may come later by one poll, one sync and the
age of the reading that it rests on.
"""

import asyncio
import json
import os
import sys
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

from nats.aio.msg import Msg
from tests.support.keda_simulation import KedaSimulation
from tests.support.worker_rig import WorkerRig, seeded, until

from penstock.autoscaler import Autoscaler, job_lags
from penstock.embedded.probes import http_ok
from penstock.ports import LOOPBACK, choose_ports
from penstock.scaled_object import Trigger, scaled_object
from penstock.scaling import ScalingPolicy, WorkerRange
from penstock.supervision.spec import ProcessSpec
from penstock.supervision.supervisor import Supervisor
from penstock_shared.contracts import subjects
from penstock_shared.contracts.jobs import Job
from penstock_shared.contracts.requests import Status
from penstock_shared.contracts.responses import decode_delta
from penstock_shared.contracts.streams import JOBS, job_consumer
from penstock_shared.contracts.subjects import Lane
from penstock_shared.runtime.consumer import ensure_consumer

POLICY: Final = ScalingPolicy(lag_threshold=16, cooldown_s=4, down_window_s=3)
BOUNDS: Final = WorkerRange(0, 3)
SYNC_S: Final = 1.0
WORDS_PER_S: Final = 20
SEED: Final = 310
Steps = Sequence[tuple[float, int]]


@dataclass
class Seen:
    """What the autoscaler saw and did, by the time since it began."""

    lags: list[tuple[float, list[int]]] = field(default_factory=list)
    workers: list[tuple[float, int]] = field(default_factory=lambda: [(0.0, 0)])
    lag_at_drains: list[int] = field(default_factory=list)


class WatchedPool:
    """The supervisor, with an account of what it was asked to do."""

    def __init__(self, supervisor: Supervisor, seen: Seen) -> None:
        self._supervisor = supervisor
        self._seen = seen
        self.statuses = supervisor.statuses

    def add(self, spec: ProcessSpec) -> None:
        self._count(+1)
        self._supervisor.add(spec)

    async def remove(self, name: str) -> None:
        self._count(-1)
        self._seen.lag_at_drains.append(max(self._seen.lags[-1][1]))
        await self._supervisor.remove(name)

    def _count(self, change: int) -> None:
        # The decision is the reading's: what it takes to carry it out is no part of the comparison.
        now_s = self._seen.lags[-1][0]
        self._seen.workers.append((now_s, self._seen.workers[-1][1] + change))


class WorkerPlan:
    """Describes worker processes of the rig's platform."""

    def __init__(self, rig: WorkerRig, directory: Path) -> None:
        names = [f"worker-{number}" for number in range(1, BOUNDS.most + 1)]
        self._ports = choose_ports(names, {})
        self._directory = directory
        self._env = {k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")} | {
            "PENSTOCK_NATS_URL": rig.nats_url,
            "PENSTOCK_ROOT_KEY_FILE": str(rig.root_key_file),
            "PENSTOCK_ECHO_MODEL": "1",
            "PENSTOCK_ECHO_TOKENS_PER_S": str(WORDS_PER_S),
            # Few jobs wait inside a worker, so that every worker gets some.
            "PENSTOCK_FETCH_AHEAD": "4",
        }

    def describe(self, name: str) -> ProcessSpec:
        port = self._ports[name]
        own = {"PENSTOCK_INSTANCE": name, "PENSTOCK_OPS_PORT": str(port)}
        return ProcessSpec(
            name=name,
            argv=(sys.executable, "-m", "penstock_worker"),
            env={**self._env, **own},
            ready=http_ok(f"http://{LOOPBACK}:{port}/readyz"),
            log_path=self._directory / f"{name}.log",
            grace_s=20,
        )


async def publish_burst(
    rig: WorkerRig, count: int, longest_words: int
) -> dict[str, tuple[Job, str]]:
    """Jobs of differing lengths, all there before the first can be done."""
    rng = seeded(SEED + count)
    burst = {}
    for number in range(count):
        words = rng.randint(longest_words // 4, longest_words)
        text = " ".join(f"w{number}-{place}" for place in range(words))
        job = await rig.route(text, deadline_s=150)
        burst[job.request_id] = (job, text)
    await asyncio.gather(*(rig.publish(job) for job, _ in burst.values()))
    return burst


def value_at(steps: Steps, at_s: float) -> int:
    return steps[bisect_right(steps, at_s, key=lambda step: step[0]) - 1][1]


def values_near(steps: Steps, at_s: float, tolerance_s: float) -> list[int]:
    inside = [value for moment_s, value in steps if abs(moment_s - at_s) <= tolerance_s]
    return [value_at(steps, max(0.0, at_s - tolerance_s)), *inside]


def assert_alike(one: Steps, other: Steps, moments: Iterable[float], tolerance_s: float) -> None:
    """At every moment, each lies within what the other was in the tolerance around it."""
    for at_s in moments:
        for these, those in ((one, other), (other, one)):
            near = values_near(those, at_s, tolerance_s)
            assert min(near) <= value_at(these, at_s) <= max(near), f"{at_s:.1f} s: {one} {other}"


def what_keda_would_do(seen: Seen, consumers: int, tolerance_s: float) -> Steps:
    """The simulation's replicas for the lags that the autoscaler saw; the last ones stay."""
    manifest = scaled_object(Trigger.NATS_JETSTREAM, ["echo"], POLICY, BOUNDS)
    assert len(manifest["spec"]["triggers"]) == consumers
    moments = [at_s for at_s, _ in seen.lags]

    def lags(at_s: float) -> list[int]:
        found = seen.lags[max(0, bisect_right(moments, at_s) - 1)][1]
        return [*found, *[0] * (consumers - len(found))]

    return KedaSimulation(manifest).run(
        lags, moments[-1] + tolerance_s, sync_s=SYNC_S, sync_at_s=SYNC_S / 2
    )


class Runs:
    """Which runs clients saw of each request: two for one that ran twice."""

    def __init__(self) -> None:
        self.by_request: defaultdict[str, set[str]] = defaultdict(set)

    async def receive(self, msg: Msg) -> None:
        delta = decode_delta(msg.data)
        if delta is not None:
            self.by_request[msg.subject.rpartition(".")[2]].add(delta.run)


@asynccontextmanager
async def scaled(rig: WorkerRig, directory: Path, seen: Seen) -> AsyncIterator[Supervisor]:
    """An autoscaler on the rig's consumers that keeps an account; nothing is left at the end."""
    supervisor, began_s = Supervisor([]), time.monotonic()
    for lane in Lane:
        await ensure_consumer(rig.broker, job_consumer("echo", lane))
    async with job_lags(rig.nats_url) as ask:

        async def lags() -> list[int]:
            found = list(await ask())
            seen.lags.append((time.monotonic() - began_s, found))
            return found

        pool, plan = WatchedPool(supervisor, seen), WorkerPlan(rig, directory)
        scaling = asyncio.create_task(
            Autoscaler(pool, plan.describe, lags, BOUNDS, POLICY).run(), name="autoscaler"
        )
        try:
            yield supervisor
        finally:
            scaling.cancel()
            await supervisor.stop()


async def assert_ended_once(rig: WorkerRig, jobs: dict[str, tuple[Job, str]], runs: Runs) -> None:
    """Each has one terminal, its own answer and one run; no job is left."""
    for job, text in jobs.values():
        ended = await rig.terminal(job)
        assert ended.status is Status.COMPLETED
        assert await rig.output(ended) == text
        assert await rig.facts(job) == 2, "routed and one end"
    assert set(runs.by_request) == set(jobs)
    assert {len(found) for found in runs.by_request.values()} == {1}, "a job ran twice"
    assert (await rig.broker.jetstream.stream_info(JOBS)).state.messages == 0


def assert_scaled_alike(seen: Seen) -> None:
    """Within one poll, one sync and the longest gap between two readings."""
    moments = [at_s for at_s, _ in seen.lags]
    gap_s = max(later - before for before, later in pairwise(moments))
    tolerance_s = POLICY.polling_interval_s + SYNC_S + gap_s
    expected = what_keda_would_do(seen, len(Lane), tolerance_s)
    print(json.dumps({"supervisor": seen.workers, "keda": expected, "tolerance_s": tolerance_s}))
    assert_alike(seen.workers, expected, moments, tolerance_s)


async def test_a_burst_is_scaled_as_keda_would_and_every_job_ends_once(
    broker, nats_url, tmp_path
) -> None:
    """I2: none to three workers and back, drained under load; nothing is lost or runs twice."""
    seen, runs = Seen(), Runs()
    await broker.client.subscribe(subjects.EVERY_RESPONSE, cb=runs.receive)
    async with WorkerRig(broker, nats_url, tmp_path) as rig:
        async with scaled(rig, tmp_path, seen) as supervisor:
            jobs = await publish_burst(rig, 90, longest_words=160)
            await until(lambda: asyncio.sleep(0, bool(seen.lag_at_drains)), timeout_s=90)
            jobs |= await publish_burst(rig, 12, longest_words=60)  # while one drains
            await until(lambda: asyncio.sleep(0, nothing_left(supervisor, seen)), timeout_s=90)
        await assert_ended_once(rig, jobs, runs)
    assert max(seen.lag_at_drains) > 0, "no worker was drained under load"
    assert max(count for _, count in seen.workers) == BOUNDS.most
    assert_scaled_alike(seen)


def nothing_left(supervisor: Supervisor, seen: Seen) -> bool:
    return not supervisor.statuses() and not any(seen.lags[-1][1])
