"""The router's bench against a real bus and a real router process."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from benchmarks.harness import router_bench
from benchmarks.harness.router_bench import MODELS, TENANTS, RouterBench, RouterBenchError

from penstock_shared.contracts.requests import RequestEnded
from penstock_shared.contracts.streams import EVENTS, JOBS
from penstock_shared.contracts.subjects import request_event

NUMBER = 24


async def _messages(bench: RouterBench, stream: str) -> int:
    return int((await bench.broker.jetstream.stream_info(stream)).state.messages)


async def _runs() -> None:
    async with router_bench.running() as bench:
        events, jobs = await _messages(bench, EVENTS), await _messages(bench, JOBS)
        requests = await bench.prepare(NUMBER)
        load = await bench.run(requests, 4, end=True)
        assert len(load.took_s) == NUMBER
        assert 0 < min(load.took_s) <= load.lasted_s
        assert set(load.cpu_s) == {"router", "bus", "clients"}
        async with asyncio.timeout(20):  # nobody waits for the ends to be stored
            while await _messages(bench, EVENTS) < events + 2 * NUMBER:
                await asyncio.sleep(0.02)
        assert await _messages(bench, JOBS) == jobs + NUMBER

        last = requests[-1]
        stored = await bench.broker.last_message(
            EVENTS, request_event(last.tenant, last.request_id)
        )
        assert stored is not None
        ended = RequestEnded.model_validate_json(stored.data)
        assert (ended.tenant, ended.request_id) == (last.tenant, last.request_id)
        assert ended.model in {model.name for model in MODELS}

        copies = await bench.prepare(NUMBER)
        assert len((await bench.write(copies, last, 4)).took_s) == NUMBER
        assert await _messages(bench, JOBS) == jobs + 2 * NUMBER

        broken = router_bench.Asked(TENANTS[0], last.request_id, b"{}")
        with pytest.raises(RouterBenchError):
            await bench.run([broken], 1)


def test_requests_are_asked_ended_and_copied() -> None:
    """Each leaves `routed`, its end and a job; a refusal is an error and no figure."""
    uvloop.run(_runs())
