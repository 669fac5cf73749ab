"""Whoever scales the workers reads the same lag: the supervisor, and KEDA in both its ways."""

import asyncio
import base64
import json
import urllib.request
from typing import Any

import pytest
from prometheus_client import REGISTRY

from penstock.autoscaler import job_lags
from penstock.scaled_object import LAG_QUERY, Trigger, scaled_object
from penstock.scaling import ScalingPolicy, WorkerRange
from penstock_router.app import create_app
from penstock_router.settings import Settings
from penstock_shared.contracts import subjects
from penstock_shared.contracts.models import ModelRecord
from penstock_shared.contracts.streams import JOBS, Bucket, job_consumer
from penstock_shared.contracts.subjects import Lane
from penstock_shared.contracts.usage import Price
from penstock_shared.runtime import kv
from penstock_shared.runtime.consumer import ensure_consumer

MODEL = "small"


@pytest.fixture
async def consumers(broker, nats_url, tmp_path):
    """The model's consumers, made and polled by a real router."""
    key_file = tmp_path / "root.key"
    key_file.write_text(base64.b64encode(b"k" * 32).decode())
    price = Price(input_microusd_per_1k=1, output_microusd_per_1k=2)
    record = ModelRecord(
        name=MODEL, version="1", parameters=1, context_tokens=64, price=price
    ).model_dump_json()
    await kv.put(broker, Bucket.MODELS, MODEL, record.encode())
    router = create_app(Settings(nats_url=nats_url, root_key_file=key_file))
    await router.start()
    async with asyncio.timeout(15):
        while len(await broker.jetstream.consumers_info(JOBS)) < len(Lane):
            await asyncio.sleep(0.05)
    yield
    await router.drain()
    await router.stop()


def metadata(trigger: Trigger) -> list[dict[str, str]]:
    manifest = scaled_object(trigger, [MODEL], ScalingPolicy(), WorkerRange(0, 2))
    return [one["metadata"] for one in manifest["spec"]["triggers"]]


def monitored(port: int, trigger: dict[str, str]) -> int:
    """A consumer's lag as KEDA's scaler takes it from the server's monitor.

    Source: kedacore/keda, `pkg/scalers/nats_jetstream_scaler.go`.
    """
    url = f"http://127.0.0.1:{port}/jsz?acc={trigger['account']}&consumers=true&config=true"
    with urllib.request.urlopen(url, timeout=5) as answer:
        found: dict[str, Any] = json.load(answer)
    account = next(a for a in found["account_details"] if a["name"] == trigger["account"])
    stream = next(s for s in account["stream_detail"] if s["name"] == trigger["stream"])
    consumer = next(c for c in stream["consumer_detail"] if c["name"] == trigger["consumer"])
    return int(consumer["num_pending"]) + int(consumer["num_ack_pending"])


def exported() -> float | None:
    """What Prometheus would answer to the trigger's query about this one router."""
    (trigger,) = metadata(Trigger.PROMETHEUS)
    assert trigger["query"] == LAG_QUERY
    name = LAG_QUERY.removeprefix("max(").removesuffix(")")
    found = [
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == name
    ]
    return max(found, default=None)


@pytest.mark.usefixtures("consumers")
async def test_supervisor_monitor_and_metric_tell_the_same_lag(broker, servers, nats_url):
    """Five jobs, two of them held and one done: a lag of four, with no worker anywhere."""
    run = json.loads((servers.data_dir / "run.json").read_text())
    port = next(p["ports"]["monitor"] for p in run["processes"] if p["name"] == "nats")
    (mine,) = [
        one
        for one in metadata(Trigger.NATS_JETSTREAM)
        if one["consumer"].endswith(f"-{Lane.STANDARD}")
    ]
    for _ in range(5):
        await broker.jetstream.publish(subjects.job("acme", MODEL, Lane.STANDARD), b"{}")
    pull = await broker.jetstream.pull_subscribe_bind(mine["consumer"], JOBS)
    held = await pull.fetch(3)
    await held[0].ack_sync()
    async with job_lags(nats_url) as lags:
        assert sorted(await lags()) == [0, 0, 0, 4]
    assert monitored(port, mine) == 4
    assert [monitored(port, one) for one in metadata(Trigger.NATS_JETSTREAM)].count(0) == 3
    async with asyncio.timeout(15):
        while exported() != 4:
            await asyncio.sleep(0.05)


async def test_more_consumers_than_the_server_lists_at_once_are_all_read(broker, nats_url):
    """The server lists 256 in one answer: with 65 models of four lanes the last ones count, too."""
    names = [f"m{number:02}" for number in range(65)]
    for name in names:
        specs = [job_consumer(name, lane) for lane in Lane]
        await asyncio.gather(*(ensure_consumer(broker, spec) for spec in specs))
    await broker.jetstream.publish(subjects.job("acme", names[-1], Lane.OVER_SHARE), b"{}")
    async with job_lags(nats_url) as lags:
        assert sorted(await lags())[-2:] == [0, 1]
        assert len(await lags()) == 260
